// The cells of the AI SDK, with its provider for any OpenAI-compatible server and, in one cell, OpenAI's own.

import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embed, generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { vote as cast } from 'ratchet-client';
import { z } from 'zod';

import * as harness from './harness.js';

globalThis.AI_SDK_LOG_WARNINGS = false;
const [baseURL, apiKey] = [process.env.OPENAI_BASE_URL, process.env.OPENAI_API_KEY];
const provider = createOpenAICompatible({ name: 'ratchet', baseURL, apiKey, supportsStructuredOutputs: true });
const model = provider(harness.MODEL);
const PLACE = z.object({ city: z.string(), is_capital: z.boolean() });
const temperature = tool({
  description: 'The temperature in a city',
  inputSchema: z.object({ city: z.string() }),
  execute: async () => '21 degrees',
});

const ask = (prompt, fields = {}) => generateText({ model, prompt, maxRetries: 0, ...fields });

const shown = ({ text, finishReason, usage, toolCalls, toolResults, response }) => {
  const { modelId, messages } = response;
  return { text, finishReason, usage, toolCalls, toolResults, modelId, messages };
};

async function chat() {
  return shown(await ask(harness.ASKED));
}

async function stream() {
  const result = streamText({ model, prompt: harness.ASKED, maxRetries: 0 });
  const parts = await harness.all(result.fullStream);
  return parts.map(({ response, request, ...part }) => part);
}

async function tools() {
  const result = await ask(harness.TOOL_ASKED, { tools: { temperature }, stopWhen: stepCountIs(3) });
  return result.steps.map(shown);
}

async function schema() {
  return (await ask(harness.SCHEMA_ASKED, { output: Output.object({ schema: PLACE }) })).output;
}

async function image() {
  const content = [{ type: 'text', text: harness.IMAGE_ASKED }, { type: 'image', image: harness.PICTURE }];
  return shown(await ask(undefined, { messages: [harness.user(content)] }));
}

async function error() {
  return Promise.all(harness.ERRORS.map((status) => harness.raised(() => ask(`[error ${status}]`))));
}

async function busy() {
  return harness.withoutWords(await harness.raised(() => ask(harness.BUSY)));
}

async function timeout() {
  return harness.raised(() => ask('[slow]', { abortSignal: AbortSignal.timeout(harness.TIMEOUT_MS) }));
}

async function disconnect() {
  const before = await harness.left();
  const leaving = new AbortController();
  const result = streamText({ model, prompt: '[long]', abortSignal: leaving.signal, maxRetries: 0 });
  for await (const first of result.textStream) return [first, (leaving.abort(), await harness.poolIsTold(before))];
}

async function responses() {
  const { text, usage, finishReason } = await ask(harness.ASKED, { model: createOpenAI()(harness.MODEL) });
  return { text, usage, finishReason };
}

async function embeddings() {
  return (await embed({ model: provider.embeddingModel(harness.MODEL), value: harness.ASKED })).embedding;
}

async function vote() {
  return cast(await ask(harness.VOTE_ASKED), { up: true, user: 'ann' });
}

async function vote_stream() {
  const result = streamText({ model, prompt: harness.VOTE_ASKED, maxRetries: 0 });
  await result.consumeStream();
  return cast(result, { up: false, user: 'ann' });
}

async function vote_response() {
  return cast(await ask(harness.VOTE_ASKED, { model: createOpenAI()(harness.MODEL) }), { user: 'ann' });
}

async function two_turns() {
  for (const [first, second] of harness.questions()) {
    const messages = [harness.user(first)];
    messages.push(...(await ask(undefined, { messages })).response.messages, harness.user(second));
    await ask(undefined, { messages });
  }
}

await harness.main({
  chat, stream, tools, schema, image, error, busy, timeout, disconnect, responses, embeddings, vote, vote_stream,
  vote_response, two_turns,
});
