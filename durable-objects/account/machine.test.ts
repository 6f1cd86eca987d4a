import type { JobId, LeaseId } from "@gpux/protocol/ids";
import { jobIdOf, leaseIdOf, OrderId } from "@gpux/protocol/ids";
import type { QuoteText } from "@gpux/protocol/lease";
import { Demand } from "@gpux/protocol/resources";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { scopeOf } from "../request-scope.ts";
import {
  type AccountLease,
  candidates,
  fits,
  type KeyEntry,
  type KeyEvent,
  openQuotes,
  placesFor,
  stepKey,
} from "./machine.ts";

const lease = (n: number): LeaseId =>
  leaseIdOf(`0x${n.toString(16).padStart(64, "0").split("").reverse().join("")}`);
const job = (n: number): JobId => jobIdOf(lease(n), new Uint8Array(16).fill(n));
const chosen = (n: number) => ({ job: job(n), lease: lease(n) });
const pending: KeyEntry = { bodyHash: "a", state: "pending", chosen: null, since: 1_000 };
const done: KeyEntry = { ...pending, state: "done", chosen: chosen(1) };

const begin = (bodyHash: string, underway = false): KeyEvent => ({ t: "begin", bodyHash, underway });

test.each<[string, KeyEntry | null, KeyEvent, number, ReturnType<typeof stepKey>]>([
  ["a new key begins", null, begin("a"), 1_000, { ok: true, next: pending, replay: null }],
  [
    "another body under a running key is refused",
    pending,
    begin("b"),
    1_001,
    refused("idempotency_key_reused"),
  ],
  [
    "another body under a finished key is refused",
    done,
    begin("b"),
    1_001,
    refused("idempotency_key_reused"),
  ],
  [
    "the same body while the first runs must wait",
    pending,
    begin("a", true),
    1_001,
    refused("idempotency_in_progress"),
  ],
  [
    "a first request that was cut off is taken over at once, with the lease that it chose",
    { ...pending, chosen: chosen(2) },
    begin("a"),
    1_001,
    {
      ok: true,
      next: { ...pending, chosen: chosen(2), since: 1_001 },
      replay: null,
    },
  ],
  [
    "a finished key answers with its job",
    done,
    begin("a"),
    2_000,
    { ok: true, next: done, replay: chosen(1) },
  ],
  [
    "the chosen lease is remembered before it is asked",
    pending,
    { t: "choose", chosen: chosen(1) },
    1_001,
    { ok: true, next: { ...pending, chosen: chosen(1) }, replay: null },
  ],
  ["a refusal frees the key", pending, { t: "refused" }, 1_001, { ok: true, next: null, replay: null }],
  [
    "a finished key never changes",
    done,
    { t: "choose", chosen: chosen(2) },
    1_001,
    { ok: true, next: done, replay: null },
  ],
])("%s", (_, entry, event, now, expected) => {
  expect(stepKey(entry, event, now)).toEqual(expected);
});

function refused(code: "idempotency_key_reused" | "idempotency_in_progress") {
  return { ok: false, code } as const;
}

test("a key stands for one body and one job, whatever happens in whatever order", () => {
  const event = fc.oneof(
    fc.tuple(fc.constantFrom("a", "b"), fc.boolean()).map(([hash, underway]) => begin(hash, underway)),
    fc.nat(3).map((n): KeyEvent => ({ t: "choose", chosen: chosen(n) })),
    fc.nat(3).map((n): KeyEvent => ({ t: "succeeded", chosen: chosen(n) })),
    fc.constant<KeyEvent>({ t: "refused" }),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(event, fc.nat(40_000)), { maxLength: 40 }), (events) => {
      let now = 0;
      let entry: KeyEntry | null = null;
      let promised: JobId | null = null;
      for (const [each, pause] of events) {
        now += pause;
        const step: ReturnType<typeof stepKey> = stepKey(entry, each, now);
        if (!step.ok) {
          expect(each.t).toBe("begin");
          continue;
        }
        if (entry?.state === "done") expect(step.next).toBe(entry);
        if (step.replay !== null) {
          promised ??= step.replay.job;
          expect(step.replay.job).toBe(promised);
        }
        entry = step.next;
      }
    }),
  );
});

test("ids, keys and nonces of the same text do not meet", () => {
  const names = [
    scopeOf("same-text", null, "n"),
    scopeOf(null, "same-text", "n"),
    scopeOf(null, null, "same-text"),
  ];
  expect(new Set(names).size).toBe(3);
});

const text: QuoteText = {
  node: `0x${"ab".repeat(20)}`,
  gpus: [
    {
      model: "RTX_4090",
      reported: "RTX 4090",
      vram_mb: 24_000,
      driver: "1",
      backend: "vulkan",
      software: false,
    },
  ],
  resources: { gpus: 1, cpu: 4, memory_gb: 16 },
  prices: { gpu_hour: "1000000", core_hour: "0", gb_hour: "0" },
  tier: "firm",
  mode: "serverless",
  region: "eu-west",
  tick_s: 60,
  salt: `0x${"01".repeat(32)}`,
};

