import { type Address, leaseIdOf, OrderId } from "@gpux/protocol/ids";
import type { OrderAuthorization } from "@gpux/protocol/order";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Leg, type OrderEvent, type OrderState, orderDuties, orderExpiry, stepOrder } from "./order.ts";
import { type Candidate, type Desk, drive, gather, type Market, type Parties } from "./ordering.ts";

const byte = (n: number): Address => `0x${n.toString(16).padStart(2, "0").repeat(20)}`;
const QUOTE_MS = 30_000;

function legOf(n: number, lease: number, now: number): Omit<Leg, "state"> {
  const leaseHash = `0x${lease.toString(16).padStart(64, "0")}` as const;
  const terms = {
    payer: byte(0xa1),
    consumerSigner: byte(0xa2),
    provider: byte(0x80 + (n % 3)),
    providerSigner: byte(n),
    meter: byte(0xc1),
    feeRecipient: byte(0xf1),
    feeBps: 0,
    upfront: 0n,
    unattended: 0n,
    ratePerHour: 3_600n,
    expiry: 3_600,
    quote: leaseHash,
  };
  const text = {
    node: byte(n),
    gpus: [],
    resources: { gpus: 4, cpu: 32, memory_gb: 128 },
    prices: { gpu_hour: "900", core_hour: "0", gb_hour: "0" },
    tier: "firm" as const,
    mode: "serverless" as const,
    region: "local",
    tick_s: 60,
    salt: leaseHash,
  };
  // The id shows the first bytes of the hash, so those must differ.
  const id = leaseIdOf(`0x${lease.toString(16).padStart(8, "0").repeat(8)}`);
  return {
    hold: { lease: id, terms, text, expiresAt: now + QUOTE_MS },
    leaseHash,
    amount: 5n,
    verified: false,
  };
}

const FUNDING: OrderAuthorization = {
  amounts: [5n, 6n, 7n],
  salt: `0x${"01".repeat(32)}`,
  valid_after: 0,
  valid_before: 600,
  signature: "0x00",
};

function orderOf(change: Partial<OrderState> = {}): OrderState {
  return {
    id: OrderId.parse(`ord_${"a".repeat(32)}`),
    scope: "key:1",
    bodyHash: "00".repeat(32),
    nodes: 3,
    spread: "any",
    createdAt: 0,
    phase: "gathering",
    legs: [],
    funding: null,
    end: null,
    ...change,
  };
}

function run(events: readonly OrderEvent[], from = orderOf(), now = 0): OrderState {
  return events.reduce((state, event) => {
    const step = stepOrder(state, event, now);
    if (!step.ok) throw new Error(`${event.t} was refused: ${step.code}`);
    return step.next;
  }, from);
}

const legs = [1, 2, 3].map((n) => legOf(n, n, 0));
const leases = legs.map(({ hold }) => hold.lease);
const each = (t: "held" | "reserved" | "told" | "freed"): OrderEvent[] =>
  leases.map((lease) => ({ t, lease }));
const asked = run(legs.map((leg) => ({ t: "ask", leg })));
const quoted = run(each("held"), asked);
const fund: OrderEvent = { t: "fund", funding: FUNDING };
const kinds = (state: OrderState) => orderDuties(state).map(({ t }) => t);

