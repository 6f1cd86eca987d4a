import { NO_JOB, Receipt } from "@gpux/protocol/eip712";
import { LeaseId } from "@gpux/protocol/ids";
import { JobView } from "@gpux/protocol/job";
import { TickView } from "@gpux/protocol/lease";
import { MAX_AMOUNT } from "@gpux/protocol/money";
import { expect, it } from "vitest";
import { createClient } from "./client.ts";
import { type ReceiptContext, verifyKept, verifyReceipt, verifyTick } from "./receipt.ts";
import { consumer, quoteAt, settlement, signedReceipt } from "./testing/market.ts";
import { createScriptedEdge } from "./testing/scripted-edge.ts";

async function setUp() {
  const edge = createScriptedEdge();
  const autoOpen = { maxAmount: 1_000_000n };
  const client = createClient({ url: "https://edge.test", account: consumer, autoOpen, fetch: edge.fetch });
  const request = { function: "ab".repeat(32), inputs: { n: { number: 8 } } };
  const job = await client.jobs.create({ ...request, max_price: 50_000n }, { wait: 5 });
  const { chain_id: chainId, escrow } = settlement;
  const context: ReceiptContext = { chainId, escrow, terms: edge.quote.terms, request };
  return { job, context };
}

it("passes a receipt that says what the job says and has both signatures", async () => {
  const { job, context } = await setUp();
  expect(await verifyReceipt(job, context)).toMatchObject({
    ok: true,
    receipt: { price: 40_000n, sequence: 1 },
  });
});

it("CKP-2 passes a receipt of each attempt that is paid, and they make up what the job cost", async () => {
  const { job, context } = await setUp();
  const { receipt: last, ...rest } = job;
  if (last === undefined) throw new Error("the scripted edge gave no receipt");
  const plain = Receipt.parse(last.receipt);
  const kept = await signedReceipt({ ...plain, outputHashes: [], attempt: 1 });
  const attempts = JobView.shape.attempts.parse([
    { n: 1, node: job.node, outcome: "yielded", paid: "40000", billed_ms: job.billed_ms, receipt: kept },
    { n: 2, node: job.node, outcome: "succeeded", paid: "40000" },
  ]);
  const both = { ...rest, receipt: last, attempts, price: 80_000n, billed_ms: 2 * job.billed_ms };
  expect(await verifyReceipt(both, context)).toMatchObject({ ok: true });
  expect(await verifyKept(both, context)).toMatchObject([{ ok: true, receipt: { attempt: 1 } }]);
  expect(await verifyReceipt({ ...both, price: 80_001n }, context)).toMatchObject({ code: "price_mismatch" });
  const [first, second] = attempts;
  if (first === undefined || second === undefined) throw new Error("there are two");
  const told = (change: Partial<typeof first>) => ({ ...both, attempts: [{ ...first, ...change }, second] });
  expect(await verifyKept(told({ paid: 1n }), context)).toMatchObject([{ code: "price_mismatch" }]);
  expect(await verifyKept(told({ billed_ms: 1 }), context)).toMatchObject([{ code: "price_mismatch" }]);
  expect(await verifyKept(told({ n: 3 }), context)).toMatchObject([{ code: "job_mismatch" }]);
  expect(await verifyKept(job, context)).toEqual([]);
});

it("JOB-11 of a job that has moved each lease's receipts pass by that lease's terms", async () => {
  const { job, context } = await setUp();
  const { receipt: last, ...rest } = job;
  if (last === undefined) throw new Error("the scripted edge gave no receipt");
  const elsewhere = LeaseId.parse(`lse_${"b".repeat(32)}`);
  const plain = Receipt.parse(last.receipt);
  const kept = await signedReceipt({ ...plain, outputHashes: [], attempt: 1 });
  const attempts = JobView.shape.attempts.parse([
    {
      n: 1,
      node: job.node,
      lease_id: job.lease_id,
      outcome: "yielded",
      paid: "40000",
      billed_ms: job.billed_ms,
      receipt: kept,
    },
  ]);
  // It began on the lease of these terms and ended on another.
  const moved = { ...rest, receipt: last, attempts, lease_id: elsewhere, price: 80_000n };
  expect(await verifyKept(moved, context)).toMatchObject([{ ok: true, receipt: { attempt: 1 } }]);
  expect(await verifyReceipt(moved, context)).toMatchObject({ code: "lease_mismatch" });
  // And the other way about: what was paid on another lease is for that one's terms to judge.
  const came = {
    ...moved,
    lease_id: job.lease_id,
    attempts: attempts.map((a) => ({ ...a, lease_id: elsewhere })),
  };
  expect(await verifyKept(came, context)).toEqual([]);
  expect(await verifyReceipt({ ...came, billed_ms: 2 * job.billed_ms }, context)).toMatchObject({ ok: true });
});

const OTHER = `0x${"0d".repeat(20)}` as const;
type Change = (job: JobView, context: ReceiptContext) => [JobView, ReceiptContext];
const receiptOf = (job: JobView) => {
  if (job.receipt === undefined) throw new Error("the scripted edge gave no receipt");
  return job.receipt;
};

