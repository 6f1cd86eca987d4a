import { CLOSE, FromNode, type ToNode } from "@gpux/protocol/frames";
import { Address, type LeaseId, leaseIdOf } from "@gpux/protocol/ids";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { HoldRequest } from "../interfaces.ts";
import { standingOf } from "../presence.ts";
import type { NodeEffect, NodeEvent } from "./event.ts";
import { publicationOf, SILENCE_MS, step } from "./machine.ts";
import { dueAt, entryOf, freeCapacity, freeGpus, type NodeState, statusOf, unknownNode } from "./state.ts";

const node = Address.parse(`0x${"aa".repeat(20)}`);
const provider = Address.parse(`0x${"bb".repeat(20)}`);
const other = Address.parse(`0x${"cc".repeat(20)}`);
const lease = (n: number): LeaseId => leaseIdOf(`0x${n.toString(16).padStart(2, "0").repeat(32)}`);

const gpu = {
  model: "RTX_4090",
  reported: "RTX 4090",
  vram_mb: 24_000,
  driver: "1",
  backend: "vulkan",
  software: false,
};
const offer = {
  gpus: [gpu, gpu],
  cpu: 8,
  memory_gb: 32,
  region: "eu-west",
  prices: { gpu_hour: "3600", core_hour: "0", gb_hour: "0" },
  concurrency: 1,
  yieldable: { gpu_hour: "3600", core_hour: "0", gb_hour: "0" },
};

function frame(seq: number, ack: number, body: object): FromNode {
  return FromNode.parse({ v: 1, seq, ack, ...body });
}
const hello = (ack = 0, change: object = {}) =>
  frame(0, ack, {
    t: "hello",
    agent_version: "1.0.0",
    provider,
    offer,
    leases: [],
    draining: false,
    ...change,
  });

function request(
  n: number,
  change: {
    gpus?: number;
    cpu?: number;
    memory_gb?: number;
    cards?: (typeof gpu)[];
    rate?: bigint;
    provider?: Address;
    expiresAt?: number;
    tier?: "firm" | "yieldable";
  } = {},
) {
  const cards = change.cards ?? Array.from({ length: change.gpus ?? 1 }, () => gpu);
  const resources = { gpus: cards.length, cpu: change.cpu ?? 0, memory_gb: change.memory_gb ?? 0 };
  const hold: HoldRequest = {
    lease: lease(n),
    expiresAt: change.expiresAt ?? 30_000,
    terms: {
      payer: other,
      consumerSigner: other,
      provider: change.provider ?? provider,
      providerSigner: node,
      meter: other,
      feeRecipient: other,
      feeBps: 0,
      upfront: 60n,
      unattended: 0n,
      ratePerHour: change.rate ?? 3_600n * BigInt(resources.gpus),
      expiry: 3_600,
      quote: `0x${"01".repeat(32)}`,
    },
    text: {
      node,
      gpus: cards,
      resources,
      prices: { gpu_hour: "3600", core_hour: "0", gb_hour: "0" },
      tier: change.tier ?? "firm",
      mode: "serverless",
      region: "eu-west",
      tick_s: 60,
      salt: `0x${"02".repeat(32)}`,
    },
  };
  return hold;
}

/** Runs events from a node never seen; refusals leave the state and are noted among the effects. */
function run(events: readonly (readonly [NodeEvent, number])[], from: NodeState = unknownNode(node)) {
  let state = from;
  const effects: NodeEffect[] = [];
  const refusals: string[] = [];
  for (const [event, now] of events) {
    const result = step(state, event, now);
    if (!result.ok) refusals.push(result.code);
    else {
      state = result.next;
      effects.push(...result.effects);
    }
  }
  return { state, effects, refusals, sent: effects.flatMap((e) => (e.t === "send" ? [e.frame] : [])) };
}

