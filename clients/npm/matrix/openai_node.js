// The cells of OpenAI's own client for Node.

import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { vote as cast } from 'ratchet-client';
import { z } from 'zod';

import * as harness from './harness.js';

const client = new OpenAI({ maxRetries: 0 });
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const TOOL = { type: 'function', function: { name: 'temperature', description: 'The temperature in a city', parameters } };
const PLACE = z.object({ city: z.string(), is_capital: z.boolean() });

const ask = (messages, fields = {}, options = {}) =>
  client.chat.completions.create(
    { model: harness.MODEL, messages: typeof messages === 'string' ? [harness.user(messages)] : messages, ...fields },
    options,
  );

async function models() {
  return (await harness.all(client.models.list())).map((model) => model.id);
}

async function chat() {
  return ask(harness.ASKED, { user: 'ann', seed: 1, temperature: 0 });
}

async function several() {
  return ask(harness.ASKED, { n: 2 });
}

async function stream() {
  return harness.all(await ask(harness.ASKED, { stream: true }));
}

async function stream_usage() {
  return harness.all(await ask(harness.ASKED, { stream: true, stream_options: { include_usage: true } }));
}

async function tools() {
  const messages = [harness.user(harness.TOOL_ASKED)];
  const first = await ask(messages, { tools: [TOOL] });
  const { message } = first.choices[0];
  messages.push(message, { role: 'tool', tool_call_id: message.tool_calls[0].id, content: '21 degrees' });
  return [first, await ask(messages, { tools: [TOOL] })];
}

async function schema() {
  const messages = [harness.user(harness.SCHEMA_ASKED)];
  const response_format = zodResponseFormat(PLACE, 'place');
  return client.chat.completions.parse({ model: harness.MODEL, messages, response_format });
}

async function image() {
  const picture = { type: 'image_url', image_url: { url: harness.PICTURE } };
  return ask([harness.user([{ type: 'text', text: harness.IMAGE_ASKED }, picture])]);
}

async function error() {
  return Promise.all(harness.ERRORS.map((status) => harness.raised(() => ask(`[error ${status}]`))));
}

async function busy() {
  return harness.withoutWords(await harness.raised(() => ask(harness.BUSY)));
}

async function timeout() {
  return harness.raised(() => ask('[slow]', {}, { timeout: harness.TIMEOUT_MS }));
}

async function disconnect() {
  const before = await harness.left();
  const chunks = await ask('[long]', { stream: true });
  for await (const first of chunks) return [first, (chunks.controller.abort(), await harness.poolIsTold(before))];
}

async function responses() {
  return client.responses.create({ model: harness.MODEL, input: harness.ASKED });
}

async function embeddings() {
  return client.embeddings.create({ model: harness.MODEL, input: harness.ASKED, encoding_format: 'float' });
}

async function completions() {
  return client.completions.create({ model: harness.MODEL, prompt: harness.ASKED });
}

async function vote() {
  return cast(await ask(harness.VOTE_ASKED), { up: true, user: 'ann' });
}

async function vote_stream() {
  const chunks = await harness.all(await ask(harness.VOTE_ASKED, { stream: true }));
  return cast(chunks.at(-1), { up: false, user: 'ann' });
}

async function vote_response() {
  return cast(await client.responses.create({ model: harness.MODEL, input: harness.VOTE_ASKED }), { user: 'ann' });
}

async function two_turns() {
  for (const [first, second] of harness.questions()) {
    const messages = [harness.user(first)];
    messages.push((await ask(messages)).choices[0].message);
    await ask([...messages, harness.user(second)]);
  }
}

await harness.main({
  models, chat, several, stream, stream_usage, tools, schema, image, error, busy, timeout, disconnect, responses,
  embeddings, completions, vote, vote_stream, vote_response,
  two_turns,
});
