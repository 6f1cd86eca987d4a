import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { JobView } from "@gpux/protocol/job";
import type { Client } from "@gpux/sdk";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Balances } from "../../scripts/stack/balances.ts";
import { checkChain, checkPapers, found } from "./testing/books.ts";
import { type Market, openMarket, publish, scene, smallProduct, until } from "./testing/market.ts";
import { familyOf, running } from "./testing/processes.ts";

/** SPEC ACK-1, JOB-6, LNK-3: what an agent's death costs is time, never money, and never a result it wrote down. */
describe("kill -9 of the agent", () => {
  let market: Market;
  let client: Client;
  let before: Balances;
  const jobs: string[] = [];

  beforeAll(async () => {
    market = await openMarket();
    client = market.client({ maxRetries: 30 });
    before = await market.ledger.balances();
  });
  afterAll(() => market?.stop());

  const journalOf = (job: JobView) =>
    readFileSync(join(market.agentSetup.folder, "leases", `${job.lease_id}.jsonl`), "utf8");

  it("JOB-6 requeues the running job, which completes on the same node and is charged once", async () => {
    const job = await client.jobs.create({
      function: await publish(client, "pathtrace"),
      inputs: scene({ width: 160, height: 120, samples: 24 }),
      max_price: 30_000n,
    });
    jobs.push(job.id);
    for await (const event of client.jobs.events(job.id))
      if (event.type === "status" && event.data.status === "running") break;
    const killed = familyOf(market.agent.pid);
    expect(killed.length, "the agent and its GPU process").toBeGreaterThan(1);

    await market.crashAgent();

    await until(async () => running(killed).length === 0, "the GPU process died with its agent");
    const ended = await client.jobs.wait(job.id);
    expect(ended.status).toBe("succeeded");
    expect(ended.attempts.map(({ n, outcome }) => ({ n, outcome }))).toEqual([
      { n: 1, outcome: "node_lost" },
      { n: 2, outcome: "succeeded" },
    ]);
    expect(ended.price).toBeGreaterThan(0n);
    const lease = await client.leases.get(ended.lease_id);
    expect(lease.spent).toBe(ended.price);
    expect(await checkPapers(market, lease, [ended])).toHaveLength(1);
  });

  it("ACK-1 delivers after its return a result that it had written down and the edge had not heard of", async () => {
    const matmul = await publish(client, "matmul");
    // The moment lies between the journal's write and the edge's answer to the frame: it is tried until it is hit.
    for (let tries = 1; ; tries += 1) {
      const job = await client.jobs.create({
        function: matmul,
        inputs: smallProduct(tries),
        max_price: 10_000n,
      });
      jobs.push(job.id);
      while (!hasResult(journalOf(job), job.id)) await new Promise(setImmediate);
      process.kill(market.agent.pid, "SIGKILL");
      process.kill(market.edge.workerdPid, "SIGKILL");
      const killedAt = Date.now();
      await market.crashEdge();
      await market.crashAgent();

      const ended = await client.jobs.wait(job.id);
      expect(ended.status).toBe("succeeded");
      expect(ended.attempts, "it did not run again").toHaveLength(1);
      if (Date.parse(ended.ended_at ?? "") > killedAt) return;
      expect(tries, "the edge always knew before it died").toBeLessThan(8);
    }
  });

  it("MON-5 pays for each job once", async () => {
    const ended = await found(client, jobs);
    const [lease] = new Set(ended.map((job) => job.lease_id));
    if (lease === undefined) throw new Error("no job has a lease");
    await market.close(client, lease);
    await checkPapers(market, await client.leases.get(lease), ended);
    await checkChain(market, before, ended);
  });
});

/** A line of the agent's journal says the job's result. */
function hasResult(journal: string, job: string): boolean {
  return journal.split("\n").some((line) => line.includes('"t":"result"') && line.includes(job));
}