describe("an order's machine", () => {
  test("ORD-1 it is quoted when the last node holds, and not before", () => {
    expect(run(each("held").slice(0, 2), asked).phase).toBe("gathering");
    expect(quoted.phase).toBe("quoted");
    expect(orderExpiry(quoted)).toBe(QUOTE_MS);
  });

  test("ORD-2 given up, it lets go of every node that was asked, whether it answered or not", () => {
    const some = run([...each("held").slice(0, 1), { t: "give_up", code: "no_capacity" }], asked);
    expect([some.phase, kinds(some)]).toEqual(["released", ["free", "free", "free"]]);
    expect(run(each("freed"), some).legs).toEqual([]);
    // An answer that comes late finds nobody who waits for it.
    expect(run(each("held"), some).legs.map(({ state }) => state)).toEqual(["freeing", "freeing", "freeing"]);
  });

  test("ORD-3 signed, all nodes are reserved before anything is submitted; one that refuses releases all", () => {
    const reserving = run([fund], quoted);
    expect(kinds(reserving)).toEqual(["reserve", "reserve", "reserve"]);
    const two = run(each("reserved").slice(0, 2), reserving);
    expect(kinds(two)).toEqual(["reserve"]);
    expect(kinds(run([{ t: "refused", code: "node_offline" }], two))).toEqual(["free", "free", "free"]);
    expect(kinds(run(each("reserved"), reserving))).toEqual(["submit"]);
  });

  test("ORD-4 once submitted there is no way back: every lease is told until it has heard", () => {
    const telling = run([fund, ...each("reserved"), { t: "submitted" }], quoted);
    expect(
      run(
        [
          { t: "refused", code: "node_offline" },
          { t: "give_up", code: "no_capacity" },
        ],
        telling,
      ),
    ).toEqual(telling);
    expect(run([{ t: "tick" }], telling, 9e12).phase).toBe("telling");
    expect(kinds(run(each("told").slice(0, 1), telling))).toEqual(["tell", "tell"]);
    expect(run(each("told"), telling)).toMatchObject({ phase: "open" });
  });

  test("ORD-3 what the chain would refuse releases all", () => {
    const late = { t: "refused", lease: quoted.legs[0]?.hold.lease, code: "node_offline" } as const;
    const [reserved] = each("reserved");
    if (reserved === undefined || late.lease === undefined) throw new Error("no leg");
    const again = { ...late, lease: late.lease };
    expect(run([fund, reserved, again], quoted).phase, "asked twice, made once").toBe("reserving");
    expect(run([fund, ...each("reserved"), again], quoted).phase).toBe("submitting");
    expect(run([fund, again], quoted).phase).toBe("released");
    const refused = run([fund, ...each("reserved"), { t: "refused", code: "insufficient_funds" }], quoted);
    expect(refused).toMatchObject({ phase: "released", end: { code: "insufficient_funds" } });
  });

  test.each<[string, OrderState, OrderAuthorization, number, string]>([
    ["too few amounts", quoted, { ...FUNDING, amounts: [1n, 2n] }, 0, "funding_invalid"],
    ["an amount of zero", quoted, { ...FUNDING, amounts: [1n, 0n, 2n] }, 0, "funding_invalid"],
    ["a time that cannot land", quoted, { ...FUNDING, valid_before: 59 }, 0, "funding_invalid"],
    [
      "a time that holds the nodes for ever",
      quoted,
      { ...FUNDING, valid_before: 3_661 },
      0,
      "funding_invalid",
    ],
    ["a lapsed order", quoted, FUNDING, QUOTE_MS, "quote_expired"],
    ["an order whose nodes are still asked", asked, FUNDING, 0, "order_unknown"],
    [
      "another signature",
      run([fund], quoted),
      { ...FUNDING, salt: `0x${"02".repeat(32)}` },
      0,
      "order_closed",
    ],
  ])("ORD-7 a funding of %s is refused and changes nothing", (_, state, funding, now, code) => {
    expect(stepOrder(state, { t: "fund", funding }, now)).toMatchObject({ ok: false, code });
  });

  test("ORD-6 the same signature again changes nothing", () => {
    const once = run([fund], quoted);
    expect(run([fund], once)).toBe(once);
  });

  test("ORD-2 unsigned, it lapses with the first of its holds; cut off while it asked, soon", () => {
    expect(run([{ t: "tick" }], quoted, QUOTE_MS - 1).phase).toBe("quoted");
    expect(run([{ t: "tick" }], quoted, QUOTE_MS)).toMatchObject({ end: { code: "quote_expired" } });
    expect(run([{ t: "tick" }], asked, QUOTE_MS).phase).toBe("released");
  });
});

/** A market of six nodes that hold one lease each, with their leases and the relayer; it fails where the dice say. */
class World implements Market<Candidate>, Parties {
  now = 0;
  order: OrderState = orderOf();
  /** Until when a node holds for which lease, and whether that is a reservation. */
  readonly holds = new Map<Address, { lease: string; until: number }>();
  readonly leases = new Map<string, { until: number; funded: boolean }>();
  submitted = 0;
  /** Of the account's object; what a life that has ended still does is not written. */
  life = 0;
  #next = 1;
  readonly #dice: Iterator<number>;

  constructor(dice: readonly number[]) {
    this.#dice = dice[Symbol.iterator]();
  }

  roll(): number {
    const { value, done } = this.#dice.next();
    return done ? 9 : value;
  }

  readonly candidates: Candidate[] = [1, 2, 3, 4, 5, 6].map((n) => ({
    node: byte(n),
    provider: byte(0x80 + n),
  }));

  desk(): Desk {
    const { life } = this;
    return {
      state: () => this.order,
      now: () => this.now,
      failed: () => undefined,
      apply: (event) => {
        const step = stepOrder(this.order, event, this.now);
        const isHeard = step.ok && life === this.life && step.next !== this.order;
        if (isHeard) this.order = step.next;
        return isHeard;
      },
    };
  }