const connected = (connection: string): NodeEvent => ({ t: "connected", connection });
const from = (connection: string, frame: FromNode): NodeEvent => ({ t: "frame", connection, frame });
const online: [NodeEvent, number][] = [
  [connected("a"), 1],
  [from("a", hello()), 2],
];
const held: [NodeEvent, number][] = [
  ...online,
  [{ t: "hold", request: request(1) }, 3],
  [from("a", frame(1, 1, { t: "held", hold: lease(1) })), 4],
];
const opened: [NodeEvent, number][] = [
  ...held,
  [{ t: "reserve", lease: lease(1), until: 600_000 }, 5],
  [{ t: "open", lease: lease(1), terms: request(1).terms }, 6],
];
const kinds = (frames: readonly ToNode[]) => frames.map((each) => each.t);

test("a node is offline until its hello, and again when its socket goes", () => {
  expect(statusOf(run(online.slice(0, 1)).state)).toBe("offline");
  expect(statusOf(run(online).state)).toBe("online");
  expect(statusOf(run([...online, [{ t: "disconnected", connection: "a" }, 3]]).state)).toBe("offline");
});

test("MKT-6 presence is written when the node comes or goes, and says nothing of time that nobody saw", () => {
  const minute = 60_000;
  const share = (events: [NodeEvent, number][], now: number) => {
    const { state } = run(events);
    const { reliability, observedMs } = standingOf(state.presence, statusOf(state) !== "offline", now);
    return [reliability, observedMs];
  };
  const back = (at: number): [NodeEvent, number][] => [
    [connected("b"), at],
    [from("b", hello()), at],
  ];
  const gone: NodeEvent = { t: "disconnected", connection: "a" };
  const heard: NodeEvent = { t: "heartbeat", at: minute };
  expect(share(online, 2 + minute)).toEqual([10_000, minute]);
  expect(share([...online, [gone, 2 + minute], ...back(2 + 2 * minute)], 2 + 4 * minute)).toEqual([
    7_500,
    4 * minute,
  ]);
  // Silent since its last ping, so away since then.
  expect(share([...online, [heard, 2 * minute], [heard, 4 * minute]], 4 * minute)).toEqual([
    Math.floor(((minute - 2) / (4 * minute - 2)) * 10_000),
    4 * minute - 2,
  ]);
  const lost: NodeEvent = { ...gone, lost: true };
  expect(share([...online, [heard, minute], [lost, 9 * minute], ...back(9 * minute)], 10 * minute)).toEqual([
    10_000,
    2 * minute - 2,
  ]);
  const { state } = run(online);
  expect(run([[{ t: "heartbeat", at: 50 }, 60]], state).state.presence).toBe(state.presence);
});

test("hello is answered by welcome with the leases that are open", () => {
  const again = run([...opened, [connected("b"), 7], [from("b", hello(2)), 8]]);
  expect(again.sent.filter((each) => each.t === "welcome").at(-1)).toMatchObject({
    seq: 0,
    leases: [lease(1)],
  });
});

test("a newer connection replaces the older, whose frames and end no longer count", () => {
  const { state, effects } = run([
    ...online,
    [connected("b"), 3],
    [from("b", hello()), 4],
    [from("a", frame(1, 0, { t: "drain", deadline_s: 0 })), 5],
    [{ t: "disconnected", connection: "a" }, 6],
  ]);
  expect(statusOf(state)).toBe("online");
  expect(effects).toContainEqual({
    t: "close_others",
    connection: "b",
    code: CLOSE.replaced,
    reason: "replaced",
  });
});

test("a hold is confirmed by the agent, and its GPUs are taken", () => {
  const { state, effects, sent } = run(held);
  expect(freeGpus(state)).toBe(1);
  expect(effects).toContainEqual({ t: "answer", lease: lease(1), outcome: { ok: true } });
  expect(sent.find((each) => each.t === "hold")).toMatchObject({ seq: 1, hold: lease(1) });
  expect(state.unacknowledged).toEqual([]);
});

