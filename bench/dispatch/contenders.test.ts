import { describe, expect, test } from "vitest";
import { bullmq, durableBullmq } from "./contenders/bullmq.ts";
import type { Contender } from "./contenders/contender.ts";
import { direct } from "./contenders/direct.ts";
import { jetstream } from "./contenders/jetstream.ts";
import { nats, rawNats } from "./contenders/nats.ts";
import { sshTunnel } from "./contenders/ssh-tunnel.ts";
import { onStage } from "./dispatch.ts";
import { countSyncs } from "./fsyncs.ts";

const NEEDY: readonly Contender[] = [nats, rawNats, jetstream, bullmq, durableBullmq, sshTunnel];

describe("contenders that need a program of the system", () => {
  test.each(NEEDY.map((contender) => [contender.name, contender] as const))(
    "%s does jobs, or says what is lacking",
    async (_name, contender) => {
      await onStage(1, async (stage) => {
        const started = await contender.start(stage);
        if ("lacks" in started) return expect(started.lacks).toMatch(/\(Debian: apt-get install [a-z-]+\)$/);
        const section = await started.prepare({ connections: 2, turns: 3 });
        const loaded = await section(200);
        expect(loaded.sample).toBe("");
        expect(loaded.turns).toBeGreaterThan(0);
      });
    },
  );
});

describe("counting syncs", () => {
  test("counts none of a server that keeps nothing, and lets it go on", async () => {
    await onStage(1, async (stage) => {
      const started = await direct.start(stage);
      if ("lacks" in started) throw new Error(started.lacks);
      const counting = await countSyncs(stage.folder, started.processes);
      // Without strace there is nothing to be seen here.
      if (counting === null) return;
      const section = await started.prepare({ connections: 1, turns: 1 });
      await section(50);
      expect(await counting.stop()).toEqual([0]);
      expect((await section(50)).turns).toBeGreaterThan(0);
    });
  });

  test("counts every one of Redis that writes to disk before it answers", async () => {
    await onStage(1, async (stage) => {
      const started = await durableBullmq.start(stage);
      if ("lacks" in started) return;
      const counting = await countSyncs(stage.folder, started.processes);
      if (counting === null) return;
      const section = await started.prepare({ connections: 1, turns: 3 });
      const { turns } = await section(200);
      const syncs = (await counting.stop()).reduce((sum, count) => sum + count, 0);
      expect(syncs).toBeGreaterThanOrEqual(turns);
    });
  });
});
