import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { COMPACT_LINES } from "@gpux/agent/leases/lease";
import type { JobView } from "@gpux/protocol/job";
import { type FunctionManifest, packManifest } from "@gpux/protocol/manifest";
import type { Client } from "@gpux/sdk";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { packFunction } from "../../examples/functions/pack.ts";
import type { Balances } from "../../scripts/stack/balances.ts";
import { checkChain, checkPapers, found } from "./testing/books.ts";
import { jobRows } from "./testing/lease-rows.ts";
import { type Market, openMarket, publish, smallProduct, sumOf, until } from "./testing/market.ts";
import { openFiles } from "./testing/open-files.ts";
import { familyOf } from "./testing/processes.ts";

const JOBS = 100;
/** The last of them come in one request. */
const TOGETHER = 16;
const FAILURES = 20;
/** Everything that comes up with the first jobs (connections, objects, their files) is up by then. */
const WARM = 10;
/**
 * A sleeping object that wakes opens three files and its folder's; HTTP connections come and go with keep-alive. What
 * leaked one descriptor with every tenth job would already show.
 */
const SLACK = 8;

/** started, result and signed, each sent and acknowledged; frames dealt with; allowance, end and signature. */
const LINES_OF_ONE_JOB = 16;

interface Census {
  readonly processes: number;
  readonly agentFiles: number;
  readonly edgeFiles: number;
}

describe("a hundred jobs in a row on one warm lease", () => {
  let market: Market;
  let client: Client;
  let before: Balances;
  let warm: Census;
  let lease: string;
  const jobs: JobView[] = [];

  beforeAll(async () => {
    market = await openMarket();
    client = market.client();
    before = await market.ledger.balances();
  });
  afterAll(() => market?.stop());

  const census = (): Census => ({
    processes: familyOf(market.agent.pid).length + familyOf(market.edge.workerdPid).length,
    agentFiles: openFiles(market.agent.pid).length,
    edgeFiles: openFiles(market.edge.workerdPid).length,
  });
  const stateFiles = () => readdirSync(market.agentSetup.folder).sort();
  const journalLines = () =>
    readFileSync(join(market.agentSetup.folder, "leases", `${lease}.jsonl`), "utf8").split("\n").length - 1;
  const rows = () => jobRows(join(market.folder, "edge"), lease);

  it("all succeed with their own result, on the same lease and receipted in order", async () => {
    const matmul = await publish(client, "matmul");
    const input = (n: number) => ({ function: matmul, inputs: smallProduct(n), max_price: 1_000n });
    const check = async (job: JobView, n: number) => {
      expect(job).toMatchObject({ status: "succeeded", attempts: [{ n: 1, outcome: "succeeded" }] });
      const bytes = await client.jobs.output(job, 0);
      expect([...new Float32Array(bytes.buffer)]).toEqual([n, 2 * n, 3 * n, 4 * n]);
      expect(job.receipt?.receipt.sequence).toBe(n);
      jobs.push(job);
    };
    for (let n = 1; n <= JOBS - TOGETHER; n += 1) {
      await check(await client.jobs.run(input(n)), n);
      if (n === WARM) warm = census();
    }
    const rest = Array.from({ length: TOGETHER }, (_, i) => JOBS - TOGETHER + 1 + i);
    const batch = await client.jobs.batch(jobs[0]?.lease_id ?? "", rest.map(input), { wait: 60 });
    expect(batch.map(({ status }) => status)).toEqual(rest.map(() => "succeeded"));
    for (const [i, { id }] of batch.entries()) await check(await client.jobs.wait(id), rest[i] ?? 0);
    lease = jobs[0]?.lease_id ?? "";
    expect(new Set(jobs.map((job) => job.lease_id)).size).toBe(1);
    const receipts = await checkPapers(market, await client.leases.get(lease), jobs);
    expect(receipts).toHaveLength(JOBS);
  });

  it("leaves no process and no descriptor behind", () => {
    const now = census();
    expect(now.processes).toBe(warm.processes);
    expect(now.agentFiles).toBeLessThanOrEqual(warm.agentFiles + SLACK);
    expect(now.edgeFiles).toBeLessThanOrEqual(warm.edgeFiles + SLACK);
  });

  it("leaves one row for each job in the Lease, none of them live, and the same journal for each", () => {
    const kept = rows();
    expect(kept.map((row) => row.id)).toEqual(jobs.map((job) => job.id));
    expect(kept.filter((row) => row.live)).toEqual([]);
    // queued, starting, running, succeeded. Progress passes by and is not kept; only a refused receipt has an entry.
    for (const row of kept) expect(row.journal).toEqual(["status", "status", "status", "status"]);
  });

  it("leaves the agent a compacted journal and no file that it had not before", async () => {
    // It is compacted with an acknowledgement; what one job writes may have come after the last.
    expect(journalLines()).toBeLessThan(COMPACT_LINES + LINES_OF_ONE_JOB);
    await until(async () => stateFiles().every((name) => !name.endsWith(".new")), "the status is written");
    expect(stateFiles()).toEqual([
      "agent.log",
      "agent.pid",
      "cache",
      "config.json",
      "holds.jsonl",
      "keystore.json",
      "leases",
      "status.json",
    ]);
    expect(readdirSync(join(market.agentSetup.folder, "leases"))).toEqual([`${lease}.jsonl`]);
  });

  it(`MTR-2 ${FAILURES} jobs that do not compile cost nothing and leave as little`, async () => {
    const broken = await client.objects.put(packManifest(await brokenProduct()));
    const spent = (await client.leases.get(lease)).spent;
    for (let n = 1; n <= FAILURES; n += 1) {
      const job = await client.jobs.run({ function: broken, inputs: smallProduct(n), max_price: 1_000n });
      expect(job).toMatchObject({
        status: "failed",
        lease_id: lease,
        price: 0n,
        error: { code: "wgsl_invalid", fault: "tenant" },
      });
      expect(job.receipt).toBeUndefined();
      jobs.push(job);
    }
    const now = census();
    expect(now.processes).toBe(warm.processes);
    expect(now.agentFiles).toBeLessThanOrEqual(warm.agentFiles + SLACK);
    expect(now.edgeFiles).toBeLessThanOrEqual(warm.edgeFiles + SLACK);
    // An answer may be ahead of its rows (ACK-5); who asks for a job gets what is written.
    await client.jobs.get(jobs.at(-1)?.id ?? "");
    const kept = rows();
    expect(kept.map((row) => row.id)).toEqual(jobs.map((job) => job.id));
    expect(kept.filter((row) => row.live)).toEqual([]);
    const view = await client.leases.get(lease);
    expect(view.spent).toBe(spent);
    expect(view.committed).toBe(spent);
  });

  it("MON-5 closes to the base unit, and the agent forgets the lease", async () => {
    await market.close(client, lease);
    const ended = await found(
      client,
      jobs.map((job) => job.id),
    );
    expect(sumOf(ended)).toBe(sumOf(jobs));
    await checkPapers(market, await client.leases.get(lease), ended);
    await checkChain(market, before, ended);
    await until(
      async () => readdirSync(join(market.agentSetup.folder, "leases")).length === 0,
      "the agent has deleted the lease's journal",
    );
  });
});

/** The matrix product with modules that are no WGSL: the edge cannot know, the executor's compiler does. */
async function brokenProduct(): Promise<FunctionManifest> {
  const manifest = await packFunction(new URL("../../examples/functions/matmul", import.meta.url).pathname);
  const names = Object.keys(manifest.modules);
  return { ...manifest, modules: Object.fromEntries(names.map((name) => [name, "fn product( { no WGSL }"])) };
}