test.each<[string, [NodeEvent, number][], HoldRequest, string]>([
  ["a node never seen", [], request(1), "node_unknown"],
  [
    "a node that is away",
    [...online, [{ t: "disconnected", connection: "a" }, 3]],
    request(1),
    "node_offline",
  ],
  ["more GPUs than it has", online, request(1, { gpus: 3 }), "no_capacity"],
  ["GPUs that are held", held, request(2, { gpus: 2 }), "no_capacity"],
  ["more cores than it has", online, request(1, { cpu: 9 }), "no_capacity"],
  ["more memory than it has", online, request(1, { memory_gb: 33 }), "no_capacity"],
  ["a card that it has not", online, request(1, { cards: [{ ...gpu, model: "A100" }] }), "no_capacity"],
  ["a rate below its prices", online, request(1, { rate: 3_599n }), "no_capacity"],
  [
    "a start below its price",
    [
      [connected("a"), 1],
      [from("a", hello(0, { offer: { ...offer, start_price: "600" } })), 2],
    ],
    request(1),
    "no_capacity",
  ],
  ["another payout address", online, request(1, { provider: other }), "no_capacity"],
  ["a quote that has lapsed", online, request(1, { expiresAt: 10 }), "quote_expired"],
  [
    "a node that drains",
    [...online, [from("a", frame(1, 0, { t: "drain", deadline_s: 0 })), 3]],
    request(1),
    "no_capacity",
  ],
])("a hold of %s is refused and changes nothing", (_, events, hold, code) => {
  const { state } = run(events);
  expect(step(state, { t: "hold", request: hold }, 20)).toMatchObject({ ok: false, code });
});

test("QTE-4 cores and memory are held and freed as GPUs are", () => {
  const most = { cpu: 8, memory_gb: 32 };
  const { state } = run([...online, [{ t: "hold", request: request(1, most) }, 3]]);
  expect(freeCapacity(state)).toMatchObject({ cpu: 0, memory_gb: 0 });
  for (const kind of ["cpu", "memory_gb"] as const)
    expect(step(state, { t: "hold", request: request(2, { [kind]: 1 }) }, 4)).toMatchObject({
      code: "no_capacity",
      detail: expect.stringContaining(kind),
    });
  const released = run([[{ t: "release", lease: lease(1) }, 5]], state).state;
  expect(freeCapacity(released)).toMatchObject(most);
});

test("QTE-4 of a mixed node each card is sold once, whatever else is free", () => {
  const a100 = { ...gpu, model: "A100" };
  const mixed = hello(0, { offer: { ...offer, gpus: [gpu, a100, gpu] } });
  const { state } = run([
    [connected("a"), 1],
    [from("a", mixed), 2],
    [{ t: "hold", request: request(1, { cards: [a100] }) }, 3],
  ]);
  const ask = (n: number, cards: (typeof gpu)[]) =>
    step(state, { t: "hold", request: request(n, { cards }) }, 4);
  expect(freeCapacity(state).gpus).toEqual([gpu, gpu]);
  expect(ask(2, [a100])).toMatchObject({ code: "no_capacity" });
  expect(ask(2, [gpu, a100])).toMatchObject({ code: "no_capacity" });
  expect(ask(2, [gpu, gpu])).toMatchObject({ ok: true });
});

test("QTE-6 a node that has gone since it confirmed is not reserved; one that was reserved before stays so", () => {
  const reserve: NodeEvent = { t: "reserve", lease: lease(1), until: 600_000 };
  const left: [NodeEvent, number] = [{ t: "disconnected", connection: "a" }, 5];
  expect(step(run([...held, left]).state, reserve, 6)).toMatchObject({ code: "node_offline" });
  const reserved = run([...held, [reserve, 5], left]).state;
  expect(step(reserved, reserve, 6)).toMatchObject({ ok: true });
});

test("a declined hold frees its GPUs and says why", () => {
  const { state, effects } = run([
    ...held.slice(0, 3),
    [from("a", frame(1, 1, { t: "declined", hold: lease(1), reason: "gaming" })), 4],
  ]);
  expect(freeGpus(state)).toBe(2);
  expect(effects).toContainEqual({
    t: "answer",
    lease: lease(1),
    outcome: { ok: false, code: "no_capacity", detail: "gaming" },
  });
});

test("a hold that nobody answers, or that loses its socket, is released and the agent will hear of it", () => {
  for (const end of [
    { t: "unanswered", lease: lease(1) },
    { t: "disconnected", connection: "a" },
  ] as const) {
    const { state } = run([...held.slice(0, 3), [end, 4]]);
    expect(freeGpus(state)).toBe(2);
    expect(kinds(state.unacknowledged)).toEqual(["release"]);
  }
});

