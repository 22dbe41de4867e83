// What the types allow and refuse; compiled by `tsc`, never run.

import { completionId, RatchetError, retract, vote } from 'ratchet-client';
import { VoteButtons } from 'ratchet-client/react';

export async function allowed(completion: object): Promise<string> {
  await vote(completion);
  await vote(completion, { up: false, user: 'ann', tags: ['tone'], comment: 'rude' });
  await vote(null, { token: 'token', baseURL: 'https://router.example/v1' });
  await vote(completion, { betterThan: 1 });
  await retract(completion, { kind: 'rating' });
  const status: number | undefined = new RatchetError('message').status;
  return `${status} ${completionId(completion)}`;
}

export async function refused(completion: object): Promise<void> {
  // @ts-expect-error: a thumb is no number
  await vote(completion, { up: 1 });
  // @ts-expect-error: no such kind
  await retract(completion, { kind: 'thumbs' });
  // @ts-expect-error: a misspelt name
  await vote(completion, { better_than: 1 });
}

export const buttons = <VoteButtons token="token" baseURL="https://router.example/v1" onVote={(up) => up} />;