test.each([
  ["nothing asked", {}, true],
  ["its model", { gpu_model: "RTX_4090" }, true],
  ["another model", { gpu_model: "H100" }, false],
  ["more memory than it bought", { resources: { memory_gb: 17 } }, false],
  ["more GPUs than it bought", { resources: { gpus: 2 } }, false],
  ["another region", { region: "us-east" }, false],
  ["another node", { node: `0x${"cd".repeat(20)}` }, false],
  ["a lower price", { max_rate_per_hour: "999999" }, false],
  ["its very price", { max_rate_per_hour: "1000000" }, true],
])("a warm lease and a demand for %s: %o", (_, demand, expected) => {
  expect(fits(text, Demand.parse(demand))).toBe(expected);
});

const row = (n: number, phase: AccountLease["phase"]): AccountLease => ({
  id: lease(n),
  phase,
  text,
  expiresAt: 10_000,
  createdAt: n,
  order: null,
});

test("warm leases are tried newest first, without those that are over", () => {
  const leases = [row(1, "open"), row(2, "quoted"), row(3, "open"), row(4, "ended")];
  const demand = Demand.parse({});
  expect(candidates(leases, { demand }, null, 0)).toEqual([lease(3), lease(1)]);
  expect(candidates(leases, { demand }, null, 10_000)).toEqual([]);
  expect(candidates(leases, { demand }, lease(1), 0)).toEqual([lease(1), lease(3)]);
  expect(candidates(leases, { demand, lease: lease(9) }, null, 0)).toEqual([lease(9)]);
});

test("POOL-1 a lease whose node is there is tried first, then one that keeps its GPUs, then the cheapest", () => {
  const cheap = { ...text, prices: { ...text.prices, gpu_hour: "900000" } };
  const leases = [{ ...row(1, "open"), text: cheap }, row(2, "open"), row(3, "open"), row(4, "open")];
  const standing = new Map([
    [lease(2), "attached"],
    [lease(3), "held"],
  ] as const);
  const demand = Demand.parse({});
  expect(candidates(leases, { demand }, null, 0)).toEqual([1, 4, 3, 2].map(lease));
  expect(candidates(leases, { demand }, null, 0, standing)).toEqual([2, 3, 1, 4].map(lease));
  expect(candidates(leases, { demand }, lease(4), 0, standing)).toEqual([4, 2, 3, 1].map(lease));
});

test("quotes of an order count with it, not one by one", () => {
  const order = OrderId.parse(`ord_${"a".repeat(32)}`);
  expect(openQuotes([row(1, "quoted"), { ...row(2, "quoted"), order }], 0)).toBe(1);
});

test("lapsed quotes do not count as open", () => {
  const leases = [row(1, "open"), row(2, "quoted"), { ...row(3, "quoted"), expiresAt: 5_000 }];
  expect([0, 5_000, 10_000].map((now) => openQuotes(leases, now))).toEqual([2, 1, 0]);
});

describe("JOB-11 the leases that may take over what waits on another", () => {
  const from = row(1, "open");
  const on = (
    n: number,
    change: Partial<QuoteText> = {},
    over: Partial<AccountLease> = {},
  ): AccountLease => ({
    ...row(n, "open"),
    text: { ...text, node: `0x${n.toString(16).padStart(40, "0")}`, ...change },
    ...over,
  });
  const places = (...others: AccountLease[]) => placesFor(from, [from, ...others], 0);

  test("are open ones on other nodes, cheapest first, then the newest", () => {
    const cheap = { prices: { ...text.prices, gpu_hour: "900000" } };
    expect(places(on(2), on(3), on(4, cheap))).toEqual([4, 3, 2].map(lease));
    expect(places(on(2, { node: text.node }), on(3, {}, { phase: "quoted" }))).toEqual([]);
    expect(placesFor(from, [on(2)], 10_000)).toEqual([]);
    expect(placesFor(null, [on(2)], 0)).toEqual([]);
  });

  test.each<[string, Partial<QuoteText>]>([
    ["another card", { gpus: text.gpus.map((gpu) => ({ ...gpu, model: "RTX_3090" })) }],
    ["less memory on the card", { gpus: text.gpus.map((gpu) => ({ ...gpu, vram_mb: 12_000 })) }],
    ["fewer cores", { resources: { ...text.resources, cpu: 2 } }],
    ["another region", { region: "us-east" }],
    ["a tier that gives way", { tier: "yieldable" }],
    ["wall-clock billing", { mode: "dedicated" }],
  ])("are none with %s", (_, change) => {
    expect(places(on(2, change))).toEqual([]);
  });

  test("are firm ones too for a yieldable one, and none for a dedicated one or for one of an order", () => {
    const order = OrderId.parse(`ord_${"a".repeat(32)}`);
    const by = (change: Partial<QuoteText>, over: Partial<AccountLease> = {}) =>
      placesFor({ ...from, text: { ...text, ...change }, ...over }, [on(2), on(3, {}, { order })], 0);
    expect(by({ tier: "yieldable" })).toEqual([lease(2)]);
    expect(by({ mode: "dedicated" })).toEqual([]);
    expect(by({}, { order })).toEqual([]);
  });

  test("are as strongly isolated, with the same features and model", () => {
    const strong = { isolation: "vm", features: ["webgpu"], models: ["llama-3.1-8b"] } as const;
    const by = {
      ...from,
      text: { ...text, ...strong, features: [...strong.features], models: [...strong.models] },
    };
    expect(placesFor(by, [on(2), on(3, { ...by.text, node: on(3).text.node })], 0)).toEqual([lease(3)]);
  });
});
