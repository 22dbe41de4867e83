// A router's /v1/feedback over real HTTP: records what it gets and answers as told, 200 after that.

import { createServer } from 'node:http';

export async function withRouter(test, answers = []) {
  const got = [];
  const server = createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      const { url: path, headers } = request;
      got.push({ path, authorization: headers.authorization, body: JSON.parse(Buffer.concat(parts)) });
      const [status, given, text] = answers.shift() ?? [200, {}, JSON.stringify({ feedback_id: `f${got.length}` })];
      if (status === 0) return request.socket.destroy(); // a router that dies before it answers
      response.writeHead(status, given).end(text);
    });
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  try {
    await test(`http://127.0.0.1:${server.address().port}/v1`, got);
  } finally {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  }
}
