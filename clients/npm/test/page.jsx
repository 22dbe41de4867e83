// The block of docs/clients.md for React; compiled by `tsc`, never run.

import { VoteButtons } from 'ratchet-client/react';

export const Answer = ({ text, token }) => (
  <p>{text} <VoteButtons baseURL="https://router.example/v1" token={token} /></p>
);
