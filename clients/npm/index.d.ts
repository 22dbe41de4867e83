/** Votes on a model's answers, sent to a Ratchet router. */

/** Where the router is, and who may vote there. */
export interface RouterOptions {
  /** The router's address with its /v1; OPENAI_BASE_URL if not given. */
  baseURL?: string;
  /** The tenant's key; OPENAI_API_KEY if not given. Never in a browser: give `token` there. */
  apiKey?: string;
  /** The `x-feedback-token` header of the answer: lets its holder vote on that answer, without a key. */
  token?: string;
  /** Further attempts if no answer comes, or 429 or 503; 2 if not given. They count as the same vote. */
  maxRetries?: number;
  fetch?: typeof globalThis.fetch;
}

export type Kind = 'thumb' | 'rating' | 'correction' | 'comment' | 'preference';

export interface VoteOptions extends RouterOptions {
  /** Whether the thumb points up; true if not given. null with a comment sends the comment alone. */
  up?: boolean | null;
  /** Who votes; whoever asked if not given. */
  user?: string;
  /** Free text beside the vote. */
  comment?: string;
  /** Short texts beside the vote. */
  tags?: string[];
  /** 1 to 5, in place of a thumb. */
  rating?: number;
  /** The text that the answer should have been, in place of a thumb. */
  correction?: string;
  /** The completion that lost, or the index of the choice of the same completion that lost, in place of a thumb. */
  betterThan?: unknown;
  /** The index of the choice that is voted on; 0 if not given. */
  choice?: number;
}

export interface RetractOptions extends RouterOptions {
  kind?: Kind;
  user?: string;
  choice?: number;
}

/** A vote that was not taken; the message says why and what to do. */
export class RatchetError extends Error {
  /** The router's HTTP status; undefined if no answer came, or if nothing was sent. */
  status?: number;
}

/** The id to vote on: a text as it is, else what a client library's answer holds. Throws RatchetError if none. */
export function completionId(completion: unknown): string;

/**
 * Send a vote on an answer of openai's, the AI SDK's or fetch's, or on an id. With `token` the answer may be null.
 * Resolves to the vote's id in the lake; rejects with RatchetError if the router did not take it.
 */
export function vote(completion: unknown, options?: VoteOptions): Promise<string>;

/** Take back this user's vote of this kind (a thumb if not given). */
export function retract(completion: unknown, options?: RetractOptions): Promise<string>;
