// `VoteButtons` on a server, and in a page that is pressed.

import assert from 'node:assert/strict';
import test from 'node:test';

import { JSDOM } from 'jsdom';
import { act, createElement } from 'react';
import { createRoot } from 'react-dom/client';
import { renderToStaticMarkup } from 'react-dom/server';

import { VoteButtons } from 'ratchet-client/react';

import { withRouter } from './router.js';

const { window } = new JSDOM('<!doctype html><div id="root"></div>');
Object.assign(globalThis, { window, document: window.document, IS_REACT_ACT_ENVIRONMENT: true });

async function shown(props) {
  const root = createRoot(document.getElementById('root'));
  await act(async () => root.render(createElement(VoteButtons, props)));
  const button = (name) => document.querySelector(`button[aria-label="${name}"]`);
  const press = async (name) => {
    await act(async () => button(name).click());
    while (button(name).disabled) await act(async () => new Promise((done) => setTimeout(done, 5)));
  };
  return { root, press, pressed: (name) => button(name).getAttribute('aria-pressed') };
}

test('a server renders both buttons, unpressed', () => {
  const html = renderToStaticMarkup(createElement(VoteButtons, { token: 'secret-token', labels: { up: 'Yes', down: 'No' } }));
  assert.match(html, /<button[^>]*aria-label="Yes"[^>]*aria-pressed="false"/);
  assert.match(html, /<button[^>]*aria-label="No"[^>]*aria-pressed="false"/);
  assert.doesNotMatch(html, /secret-token/);
});

test('a press votes, another changes the vote, and the same again takes it back', () =>
  withRouter(async (baseURL, got) => {
    const heard = [];
    const { root, press, pressed } = await shown({
      token: 'the-token', baseURL, user: 'ann', onVote: (up, id) => heard.push([up, id]),
    });
    await press('Good answer');
    assert.deepEqual([pressed('Good answer'), pressed('Bad answer')], ['true', 'false']);
    await press('Bad answer');
    assert.deepEqual([pressed('Good answer'), pressed('Bad answer')], ['false', 'true']);
    await press('Bad answer');
    assert.deepEqual([pressed('Good answer'), pressed('Bad answer')], ['false', 'false']);
    assert.deepEqual(
      got.map(({ body, authorization }) => [body.value, body.is_retracted, body.user, authorization]),
      [
        [1, undefined, 'ann', 'Bearer the-token'],
        [-1, undefined, 'ann', 'Bearer the-token'],
        [1, true, 'ann', 'Bearer the-token'],
      ],
    );
    assert.deepEqual(heard, [[true, 'f1'], [false, 'f2'], [null, 'f3']]);
    await act(async () => root.unmount());
  }));

test('a vote that was not taken leaves the button unpressed, and says why', () =>
  withRouter(
    async (baseURL) => {
      const { root, press, pressed } = await shown({ token: 'the-token', baseURL });
      await press('Good answer');
      assert.equal(pressed('Good answer'), 'false');
      assert.match(document.querySelector('[role=alert]').textContent, /no such token/);
      await press('Good answer');
      assert.equal(pressed('Good answer'), 'true');
      assert.equal(document.querySelector('[role=alert]'), null);
      await act(async () => root.unmount());
    },
    [[401, {}, '{"error": {"message": "no such token"}}']],
  ));
