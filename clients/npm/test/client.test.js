// What `vote` sends, finds in an answer, sends again, and says of faults.

import assert from 'node:assert/strict';
import test from 'node:test';

import { completionId, RatchetError, retract, vote } from 'ratchet-client';

import { withRouter } from './router.js';

const ID = 'chatcmpl-gAAAAABnAsealedText_-0123456789==';
const apiKey = 'sk-key';

const BODIES = [
  [{}, { kind: 'thumb', value: 1 }],
  [{ up: false, user: 'ann' }, { kind: 'thumb', value: -1, user: 'ann' }],
  [{ comment: 'good', tags: ['tone'] }, { kind: 'thumb', value: 1, comment: 'good', tags: ['tone'] }],
  [{ up: null, comment: 'hm' }, { kind: 'comment', value: 'hm' }],
  [{ rating: 4, comment: 'fine' }, { kind: 'rating', value: 4, comment: 'fine' }],
  [{ correction: 'Blue.' }, { kind: 'correction', value: 'Blue.' }],
  [{ betterThan: { id: 'chatcmpl-other' } }, { kind: 'preference', value: 'chatcmpl-other' }],
  [{ betterThan: 0, choice: 1 }, { kind: 'preference', value: 0 }],
];

for (const [fields, expected] of BODIES) {
  test(`a vote is one kind and one value: ${JSON.stringify(fields)}`, () =>
    withRouter(async (baseURL, got) => {
      assert.equal(await vote({ id: ID }, { baseURL, apiKey, ...fields }), 'f1');
      const [{ path, authorization, body }] = got;
      const { id, choice, feedback_id, ...sent } = body;
      assert.deepEqual(sent, expected);
      assert.deepEqual([id, choice, path], [ID, fields.choice ?? 0, '/v1/feedback']);
      assert.equal(authorization, 'Bearer sk-key');
    }));
}

test('a vote is taken back', () =>
  withRouter(async (baseURL, got) => {
    await retract(ID, { baseURL, user: 'ann' });
    const { feedback_id, ...sent } = got[0].body;
    assert.deepEqual(sent, { id: ID, kind: 'thumb', value: 1, is_retracted: true, user: 'ann', choice: 0 });
    assert.equal(got[0].authorization, undefined);
    await assert.rejects(retract(ID, { baseURL, kind: 'thumbs' }), /known are thumb, rating/);
  }));

test('a token says which answer it is of, and needs no key', () =>
  withRouter(async (baseURL, got) => {
    await vote(null, { baseURL, token: 'the-token', up: false });
    assert.equal(got[0].authorization, 'Bearer the-token');
    assert.ok(!('id' in got[0].body));
    const answer = new Response('{}', { headers: { 'x-feedback-token': 'of-the-answer', 'x-request-id': ID } });
    await vote(answer, { baseURL });
    assert.equal(got[1].authorization, 'Bearer of-the-answer');
    await vote(answer, { baseURL, apiKey });
    assert.deepEqual([got[2].authorization, got[2].body.id], ['Bearer sk-key', ID]);
  }));

const ANSWERS = {
  'an id': ID,
  'a completion': { id: ID },
  'a response': { id: 'resp_1', _request_id: ID },
  "the AI SDK's result": { response: { id: ID, headers: {} } },
  "the AI SDK's result of a response": { response: { id: 'resp_1', headers: { 'x-request-id': ID } } },
  "openai's withResponse()": { data: {}, response: new Response('', { headers: { 'x-request-id': ID } }) },
  "fetch's answer": new Response('', { headers: { 'x-request-id': ID } }),
  'a message of a page': { id: 'msg-1', metadata: { completionId: ID } },
};
for (const [name, answer] of Object.entries(ANSWERS)) {
  test(`${name} shows its id`, () => assert.equal(completionId(answer), ID));
}

test("the AI SDK's stream gives its response later", () =>
  withRouter(async (baseURL, got) => {
    await vote({ response: Promise.resolve({ id: ID }) }, { baseURL });
    assert.equal(got[0].body.id, ID);
  }));

for (const answer of [{}, null, undefined, 7, [], { id: 'resp_1' }, { response: {} }]) {
  test(`${JSON.stringify(answer)} holds no id`, () =>
    assert.throws(() => completionId(answer), /x-request-id header as a text/));
}

for (const fault of [[0], [429, { 'retry-after': '0' }, '{}'], [503, { 'retry-after': '0' }, 'not stored']]) {
  test(`a vote sent again after ${fault[0]} is the same vote`, () =>
    withRouter(
      async (baseURL, got) => {
        assert.equal(await vote(ID, { baseURL }), 'f2');
        await vote(ID, { baseURL });
        const [first, again, another] = got.map((one) => one.body.feedback_id);
        assert.equal(first, again);
        assert.notEqual(first, another);
      },
      [fault],
    ));
}

test('a router that stays busy is given up', () => {
  const busy = [503, { 'retry-after': '0' }, JSON.stringify({ error: { message: 'the lake is full' } })];
  return withRouter(async (baseURL, got) => {
    await assert.rejects(vote(ID, { baseURL }), (error) => {
      assert.ok(error instanceof RatchetError);
      assert.match(error.message, /503: the lake is full/);
      return error.status === 503;
    });
    assert.equal(got.length, 3);
  }, [busy, busy, busy, busy]);
});

const REFUSED = [
  [[401, {}, '{"error": {"message": "no such key"}}'], /no such key \(set OPENAI_API_KEY/],
  [[404, {}, '{"detail": "Not Found"}'], /must be that of a Ratchet router, with its \/v1/],
  [[422, {}, '{"error": {"message": "a rating is a whole number from 1 to 5"}}'], /from 1 to 5/],
  [[429, { 'retry-after': '3600' }, '{}'], /try again later/],
  [[200, {}, "<html>a proxy's page</html>"], /proxy's page.*it is no Ratchet router/],
];
for (const [answer, message] of REFUSED) {
  test(`a refused vote is not sent again: ${message}`, () =>
    withRouter(
      async (baseURL, got) => {
        await assert.rejects(vote(ID, { baseURL }), message);
        assert.equal(got.length, 1);
      },
      [answer],
    ));
}

test('several votes or none are refused', async () => {
  const at = { baseURL: 'http://127.0.0.1:9/v1' };
  await assert.rejects(vote(ID, { ...at, rating: 3, correction: 'x' }), /rating and correction are several votes/);
  await assert.rejects(vote(ID, { ...at, up: false, rating: 1 }), /rating and up: false are several votes/);
  await assert.rejects(vote(ID, { ...at, up: null }), /an empty vote/);
});

test('a router that is not there is said so', async () => {
  await assert.rejects(vote(ID, { baseURL: 'http://127.0.0.1:9/v1', maxRetries: 0 }), /is the router there/);
  await assert.rejects(vote(ID), /Set OPENAI_BASE_URL/);
});