test("a confirmed hold survives a lost socket and ends when it expires", () => {
  const away = run([...held, [{ t: "disconnected", connection: "a" }, 5]]).state;
  expect(freeGpus(run([[{ t: "tick" }, 29_999]], away).state)).toBe(1);
  expect(freeGpus(run([[{ t: "tick" }, 30_000]], away).state)).toBe(2);
});

test("a reservation outlives the hold, is never shortened, and needs one", () => {
  const reserve = (until: number): NodeEvent => ({ t: "reserve", lease: lease(1), until });
  const { state } = run([...held, [reserve(600_000), 5], [reserve(500_000), 6], [{ t: "tick" }, 599_999]]);
  expect(freeGpus(state)).toBe(1);
  expect(step(state, { t: "reserve", lease: lease(2), until: 9 }, 5)).toMatchObject({
    code: "quote_expired",
  });
  expect(step(run(held).state, reserve(60_000), 30_000)).toMatchObject({ code: "quote_expired" });
});

test("open is told once, and again after a reconnect until it is acknowledged", () => {
  const twice = run([...opened, [{ t: "open", lease: lease(1), terms: request(1).terms }, 7]]);
  expect(kinds(twice.sent).filter((t) => t === "open")).toHaveLength(1);
  const replayed = run(
    [
      [connected("b"), 8],
      [from("b", hello(1)), 9],
    ],
    twice.state,
  );
  expect(kinds(replayed.sent)).toEqual(["welcome", "open"]);
  const acknowledged = run(
    [
      [from("b", frame(0, 2, { t: "ack" })), 10],
      [connected("c"), 11],
      [from("c", hello(2)), 12],
    ],
    replayed.state,
  );
  expect(kinds(acknowledged.sent)).toEqual(["welcome"]);
});

test("LNK-2 what falls due between a socket's upgrade and its hello is said in its turn, or the agent would drop what came before", () => {
  const { state } = run([...opened, [{ t: "disconnected", connection: "a" }, 7], [connected("b"), 8]]);
  const rest: NodeEvent = { t: "rest", lease: lease(1), turn: 1 };
  const { sent } = run(
    [
      [rest, 9],
      [from("b", hello(1)), 10],
    ],
    state,
  );
  expect(sent).toMatchObject([
    { t: "welcome", seq: 0 },
    { t: "open", seq: 2 },
    { t: "rest", seq: 3 },
  ]);
});

test("open of a lease that lapsed or was released is refused: nothing is left to open", () => {
  const { state } = run([...opened, [{ t: "release", lease: lease(1) }, 7]]);
  expect(step(state, { t: "open", lease: lease(1), terms: request(1).terms }, 8)).toMatchObject({
    code: "quote_expired",
  });
});

const turned = (t: "rest" | "rouse", turn: number, at: number): [NodeEvent, number] => [
  { t, lease: lease(1), turn },
  at,
];

test("LSE-9 a lease that rests leaves its GPUs to others and is told to hang up, once", () => {
  const { state, sent } = run([...opened, turned("rest", 1, 7), turned("rest", 1, 8)]);
  expect(freeGpus(state)).toBe(2);
  expect(sent.at(-1)).toMatchObject({ t: "rest", lease: lease(1) });
  expect(kinds(sent).filter((t) => t === "rest")).toHaveLength(1);
  const again = run([...opened, turned("rest", 1, 7), [connected("b"), 8], [from("b", hello(3)), 9]]);
  expect(again.sent.filter((each) => each.t === "welcome").at(-1)).toMatchObject({ leases: [lease(1)] });
});

