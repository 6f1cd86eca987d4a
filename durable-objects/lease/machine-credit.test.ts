import type { CreditAuthorization } from "@gpux/protocol/funding";
import type { IntentRefusalCode } from "@gpux/protocol/intent";
import { describe, expect, it } from "vitest";
import { duties } from "./duties.ts";
import type { Event } from "./machine.ts";
import { done, FUND, FUNDED, HELLO, START, submission } from "./testing/fixtures.ts";
import { active, Scene } from "./testing/scene.ts";
import { leaseView } from "./view.ts";

const to = (funded_to: bigint): CreditAuthorization => ({
  kind: "credit",
  funded_to,
  valid_before: START / 1_000 + 600,
  signature: `0x${"01".repeat(65)}`,
});

const FROM_CREDIT: Event = { t: "fund", funding: to(FUNDED) };
const keyOf = (target: bigint) => `credit:${target}`;
const keys = (scene: Scene) => duties(scene.state, scene.now).map(({ key }) => key);

/** The chain has it: the lease holds `target` now. */
function landed(scene: Scene, target: bigint, { enough = true } = {}): Event {
  const leases = [{ leaseId: scene.state.lease.hash, funded: target.toString(), openedAt: START / 1_000 }];
  const answer = { ...done("allocate", { kind: "allocate", leases, amount: target.toString() }), enough };
  return { t: "relayed", kind: "allocate", funding: keyOf(target), answer };
}

function refused(target: bigint, code: IntentRefusalCode): Event {
  return { t: "relay_refused", kind: "allocate", funding: keyOf(target), code, detail: "it holds 1" };
}

/** Opened from credit, with its agent there. */
function opened(): Scene {
  const scene = new Scene();
  return scene.tell(FROM_CREDIT, landed(scene, FUNDED), { t: "wake", connected: false }, HELLO);
}

describe("a lease from credit", () => {
  it("CRD-1 asks for the allocation that its consumer signed, and for nothing of a wallet's", () => {
    const scene = new Scene().tell(FROM_CREDIT);
    const { terms } = scene.state.lease;
    expect(duties(scene.state, scene.now)).toMatchObject([
      {
        key: "relay:fund",
        t: "allocate",
        funding: keyOf(FUNDED),
        request: { terms: [terms], fundedTo: [FUNDED], validBefore: START / 1_000 + 600 },
      },
    ]);
  });

  it("CRD-1 follows its inclusion as it does a wallet's: no work before it is as hard as its amount asks", () => {
    const scene = new Scene().tell(FROM_CREDIT);
    scene.tell(submission(scene.state, 1), landed(scene, FUNDED, { enough: false }), HELLO);
    expect(scene.state.lease).toMatchObject({ status: "funding", funded: FUNDED });
    expect(scene.frames("run")).toEqual([]);
    scene.tell(landed(scene, FUNDED));
    expect(scene.state.lease).toMatchObject({ status: "active", funded: FUNDED });
    expect(scene.frames("run")).toHaveLength(1);
    expect(scene.state.lease.transactions).toMatchObject([{ kind: "allocate" }]);
  });

  it("CRD-1 takes the same target again, by whatever signature, and no other funding", () => {
    const scene = new Scene().tell(FROM_CREDIT);
    const before = scene.state.lease;
    scene.tell({ t: "fund", funding: { ...to(FUNDED), signature: `0x${"02".repeat(65)}` } });
    expect(scene.state.lease).toEqual(before);
    expect(scene.try({ t: "fund", funding: to(FUNDED + 1n) })).toMatchObject({ code: "lease_closed" });
    expect(scene.try(FUND)).toMatchObject({ code: "lease_closed" });
  });

  it("CRD-1 ends with its jobs aborted and free when the credit does not hold as much", () => {
    const scene = new Scene().tell(FROM_CREDIT);
    scene.tell(submission(scene.state, 1), refused(FUNDED, "insufficient_credit"));
    expect(scene.state.lease).toMatchObject({ status: "expired", end: { reason: "insufficient_credit" } });
    expect(scene.job(1)).toMatchObject({ status: "aborted", price: 0n });
  });

  it("CRD-1 is suspended from its money when a reorganisation took it, until it has landed again or cannot", () => {
    const scene = new Scene().tell(FROM_CREDIT);
    scene.tell(landed(scene, FUNDED, { enough: false }));
    expect(keys(scene)).toEqual(["relay:fund"]);
    scene.tell(refused(FUNDED, "expired"));
    expect(scene.state.lease).toMatchObject({ status: "expired", end: { reason: "funding_failed" } });
  });

  it("CRD-3 is raised to a target: reached or repeated it changes nothing, landed it counts", () => {
    const scene = opened();
    const more = FUNDED + 5_000_000n;
    const raise: Event = { t: "top_up", funding: to(more) };
    scene.tell(raise, raise);
    expect(scene.state.lease.topUps).toHaveLength(1);
    expect(leaseView(scene.state).top_ups).toEqual([
      { amount: 5_000_000n, funded_to: more, status: "landing" },
    ]);
    expect(keys(scene)).toContain(`relay:fund:${keyOf(more)}`);
    scene.tell(landed(scene, more));
    expect(scene.state.lease).toMatchObject({ funded: more, topUps: [] });
    const { lease } = scene.state;
    scene.tell(raise, { t: "top_up", funding: to(FUNDED) }, { t: "top_up", funding: to(1n) });
    expect(scene.state.lease).toEqual(lease);
  });

  it("CRD-3 raises a lease that a wallet opened as well, and says why it could not", () => {
    const scene = active().tell({ t: "top_up", funding: to(FUNDED + 1n) });
    scene.tell(refused(FUNDED + 1n, "insufficient_credit"));
    expect(scene.state.lease).toMatchObject({ status: "active", funded: FUNDED });
    expect(leaseView(scene.state).top_ups).toMatchObject([
      { status: "refused", reason: "insufficient_credit", detail: "it holds 1" },
    ]);
  });

  it("CRD-4 pays its rest to nobody at its close: it has returned to the credit", () => {
    const scene = opened();
    const { hash, terms } = scene.state.lease;
    const result = { kind: "close", leaseId: hash, paid: "2000", refunded: "9998000", fee: "100" } as const;
    scene.tell({ t: "close" }, { t: "relayed", kind: "close", answer: done("close", result) });
    expect(scene.state.lease.errands.withdraw).toEqual([terms.provider, terms.feeRecipient]);
    expect(leaseView(scene.state)).toMatchObject({ status: "closed", from_credit: true });
  });
});

