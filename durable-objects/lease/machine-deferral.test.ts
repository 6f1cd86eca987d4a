import { expect, it } from "vitest";
import { mayFollow } from "./deferral.ts";
import { HELLO, said, submission } from "./testing/fixtures.ts";
import { active, gpu, of, type Scene } from "./testing/scene.ts";

const failed = (scene: Scene, n: number) =>
  said({ t: "failed", seq: scene.state.lease.seen + 1, ...of(scene, 1, n), ms: 0, gpu, code: "device_lost" });

/** Whether the rows of what the agent says may follow behind. */
function follows(scene: Scene, event: ReturnType<typeof failed>): boolean {
  const before = scene.state;
  scene.sent = [];
  scene.tell(event);
  return mayFollow(before, scene.state, scene.sent);
}

it("ACK-5 the end of a job may be told before its rows are written, but of one that had lost an attempt", () => {
  const once = active();
  once.tell(submission(once.state, 1, { retries: 0 }), { t: "gone" }, HELLO);
  expect(follows(once, failed(once, 1))).toBe(true);
  expect(once.job(1).status).toBe("failed");
  // Seed 31563: its agent brought back the first attempt, and it ran again, for money.
  const twice = active();
  twice.tell(submission(twice.state, 1, { retries: 1 }), { t: "gone" }, HELLO);
  expect(follows(twice, failed(twice, 1))).toBe(true);
  expect(twice.job(1)).toMatchObject({ status: "starting", attempts: [{}, {}] });
  expect(follows(twice, failed(twice, 2))).toBe(false);
  expect(twice.job(1).status).toBe("failed");
});