test("LSE-9 a roused lease has its GPUs again and its agent dials, unless others have them or the node is not there", () => {
  const rested = run([...opened, turned("rest", 1, 7)]).state;
  const roused = run([turned("rouse", 2, 8)], rested);
  expect(roused.sent).toMatchObject([{ t: "open", lease: lease(1) }]);
  expect(freeGpus(roused.state)).toBe(1);

  const both: [NodeEvent, number] = [{ t: "hold", request: request(2, { gpus: 2 }) }, 8];
  expect(run([both, turned("rouse", 2, 9)], rested).refusals).toEqual(["no_capacity"]);
  const freed: [NodeEvent, number] = [{ t: "release", lease: lease(2) }, 9];
  expect(run([both, turned("rouse", 2, 9), freed, turned("rouse", 2, 10)], rested).refusals).toEqual([
    "no_capacity",
  ]);
  expect(run([[{ t: "disconnected", connection: "a" }, 8], turned("rouse", 2, 9)], rested).refusals).toEqual([
    "node_offline",
  ]);
  const drains: [NodeEvent, number] = [from("a", frame(2, 2, { t: "drain", deadline_s: 0 })), 8];
  expect(run([drains, turned("rouse", 2, 9)], rested).refusals).toEqual(["node_draining"]);
});

test("LSE-9 counts processor and memory of a roused lease too, not its GPUs alone", () => {
  const big = request(1);
  const resources = { gpus: 1, cpu: 6, memory_gb: 8 };
  const wide = (n: number) => ({ ...request(n), text: { ...big.text, resources } });
  const { refusals } = run([
    ...online,
    [{ t: "hold", request: wide(1) }, 3],
    [from("a", frame(1, 1, { t: "held", hold: lease(1) })), 4],
    [{ t: "open", lease: lease(1), terms: big.terms }, 5],
    turned("rest", 1, 6),
    [{ t: "hold", request: wide(2) }, 7],
    turned("rouse", 2, 8),
  ]);
  expect(refusals).toEqual(["no_capacity"]);
});

test("LSE-9 a question that comes after a newer one changes nothing", () => {
  const { state, sent } = run([...opened, turned("rouse", 2, 7), turned("rest", 1, 8)]);
  expect(freeGpus(state)).toBe(1);
  expect(kinds(sent)).not.toContain("rest");
  const late = run([...opened, turned("rest", 1, 7), turned("rest", 3, 8), turned("rouse", 2, 9)]);
  expect(freeGpus(late.state)).toBe(2);
});

test("LSE-9 the agent of a resting lease is told once to dial, and its GPUs stay free", () => {
  const dial: NodeEvent = { t: "dial", lease: lease(1) };
  const { state, sent } = run([...opened, turned("rest", 1, 7), [dial, 8], [dial, 9]]);
  expect(kinds(sent).filter((t) => t === "dial")).toHaveLength(1);
  expect(freeGpus(state)).toBe(2);
  expect(kinds(run([...opened, [dial, 7]]).sent)).not.toContain("dial");
});

/** Both GPUs in yieldable leases, 1 before 2. */
const yieldables: [NodeEvent, number][] = [
  ...online,
  ...[1, 2].flatMap((n): [NodeEvent, number][] => [
    [{ t: "hold", request: request(n, { tier: "yieldable" }) }, 3],
    [from("a", frame(n, 2 * n - 1, { t: "held", hold: lease(n) })), 4],
    [{ t: "open", lease: lease(n), terms: request(n).terms }, 5],
  ]),
];
const yieldsOf = (frames: readonly ToNode[]) =>
  frames.flatMap((each) => (each.t === "yield" ? [each.lease] : []));

test("LSE-11 a firm demand has the newest yieldable lease give way, is told when, and then has the first word", () => {
  const hold: NodeEvent = { t: "hold", request: request(3, { expiresAt: 900_000 }) };
  const first = run([...yieldables, [hold, 10], [hold, 11]]);
  expect(yieldsOf(first.sent)).toEqual([lease(2)]);
  expect(first.effects).toContainEqual({
    t: "answer",
    lease: lease(3),
    outcome: { ok: false, code: "no_capacity", detail: "of the node's gpus, enough come free in 30 s" },
  });
  expect(entryOf(first.state)?.free).toBe(2);
  const left = run(
    [
      [{ t: "rest", lease: lease(2), turn: 1 }, 30_000],
      [{ t: "rouse", lease: lease(2), turn: 2 }, 30_001],
      [hold, 31_000],
      [{ t: "release", lease: lease(3) }, 40_000],
      [{ t: "rouse", lease: lease(2), turn: 2 }, 90_010],
    ],
    first.state,
  );
  expect(left.refusals).toEqual(["no_capacity"]);
  expect(left.sent).toContainEqual(expect.objectContaining({ t: "hold", hold: lease(3) }));
  expect(left.state.allocations.get(lease(2))?.phase).toBe("open");
});