describe("CRD-6 raises that were signed in advance", () => {
  const targets = [12_000_000n, 15_000_000n, 20_000_000n];
  const auto = (below: bigint, allocations = targets.map(to)): Event => ({
    t: "auto_top_up",
    auto: { below, allocations },
  });
  const left = (scene: Scene) =>
    scene.state.lease.autoTopUp?.allocations.map(({ funded_to }) => funded_to) ?? null;
  /** With so much promised to a job that has not ended. */
  const promising = (scene: Scene, n: number, max_price: bigint) =>
    scene.tell(
      submission(scene.state, n, { max_price, allowance: { cumulative: 20_000_000n, signature: "0x00" } }),
    );

  it("stay where they are while enough is left, and go one after another as it runs low", () => {
    const scene = opened().tell(auto(1_000_000n));
    expect([left(scene), scene.state.lease.topUps]).toEqual([targets, []]);
    promising(scene, 1, 9_000_001n);
    expect(left(scene)).toEqual(targets.slice(1));
    expect(keys(scene)).toContain(`relay:fund:${keyOf(12_000_000n)}`);
    // Not the next one before the first has landed.
    scene.after(1);
    expect(left(scene)).toEqual(targets.slice(1));
    scene.tell(landed(scene, 12_000_000n));
    expect([scene.state.lease.funded, left(scene)]).toEqual([12_000_000n, targets.slice(1)]);
    promising(scene, 2, 2_500_000n);
    scene.tell(landed(scene, 15_000_000n));
    promising(scene, 3, 3_000_000n);
    expect(left(scene)).toBeNull();
    scene.tell(landed(scene, 20_000_000n));
    expect(scene.state.lease).toMatchObject({ funded: 20_000_000n, topUps: [], autoTopUp: null });
  });

  it("go at once where too little is left already, and pass over what is reached or can land no more", () => {
    const late = { ...to(18_000_000n), valid_before: START / 1_000 + 30 };
    const scene = opened().tell(auto(11_000_000n, [to(FUNDED), late, to(19_000_000n)]));
    expect(keys(scene)).toContain(`relay:fund:${keyOf(19_000_000n)}`);
    expect(left(scene)).toBeNull();
  });

  it("end with the first that the credit does not cover: higher ones are not tried", () => {
    const scene = opened().tell(auto(11_000_000n));
    scene.tell(refused(12_000_000n, "insufficient_credit"));
    expect(scene.state.lease.autoTopUp).toBeNull();
    expect(leaseView(scene.state).top_ups).toMatchObject([
      { status: "refused", reason: "insufficient_credit" },
    ]);
    expect(keys(scene).filter((key) => key.startsWith("relay:fund"))).toEqual([]);
  });

  it("wait for our gas money, replace those before, are taken back by null, and end with the lease", () => {
    const scene = opened().tell(auto(11_000_000n), refused(12_000_000n, "relayer_low_balance"));
    expect(left(scene)).toEqual(targets.slice(1));
    scene.tell(auto(1n, [to(30_000_000n)]));
    expect(leaseView(scene.state).auto_top_up).toEqual({ below: 1n, targets: [30_000_000n] });
    scene.tell({ t: "auto_top_up", auto: null });
    expect(leaseView(scene.state)).not.toHaveProperty("auto_top_up");
    scene.tell({ t: "close" });
    expect(scene.try(auto(1n))).toMatchObject({ code: "lease_closed" });
    expect(new Scene().try(auto(1n))).toMatchObject({ code: "payment_required" });
  });
});