const BAD: [code: string, what: string, change: Change][] = [
  ["receipt_missing", "no receipt", ({ receipt: _, ...job }, context) => [job, context]],
  [
    "receipt_invalid",
    "a receipt without a price",
    (job, context) => [{ ...job, receipt: { ...receiptOf(job), receipt: {} } }, context],
  ],
  [
    "lease_mismatch",
    "other terms",
    (job, context) => [job, { ...context, terms: { ...context.terms, upfront: 1n } }],
  ],
  ["lease_mismatch", "another chain", (job, context) => [job, { ...context, chainId: 10 }]],
  ["lease_mismatch", "another contract", (job, context) => [job, { ...context, escrow: OTHER }]],
  [
    "job_mismatch",
    "another job",
    (job, context) => [{ ...job, id: JobView.shape.id.parse(job.id.replace(/.$/, "z")) }, context],
  ],
  [
    "input_mismatch",
    "other inputs",
    (job, context) => [job, { ...context, request: { function: job.function, inputs: {} } }],
  ],
  [
    "output_mismatch",
    "another output",
    (job, context) => [
      { ...job, outputs: job.outputs.map((output) => ({ ...output, sha256: "00".repeat(32) })) },
      context,
    ],
  ],
  ["output_mismatch", "an output less", (job, context) => [{ ...job, outputs: [] }, context]],
  ["price_mismatch", "another price", (job, context) => [{ ...job, price: 40_001n }, context]],
  ["price_mismatch", "another time", (job, context) => [{ ...job, billed_ms: 41 }, context]],
  [
    "provider_signature_invalid",
    "the edge's signature in the node's place",
    (job, context) => [
      { ...job, receipt: { ...receiptOf(job), provider_signature: receiptOf(job).edge_signature ?? "0x" } },
      context,
    ],
  ],
  [
    "not_settled",
    "nothing that the node and the edge signed yet",
    (job, context) => [
      {
        ...job,
        receipt: {
          ...receiptOf(job),
          usage: null,
          proof: null,
          provider_signature: null,
          edge_signature: null,
        },
      },
      context,
    ],
  ],
  [
    "proof_invalid",
    "a proof that leads elsewhere",
    (job, context) => [{ ...job, receipt: { ...receiptOf(job), proof: [`0x${"00".repeat(32)}`] } }, context],
  ],
  [
    "proof_invalid",
    "a usage below the receipt",
    (job, context) => {
      const { usage, ...receipt } = receiptOf(job);
      return [
        { ...job, receipt: { ...receipt, usage: usage && { ...usage, cumulative: 39_999n } } },
        context,
      ];
    },
  ],
  [
    "provider_signature_invalid",
    "another usage than was signed",
    (job, context) => {
      const { usage, ...receipt } = receiptOf(job);
      return [
        { ...job, receipt: { ...receipt, usage: usage && { ...usage, cumulative: 40_000n } } },
        context,
      ];
    },
  ],
  [
    "lease_mismatch",
    "a job that says it ran on another lease",
    (job, context) => [{ ...job, lease_id: JobView.shape.lease_id.parse(`lse_${"z".repeat(32)}`) }, context],
  ],
  [
    "edge_signature_invalid",
    "the node's signature in the edge's place",
    (job, context) => [
      { ...job, receipt: { ...receiptOf(job), edge_signature: receiptOf(job).provider_signature } },
      context,
    ],
  ],
];

it.each(BAD)("answers %s to %s", async (code, _, change) => {
  const { job, context } = await setUp();
  expect(await verifyReceipt(...change(job, context))).toMatchObject({ ok: false, code });
});

const NOW = 1_800_000_000_000;

/** The first minute of a dedicated lease at one base unit a millisecond. */
async function tickWith(change: Partial<Receipt> = {}) {
  const { terms, lease_hash } = quoteAt(NOW, {
    text: { mode: "dedicated" },
    terms: { unattended: MAX_AMOUNT },
  });
  const receipt: Receipt = {
    leaseId: lease_hash,
    job: NO_JOB,
    sequence: 1,
    attempt: 2,
    inputHash: terms.quote,
    outputHashes: [],
    node: terms.providerSigner,
    gpu: "SWIFTSHADER",
    billedMs: 60_000n,
    price: 60_000n,
    cumulative: 60_000n,
    endedAt: NOW / 1_000,
    ...change,
  };
  const tick = TickView.parse({
    id: "1",
    object: "tick",
    from: new Date(NOW - 60_000).toISOString(),
    to: new Date(NOW).toISOString(),
    served_ms: Number(receipt.billedMs),
    price: receipt.price.toString(),
    receipt: await signedReceipt(receipt),
  });
  return { tick, context: { chainId: settlement.chain_id, escrow: settlement.escrow, terms } };
}

it("passes time that costs what the terms say and that both have signed for", async () => {
  const { tick, context } = await tickWith();
  expect(await verifyTick(tick, 0n, context)).toMatchObject({ ok: true, receipt: { billedMs: 60_000n } });
});

it.each<[code: string, what: string, change: Partial<Receipt>]>([
  ["price_mismatch", "time that costs more", { price: 60_001n, cumulative: 60_001n }],
  ["job_mismatch", "a job's receipt", { job: `0x${"12".repeat(32)}` }],
  ["input_mismatch", "time of what was not reserved", { inputHash: `0x${"12".repeat(32)}` }],
  ["lease_mismatch", "time of another lease", { leaseId: `0x${"12".repeat(32)}` }],
])("answers %s to %s", async (code, _, change) => {
  const { tick, context } = await tickWith(change);
  expect(await verifyTick(tick, 0n, context)).toMatchObject({ ok: false, code });
});

it("answers price_mismatch to time whose view says other than its receipt", async () => {
  const { tick, context } = await tickWith();
  const changed = { ...tick, served_ms: 59_000 };
  expect(await verifyTick(changed, 0n, context)).toMatchObject({ ok: false, code: "price_mismatch" });
});
