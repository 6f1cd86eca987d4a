import { describe, expect, it } from "vitest";
import { duties } from "./duties.ts";
import { SUSPENDED_MS, WATCH_MS } from "./funding.ts";
import { isTerminal } from "./job-state.ts";
import type { Event } from "./machine.ts";
import { FUND, funded, said, submission } from "./testing/fixtures.ts";
import { active, counted, dedicated, gpu, of, running, type Scene } from "./testing/scene.ts";
import { wakeAt } from "./timers.ts";
import { jobView } from "./view.ts";

const isWatched = (scene: Scene) => duties(scene.state, scene.now).some(({ t }) => t === "watch");
const isAsked = (scene: Scene) => duties(scene.state, scene.now).some(({ key }) => key === "relay:fund");

/** The relayer's word on the funding, with how hard it is. */
function stands(scene: Scene, confirmation: "included" | "safe"): Event {
  const event = funded(scene.state);
  return { ...event, answer: { ...event.answer, confirmation } };
}

const refusedFunding: Event = {
  t: "relay_refused",
  kind: "fund",
  funding: FUND.funding.salt,
  code: "insufficient_balance",
  detail: "the payer moved it",
};

describe("a funding that a reorganisation takes back", () => {
  it("LSE-14 is looked after while the lease is used and until it is hard, and no longer", () => {
    const idle = active().after(WATCH_MS);
    expect([isWatched(idle), wakeAt(idle.state, idle.now) > idle.now + WATCH_MS]).toEqual([false, true]);

    const scene = running();
    expect(wakeAt(scene.state, scene.now)).toBeLessThanOrEqual(scene.now + WATCH_MS);
    scene.after(WATCH_MS);
    expect(isWatched(scene)).toBe(true);
    scene.tell(stands(scene, "included"));
    expect(isWatched(scene)).toBe(false);
    scene.after(WATCH_MS);
    expect(isWatched(scene)).toBe(true);
    scene.tell(stands(scene, "safe"));
    expect(isWatched(scene.after(WATCH_MS))).toBe(false);
  });

  it("LSE-14 suspends the lease: what runs may end, what waits waits, until it has landed again", () => {
    const scene = running();
    scene.tell({ t: "unfunded" }, submission(scene.state, 2));
    expect(scene.state.lease.status).toBe("suspended");
    expect(isAsked(scene)).toBe(true);
    scene.now += 1_000;
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 1_000, gpu, outputs: [] }));
    expect(scene.job(1)).toMatchObject({ status: "succeeded", price: 1_000n });
    expect(jobView(scene.state, scene.job(2), scene.now).wait?.blockers).toMatchObject({ funding: 1 });
    const later = funded(scene.state);
    scene.tell({ ...later, answer: { ...later.answer, enough: false } });
    expect(scene.state.lease.status).toBe("suspended");
    scene.tell(later);
    expect(scene.state.lease).toMatchObject({ status: "active", suspendedAt: null });
    expect(scene.job(2).status).toBe("starting");
  });

  it("MTR-9 stops the clock of a dedicated lease, and bills what came before", () => {
    const scene = dedicated();
    scene.after(10_000).tell({ t: "unfunded" });
    expect(scene.frames("tick").at(-1)).toMatchObject({ runs: false });
    scene.tell(counted(scene, 10_000));
    scene.after(60_000).tell(funded(scene.state));
    expect(scene.frames("tick").at(-1)).toMatchObject({ runs: true });
    scene.tell(counted(scene, 10_000));
    scene.after(5_000).tell({ t: "close" }, counted(scene, 15_000));
    expect(scene.state.lease.spent).toBe(10_000n);
    scene.tell(counted(scene, 15_000));
    expect(scene.state.lease.spent).toBe(15_000n);
  });

  it.each<[string, (scene: Scene) => unknown]>([
    ["it cannot land again", (scene) => scene.tell(refusedFunding)],
    ["half an hour is over", (scene) => scene.after(SUSPENDED_MS)],
  ])("LSE-14 ends the lease when %s, for the chain's fault", (_, happens) => {
    const scene = running();
    scene.tell({ t: "unfunded" });
    expect(wakeAt(scene.state, scene.now)).toBeLessThanOrEqual(scene.now + SUSPENDED_MS);
    happens(scene);
    expect(scene.state.lease).toMatchObject({
      status: "lost",
      end: { reason: "funding_failed", fault: "chain" },
    });
    expect(isTerminal(scene.job(1))).toBe(true);
  });

  it("LSE-14 is not closed while nobody knows whether there is money to close over", () => {
    const scene = active();
    scene.tell({ t: "unfunded" });
    expect(scene.try({ t: "close" })).toMatchObject({ ok: false, code: "lease_closed" });
    scene.tell(funded(scene.state), { t: "close" });
    expect(scene.state.lease.status).toBe("closing");
  });
});
