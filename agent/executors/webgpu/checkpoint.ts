import { z } from "zod";
import type { Plan, PlannedBuffer } from "./plan.ts";

/** Where a job stands between two dispatches: `pass` is to run next, for the `iteration`th time. */
export type Position = { pass: number; iteration: number };

/**
 * All that a job is made of there: passes are a sequence that its inputs fix, and only storage buffers outlive one. A
 * buffer that is as it was at the start is not among them.
 */
export type Checkpoint = { position: Position; buffers: ReadonlyMap<string, Uint8Array> };

const Head = z.strictObject({
  v: z.literal(1),
  /** The function's address: no other has these passes. */
  function: z.string(),
  pass: z.int().min(0),
  iteration: z.int().min(0),
  /** Names and lengths of the buffers that follow, in order. */
  buffers: z.array(z.tuple([z.string(), z.int().min(0)])).max(32),
});

/** A length in four bytes, little-endian, so much JSON, and the buffers one after the other. */
export function encodeCheckpoint(address: string, { position, buffers }: Checkpoint): Uint8Array {
  const head: z.input<typeof Head> = {
    v: 1,
    function: address,
    ...position,
    buffers: [...buffers].map(([name, bytes]) => [name, bytes.length]),
  };
  const text = new TextEncoder().encode(JSON.stringify(head));
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, text.length, true);
  return Buffer.concat([length, text, ...buffers.values()]);
}

/**
 * Null for what is no checkpoint of this job: it comes from another machine, so nothing in it is trusted. What its buffers
 * hold nobody can judge; they are worth as much as that machine's word on a result.
 */
export function readCheckpoint(bytes: Uint8Array, address: string, plan: Plan): Checkpoint | null {
  const head = headOf(bytes);
  if (head === null || head.value.function !== address) return null;
  const { pass, iteration, buffers: named } = head.value;
  if (iteration >= (plan.passes[pass]?.repeat ?? 0)) return null;
  const buffers = new Map<string, Uint8Array>();
  let at = head.end;
  for (const [name, length] of named) {
    const planned = plan.buffers.get(name);
    if (planned?.kind !== "storage" || planned.bytes !== length) return null;
    buffers.set(name, bytes.subarray(at, at + length));
    at += length;
  }
  return at === bytes.length ? { position: { pass, iteration }, buffers } : null;
}

function headOf(bytes: Uint8Array): { value: z.infer<typeof Head>; end: number } | null {
  if (bytes.length < 4) return null;
  const end = 4 + new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
  if (end > bytes.length) return null;
  try {
    const value = Head.safeParse(JSON.parse(new TextDecoder().decode(bytes.subarray(4, end))));
    return value.success ? { value: value.data, end } : null;
  } catch {
    return null;
  }
}

/** Dispatches before this place. */
export function dispatchesBefore({ passes }: Pick<Plan, "passes">, { pass, iteration }: Position): number {
  return passes.slice(0, pass).reduce((sum, { repeat }) => sum + repeat, iteration);
}

/** What a checkpoint of this job may come to. */
export function stateBytes({ buffers }: Pick<Plan, "buffers">): number {
  return buffers.values().reduce((sum, { kind, bytes }) => sum + (kind === "storage" ? bytes : 0), 0);
}

/** Whether a buffer holds what it began with: its contents, and zeroes after them. */
export function isUntouched({ contents, contentsAt }: PlannedBuffer, bytes: Uint8Array): boolean {
  if (contentsAt !== undefined) return false;
  const first = contents ?? new Uint8Array();
  if (Buffer.compare(bytes.subarray(0, first.length), first) !== 0) return false;
  for (let at = first.length; at < bytes.length; at += 1) if (bytes[at] !== 0) return false;
  return true;
}
