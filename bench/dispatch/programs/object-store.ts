import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { z } from "zod";
import { ready } from "./job-server.ts";

/**
 * Bare workerd has the binding of R2 but no R2: this is the part of it that the edge uses, in memory, spoken to as
 * workerd speaks to R2 (workerd, src/workerd/api/r2-rpc.c++ and r2-api.capnp). As there, bytes that are not what their
 * hash says are not kept.
 */

const Asked = z.discriminatedUnion("method", [
  z.object({ method: z.enum(["head", "get"]), object: z.string() }),
  z.object({
    method: z.literal("put"),
    object: z.string(),
    sha256: z.string().optional(),
    httpFields: z.record(z.string(), z.string()).optional(),
  }),
]);

interface Stored {
  readonly about: object;
  readonly chunks: readonly Buffer[];
}

const SIZE = "cf-r2-metadata-size";
const NOT_FOUND = 10_007;
const BAD_DIGEST = 10_037;

const objects = new Map<string, Stored>();

const server = createServer((request, response) => {
  const answered = request.method === "PUT" ? put(request, response) : give(request, response);
  answered.catch((error: unknown) => {
    console.error(error);
    response.destroy();
  });
});

async function put(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const metadataBytes = Number(request.headers[SIZE]);
  const hash = createHash("sha256");
  const chunks: Buffer[] = [];
  let head = Buffer.alloc(0);
  let size = 0;
  for await (const read of request as AsyncIterable<Buffer>) {
    const missing = metadataBytes - head.length;
    if (missing > 0) head = Buffer.concat([head, read.subarray(0, missing)]);
    const chunk = missing > 0 ? read.subarray(missing) : read;
    if (chunk.length === 0) continue;
    hash.update(chunk);
    chunks.push(chunk);
    size += chunk.length;
  }
  const asked = Asked.parse(JSON.parse(head.toString("utf8")));
  if (asked.method !== "put") throw new TypeError(`a PUT that asks for ${asked.method}`);
  const sha256 = hash.digest("hex");
  if (asked.sha256 !== undefined && asked.sha256 !== sha256)
    return refuse(
      response,
      400,
      BAD_DIGEST,
      "The SHA-256 checksum you specified did not match what we received.",
    );
  const about = {
    ...{ name: asked.object, version: sha256, size, etag: sha256.slice(0, 32), uploaded: Date.now() },
    ...{ httpFields: asked.httpFields ?? {}, customFields: [], checksums: { 2: sha256 } },
  };
  objects.set(asked.object, { about, chunks });
  answer(response, about, []);
}

async function give(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const asked = Asked.parse(JSON.parse(String(request.headers["cf-r2-request"])));
  const stored = objects.get(asked.object);
  if (stored === undefined) return refuse(response, 404, NOT_FOUND, "The specified key does not exist.");
  answer(response, stored.about, asked.method === "get" ? stored.chunks : []);
}

function answer(response: ServerResponse, about: object, chunks: readonly Buffer[]): void {
  const metadata = Buffer.from(JSON.stringify(about));
  const bytes = chunks.reduce((sum, { length }) => sum + length, metadata.length);
  response.writeHead(200, { [SIZE]: String(metadata.length), "content-length": String(bytes) });
  response.write(metadata);
  for (const chunk of chunks) response.write(chunk);
  response.end();
}

function refuse(response: ServerResponse, status: number, v4code: number, message: string): void {
  response.writeHead(status, { "cf-r2-error": JSON.stringify({ version: 1, v4code, message }) }).end();
}

server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  ready(address !== null && typeof address === "object" ? address.port : 0);
});
