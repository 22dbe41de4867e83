// Votes on a model's answers, sent to a Ratchet router: `await vote(completion, { up: true, user: 'ann' })`.

const PREFIX = 'chatcmpl-'; // of the router's ids; libraries put ids of their own into fields of the same name
const RETRIED = [429, 503]; // the router took nothing, and says when to come again
const FIRST_PAUSE_MS = 500;
const MAX_PAUSE_S = 30;
const TIMEOUT_MS = 10_000;
const ADVICE = {
  401: "set OPENAI_API_KEY, or apiKey, to your tenant's key of this router, or token to the answer's x-feedback-token",
  404: 'OPENAI_BASE_URL, or baseURL, must be that of a Ratchet router, with its /v1',
  413: 'shorten the comment or correction',
  429: 'this user votes faster than the router allows: try again later',
};

// Where libraries keep the completion's id, or the x-request-id header, which is the same text.
const PLACES = [
  (one) => one._request_id, // openai: the header, which also /v1/responses has, whose ids are the pool's own
  (one) => one.id, // openai
  (one) => header(one, 'x-request-id'), // fetch, openai's asResponse()
  (one) => one.response?.id, // AI SDK
  (one) => header(one.response, 'x-request-id'), // AI SDK at /v1/responses; openai's withResponse()
  (one) => one.metadata?.completionId, // an AI SDK UI message, if the server sends it so
];

// The values that the router wants with what is taken back; they count for nothing.
const TAKEN_BACK = { thumb: 1, rating: 1, correction: '-', comment: '-', preference: 1 };

/** A vote that was not taken; the message says why and what to do. */
export class RatchetError extends Error {
  constructor(message, status, options) {
    super(message, options);
    this.name = 'RatchetError';
    this.status = status;
  }
}

/** The id to vote on: a text as it is, else what a client library's answer holds. */
export function completionId(completion) {
  if (typeof completion === 'string') return completion;
  for (const place of completion && typeof completion === 'object' ? PLACES : []) {
    const found = place(completion);
    if (typeof found === 'string' && found.startsWith(PREFIX)) return found;
  }
  throw new RatchetError(
    'no completion id in this answer; if its request went through a Ratchet router, ' +
      `pass the id (${PREFIX}...) or the answer's x-request-id header as a text`,
  );
}

/** Send a vote: a thumb, or else the rating, correction or preference that is given. Returns the vote's id. */
export async function vote(completion, options = {}) {
  const { up = true, comment, rating, correction, betterThan, user, tags, choice = 0 } = options;
  const value = valueOf({ up, comment, rating, correction, betterThan });
  const beside = { user, tags, choice, comment: value.kind === 'comment' ? undefined : comment };
  return send(await settled(completion), { ...value, ...beside }, options);
}

/** Take back this user's vote of this kind. */
export async function retract(completion, options = {}) {
  const { kind = 'thumb', user, choice = 0 } = options;
  if (!(kind in TAKEN_BACK)) {
    throw new RatchetError(`kind = ${kind}: known are ${Object.keys(TAKEN_BACK).join(', ')}`);
  }
  const value = kind === 'preference' && choice ? 0 : TAKEN_BACK[kind]; // any choice but the one that won
  const body = { kind, value, is_retracted: true, user, choice };
  return send(await settled(completion), body, options);
}

function header(holder, name) {
  const headers = holder?.headers;
  return typeof headers?.get === 'function' ? headers.get(name) : headers?.[name];
}

// The AI SDK's streamText() gives its response as a promise.
async function settled(completion) {
  const response = completion && typeof completion === 'object' ? completion.response : undefined;
  return typeof response?.then === 'function' ? { response: await response } : completion;
}

function valueOf({ up, comment, rating, correction, betterThan }) {
  const named = { rating, correction, preference: betterThan };
  const given = Object.keys(named).filter((kind) => named[kind] !== undefined);
  if (given.length > 1 || (given.length && up === false)) {
    const kinds = [...given, ...(up === false ? ['up: false'] : [])];
    throw new RatchetError(`${kinds.join(' and ')} are several votes: call vote() once for each`);
  }
  if (given.length) {
    const [kind] = given;
    const isId = kind === 'preference' && typeof betterThan !== 'number';
    return { kind, value: isId ? completionId(betterThan) : named[kind] };
  }
  if (up !== null) return { kind: 'thumb', value: up ? 1 : -1 };
  if (comment === undefined) {
    throw new RatchetError('an empty vote: give up, rating, correction, betterThan or comment');
  }
  return { kind: 'comment', value: comment };
}

async function send(completion, body, options) {
  const environment = globalThis.process?.env ?? {};
  const baseURL = options.baseURL ?? environment.OPENAI_BASE_URL;
  if (!baseURL) {
    throw new RatchetError(
      'where is the router? Set OPENAI_BASE_URL, or baseURL, to the address that your chats go to',
    );
  }
  const apiKey = options.apiKey ?? environment.OPENAI_API_KEY;
  const token = options.token ?? (apiKey ? undefined : header(completion, 'x-feedback-token'));
  const authorization = token ?? apiKey;
  return request(`${baseURL.replace(/\/+$/, '')}/feedback`, options, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(authorization && { authorization: `Bearer ${authorization}` }),
    },
    body: JSON.stringify({
      ...(token === undefined && { id: completionId(completion) }), // a token says which answer it is of
      ...body,
      feedback_id: globalThis.crypto.randomUUID(), // the same in each attempt: they are one vote
    }),
  });
}

async function request(url, { maxRetries = 2, fetch = globalThis.fetch }, init) {
  for (let attempt = 0; ; attempt++) {
    let response, text, fault;
    try {
      response = await fetch(url, { ...init, signal: AbortSignal.timeout(TIMEOUT_MS) });
      text = await response.text();
    } catch (error) {
      fault = error;
    }
    const pauseMs = attempt < maxRetries ? pauseOf(attempt, fault ? undefined : response) : undefined;
    if (pauseMs === undefined) return fault ? unreachable(url, fault) : taken(url, response, text);
    await new Promise((done) => setTimeout(done, pauseMs));
  }
}

// Milliseconds until the vote is sent again; undefined if this is how it ended.
function pauseOf(attempt, response) {
  if (response && !RETRIED.includes(response.status)) return undefined;
  const given = response?.headers.get('retry-after') ?? '';
  if (/^\d+$/.test(given)) return Number(given) <= MAX_PAUSE_S ? Number(given) * 1000 : undefined;
  return FIRST_PAUSE_MS * 2 ** attempt * (0.5 + Math.random() / 2);
}

function unreachable(url, fault) {
  throw new RatchetError(`no answer from ${url} (${fault.cause ?? fault}); is the router there?`, undefined, {
    cause: fault,
  });
}

function taken(url, response, text) {
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = undefined; // a proxy's page, say
  }
  if (response.ok && answer?.feedback_id) return answer.feedback_id;
  const advice = ADVICE[response.status] ?? (response.ok ? 'it is no Ratchet router' : '');
  const said = `${url} answered ${response.status}: ${answer?.error?.message ?? text.slice(0, 200)}`;
  throw new RatchetError(advice ? `${said} (${advice})` : said, response.status);
}
