import { expect, it } from "vitest";
import { z } from "zod";
import { FRAME_LIMIT, FromLease, FromNode, MAX_KNOWN_SEQ, ToLease, ToNode } from "./frames.ts";
import { jobIdOf, leaseIdOf } from "./ids.ts";

const lease = leaseIdOf(`0x${"12".repeat(32)}`);
const attempt = { job: jobIdOf(lease, new Uint8Array(16)), attempt: { epoch: 1, n: 1 } };
const head = { v: 1, seq: 1, ack: 0 };
const signature = `0x${"ab".repeat(65)}`;
const address = `0x${"ab".repeat(20)}`;
const bytes32 = `0x${"cd".repeat(32)}`;
const terms = {
  payer: address,
  consumerSigner: address,
  provider: address,
  providerSigner: address,
  meter: address,
  feeRecipient: address,
  feeBps: 500,
  upfront: "1",
  unattended: "0",
  ratePerHour: "18446744073709551615",
  expiry: 1,
  quote: bytes32,
};
const receipt = {
  leaseId: bytes32,
  job: bytes32,
  sequence: 1,
  attempt: 1,
  inputHash: bytes32,
  outputHashes: [bytes32],
  node: address,
  gpu: "RTX_4090",
  billedMs: "1",
  price: "1",
  cumulative: "309485009821345068724781055",
  endedAt: 1,
};
const gpu = { model: "RTX_4090", reported: "x", vram_mb: 1, driver: "1", backend: "vulkan", software: false };
const offer = {
  gpus: [gpu],
  cpu: 1,
  memory_gb: 1,
  region: "local",
  prices: { gpu_hour: "1", core_hour: "0", gb_hour: "0" },
  start_price: "0",
  concurrency: 1,
  yieldable: { gpu_hour: "1", core_hour: "0", gb_hour: "0" },
  gpus_per_lease: 1,
  duration_s: { min: 0, max: 3_600 },
  features: ["webgpu"],
  isolation: "process",
  models: ["sdxl"],
};
const ended = { ...attempt, ms: 5, gpu: "RTX_4090" };
const resources = { gpus: 1, cpu: 0, memory_gb: 0 };
const usage = { cumulative: "1", evidence: bytes32 };

const challenge = "11111111-1111-4111-8111-111111111111";

const run = {
  ...attempt,
  function: "f".repeat(64),
  inputs: { n: { number: 1 } },
  execution_ms: 1,
  max_price: "1",
  committed: "1",
};

