// Two buttons that vote on an answer; pressing the pressed one takes the vote back.

import { createElement, useState } from 'react';

import { retract, vote } from './index.js';

const LABELS = { up: 'Good answer', down: 'Bad answer' };
const SIGNS = { up: '👍', down: '👎' };

/** Vote buttons of one answer; the props besides these go to `vote`. */
export function VoteButtons({ completion = null, onVote, labels = LABELS, className, ...options }) {
  const [pressed, setPressed] = useState(null);
  const [fault, setFault] = useState(null);
  const [isSending, setSending] = useState(false);

  async function press(name) {
    const isTakenBack = pressed === name;
    setSending(true);
    setFault(null);
    try {
      const id = isTakenBack
        ? await retract(completion, options)
        : await vote(completion, { ...options, up: name === 'up' });
      setPressed(isTakenBack ? null : name);
      onVote?.(isTakenBack ? null : name === 'up', id);
    } catch (error) {
      setFault(error.message);
    }
    setSending(false);
  }

  const button = (name) =>
    createElement(
      'button',
      {
        key: name,
        type: 'button',
        title: labels[name],
        'aria-label': labels[name],
        'aria-pressed': pressed === name,
        disabled: isSending,
        onClick: () => press(name),
      },
      SIGNS[name],
    );
  return createElement(
    'span',
    { className, role: 'group' },
    button('up'),
    button('down'),
    fault && createElement('span', { role: 'alert' }, fault),
  );
}
