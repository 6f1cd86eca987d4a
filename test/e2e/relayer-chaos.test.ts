import { expect, test } from "vitest";
import { runChaos } from "../chaos/relayer-chaos.ts";

test("RLY-2 RLY-3 RLY-6 RLY-8 leases settle to the base unit and the wei through faults, reorganisations and kills", async () => {
  const report = await runChaos({
    leases: 3,
    kills: 1,
    seed: 7,
    blockMs: 250,
    stallSeconds: 60,
    timeoutSeconds: 120,
  });
  expect(report).toMatchObject({ kills: 1, intents: 18 });
  expect(Object.keys(report.faults).length).toBeGreaterThan(1);
});
