import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { z } from "zod";
import { AttestRequest } from "./attestation.ts";
import { FromClient } from "./client-frames.ts";
import { FromLease, ToLease } from "./frames.ts";
import { JobBatch, JobRequest } from "./job.ts";
import { LeaseView } from "./lease.ts";
import { parserOf } from "./parser.ts";

const hex = (bytes: number, digit = "a") => `0x${digit.repeat(2 * bytes)}`;
const sha256 = "0f".repeat(32);
const job = `job_${"a".repeat(32)}_${"b".repeat(26)}`;
const allowance = { cumulative: "1000000", signature: hex(65) };
const request = {
  function: sha256,
  inputs: {
    n: { number: 1.5 },
    data: { base64: "AAECAw==" },
    image: { object: sha256 },
    any: { json: { deep: [1, null, "x"] } },
  },
  max_price: "1000",
  timeouts: { queue_s: 5 },
  allowance,
};
const receipt = {
  leaseId: hex(32),
  job: hex(32, "b"),
  sequence: 1,
  attempt: 1,
  inputHash: hex(32, "c"),
  outputHashes: [hex(32, "d")],
  node: hex(20),
  gpu: "RTX_4090",
  billedMs: "12",
  price: "1",
  cumulative: "12",
  endedAt: 1_700_000_000,
};
const terms = {
  payer: hex(20, "1"),
  consumerSigner: hex(20, "2"),
  provider: hex(20, "3"),
  providerSigner: hex(20, "4"),
  meter: hex(20, "5"),
  feeRecipient: hex(20, "6"),
  feeBps: 500,
  upfront: "0",
  unattended: "309485009821345068724781055",
  ratePerHour: "600000",
  expiry: 1_800_000_000,
  quote: hex(32),
};
const head = { v: 1, seq: 3, ack: 2 };
const attempt = { job, attempt: { epoch: 1, n: 1 } };
const usage = { cumulative: "12", evidence: hex(32) };
const run = {
  ...attempt,
  function: sha256,
  inputs: { data: { base64: "" } },
  execution_ms: 1,
  max_price: "1",
  committed: "2",
};

const hot: readonly (readonly [string, z.ZodType, unknown])[] = [
  ["a job", JobRequest, { function: sha256, inputs: { n: { number: 1 } }, max_price: "1", allowance }],
  ["a batch", JobBatch, [{ function: sha256, max_price: "1" }]],
  ["one or several", z.union([JobRequest, JobBatch]), [{ function: sha256, max_price: "1" }]],
  ["a client's frame", FromClient, { v: 1, t: "job", id: "x", request }],
  ["a result", FromLease, { ...head, t: "result", ...attempt, ms: 1, gpu: "RTX_4090", outputs: [] }],
  ["an acknowledgement", FromLease, { ...head, t: "ack" }],
  ["a run", ToLease, { ...head, t: "run", ...run, allowance }],
  ["several runs", ToLease, { ...head, t: "runs", runs: [run, run] }],
  ["a block", ToLease, { ...head, t: "settle", usage, receipts: [receipt] }],
  ["what the meter is asked", AttestRequest, { terms, allowance, usage, receipts: [receipt] }],
];

test.each(hot)("%s is taken without zod's walk", (_, schema, value) => {
  const walked = vi.spyOn(schema, "safeParse");
  const read = parserOf(schema)(value);
  expect(read).toEqual({ success: true, data: schema.parse(value) });
  expect(walked).not.toHaveBeenCalled();
  walked.mockRestore();
});