test("LSE-11 nobody gives way for a demand that would not fit even then, nor for a yieldable one", () => {
  const tooMany: NodeEvent = { t: "hold", request: request(3, { gpus: 3 }) };
  const cheap: NodeEvent = { t: "hold", request: request(3, { tier: "yieldable" }) };
  for (const hold of [tooMany, cheap]) {
    const { sent, refusals } = run([...yieldables, [hold, 10]]);
    expect(yieldsOf(sent)).toEqual([]);
    expect(refusals).toEqual(["no_capacity"]);
  }
});

test("LSE-11 a yieldable lease whose GPUs were claimed while it was held gives way as it is opened", () => {
  const tiers = (tier: "firm" | "yieldable"): [NodeEvent, number][] => [
    ...online,
    [{ t: "hold", request: request(1, { tier }) }, 3],
    [from("a", frame(1, 1, { t: "held", hold: lease(1) })), 4],
    [from("a", frame(2, 1, { t: "claim", gpus: 2 })), 5],
    [{ t: "open", lease: lease(1), terms: request(1).terms }, 6],
  ];
  expect(kinds(run(tiers("yieldable")).sent).slice(-2)).toEqual(["open", "yield"]);
  expect(yieldsOf(run(tiers("firm")).sent)).toEqual([]);
});

test("LSE-11 the owner's claim takes free GPUs first, then yieldable leases, never a firm one", () => {
  const claims = (seq: number, gpus: number): NodeEvent => from("a", frame(seq, 4, { t: "claim", gpus }));
  expect(yieldsOf(run([...opened, [claims(2, 1), 7]]).sent)).toEqual([]);
  const { state, sent } = run([...yieldables, [claims(3, 1), 7], [claims(4, 2), 8]]);
  expect(yieldsOf(sent)).toEqual([lease(2), lease(1)]);
  expect(entryOf(state)?.free).toBe(0);
  const { refusals } = run(
    [
      [{ t: "rest", lease: lease(1), turn: 1 }, 9],
      [{ t: "rouse", lease: lease(1), turn: 2 }, 10],
      [claims(5, 0), 11],
      [{ t: "rouse", lease: lease(1), turn: 2 }, 12],
    ],
    state,
  );
  expect(refusals).toEqual(["no_capacity"]);
  expect(
    run(
      [
        [connected("b"), 20],
        [from("b", hello(9, { claimed: 2 })), 21],
      ],
      run(online).state,
    ).state,
  ).toMatchObject({
    inventory: { claimed: 2 },
  });
});

test("release is idempotent and takes back what the agent has not seen", () => {
  const release: NodeEvent = { t: "release", lease: lease(1) };
  const { state } = run([...opened, [{ t: "disconnected", connection: "a" }, 7], [release, 8], [release, 9]]);
  expect(kinds(state.unacknowledged)).toEqual(["release"]);
  expect(freeGpus(state)).toBe(2);
});

test("MKT-7 what an ended lease was paid is a sale of its node, once, and is published", () => {
  const day = 20_000;
  const at = day * 86_400_000 + 9;
  // 3,600 an hour for one GPU: 1 a second.
  const release: NodeEvent = { t: "release", lease: lease(1), paid: 90n };
  const { state } = run([...opened, [release, at], [release, at + 1]]);
  expect(state.sales).toEqual([{ day, model: gpu.model, tier: "firm", gpuMs: 90_000, paid: 90n }]);
  expect(publicationOf(state, () => 1)?.entry.sales).toEqual(state.sales);
  const again = run(
    [
      [{ t: "hold", request: { ...request(2), expiresAt: at + 30_000 } }, at + 2],
      [{ t: "release", lease: lease(2), paid: 10n }, at + 3],
    ],
    { ...state, connection: { id: "a", greeted: true } },
  );
  expect(again.state.sales).toEqual([{ day, model: gpu.model, tier: "firm", gpuMs: 100_000, paid: 100n }]);
  expect(again.state.publication?.version).toBe(again.state.version);
  const unpaid = run([...opened, [{ t: "release", lease: lease(1) }, at]]);
  expect(unpaid.state.sales).toEqual([]);
});

