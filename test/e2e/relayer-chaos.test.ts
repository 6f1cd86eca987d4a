import { readdir, rm } from "node:fs/promises";
import { expect, test } from "vitest";
import { runChaos } from "../chaos/relayer-chaos.ts";

const limits = { stallSeconds: 60, timeoutSeconds: 120 };

test("RLY-2 RLY-3 RLY-6 RLY-8 leases settle to the base unit and the wei through faults, reorganisations and kills", async () => {
  const report = await runChaos({ leases: 3, kills: 1, seed: 7, blockMs: 250, ...limits });
  expect(report).toMatchObject({ kills: 1, intents: 18 });
  expect(report.reorgs).toBeGreaterThan(0);
  expect(Object.keys(report.faults).length).toBeGreaterThan(1);
});

test("a run that is not over in time says what is stuck, and keeps what the relayer left", async () => {
  const said: string[] = [];
  // Four stages need four blocks.
  const run = runChaos({
    leases: 1,
    kills: 0,
    seed: 7,
    blockMs: 1_000,
    stallSeconds: 60,
    timeoutSeconds: 1,
    say: (line) => said.push(line),
  });
  await expect(run).rejects.toThrow(/not over after 1 s;.*0 of 1 leases driven[\s\S]*the chain awaits nonce/);
  const kept = /kept in (\S+)/.exec(said.join("\n"))?.[1];
  expect(await readdir(kept ?? "no folder is named")).not.toEqual([]);
  await rm(kept ?? "", { recursive: true });
});
