import { expect, test } from "vitest";
import type { HoldRequest } from "../interfaces.ts";
import type { NodeEvent } from "./event.ts";
import { publicationOf, step } from "./machine.ts";
import { freeCapacity, freeGpus } from "./state.ts";
import {
  connected,
  frame,
  from,
  gpu,
  held,
  hello,
  kinds,
  lease,
  offer,
  online,
  opened,
  other,
  request,
  run,
} from "./testing/scene.ts";

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