test("a frame that comes again is acknowledged and changes nothing", () => {
  const { state } = run(held);
  const again = run([[from("a", frame(1, 1, { t: "held", hold: lease(1) })), 9]], state);
  expect(again.sent).toMatchObject([{ t: "ack", seq: 0, ack: 1 }]);
  expect(again.state.allocations).toBe(state.allocations);
});

test.each<[string, [NodeEvent, number][], FromNode]>([
  ["before hello", online.slice(0, 1), frame(1, 0, { t: "drain", deadline_s: 0 })],
  ["without a seq", online, frame(0, 0, { t: "drain", deadline_s: 0 })],
])("a frame %s closes the socket", (_, events, bad) => {
  const { state, effects } = run([...events, [from("a", bad), 5]]);
  expect(statusOf(state)).toBe("offline");
  expect(effects.at(-1)).toMatchObject({ t: "close", connection: "a", code: CLOSE.badFrame });
});

test("three silent heartbeats end a connection; a beat keeps it", () => {
  const beat = (at: number): NodeEvent => ({ t: "heartbeat", at });
  const kept = run([...online, [beat(SILENCE_MS), SILENCE_MS + 10]]);
  expect(statusOf(kept.state)).toBe("online");
  const silent = run([[beat(SILENCE_MS), 2 * SILENCE_MS + 1]], kept.state);
  expect(statusOf(silent.state)).toBe("offline");
  expect(silent.effects).toMatchObject([{ t: "close", code: 1001 }]);
});

test("what the Books list is published whenever it changes, and only then", () => {
  const { state } = run(online);
  expect(state.publication).toMatchObject({ version: state.version, attempts: 0 });
  const published = run([[{ t: "published", version: state.version, books: ["any/any/0"] }, 3]], state).state;
  expect(published.publication).toBeNull();
  expect(run([[{ t: "heartbeat", at: 9 }, 10]], published).state.publication).toBeNull();
  expect(run([[{ t: "hold", request: request(1) }, 10]], published).state.publication).not.toBeNull();
});

test("an alarm that rings while a publication is under way leaves another behind, lest this life end before it", () => {
  const { state } = run(online);
  const due = dueAt(state) ?? 0;
  expect(state.publication?.retryAt).toBe(due);
  const rung = run([[{ t: "tick" }, due]], state).state;
  expect(dueAt(rung)).toBeGreaterThan(due);
  expect(rung.publication).toMatchObject({ version: state.version, attempts: 0 });
});

test("a publication of an older state leaves the newer one due, and failures back off", () => {
  const { state } = run(held);
  const stale = run([[{ t: "published", version: state.version - 1, books: [] }, 5]], state).state;
  expect(stale.publication).not.toBeNull();
  const retries = Array.from({ length: 8 }, (_, n) => {
    const failed = run(
      Array.from({ length: n + 1 }, () => [{ t: "publish_failed" }, 0]),
      state,
    ).state;
    return failed.publication?.retryAt;
  });
  expect(retries).toEqual([10_000, 20_000, 40_000, 80_000, 120_000, 120_000, 120_000, 120_000]);
});

test("a node with other GPUs leaves the book of its old model", () => {
  const before = run([
    ...online,
    [{ t: "published", version: 1, books: ["any/any/0", "RTX_4090/any/0", "RTX_4090/eu-west/0"] }, 3],
  ]).state;
  const other = { ...offer, gpus: [{ ...gpu, model: "A100" }] };
  const { state } = run([[from("a", frame(1, 0, { t: "offer", offer: other })), 4]], before);
  expect(publicationOf(state, () => 1)).toMatchObject({
    into: ["any/any/0", "A100/any/0", "A100/eu-west/0"],
    outOf: ["RTX_4090/any/0", "RTX_4090/eu-west/0"],
  });
});