/** What stands for a part of a value: near misses of all that the schemas ask for. */
const odd = fc.constantFrom<() => unknown>(
  () => undefined,
  () => null,
  () => true,
  () => "",
  () => "x",
  () => "1",
  () => "01",
  () => "-1",
  () => "1e3",
  () => "309485009821345068724781056",
  () => "18446744073709551616",
  () => "A".repeat(33_000),
  () => "AAA",
  () => "AA==\n",
  () => "A===",
  () => hex(32, "A"),
  () => hex(20, "F"),
  () => hex(31),
  () => "0x",
  () => "0xa",
  () => `${job}\n`,
  () => 0,
  () => -0,
  () => -1,
  () => 1.5,
  () => 2 ** 53,
  () => Number.NaN,
  () => Number.POSITIVE_INFINITY,
  () => 1n,
  () => [],
  () => [undefined],
  () => ({}),
  () => ({ number: 1, extra: 1 }),
  () => ({ number: 1, json: 1 }),
  () => JSON.parse('{"__proto__": {"number": 1}}'),
  () => Object.create({ number: 1 }),
  () => new Date(0),
  () => new Map(),
);

interface Change {
  readonly at: number;
  readonly how: "replace" | "remove" | "add";
  /** Made anew, since what is changed may be in it. */
  readonly by: () => unknown;
}

/** Every object and list in a value, itself first. */
function parts(value: unknown): Record<string, unknown>[] {
  if (typeof value !== "object" || value === null) return [];
  const own = value as Record<string, unknown>;
  return [own, ...Object.values(own).flatMap(parts)];
}

function changed(value: unknown, changes: readonly Change[]): unknown {
  const copy = structuredClone(value);
  for (const { at, how, by } of changes) {
    const places = parts(copy).flatMap((part) => Object.keys(part).map((key) => ({ part, key })));
    const place = places[at % places.length];
    if (place === undefined) continue;
    if (how === "replace") place.part[place.key] = by();
    else if (how === "remove") delete place.part[place.key];
    else place.part.extra = by();
  }
  return copy;
}

const Kinds = z.strictObject({
  strict: z.strictObject({ a: z.string().min(2).max(3).optional() }),
  open: z.object({ a: z.int() }),
  loose: z.looseObject({ a: z.int() }),
  dated: z.iso.datetime(),
  enumerated: z.enum(["a", "b"]),
  nullable: z.number().gt(0).lt(10).nullable(),
  refined: z.string().refine((text) => text !== "no"),
  tuple: z.tuple([z.int(), z.string()]),
  either: z.union([z.strictObject({ a: z.int() }), z.strictObject({ a: z.int(), b: z.int().optional() })]),
  named: z.record(z.string().regex(/^[a-z]+$/), z.array(z.int()).min(1).max(2)),
  anything: z.unknown(),
  absent: z.int().default(7),
  made: z.strictObject({ a: z.int().default(3) }).prefault({}),
});
const kinds = {
  strict: { a: "xy" },
  open: { a: 1, b: 2 },
  loose: { a: 1, b: 2 },
  dated: "2026-11-30T00:00:00Z",
  enumerated: "a",
  nullable: null,
  refined: "yes",
  tuple: [1, "x"],
  either: { a: 1, b: 2 },
  named: { x: [1] },
  anything: { y: 1 },
};

test.each<readonly [string, z.ZodType, unknown]>([
  ...hot,
  ["a job of all kinds of inputs", JobRequest, request],
  ["schemas of every kind", Kinds, kinds],
  ["a view", LeaseView, {}],
])("%s, whatever is wrong with it, is what zod says", (_, schema, value) => {
  const parse = parserOf(schema);
  const change = fc.record({
    at: fc.nat(200),
    how: fc.constantFrom("replace" as const, "remove" as const, "add" as const),
    by: odd,
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 3 }), (changes) => {
      const input = changed(value, changes);
      const [ours, zods] = [parse(input), schema.safeParse(input)];
      expect(ours.success).toBe(zods.success);
      // Prototypes and absent keys too.
      if (zods.success) expect(ours.data).toStrictEqual(zods.data);
      else expect(ours.error?.issues).toEqual(zods.error.issues);
    }),
    { numRuns: 1_500 },
  );
});
