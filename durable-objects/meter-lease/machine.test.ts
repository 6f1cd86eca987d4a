import { LeaseTerms, NO_JOB, type Receipt } from "@gpux/protocol/eip712";
import { append, emptyFrontier, root } from "@gpux/protocol/merkle";
import { MAX_AMOUNT } from "@gpux/protocol/money";
import fc from "fast-check";
import { keccak256, numberToHex } from "viem";
import { describe, expect, test } from "vitest";
import { ceiling, LATE_OPENING_MS, type MeterEvent, type MeterState, step } from "./machine.ts";

const LEASE = numberToHex(7, { size: 32 });
const NODE = "0x00000000000000000000000000000000000000a9";
const NOW = 1_800_000_000_000;

const terms = LeaseTerms.parse({
  payer: "0x00000000000000000000000000000000000000a1",
  consumerSigner: "0x00000000000000000000000000000000000000a2",
  provider: "0x00000000000000000000000000000000000000a3",
  providerSigner: NODE,
  meter: "0x00000000000000000000000000000000000000a5",
  feeRecipient: "0x00000000000000000000000000000000000000a6",
  feeBps: 500,
  upfront: "100",
  unattended: "50",
  ratePerHour: "3600",
  expiry: NOW / 1000 + 3600,
  quote: numberToHex(1, { size: 32 }),
});

function receiptOf(sequence: number, price: bigint, cumulative: bigint, change: Partial<Receipt> = {}) {
  const receipt: Receipt = {
    leaseId: LEASE,
    job: numberToHex(sequence, { size: 32 }),
    sequence,
    attempt: 1,
    inputHash: numberToHex(0, { size: 32 }),
    outputHashes: [],
    node: NODE,
    gpu: "test",
    billedMs: 1000n,
    price,
    cumulative,
    endedAt: NOW / 1000,
    ...change,
  };
  return { receipt, digest: keccak256(numberToHex(BigInt(sequence) * 1_000_000n + price)) };
}

type Attest = Extract<MeterEvent, { t: "attest" }>;

/** The event an honest lease sends after `prices`, on top of what `state` holds. */
function attest(state: MeterState | null, prices: readonly bigint[], change: Partial<Attest> = {}): Attest {
  let cumulative = state?.cumulative ?? 0n;
  let frontier = state?.frontier ?? emptyFrontier();
  const receipts = prices.map((price) => {
    cumulative += price;
    const numbered = receiptOf(frontier.size + 1, price, cumulative);
    frontier = append(frontier, numbered.digest);
    return numbered;
  });
  return {
    t: "attest",
    leaseId: LEASE,
    terms,
    allowance: null,
    usage: { cumulative, evidence: root(frontier) },
    receipts,
    attested: new Map(),
    close: false,
    ...change,
  };
}

function after(state: MeterState | null, event: MeterEvent, now = NOW): MeterState {
  const result = step(state, event, now);
  if (!result.ok) throw new Error(result.code);
  return result.next;
}

describe("the meter of a lease", () => {
  const opened = after(null, { t: "open", openedAt: NOW / 1000 });
  const used = after(opened, attest(opened, [20n, 30n]));

  const overLong = attest(used, [1n]);
  const refusals: [title: string, state: MeterState, event: Attest, code: string][] = [
    [
      "less than was signed before",
      used,
      attest(used, [], { usage: { cumulative: 49n, evidence: used.evidence } }),
      "usage_decreased",
    ],
    [
      "usage beyond the receipts",
      opened,
      attest(opened, [10n], { usage: { cumulative: 11n, evidence: attest(opened, [10n]).usage.evidence } }),
      "receipt_mismatch",
    ],
    [
      "a rise with no receipt",
      used,
      attest(used, [], { usage: { cumulative: 60n, evidence: used.evidence } }),
      "receipt_mismatch",
    ],
    ["a gap between receipts", used, { ...overLong, receipts: [receiptOf(4, 1n, 51n)] }, "receipts_gap"],
    [
      "a receipt twice in one request",
      opened,
      { ...attest(opened, [10n]), receipts: [receiptOf(1, 10n, 10n), receiptOf(1, 10n, 20n)] },
      "receipts_gap",
    ],
    [
      "a receipt whose cumulative does not chain",
      used,
      { ...overLong, receipts: [receiptOf(3, 1n, 52n)] },
      "receipt_mismatch",
    ],
    [
      "a receipt of another lease",
      used,
      { ...overLong, receipts: [receiptOf(3, 1n, 51n, { leaseId: numberToHex(8, { size: 32 }) })] },
      "receipt_mismatch",
    ],
    [
      "a receipt of another node",
      used,
      { ...overLong, receipts: [receiptOf(3, 1n, 51n, { node: terms.payer })] },
      "receipt_mismatch",
    ],
    [
      "a receipt that differs from the attested one",
      used,
      attest(used, [], { receipts: [receiptOf(1, 20n, 20n)], attested: new Map([[1, LEASE]]) }),
      "receipt_mismatch",
    ],
    [
      "evidence that is not the receipts' root",
      used,
      { ...overLong, usage: { cumulative: 51n, evidence: LEASE } },
      "evidence_mismatch",
    ],
    ["more than unattended without an allowance", used, attest(used, [1n]), "above_allowance"],
    ["more than the allowance", used, attest(used, [11n], { allowance: 60n }), "above_allowance"],
    ["more than terms and time", used, attest(used, [51n], { allowance: MAX_AMOUNT }), "above_terms"],
    [
      "a rise after close",
      after(used, attest(used, [], { close: true })),
      attest(used, [1n], { allowance: 60n }),
      "lease_closed",
    ],
  ];
  test.each(refusals)("does not sign %s", (_title, state, event, code) => {
    expect(step(state, event, NOW)).toMatchObject({ ok: false, code });
  });

  test("signs up to unattended, and beyond it up to the allowance", () => {
    expect(used.cumulative).toBe(50n);
    expect(after(used, attest(used, [10n], { allowance: 60n })).cumulative).toBe(60n);
  });

  test("answers a repeated request as before, also after time, allowance and close have gone", () => {
    const event = attest(opened, [20n, 30n]);
    const attested = new Map(event.receipts.map(({ receipt, digest }) => [receipt.sequence, digest]));
    const closed = after(used, attest(used, [], { close: true }));
    expect(step(closed, { ...event, attested }, NOW + 1e9)).toEqual({ ok: true, next: closed, added: [] });
  });

  test("an unused lease closes at nothing", () => {
    expect(after(null, attest(null, [], { close: true })).closedAt).toBe(0n);
  });

  test("the clock starts at the opening block, at most two minutes before the meter heard of it", () => {
    const at = (openedAt: number, later: number) =>
      ceiling(after(null, { t: "open", openedAt }), terms, NOW + later) - terms.upfront;
    expect(at(NOW / 1000 - 10, 0)).toBe(10n);
    expect(at(0, 0)).toBe(BigInt(LATE_OPENING_MS / 1000));
    expect(at(NOW / 1000 + 5, 2_000)).toBe(0n);
    expect(at(NOW / 1000, 1e9)).toBe(3600n);
    expect(ceiling(after(null, attest(null, [])), terms, NOW + 7_000)).toBe(107n);
  });

  test("the first opening counts", () => {
    expect(after(opened, { t: "open", openedAt: 0 }).openedAt).toBe(NOW / 1000);
  });

  test("upfront at its maximum means no cap by time", () => {
    const event = attest(opened, [10_000_000n], {
      terms: { ...terms, upfront: MAX_AMOUNT },
      allowance: MAX_AMOUNT,
    });
    expect(after(opened, event).cumulative).toBe(10_000_000n);
  });
});