test("no order of events takes more GPUs, cores or memory than there are, loses an allocation's alarm, or reuses a seq", () => {
  const n = fc.integer({ min: 1, max: 4 });
  const connection = fc.constantFrom("a", "b");
  const seq = fc.integer({ min: 0, max: 6 });
  const event: fc.Arbitrary<NodeEvent> = fc.oneof(
    connection.map(connected),
    connection.map((id): NodeEvent => from(id, hello())),
    connection.map((id): NodeEvent => ({ t: "disconnected", connection: id })),
    fc
      .tuple(
        n,
        fc.integer({ min: 1, max: 3 }),
        fc.nat(6),
        fc.nat(20),
        fc.constantFrom("firm" as const, "yieldable" as const),
      )
      .map(
        ([i, gpus, cpu, memory_gb, tier]): NodeEvent => ({
          t: "hold",
          request: request(i, { gpus, cpu, memory_gb, tier, expiresAt: 200 }),
        }),
      ),
    fc
      .tuple(connection, seq, fc.integer({ min: 0, max: 2 }))
      .map(([id, s, gpus]) => from(id, frame(s, 0, { t: "claim", gpus }))),
    fc
      .tuple(connection, seq, seq, n, fc.boolean())
      .map(([id, s, ack, i, yes]) =>
        from(
          id,
          frame(s, ack, yes ? { t: "held", hold: lease(i) } : { t: "declined", hold: lease(i), reason: "" }),
        ),
      ),
    n.map((i): NodeEvent => ({ t: "unanswered", lease: lease(i) })),
    n.map((i): NodeEvent => ({ t: "reserve", lease: lease(i), until: 300 })),
    n.map((i): NodeEvent => ({ t: "open", lease: lease(i), terms: request(i).terms })),
    n.map((i): NodeEvent => ({ t: "release", lease: lease(i) })),
    n.map((i): NodeEvent => ({ t: "dial", lease: lease(i) })),
    fc
      .tuple(fc.constantFrom("rest", "rouse"), n, seq)
      .map(([t, i, turn]): NodeEvent => ({ t, lease: lease(i), turn })),
    fc.constant<NodeEvent>({ t: "tick" }),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(event, fc.nat(40)), { maxLength: 60 }), (events) => {
      let state = run(online).state;
      let now = 2;
      for (const [each, pause] of events) {
        now += pause;
        const before = state;
        const result = step(state, each, now);
        if (!result.ok) continue;
        state = result.next;
        const sum = (kind: "gpus" | "cpu" | "memory_gb") =>
          [...state.allocations.values()].reduce(
            (total, { phase, resources }) => total + (phase === "resting" ? 0 : resources[kind]),
            0,
          );
        const taken = sum("gpus");
        expect(taken).toBeLessThanOrEqual(offer.gpus.length);
        expect(sum("cpu")).toBeLessThanOrEqual(offer.cpu);
        expect(sum("memory_gb")).toBeLessThanOrEqual(offer.memory_gb);
        const claimed = state.inventory?.claimed ?? 0;
        expect(freeGpus(state)).toBe(Math.max(0, offer.gpus.length - taken - claimed));
        const free = entryOf(state)?.free ?? 0;
        expect(free).toBeGreaterThanOrEqual(freeGpus(state));
        expect(free).toBeLessThanOrEqual(offer.gpus.length - claimed);
        // LSE-11: only what runs in the yieldable tier is ever told to give way.
        for (const { yielding, tier, phase } of state.allocations.values())
          if (yielding) expect([tier, phase]).toEqual(["yieldable", "open"]);
        const due = dueAt(state) ?? Number.POSITIVE_INFINITY;
        for (const { until } of state.allocations.values()) expect(due).toBeLessThanOrEqual(until);
        const numbered = result.effects.flatMap((e) =>
          e.t === "send" && e.frame.seq > before.sent ? [e.frame.seq] : [],
        );
        expect(new Set(numbered).size).toBe(numbered.length);
        const waiting = state.unacknowledged.map((sent) => sent.seq);
        expect(waiting).toEqual([...new Set(waiting)].sort((a, b) => a - b));
      }
    }),
  );
});
