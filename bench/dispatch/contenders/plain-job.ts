import { randomUUID } from "node:crypto";
import { sha256Hex } from "@gpux/protocol/canonical";
import { packManifest } from "@gpux/protocol/manifest";
import type { Child } from "../../child.ts";
import type { Good, Requests } from "../../load/http.ts";
import { echoManifest, PAYLOAD_BYTES } from "../echo.ts";
import type { Stage, Started } from "./contender.ts";

/** The answer to a job that went well, of ours and of the others. */
export const SUCCEEDED: Good = { status: 200, holds: '"status":"succeeded"' };
export const ACCEPTED: Good = { status: 202, holds: "" };

/** A job as the servers that GPUX is measured against take it: its function is the one that they hold. */
export async function plainJob(gives: "echo" | "bulk" = "echo"): Promise<string> {
  return JSON.stringify({
    function: await sha256Hex(packManifest(echoManifest(gives))),
    inputs: { data: { base64: Buffer.alloc(PAYLOAD_BYTES, 7).toString("base64") } },
    execution_ms: 120_000,
  });
}

/** A server that answers a job with its result. */
export async function answering(stage: Stage, port: number, processes: readonly Child[]): Promise<Started> {
  const request = post("/", await plainJob());
  return {
    processes,
    async prepare({ connections }) {
      const lanes = Array.from({ length: connections }, () => ({ again: [request] }));
      return (ms) => stage.load({ port, lanes, ms, answers: [SUCCEEDED] });
    },
  };
}

/** A server that takes a job durably (`POST /ID`, 202) and has its result later (`GET /ID`, held back until then). */
export async function accepting(stage: Stage, port: number, processes: readonly Child[]): Promise<Started> {
  const body = await plainJob();
  const job = (): Requests => {
    const id = randomUUID();
    return [post(`/${id}`, body), Buffer.from(`GET /${id} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n`)];
  };
  return {
    processes,
    durable: true,
    async prepare({ connections, turns }) {
      const lanes = Array.from({ length: connections }, () => ({ once: Array.from({ length: turns }, job) }));
      return (ms) => stage.load({ port, lanes, ms, answers: [ACCEPTED, SUCCEEDED] });
    },
  };
}

export function post(path: string, body: string): Uint8Array {
  const head = [
    `POST ${path} HTTP/1.1`,
    "host: 127.0.0.1",
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
  ];
  return Buffer.from(`${head.join("\r\n")}\r\n\r\n${body}`);
}