const links: { link: string; schema: z.ZodType; frames: Record<string, object> }[] = [
  {
    link: "from a node",
    schema: FromNode,
    frames: {
      hello: {
        ...{ agent_version: "1", provider: address, offer, leases: [lease], draining: false, claimed: 1 },
        challenges: true,
      },
      offer: { offer },
      proof: { challenge, output: "AAAA" },
      unproven: { challenge, reason: "busy" },
      held: { hold: lease },
      declined: { hold: lease, reason: "busy" },
      drain: { deadline_s: 1 },
      claim: { gpus: 1 },
      ack: {},
    },
  },
  {
    link: "to a node",
    schema: ToNode,
    frames: {
      welcome: { heartbeat_s: 25, leases: [lease] },
      reject: { code: "forbidden" },
      hold: { hold: lease, resources, terms, expires_at: "2026-11-22T00:00:00.000Z" },
      release: { hold: lease },
      open: { lease, terms },
      rest: { lease },
      yield: { lease, notice_s: 30 },
      challenge: { challenge, function: { version: 1 }, inputs: { depth: 16 }, execution_ms: 1 },
      verdict: { verdict: { result: "verified", gops: 1.5, at: 1 } },
      dial: { lease },
      ack: {},
    },
  },
  {
    link: "from a lease's agent",
    schema: FromLease,
    frames: {
      hello: { attempts: [attempt], last_seq: 0 },
      accepted: { ...attempt, function: "0".repeat(64), inputs: { n: { number: 8 } }, ticket: "0x12{}" },
      started: attempt,
      progress: { ...attempt, fraction: 0.5, note: "half" },
      log: { ...attempt, line: "a line" },
      result: {
        ...ended,
        outputs: [{ name: "out", content_type: "image/png", bytes: 1, sha256: "0".repeat(64) }],
      },
      failed: { ...ended, code: "wgsl_invalid", detail: "line 1" },
      stopped: ended,
      yielded: { ...ended, checkpoint: { sha256: "c".repeat(64), bytes: 8 } },
      serving: {},
      served: { n: 1, ms: 60_000 },
      signed: { usage: { ...usage, signature } },
      close_signed: { cumulative: "1", valid_before: 1, signature },
      drain: { deadline_s: 1 },
      yield: { notice_s: 30 },
      refused: { what: "lease", reason: "no" },
      ack: {},
    },
  },
  {
    link: "to a lease's agent",
    schema: ToLease,
    frames: {
      welcome: { heartbeat_s: 25, epoch: 1, terms, last_seq: 0, attempts: [attempt] },
      run,
      runs: { runs: [run, { ...run, ticket: "0x12{}" }] },
      cancel: { ...attempt, reason: "asked" },
      tick: { n: 1, runs: true },
      settle: { usage, receipts: [receipt] },
      close: { ...usage, valid_before: 1 },
      voucher: { ...usage, meter_signature: signature },
      ack: {},
    },
  },
];

const rows = links.flatMap(({ link, schema, frames }) =>
  Object.entries(frames).map(([t, body]) => ({ link, schema, t, frame: { ...head, t, ...body } })),
);

it.each(rows)("$t $link survives the wire unchanged, and only exactly as written", ({ schema, frame }) => {
  const wire = JSON.parse(JSON.stringify(z.encode(schema, schema.parse(frame))));
  expect(wire).toEqual(frame);
  for (const wrong of [
    { ...frame, v: 2 },
    { ...frame, t: "made_up" },
    { ...frame, seq: -1 },
    { ...frame, seq: 1.5 },
    { ...frame, ack: undefined },
    { ...frame, extra: 1 },
  ])
    expect(schema.safeParse(wrong).success).toBe(false);
});

it.each(rows.filter(({ frame }) => Object.keys(frame).length > 4))(
  "$t $link lacks none of its fields",
  ({ schema, frame }) => {
    const optional = new Set(["challenges", "note", "detail", "allowance", "claimed"]);
    for (const field of Object.keys(frame)) {
      if (optional.has(field)) continue;
      expect(schema.safeParse({ ...frame, [field]: undefined }).success, field).toBe(false);
    }
  },
);

it("covers every frame that the four links know", () => {
  const known = [FromNode, ToNode, FromLease, ToLease].map(({ options }) =>
    options.map((option) => option.shape.t.value).sort(),
  );
  expect(links.map(({ frames }) => Object.keys(frames).sort())).toEqual(known);
});

it("lets no agent push the edge's numbers to where they cannot rise any more", () => {
  const hello = { ...head, t: "hello", attempts: [], last_seq: MAX_KNOWN_SEQ };
  expect(FromLease.safeParse(hello).success).toBe(true);
  expect(FromLease.safeParse({ ...hello, last_seq: MAX_KNOWN_SEQ + 1 }).success).toBe(false);
  expect(Number.isSafeInteger(MAX_KNOWN_SEQ * 16)).toBe(true);
});

it("holds the longest single frame that its schemas allow a log line within the limit", () => {
  const log = { ...head, t: "log", ...attempt, line: "x".repeat(4_000) };
  expect(FromLease.safeParse(log).success).toBe(true);
  expect(FromLease.safeParse({ ...log, line: "x".repeat(4_001) }).success).toBe(false);
  expect(JSON.stringify(log).length).toBeLessThan(FRAME_LIMIT);
});
