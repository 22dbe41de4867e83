// Run a client's cells and print what each gave as one line of JSON; as tests/clients/scripts/harness.py does.

export const MODEL = 'assistant';
export const ASKED = 'Why is the sky blue?';
export const SCHEMA_ASKED = 'Where is the Eiffel tower?';
export const TOOL_ASKED = 'How warm is it in Paris?';
export const IMAGE_ASKED = 'What is this?';
export const VOTE_ASKED = 'What is worth a vote?';
export const ERRORS = [400, 422, 429];
export const BUSY = '[error 503]'; // the router says so in words of its own
export const TIMEOUT_MS = 400;
const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==';
export const PICTURE = `data:image/png;base64,${PIXEL}`;
const NUM_CHATS = Number(process.env.NUM_CHATS ?? 40);
const LEFT_MS = 5000;

export const user = (content) => ({ role: 'user', content });

export const questions = () =>
  Array.from({ length: NUM_CHATS }, (_, number) => [`Tell me about the number ${number}.`, 'Why?']);

/** What a client's error says of a call that must fail: its class, and the status and words that it shows. */
export async function raised(call) {
  try {
    return { answered: await call() };
  } catch (error) {
    const { status, statusCode, type, param, code, error: body, responseBody } = error;
    const headers = error.headers ?? error.responseHeaders;
    const retryAfter = typeof headers?.get === 'function' ? headers.get('retry-after') : headers?.['retry-after'];
    const shown = { status: status ?? statusCode, type, param, code, body: body ?? responseBody };
    return { error: error.constructor.name, says: error.message, retryAfter, ...shown };
  }
}

/** What an error of a pool that is busy must keep: the client's class of it, its status, when to come again. */
export const withoutWords = ({ error, status, retryAfter }) => ({ error, status, retryAfter });

export async function left() {
  return Number(await (await fetch(`${process.env.POOL_URL}/left`)).text());
}

/** Whether the pool hears within some seconds that its stream was left. */
export async function poolIsTold(numBefore) {
  for (const deadline = Date.now() + LEFT_MS; Date.now() < deadline; ) {
    if ((await left()) !== numBefore) return true;
    await new Promise((done) => setTimeout(done, 20));
  }
  return false;
}

export async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

/** Run the cells that the command line names, which are all that a script has but `two_turns` if it names none. */
export async function main(script) {
  const named = process.argv.slice(2);
  const results = {};
  for (const name of named.length ? named : Object.keys(script).filter((name) => name !== 'two_turns')) {
    try {
      results[name] = { gave: (await script[name]()) ?? null };
    } catch (error) {
      results[name] = { failed: `${error.name}: ${error.message}`.slice(0, 500) };
    }
  }
  console.log(JSON.stringify(results));
}
