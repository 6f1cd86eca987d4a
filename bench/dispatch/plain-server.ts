import { createServer } from "node:http";
import { createPreparation } from "@gpux/agent/leases/job";
import { sha256Hex } from "@gpux/protocol/canonical";
import { LIMITS, packManifest } from "@gpux/protocol/manifest";
import { connect } from "@nats-io/transport-node";
import { createEchoExecutor, createPlainWork, echoManifest } from "./echo.ts";

/**
 * The programs that the warm path is measured against, each a process of its own:
 *   direct              HTTP server in front of the executor
 *   responder ADDRESS   the executor behind a NATS subject
 *   gateway ADDRESS     HTTP server that asks that subject
 * Says on the channel `{ port }` when it serves; a responder's port is 0.
 */

const SUBJECT = "gpux.bench.job";
const TIMEOUT_MS = 10_000;

async function plainWork() {
  const packed = packManifest(echoManifest(true));
  const sha256 = await sha256Hex(packed);
  const objects = {
    // The one object that there is: the function, fetched before the first job as on a warm agent.
    async get(wanted: string) {
      if (wanted === sha256) return { ok: true as const, bytes: packed };
      return { ok: false as const, code: "object_unavailable" as const, detail: wanted };
    },
    async put() {
      return { ok: false as const, detail: "outputs stand in the answer" };
    },
  };
  return createPlainWork(createPreparation(objects, LIMITS), createEchoExecutor());
}

function serve(answer: (body: Buffer) => Promise<string | Uint8Array>): Promise<number> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      answer(Buffer.concat(chunks)).then(
        (body) => {
          response.writeHead(200, {
            "content-type": "application/json",
            "content-length": Buffer.byteLength(body),
          });
          response.end(body);
        },
        (error: unknown) => {
          const body = String(error);
          response.writeHead(500, { "content-length": Buffer.byteLength(body) });
          response.end(body);
        },
      );
    });
  });
  server.on("connection", (socket) => socket.setNoDelay(true));
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      resolve(address !== null && typeof address === "object" ? address.port : 0);
    });
  });
}

async function start(role: string | undefined, servers: string | undefined): Promise<number> {
  if (role === "direct") return serve(await plainWork());
  if (servers === undefined) throw new Error(`${role} needs the address of a NATS server`);
  const nats = await connect({ servers });
  if (role === "gateway")
    return serve(async (body) => (await nats.request(SUBJECT, body, { timeout: TIMEOUT_MS })).data);
  if (role !== "responder") throw new Error(`there is no role ${role}`);
  const work = await plainWork();
  nats.subscribe(SUBJECT, {
    callback: (error, message) => {
      if (error !== null) throw error;
      work(message.data).then(
        (answer) => message.respond(answer),
        (failure: unknown) => message.respond(JSON.stringify({ status: "failed", detail: String(failure) })),
      );
    },
  });
  await nats.flush();
  return 0;
}

process.once("disconnect", () => process.exit());
process.send?.({ port: await start(process.argv[2], process.argv[3]) });
