import { createServer, type IncomingMessage } from "node:http";
import { createPreparation, type Preparation } from "@gpux/agent/leases/job";
import { sha256Hex } from "@gpux/protocol/canonical";
import { LIMITS, packManifest } from "@gpux/protocol/manifest";
import { createEchoExecutor, createPlainWork, echoManifest } from "../echo.ts";

/** What the programs that GPUX is measured against are made of. Each is a process of its own. */

/** The agent's preparation and execution of a job, with the one function that there is at hand, as on a warm agent. */
export async function plainWork(): Promise<(body: Uint8Array) => Promise<string>> {
  return createPlainWork(await preparationOf("echo"), createEchoExecutor());
}

/** The agent's preparation, where one function is there. */
export async function preparationOf(gives: "echo" | "bulk"): Promise<Preparation> {
  const packed = packManifest(echoManifest(gives));
  const sha256 = await sha256Hex(packed);
  const objects = {
    async get(wanted: string) {
      if (wanted === sha256) return { ok: true as const, bytes: packed };
      return { ok: false as const, code: "object_unavailable" as const, detail: wanted };
    },
    async put() {
      return { ok: false as const, detail: "outputs stand in the answer" };
    },
  };
  return createPreparation(objects, LIMITS);
}

export interface Reply {
  readonly status: number;
  readonly body: string | Uint8Array;
  readonly contentType?: string;
}

/** An HTTP server on a free port of 127.0.0.1. Resolves with the port. */
export function serve(answer: (request: IncomingMessage, body: Buffer) => Promise<Reply>): Promise<number> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    const reply = ({ status, body, contentType = "application/json" }: Reply) => {
      response.writeHead(status, {
        "content-type": contentType,
        "content-length": Buffer.byteLength(body),
      });
      response.end(body);
    };
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      answer(request, Buffer.concat(chunks)).then(reply, (error: unknown) =>
        reply({ status: 500, body: String(error) }),
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

/** Says to the bench that it may begin, and ends with it. */
export function ready(port: number): void {
  process.once("disconnect", () => process.exit());
  process.send?.({ port });
}
