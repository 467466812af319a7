// Event streams and the session against a real server on loopback: what a browser would give is stood in for by a few lines.

import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, test } from "node:test";
import { openEvents, type Link } from "../common/events.js";

const listeners = new EventTarget();
Object.assign(globalThis, {
  addEventListener: listeners.addEventListener.bind(listeners),
  removeEventListener: listeners.removeEventListener.bind(listeners),
  document: Object.assign(new EventTarget(), { hidden: false }),
});

const servers: Server[] = [];
after(() => {
  for (const server of servers) server.closeAllConnections();
  for (const server of servers) server.close();
});

async function serve(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server = createServer(answer);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const stream = (response: ServerResponse) => response.writeHead(200, { "content-type": "text/event-stream" });

test("a stream that ends is opened again and events arrive from both", async () => {
  let connections = 0;
  const url = await serve((_, response) => {
    connections += 1;
    stream(response).write(`event: state\ndata: {"n":${connections}}\n\n`);
    if (connections === 1) response.end();
  });
  const seen: string[] = [];
  const links: boolean[] = [];
  await new Promise<void>((resolve) => {
    const stop = openEvents({
      url,
      silence: 0,
      onLink: (link: Link) => links.push(link.up),
      onEvent(name, data) {
        seen.push(`${name} ${data}`);
        if (seen.length === 2) {
          stop();
          resolve();
        }
      },
    });
  });
  assert.deepEqual(seen, ['state {"n":1}', 'state {"n":2}']);
  assert.deepEqual(links, [true, false, true]);
});

test("a stream that falls silent is given up and opened again", async () => {
  let connections = 0;
  const url = await serve((_, response) => {
    connections += 1;
    stream(response).write(": still here\n\n");
    if (connections === 2) response.write("data: back\n\n");
  });
  const why: (string | null)[] = [];
  await new Promise<void>((resolve) => {
    const stop = openEvents({
      url,
      silence: 150,
      onLink: (link) => link.up || why.push(link.why),
      onEvent() {
        stop();
        resolve();
      },
    });
  });
  assert.deepEqual(why, ["The server went silent"]);
});

test("a refused stream ends when its owner gives up, and tells why", async () => {
  let connections = 0;
  const url = await serve((_, response) => {
    connections += 1;
    response.writeHead(401, { "content-type": "application/problem+json" }).end('{"title":"Unauthorized","detail":"token not valid"}');
  });
  const link = await new Promise<Link>((resolve) => {
    let last: Link;
    openEvents({
      url,
      silence: 0,
      onLink: (value) => (last = value),
      onEvent: () => undefined,
      onRefused() {
        resolve(last);
        return true;
      },
    });
  });
  assert.ok(link.refused);
  assert.equal(link.why, "Token not valid");
  assert.equal(connections, 1);
});

test("two calls that are refused together renew the token once", async () => {
  let renewals = 0;
  let current = "old";
  const base = await serve((request, response) => {
    const answer = (status: number, body: unknown) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    if (request.url === "/api/v1/auth/login") return answer(200, { access_token: "old", expires_in: 900, refresh_token: "r0" });
    if (request.url === "/api/v1/auth/refresh") {
      renewals += 1;
      current = `new${renewals}`;
      return answer(200, { access_token: current, expires_in: 900, refresh_token: `r${renewals}` });
    }
    if (request.headers.authorization !== `Bearer ${current}`) return answer(401, { title: "Unauthorized" });
    return answer(200, { email: "a@b", role: "operator", path: request.url });
  });
  const plain = globalThis.fetch;
  globalThis.fetch = ((input: string, init?: RequestInit) => plain(`${base}${input}`, init)) as typeof fetch;
  try {
    const session = await import("../fleet/session.js");
    await session.signIn("a@b", "secret");
    assert.ok(session.mayOperate.value && !session.mayAdminister.value);
    current = "expired";
    const answers = await Promise.all([session.api<{ path: string }>("/devices"), session.api<{ path: string }>("/commands/x")]);
    assert.deepEqual(answers.map((one) => one.path), ["/api/v1/devices", "/api/v1/commands/x"]);
    assert.equal(renewals, 1);
    session.signOut();
    assert.equal(session.user.value, null);
  } finally {
    globalThis.fetch = plain;
  }
});
