/** Two buttons that vote on an answer. */

import type { ReactElement } from 'react';

import type { RouterOptions } from './index.js';

export interface VoteButtonsProps extends RouterOptions {
  /** The answer, or its id; not needed with `token`. */
  completion?: unknown;
  user?: string;
  tags?: string[];
  choice?: number;
  /** Called after each vote that was taken: up, down, or null for one taken back; and the vote's id. */
  onVote?: (up: boolean | null, feedbackId: string) => void;
  labels?: { up: string; down: string };
  className?: string;
}

/** Vote buttons of one answer. Pressing the pressed one takes the vote back; a fault is shown beside them. */
export function VoteButtons(props: VoteButtonsProps): ReactElement;
