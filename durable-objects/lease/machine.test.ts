import { fundingKey } from "@gpux/protocol/funding";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { duties } from "./duties.ts";
import { Lease } from "./state.ts";
import { ALLOWANCE, done, FUND, FUNDED, funded, HELLO, START, said, submission } from "./testing/fixtures.ts";
import { active, attested, ended, gpu, of, running, Scene, signed } from "./testing/scene.ts";
import { HOLD_EVERY_MS, HOLD_VALUE, isForgotten, LOST_MS, wakeAt } from "./timers.ts";

describe("a lease", () => {
  it("LSE-1 lapses when nobody funds it before the quote ends, and is then forgotten", () => {
    const scene = new Scene().after(29_999);
    expect(scene.state.lease.status).toBe("quoted");
    scene.after(1);
    expect(scene.state.lease).toMatchObject({ status: "expired", end: { reason: "quote_lapsed" } });
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toEqual(["node:release"]);
    expect(isForgotten(scene.state, scene.now)).toBe(false);
    scene.tell({ t: "errand", done: "released" });
    expect(isForgotten(scene.state, scene.now)).toBe(true);
  });

  it("LSE-2 takes one funding: the same again changes nothing, another is refused, a late one too", () => {
    const scene = new Scene().tell(FUND);
    const before = scene.state;
    scene.tell(FUND);
    expect(scene.state.lease).toEqual(before.lease);
    expect(
      scene.try({ t: "fund", funding: { ...FUND.funding, salt: `0x${"02".repeat(32)}` } }),
    ).toMatchObject({ code: "lease_closed" });
    const late = new Scene();
    late.now += 30_000;
    expect(late.try(FUND)).toMatchObject({ ok: false, code: "quote_expired" });
  });

  it("ORD-4 is not closed by its consumer while its order is being funded, only let go of by the order", () => {
    const until = START + 60_000;
    const scene = new Scene().tell({ t: "reserve", until });
    expect(scene.try({ t: "close" })).toMatchObject({ ok: false, code: "lease_closed" });
    expect(scene.state.lease).toMatchObject({ status: "quoted", end: null });
    const given = new Scene().tell({ t: "reserve", until }, { t: "let_go" });
    expect(given.state.lease).toMatchObject({ status: "expired", end: { reason: "quote_lapsed" } });
    // What is open has an owner: no order takes it back.
    const open = active();
    expect(open.tell({ t: "let_go" }).state.lease.status).toBe("active");
    expect(new Scene().tell({ t: "close" }).state.lease.status).toBe("expired");
  });

  it("LSE-3 is active with what the chain says, not with what was asked for", () => {
    const scene = active();
    expect(scene.state.lease).toMatchObject({ status: "active", funded: FUNDED, openedAt: START });
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toEqual(["meter:open", "node:open"]);
  });

  it("LSE-4 ends with its jobs aborted and free when the funding cannot land", () => {
    const scene = new Scene().tell(FUND);
    scene.tell(submission(scene.state, 1), {
      t: "relay_refused",
      kind: "fund",
      funding: FUND.funding.salt,
      code: "insufficient_balance",
      detail: "the payer holds 0",
    });
    expect(scene.state.lease).toMatchObject({
      status: "expired",
      spent: 0n,
      end: { reason: "insufficient_funds" },
    });
    expect(scene.job(1)).toMatchObject({ status: "aborted", price: 0n, failure: { code: "funding_failed" } });
  });

  it("LSE-4 stays in funding when only our own gas money is short", () => {
    const scene = new Scene().tell(FUND, {
      t: "relay_refused",
      kind: "fund",
      funding: FUND.funding.salt,
      code: "relayer_low_balance",
      detail: "",
    });
    expect(scene.state.lease.status).toBe("funding");
  });

  it("LSE-5 lets begun jobs end before it closes on the final usage, co-signed and paid out", () => {
    const scene = running().tell({ t: "close" });
    expect(scene.state.lease.status).toBe("draining");
    expect(scene.try(submission(scene.state, 2))).toMatchObject({ code: "lease_closed" });
    scene.now += 2_000;
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 2_000, gpu, outputs: [] }));
    expect(scene.state.lease.status).toBe("draining");
    scene.tell(signed(scene, 3));
    expect(scene.state.lease.status).toBe("closing");
    const [close] = scene.frames("close");
    expect(close).toMatchObject({ cumulative: 2_000n, evidence: scene.job(1).receipt?.evidence });
    scene.tell(
      said({
        t: "close_signed",
        seq: 4,
        cumulative: 2_000n,
        valid_before: close?.valid_before ?? 0,
        signature: "0x03",
      }),
    );
    const [attest] = duties(scene.state, scene.now).filter((duty) => duty.t === "attest");
    expect(attest?.request).toMatchObject({
      usage: { cumulative: 2_000n },
      close: { validBefore: close?.valid_before },
    });
    scene.tell({
      t: "attested",
      sequence: 1,
      usage: "0x04",
      close: "0x06",
    });
    const relay = duties(scene.state, scene.now).find((duty) => duty.key === "relay:close");
    expect(relay).toMatchObject({
      intent: { cumulative: 2_000n, signatures: { provider: "0x03", meter: "0x06" }, allowance: ALLOWANCE },
    });
    const { hash, terms } = scene.state.lease;
    const result = { kind: "close", leaseId: hash, paid: "2000", refunded: "9998000", fee: "100" } as const;
    scene.tell({ t: "relayed", kind: "close", answer: done("close", result) });
    expect(scene.state.lease).toMatchObject({ status: "closed", settled: 2_000n });
    expect(scene.state.lease.errands.withdraw).toEqual([terms.provider, terms.feeRecipient, terms.payer]);
  });

  it("LSE-5 begins nothing any more that could outlast the time in which its close lands", () => {
    const timeouts = { queue_s: 3_600, start_s: 60, execution_s: 60 };
    const scene = active();
    scene.tell(submission(scene.state, 1, { timeouts }), submission(scene.state, 2, { timeouts }));
    scene.now = START + 3_600_000 - 120_001;
    scene.tell(said({ t: "started", seq: 1, ...of(scene, 1) })).after(2);
    expect(scene.state.lease.status).toBe("draining");
    expect(scene.job(1).status).toBe("running");
    expect(scene.job(2)).toMatchObject({ status: "aborted", price: 0n, failure: { code: "lease_ended" } });
  });

  it("LSE-5 winds up by itself before its terms run out", () => {
    const scene = active();
    scene.now = scene.state.lease.terms.expiry * 1_000 - 120_000;
    scene.tell({ t: "tick" });
    expect(scene.state.lease).toMatchObject({ status: "closing", end: { reason: "terms_expired" } });
  });

  it("LNK-7 gives the agent the meter's signature at once, and again after every hello", () => {
    const scene = ended();
    scene.tell({ t: "settle" });
    scene.tell(signed(scene, 3));
    expect(scene.frames("voucher"), "nothing before the meter signed").toEqual([]);
    scene.tell(attested(scene));
    const voucher = {
      seq: 0,
      cumulative: 2_000n,
      evidence: scene.job(1).receipt?.evidence,
      meter_signature: "0x04",
    };
    expect(scene.frames("voucher")).toMatchObject([voucher]);
    scene.tell({ t: "gone" }, said({ t: "hello", seq: 0, attempts: [], last_seq: 0 }));
    expect(scene.frames("voucher")).toMatchObject([voucher, voucher]);
  });

  it("LSE-6 is lost after a quarter of an hour without its node: the voucher is settled, the rest reclaimed later", () => {
    const scene = ended();
    scene.tell({ t: "settle" });
    scene.tell(signed(scene, 3));
    scene.tell(attested(scene), { t: "gone" });
    scene.after(LOST_MS);
    expect(scene.state.lease).toMatchObject({
      status: "lost",
      end: { reason: "node_lost", fault: "provider" },
    });
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toContain("relay:settle");
    scene.now = scene.state.lease.terms.expiry * 1_000 + 86_400_000;
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toContain("relay:reclaim");
  });

  it("LSE-6 ends every job of a lost lease, also one that was never sent, and wakes to reclaim the money", () => {
    const scene = active().tell({ t: "gone" });
    const timeouts = { queue_s: 86_400, start_s: 60, execution_s: 60 };
    scene.tell(submission(scene.state, 1, { timeouts, retries: 0 })).after(LOST_MS);
    expect(scene.state.lease.status).toBe("lost");
    expect(scene.job(1)).toMatchObject({ status: "aborted", price: 0n, failure: { code: "node_lost" } });
    const reclaimAt = (scene.state.lease.terms.expiry + 86_400) * 1_000;
    expect(wakeAt(scene.state, scene.now)).toBe(reclaimAt);
    scene.after(reclaimAt - scene.now);
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toContain("relay:reclaim");
    expect(wakeAt(scene.state, scene.now)).toBeGreaterThan(scene.now);
  });

  it("LSE-5 closed before its node was told still has the node told: its agent has the close to sign", () => {
    const scene = new Scene().tell(FUND);
    scene.tell(funded(scene.state), { t: "close" });
    expect(scene.state.lease.status).toBe("closing");
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toContain("node:open");
  });

  it("LSE-6 expires when the chain no longer knows it: what a reorganisation took back cannot be reclaimed", () => {
    const scene = active().tell({ t: "gone" }).after(LOST_MS);
    scene.after((scene.state.lease.terms.expiry + 86_400) * 1_000 - scene.now);
    scene.tell({ t: "relay_refused", kind: "reclaim", code: "lease_not_open", detail: "BadStatus(0)" });
    expect(scene.state.lease).toMatchObject({ status: "expired", end: { reason: "node_lost" } });
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toEqual(["node:release"]);
  });

  it("LSE-6 expires at its voucher's settlement already, once no authorization could open it again", () => {
    const refused = { t: "relay_refused", kind: "settle", code: "lease_not_open", detail: "" } as const;
    const scene = ended().tell({ t: "settle" });
    scene.tell(signed(scene, 3));
    scene.tell(attested(scene));
    const more = {
      ...FUND.funding,
      salt: `0x${"02".repeat(32)}` as const,
      valid_before: scene.now / 1_000 + 3_600,
    };
    scene.tell({ t: "top_up", funding: more }, { t: "gone" }).after(LOST_MS).tell(refused);
    expect(scene.state.lease.status, "a top-up may still land").toBe("lost");
    scene.after(3_600_000).tell(refused);
    expect(scene.state.lease.status).toBe("expired");
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toEqual(["node:release"]);
  });

  it("LSE-3 waits for a funding that lands late without an alarm that rings for nothing", () => {
    const scene = new Scene().tell(FUND).after(4_000_000);
    expect(scene.state.lease.status).toBe("funding");
    expect(wakeAt(scene.state, scene.now)).toBe(Number.POSITIVE_INFINITY);
  });

  it("LSE-3 finds an agent that dialled before the funding landed", () => {
    const scene = new Scene().tell({ t: "wake", connected: false }, FUND, HELLO);
    scene.tell(submission(scene.state, 1), funded(scene.state));
    expect(scene.job(1).status).toBe("starting");
  });

  it("LSE-3 begins no work for a funding that is not as hard on chain as its amount asks", () => {
    const scene = new Scene().tell(FUND, HELLO, submission(new Scene().state, 1));
    const landed = funded(scene.state);
    scene.tell({ ...landed, answer: { ...landed.answer, enough: false } });
    expect(scene.state.lease).toMatchObject({ status: "funding", funded: FUNDED });
    expect(scene.frames("run")).toEqual([]);
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toEqual(["relay:fund"]);
    scene.tell(landed);
    expect(scene.state.lease.status).toBe("active");
    expect(scene.frames("run")).toHaveLength(1);
  });

  it("LSE-3 ends when a reorganisation took the funding back and it cannot land again", () => {
    const scene = new Scene().tell(FUND);
    const landed = funded(scene.state);
    scene.tell({ ...landed, answer: { ...landed.answer, enough: false } });
    const { salt: funding } = FUND.funding;
    scene.tell({
      t: "relay_refused",
      kind: "fund",
      funding,
      code: "authorization_used",
      detail: "it was cancelled",
    });
    expect(scene.state.lease).toMatchObject({ status: "expired", end: { reason: "funding_failed" } });
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toEqual(["node:release"]);
  });

  it("LSE-8 takes more money while it is open, once by each authorization, and counts it when it has landed", () => {
    const quoted = new Scene();
    const more = { ...FUND.funding, amount: 5_000_000n, salt: `0x${"33".repeat(32)}` as const };
    expect(quoted.try({ t: "top_up", funding: more })).toMatchObject({ code: "payment_required" });
    const scene = active().tell({ t: "top_up", funding: more }, { t: "top_up", funding: more });
    expect(scene.state.lease).toMatchObject({ funded: FUNDED, topUps: [{ refused: null }] });
    expect(scene.try({ t: "top_up", funding: FUND.funding })).toMatchObject({ code: "funding_invalid" });
    const tooDear = submission(scene.state, 1, { max_price: FUNDED + 1n });
    expect(scene.try(tooDear)).toMatchObject({ code: "lease_underfunded" });
    const [duty] = duties(scene.state, scene.now).filter(({ key }) => key === `relay:fund:${more.salt}`);
    expect(duty).toMatchObject({ intent: { kind: "fund", amounts: [5_000_000n], salt: more.salt } });

    const leases = [{ leaseId: scene.state.lease.hash, funded: "15000000", openedAt: START / 1_000 }];
    const answer = done("fund", { kind: "fund", leases });
    scene.tell({ t: "relayed", kind: "fund", funding: more.salt, answer: { ...answer, enough: false } });
    expect(scene.state.lease.funded).toBe(FUNDED);
    scene.tell({ t: "relayed", kind: "fund", funding: more.salt, answer });
    expect(scene.state.lease).toMatchObject({ funded: FUNDED + 5_000_000n, topUps: [] });
  });

  it("LSE-8 goes on when more money cannot land, shows why, and tries the same authorization again when asked", () => {
    const more = { ...FUND.funding, salt: `0x${"33".repeat(32)}` as const };
    const scene = active().tell({ t: "top_up", funding: more });
    const refused = { t: "relay_refused", kind: "fund", funding: more.salt, detail: "it has 1" } as const;
    scene.tell({ ...refused, code: "relayer_low_balance" });
    expect(scene.state.lease.topUps).toMatchObject([{ refused: null }]);
    scene.tell({ ...refused, code: "insufficient_balance" });
    expect(scene.state.lease).toMatchObject({
      status: "active",
      topUps: [{ refused: { reason: "insufficient_funds", detail: "it has 1" } }],
    });
    expect(duties(scene.state, scene.now).map(({ key }) => key)).not.toContain(`relay:fund:${more.salt}`);
    scene.tell({ t: "top_up", funding: more });
    expect(duties(scene.state, scene.now).map(({ key }) => key)).toContain(`relay:fund:${more.salt}`);
  });

  it("LSE-8 takes eight at once, and forgets refused ones to make room", () => {
    const more = (n: number) => ({ ...FUND.funding, salt: `0x${String(n).repeat(64)}` as const });
    const scene = active();
    for (let n = 2; n < 10; n++) scene.tell({ t: "top_up", funding: more(n) });
    const ninth = { ...FUND.funding, salt: `0x${"aa".repeat(32)}` as const };
    expect(scene.try({ t: "top_up", funding: ninth })).toMatchObject({ code: "funding_invalid" });
    const { salt: funding } = more(2);
    scene.tell({ t: "relay_refused", kind: "fund", funding, code: "expired", detail: "late" });
    scene.tell({ t: "top_up", funding: ninth });
    expect(scene.state.lease.topUps.map((each) => fundingKey(each.funding))).toEqual([
      ...[3, 4, 5, 6, 7, 8, 9].map((n) => more(n).salt),
      ninth.salt,
    ]);
  });

  it("reads a lease that was stored before a field came", () => {
    const { held: _held, topUps: _topUps, block: _block, ...older } = z.encode(Lease, active().state.lease);
    expect(Lease.parse(older)).toEqual(active().state.lease);
  });

  it("LSE-7 gives the relayer each voucher of some worth at once, a small one after a minute", () => {
    const scene = vouched(2_000n);
    const holds = () => duties(scene.state, scene.now).filter((duty) => duty.key === "hold");
    expect(holds()).toEqual([]);
    expect(wakeAt(scene.state, scene.now)).toBe(START + HOLD_EVERY_MS);
    scene.after(HOLD_EVERY_MS);
    expect(holds()).toMatchObject([{ voucher: { kind: "settle", cumulative: 2_000n } }]);
    scene.tell({ t: "held", cumulative: 2_000n });
    expect(holds()).toEqual([]);
    expect(wakeAt(scene.state, scene.now)).toBeGreaterThan(scene.now + HOLD_EVERY_MS);

    const dear = vouched(HOLD_VALUE);
    expect(duties(dear.state, dear.now)).toContainEqual(
      expect.objectContaining({ key: "hold", voucher: expect.objectContaining({ cumulative: HOLD_VALUE }) }),
    );
  });

  it("LSE-7 gives the relayer no voucher that it lands itself, nor one that the meter has not signed", () => {
    const unsigned = ended().after(HOLD_EVERY_MS);
    expect(duties(unsigned.state, unsigned.now).map((duty) => duty.key)).not.toContain("hold");
    const lost = vouched(HOLD_VALUE);
    lost.tell({ t: "gone" }).after(LOST_MS);
    expect(duties(lost.state, lost.now).map((duty) => duty.key)).toContain("relay:settle");
    expect(duties(lost.state, lost.now).map((duty) => duty.key)).not.toContain("hold");
  });
});

/** With a voucher of so much that provider and meter have signed. */
function vouched(price: bigint): Scene {
  const scene = active();
  const timeouts = { queue_s: 600, start_s: 60, execution_s: 1_800 };
  const ms = Number(price);
  scene.tell(
    submission(scene.state, 1, { max_price: price, timeouts }),
    said({ t: "started", seq: 1, ...of(scene, 1) }),
  );
  scene.now += ms;
  scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms, gpu, outputs: [] }));
  const { spent } = scene.state.lease;
  expect(spent).toBe(price);
  scene.tell({ t: "settle" });
  scene.tell(signed(scene, 3));
  scene.tell(attested(scene));
  scene.now = START;
  return scene;
}
