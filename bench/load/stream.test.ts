import { createServer, type Server } from "node:http";
import { afterEach, expect, test } from "vitest";
import { closedLoop } from "./closed-loop.ts";
import { dialStream, type StreamLoad } from "./stream.ts";

let server: Server | null = null;
afterEach(() => {
  server?.close();
});

const BYTES = 3 * 2 ** 20 + 1;

async function asked(sent: number, change: Partial<StreamLoad> = {}) {
  server = createServer((request, response) => {
    const isJob = request.method === "POST";
    response.statusCode = isJob ? 202 : 200;
    response.end(isJob ? "taken" : Buffer.alloc(sent, 1));
  });
  const { promise: up, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await up;
  const address = server.address();
  const post = Buffer.from("POST / HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\n\r\n");
  const get = Buffer.from("GET / HTTP/1.1\r\nhost: bench\r\n\r\n");
  const load: StreamLoad = {
    port: address !== null && typeof address === "object" ? address.port : 0,
    lanes: Array.from({ length: 2 }, () => [
      [post, get],
      [post, get],
    ]),
    ...{ ms: 60_000, statuses: [202], bytes: BYTES },
    ...change,
  };
  return closedLoop((index) => dialStream(load, index), load.lanes.length, load.ms);
}

test("counts every byte of a turn's last answer, and tells when the first came", async () => {
  const loaded = await asked(BYTES);
  expect(loaded).toMatchObject({ turns: 4, errors: 0, sample: "" });
  expect(loaded.firstUs).toHaveLength(4);
  expect(loaded.firstUs[0]).toBeLessThanOrEqual(loaded.latenciesUs[0] ?? 0);
});

test("an answer of another length is no good one", async () => {
  expect(await asked(BYTES - 1)).toMatchObject({
    turns: 0,
    errors: 4,
    sample: expect.stringMatching(/^3145728 bytes/),
  });
});

test("an earlier answer of another status ends the turn", async () => {
  expect(await asked(BYTES, { statuses: [201] })).toMatchObject({ turns: 0, errors: 4, sample: "202 taken" });
});