  /** 0: the process dies before it; 1: after it; 2: the answer is lost; 3: it is refused; 4: time passes; else well. */
  async #risk<T>(work: () => T, refusal?: T): Promise<T> {
    const fate = this.roll();
    if (fate === 4) this.now += 20_000;
    if (fate === 3 && refusal !== undefined) return refusal;
    if (fate === 0 || fate === 1) this.life += 1;
    if (fate === 0) throw new Error("nothing was done");
    const answer = work();
    if (fate === 1 || fate === 2) throw new Error("the answer is lost");
    return answer;
  }

  isFree(node: Address): boolean {
    return (this.holds.get(node)?.until ?? 0) <= this.now;
  }

  async offer(candidate: Candidate) {
    const n = Number.parseInt(candidate.node.slice(-2), 16);
    this.#next += 1;
    return { ok: true as const, leg: legOf(n, this.#next, this.now) };
  }

  hold = ({ hold }: Leg) =>
    this.#risk(() => {
      const node = hold.terms.providerSigner;
      if (!this.isFree(node)) return false;
      this.holds.set(node, { lease: hold.lease, until: hold.expiresAt });
      this.leases.set(hold.lease, { until: hold.expiresAt, funded: false });
      return true;
    }, false);

  free = ({ hold }: Leg) =>
    this.#risk(() => {
      if (this.holds.get(hold.terms.providerSigner)?.lease === hold.lease)
        this.holds.delete(hold.terms.providerSigner);
      this.leases.delete(hold.lease);
    });

  reserve = ({ hold }: Leg) =>
    this.#risk<Awaited<ReturnType<Parties["reserve"]>>>(
      () => {
        const held = this.holds.get(hold.terms.providerSigner);
        if (held?.lease !== hold.lease || held.until <= this.now) return { ok: false, code: "quote_expired" };
        this.holds.set(hold.terms.providerSigner, { lease: hold.lease, until: 600_000 });
        this.leases.set(hold.lease, { until: this.now + 60_000, funded: false });
        return { ok: true };
      },
      { ok: false, code: "node_offline" },
    );

  /** Asked for again, the relayer answers the funding that it has (RLY-1): it refuses none that it took. */
  submit = () =>
    this.#risk<Awaited<ReturnType<Parties["submit"]>>>(
      () => {
        this.submitted += 1;
        return { ok: true };
      },
      this.submitted > 0 ? undefined : { ok: false, code: "insufficient_funds" },
    );

  tell = ({ hold }: Leg) => this.#risk(() => void this.leases.set(hold.lease, { until: 9e12, funded: true }));

  funded(): number {
    return [...this.leases.values()].filter(({ funded }) => funded).length;
  }
}

test("ORD-2 ORD-3 ORD-4 whatever is lost, refused or killed when, all leases are funded or no node holds", async () => {
  const dice = fc.array(
    fc.oneof({ weight: 3, arbitrary: fc.constant(9) }, { weight: 1, arbitrary: fc.nat(4) }),
    {
      maxLength: 60,
    },
  );
  await fc.assert(
    fc.asyncProperty(dice, fc.boolean(), async (rolls, isSigned) => {
      const world = new World(rolls);
      const first = world.desk();
      await gather(first, world, world.candidates);
      if (world.order.phase !== "quoted") first.apply({ t: "give_up", code: "no_capacity" });
      expect(world.order.legs.filter(({ state }) => state === "held").length).toBeLessThanOrEqual(3);
      if (isSigned) world.desk().apply(fund);
      // Each life of the account goes on from what is written; in the end the dice run out and all goes well.
      for (let life = 0; life < 80; life += 1) {
        world.now += 5_000;
        world.desk().apply({ t: "tick" });
        await drive(world.desk(), world);
      }
      expect(orderDuties(world.order)).toEqual([]);
      expect(["open", "released"]).toContain(world.order.phase);
      expect(world.funded()).toBe(world.order.phase === "open" ? 3 : 0);
      if (world.order.phase === "released")
        for (const { node } of world.candidates) expect(world.isFree(node)).toBe(true);
      // A funding that the relayer has is never given up.
      if (world.submitted > 0) expect(world.order.phase).toBe("open");
    }),
    {
      numRuns: 1_000,
      // The account dies after the relayer has the funding and before that is written.
      examples: [[[9, 9, 9, 9, 9, 9, 1, 3], true]],
    },
  );
});

test("ORD-2 of nodes of one owner a spread order takes one, and asks nobody when too few owners are left", async () => {
  const world = new World([]);
  world.order = orderOf({ spread: "distinct-provider" });
  const owners = (count: number) =>
    world.candidates.map((candidate, n) => ({ ...candidate, provider: byte(0x80 + (n % count)) }));
  expect(await gather(world.desk(), world, owners(2))).toEqual({ found: 2, failed: [] });
  expect(world.holds.size).toBe(0);
  await gather(world.desk(), world, owners(3));
  expect(world.order.phase).toBe("quoted");
  expect(new Set(world.order.legs.map(({ hold }) => hold.terms.provider)).size).toBe(3);
});

test("ORD-2 for a node that declines the next one is asked", async () => {
  const world = new World([9, 3, 9, 9]);
  expect(await gather(world.desk(), world, world.candidates)).toEqual({ found: 3, failed: ["gpus"] });
  expect(world.order.phase).toBe("quoted");
});
