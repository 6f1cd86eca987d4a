import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { verifyRequest } from "@gpux/protocol/http-signature/erc8128";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { afterEach, expect, test } from "vitest";
import { createEdgeClock } from "../link/edge-clock.ts";
import { sha256Of } from "./digest.ts";
import { put } from "./uploads.ts";

let isBehindS = 0;
const credentials = {
  account: privateKeyToAccount(generatePrivateKey()),
  chainId: 31_337,
  clock: createEdgeClock((aheadS) => {
    isBehindS = -aheadS;
  }),
};
const bytes = new Uint8Array(5 * 2 ** 20 + 3).map((_, at) => at % 251);
const { signal } = new AbortController();

let server: Server | null = null;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

async function serving(answer: (request: IncomingMessage, response: ServerResponse) => void) {
  server = createServer(answer);
  const { promise: up, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await up;
  const address = server.address();
  const port = address !== null && typeof address === "object" ? address.port : 0;
  return new URL(`http://127.0.0.1:${port}/v1/objects/x?n=1`);
}

const uploadTo = async (url: URL, stop = signal) =>
  put(credentials, { url, sha256: await sha256Of(bytes), bytes, contentType: "image/png" }, stop);

test("the hash is that of the bytes, in however many pieces", async () => {
  for (const part of [bytes, bytes.subarray(0, 0), bytes.subarray(1, 2 * 2 ** 20 + 1)])
    expect(await sha256Of(part)).toBe(createHash("sha256").update(part).digest("hex"));
});

test("all bytes arrive, signed for by their hash without being read again", async () => {
  const seen = Promise.withResolvers<{ request: IncomingMessage; body: Buffer }>();
  const url = await serving((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      seen.resolve({ request, body: Buffer.concat(chunks) });
      response.writeHead(201).end();
    });
  });
  expect(await uploadTo(url)).toEqual({ status: 201, text: "" });
  const { request, body } = await seen.promise;
  expect(body.equals(bytes)).toBe(true);
  expect(request.headers["content-type"]).toBe("image/png");
  expect(request.headers["content-length"]).toBe(String(bytes.length));
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) headers.set(name, String(value));
  const verified = await verifyRequest(
    { method: "PUT", url: url.href, headers, body },
    { chainId: credentials.chainId, now: Date.now(), audience: [url.host] },
  );
  expect(verified).toMatchObject({ ok: true, address: credentials.account.address.toLowerCase() });
});

test("a refusal before the end is heard, and the rest is not sent", async () => {
  let received = 0;
  const url = await serving((request, response) => {
    request.once("data", (chunk: Buffer) => {
      received = chunk.length;
      request.pause();
      response.writeHead(409, { connection: "close" }).end("another attempt took over");
    });
  });
  expect(await uploadTo(url)).toEqual({ status: 409, text: "another attempt took over" });
  expect(received).toBeLessThan(bytes.length);
});

test("aborting ends it with the signal's reason, also before it began", async () => {
  const controller = new AbortController();
  const url = await serving(() => controller.abort(new Error("canceled")));
  await expect(uploadTo(url, controller.signal)).rejects.toThrow("canceled");
  await expect(uploadTo(url, controller.signal)).rejects.toThrow("canceled");
});

test("an idle connection that the server had given up is no failure", async () => {
  let asked = 0;
  const url = await serving((request, response) => {
    asked += 1;
    // The second comes on the first one's connection, which dies under it.
    if (asked === 2) return void request.socket.destroy();
    request.resume();
    request.on("end", () => response.writeHead(201).end());
  });
  expect((await uploadTo(url)).status).toBe(201);
  expect((await uploadTo(url)).status).toBe(201);
  expect(asked).toBe(3);
});

test("a server that hangs up on a new connection is one", async () => {
  const url = await serving((request) => request.socket.destroy());
  await expect(uploadTo(url)).rejects.toThrow();
});

test("LNK-10 a refusal of the signature says what time it is at the edge", async () => {
  const date = new Date(Date.now() + 300_000).toUTCString();
  const url = await serving((request, response) => {
    request.resume().on("end", () => response.writeHead(401, { date }).end());
  });
  expect(await uploadTo(url)).toMatchObject({ status: 401 });
  expect(isBehindS).toBeGreaterThan(290);
  credentials.clock.refusedAt(new Date().toUTCString());
});