test("whatever is asked, usage never falls, never leaves its receipts, and rises only within terms and allowance", () => {
  const request = fc.record({
    prices: fc.array(fc.bigInt({ min: 0n, max: 90n }), { maxLength: 3 }),
    skew: fc.constantFrom(0n, 0n, 0n, 1n, -1n),
    allowance: fc.option(fc.bigInt({ min: 0n, max: 4_000n }), { nil: null }),
    close: fc.nat(9).map((one) => one === 0),
    wait: fc.integer({ min: 0, max: 600_000 }),
    replay: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(request, { maxLength: 20 }), (requests) => {
      let now = NOW;
      let state = after(null, { t: "open", openedAt: NOW / 1000 });
      const digests = new Map<number, `0x${string}`>();
      let last: Attest | null = null;
      for (const { prices, skew, allowance, close, wait, replay } of requests) {
        now += wait;
        const honest = attest(state, prices, { allowance, close });
        const event: Attest =
          replay && last !== null
            ? { ...last, attested: digests }
            : { ...honest, usage: { ...honest.usage, cumulative: honest.usage.cumulative + skew } };
        const result = step(state, event, now);
        if (!result.ok) continue;
        expect(result.next.cumulative).toBeGreaterThanOrEqual(state.cumulative);
        expect(result.next.cumulative).toBe(event.usage.cumulative);
        expect(result.next.frontier.size).toBe(state.frontier.size + result.added.length);
        if (result.next.cumulative > state.cumulative) {
          expect(result.next.cumulative).toBeLessThanOrEqual(ceiling(state, terms, now));
          const allowed = event.allowance ?? 0n;
          expect(result.next.cumulative).toBeLessThanOrEqual(allowed > 50n ? allowed : 50n);
          expect(state.closedAt).toBeNull();
        }
        for (const { sequence, digest } of result.added) digests.set(sequence, digest);
        state = result.next;
        last = event;
      }
    }),
  );
});

describe("the meter of a dedicated lease", () => {
  const dedicated = { ...terms, unattended: MAX_AMOUNT };
  const opened = after(null, { t: "open", openedAt: NOW / 1000 });
  /** The next minute: 60 base units, by a receipt of no job. */
  const minute = (state: MeterState, change: Partial<Receipt> = {}) => {
    const event = attest(state, [60n], { terms: dedicated });
    const receipts = event.receipts.map(({ receipt, digest }) => {
      return { receipt: { ...receipt, job: NO_JOB, billedMs: 60_000n, ...change }, digest };
    });
    return { ...event, receipts };
  };

  test("MTR-5 signs for time without the consumer's word, as the clock and the terms allow", () => {
    const first = after(opened, minute(opened), NOW + 60_000);
    const second = after(first, minute(first), NOW + 120_000);
    expect(second).toMatchObject({ cumulative: 120n, frontier: { size: 2 } });
  });

  test("MTR-5 signs for no time that has not gone by", () => {
    const first = after(opened, minute(opened), NOW + 60_000);
    // What is due at once (100) pays for a minute and 40 s ahead.
    const second = after(first, minute(first), NOW + 60_000);
    expect(step(second, minute(second), NOW + 60_000)).toMatchObject({ ok: false, code: "above_terms" });
    expect(step(second, minute(second), NOW + 80_000)).toMatchObject({ ok: true });
  });

  test("MTR-5 signs for no time of a lease that needs the consumer's word, beyond that word", () => {
    const event = { ...minute(opened), terms };
    expect(step(opened, event, NOW + 60_000)).toMatchObject({ ok: false, code: "above_allowance" });
    expect(step(opened, { ...event, allowance: 60n }, NOW + 60_000)).toMatchObject({ ok: true });
  });
});
