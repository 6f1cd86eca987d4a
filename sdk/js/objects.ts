import { sha256Hex } from "@gpux/protocol/canonical";
import { GpuxError } from "./error.ts";
import type { Transport } from "./transport.ts";

/** The content-addressed store: functions, large inputs and outputs. */
export interface Objects {
  /** Stores the bytes under their SHA-256 (lower-case hex), which it returns; sends nothing that is there already. */
  put(bytes: Uint8Array, options?: { signal?: AbortSignal }): Promise<string>;
  /** The bytes, checked against the hash: `object_mismatch` when they are others. */
  get(sha256: string, options?: { signal?: AbortSignal }): Promise<Uint8Array<ArrayBuffer>>;
}

export function createObjects(transport: Transport): Objects {
  return {
    async put(bytes, { signal } = {}) {
      const body = new Uint8Array(bytes);
      const sha256 = await sha256Hex(body);
      const path = `/v1/objects/${sha256}`;
      try {
        await transport.send({ method: "HEAD", path, signed: false, signal });
        return sha256;
      } catch (error) {
        if (!(error instanceof GpuxError) || error.status !== 404) throw error;
      }
      const headers = { "content-type": "application/octet-stream" };
      await transport.send({ method: "PUT", path, body, headers, signal });
      return sha256;
    },
    async get(sha256, { signal } = {}) {
      const { bytes } = await transport.send({
        method: "GET",
        path: `/v1/objects/${sha256}`,
        // Who knows the hash may read: a wallet need not be asked.
        signed: false,
        signal,
      });
      await matching(bytes, sha256);
      return bytes;
    },
  };
}

/** Throws `object_mismatch` unless the bytes hash to `sha256`. */
export async function matching(bytes: Uint8Array, sha256: string): Promise<void> {
  const is = await sha256Hex(bytes);
  if (is === sha256) return;
  throw new GpuxError({
    code: "object_mismatch",
    title: "The bytes are not what their hash says",
    hint: "Do not use them; ask again, or take the node's receipt to the edge's operator.",
    detail: `expected ${sha256}, got ${is}`,
  });
}
