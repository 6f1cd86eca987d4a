import { WIND_UP_S } from "@gpux/protocol/lease";
import { describe, expect, it } from "vitest";
import { endsAt } from "./state.ts";
import { FUND, funded, HELLO, holdOf, START, said, submission, termsOf } from "./testing/fixtures.ts";
import { Scene } from "./testing/scene.ts";
import { wakeAt } from "./timers.ts";

const HOUR = 3_600_000;

/** Of an hour, which may be made two. */
function extendable(): Scene {
  const hold = holdOf(termsOf({ expiry: START / 1_000 + 7_200 }));
  const scene = new Scene({ ...hold, text: { ...hold.text, extendable_s: 3_600 } });
  return scene.tell(FUND, funded(scene.state), { t: "wake", connected: false }, HELLO);
}

describe("the end of a lease", () => {
  it("LSE-15 comes when it was agreed, though the terms run longer", () => {
    const scene = extendable();
    expect(wakeAt(scene.state, scene.now)).toBe(START + HOUR - WIND_UP_S * 1_000);
    scene.after(HOUR - WIND_UP_S * 1_000);
    expect(scene.state.lease.end).toMatchObject({ reason: "terms_expired" });
  });

  it("LSE-15 is moved later, told, and never earlier", () => {
    const scene = extendable();
    const late = submission(scene.state, 1, {
      timeouts: { queue_s: 600, start_s: 60, execution_s: 3_600 },
    });
    expect(scene.try(late)).toMatchObject({ ok: false, code: "lease_closed" });
    const step = scene.try({ t: "extend", extendedS: 1_800 });
    const until = new Date(START + 1.5 * HOUR).toISOString();
    expect(step.ok && step.events).toEqual([{ type: "extended", data: { until } }]);
    scene.tell({ t: "extend", extendedS: 1_800 }, { t: "extend", extendedS: 60 }, late);
    expect(endsAt(scene.state.lease)).toBe(START + 1.5 * HOUR);
    expect(wakeAt(scene.state, scene.now)).toBeLessThanOrEqual(START + 1.5 * HOUR - WIND_UP_S * 1_000);
    scene.after(HOUR);
    expect(scene.state.lease.status).toBe("active");
  });

  it.each<[string, (scene: Scene) => unknown, string]>([
    ["its terms run", (scene) => scene, "not_extendable"],
    ["its node drains", (scene) => scene.tell(said({ t: "drain", seq: 1, deadline_s: 60 })), "lease_closed"],
    ["it is closing", (scene) => scene.tell({ t: "close" }), "lease_closed"],
  ])("LSE-15 is not moved beyond what %s allows", (_, happens, code) => {
    const scene = extendable();
    happens(scene);
    expect(scene.try({ t: "extend", extendedS: 3_601 })).toMatchObject({ ok: false, code });
  });
});
