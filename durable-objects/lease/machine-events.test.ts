import { LeaseEvent } from "@gpux/protocol/lease-event";
import { describe, expect, it } from "vitest";
import { BLOCK_MS } from "./blocks.ts";
import { eventsOf, isKept, type LeaseEntry } from "./events.ts";
import type { Event } from "./machine.ts";
import { done, FUND, funded, HELLO, START, said, submission } from "./testing/fixtures.ts";
import { active, attested, ended, gpu, of, Scene, signed } from "./testing/scene.ts";
import { LOST_MS } from "./timers.ts";

/** What the lease tells of these events, one after another. */
function told(scene: Scene, ...events: Event[]): LeaseEntry[] {
  return events.flatMap((event) => {
    const before = scene.state.lease;
    scene.tell(event);
    return eventsOf(before, scene.state.lease);
  });
}

const brief = (entries: readonly LeaseEntry[]) =>
  entries.map(({ type, data }) => [type, ...Object.values(data)].join(" "));

describe("LSE-12 a lease tells", () => {
  it("how it opens, is connected and closed, with reason and fault", () => {
    const scene = new Scene();
    const opening = told(scene, FUND, funded(scene.state), { t: "wake", connected: false }, HELLO);
    expect(brief(opening)).toEqual([
      "status funding",
      "funded 10000000 10000000",
      "status active",
      "node_back",
    ]);
    expect(brief(told(scene, { t: "gone" }, { t: "close" }))).toEqual([
      "node_away",
      "status closing closed_by_consumer tenant",
    ]);
    scene.now += LOST_MS;
    expect(brief(told(scene, { t: "tick" }))).toEqual(["status lost closed_by_consumer tenant"]);
  });

  it("of money on its way, landed and refused", () => {
    const scene = active();
    const more = { ...FUND.funding, amount: 5_000_000n, salt: `0x${"33".repeat(32)}` as const };
    expect(brief(told(scene, { t: "top_up", funding: more }, { t: "top_up", funding: more }))).toEqual([
      `top_up ${more.salt} 5000000 landing`,
    ]);
    const refused = { t: "relay_refused", kind: "fund", funding: more.salt, detail: "it has 1" } as const;
    expect(brief(told(scene, { ...refused, code: "insufficient_balance" }))).toEqual([
      `top_up ${more.salt} 5000000 refused insufficient_funds it has 1`,
    ]);
    told(scene, { t: "top_up", funding: more });
    const leases = [{ leaseId: scene.state.lease.hash, funded: "15000000", openedAt: START / 1_000 }];
    const answer = done("fund", { kind: "fund", leases });
    expect(brief(told(scene, { t: "relayed", kind: "fund", funding: more.salt, answer }))).toEqual([
      "funded 15000000 5000000",
    ]);
  });

  it("once when less than a fifth of the money is left", () => {
    const scene = active();
    const timeouts = { queue_s: 600, start_s: 60, execution_s: 3_000 };
    const run = (n: number, ms: number) => {
      scene.tell(
        submission(scene.state, n, { max_price: BigInt(ms), timeouts: { ...timeouts, execution_s: 120 } }),
      );
      scene.tell(said({ t: "started", seq: 3 * n, ...of(scene, n) }));
      const before = scene.state.lease;
      scene.now += ms;
      scene.tell(said({ t: "result", seq: 3 * n + 1, ...of(scene, n), ms, gpu, outputs: [] }));
      return eventsOf(before, scene.state.lease);
    };
    scene.state = { ...scene.state, lease: { ...scene.state.lease, funded: 200_000n } };
    expect(run(1, 100_000)).toEqual([]);
    expect(brief(run(2, 60_001))).toEqual(["low_balance 39999 200000"]);
    expect(run(3, 10_000)).toEqual([]);
  });

  it("of its GPUs and of what the node announces", () => {
    const scene = active().tell({ t: "errand", done: "opened" });
    scene.now += 300_000;
    expect(brief(told(scene, { t: "tick" }, { t: "gone" }))).toEqual(["capacity false"]);
    expect(brief(told(active(), said({ t: "drain", seq: 1, deadline_s: 60 })))).toEqual([
      `drain ${new Date(START + 60_000).toISOString()}`,
      "status closing node_drained provider",
    ]);
    const cheap = active();
    const { lease } = cheap.state;
    cheap.state = { ...cheap.state, lease: { ...lease, text: { ...lease.text, tier: "yieldable" } } };
    cheap.tell(submission(cheap.state, 1), said({ t: "started", seq: 1, ...of(cheap, 1) }));
    expect(brief(told(cheap, said({ t: "yield", seq: 2, notice_s: 30 })))).toEqual([
      `yield ${new Date(cheap.now + 30_000).toISOString()}`,
    ]);
  });

  it("of each voucher to who watches, and keeps none of them", () => {
    const scene = ended().after(BLOCK_MS);
    const entries = [...told(scene, signed(scene, 3)), ...told(scene, attested(scene))];
    expect(brief(entries)).toEqual(["voucher 2000"]);
    expect(entries.map(isKept)).toEqual([false]);
  });

  it("in events that fit their schema", () => {
    const scene = new Scene();
    for (const entry of told(scene, FUND, funded(scene.state)))
      expect(
        LeaseEvent.parse({ id: 1, lease: scene.state.lease.id, at: new Date(START).toISOString(), ...entry }),
      ).toBeTruthy();
  });
});
