import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { Child } from "../child.ts";
import { processorUs } from "../processor-time.ts";
import { type Crowd, type CrowdSize, openCrowd } from "./crowd.ts";
import { inTurns, until } from "./turns.ts";

const HELP = `npm run load -- [options]

A whole market of many on this machine: agents come online, leases are opened and funded on a local chain, jobs run on
all of them at once, everything rests, and all is closed and paid out. Fails when a job, a lease or a base unit is lost.

  --agents N    agents with a key, sockets and journals each, in one process (2000)
  --leases N    open at the same time; at most as many as agents (500)
  --jobs N      over all leases (2000)
  --at-once N   jobs under way at a time (64)
  --help        this text`;

class Usage extends Error {}

function sizeOf(args: string[]): (CrowdSize & { readonly atOnce: number }) | null {
  const whole = { type: "string" } as const;
  const { values } = parseArgs({
    args,
    options: {
      agents: whole,
      leases: whole,
      jobs: whole,
      "at-once": whole,
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return null;
  const count = (name: "agents" | "leases" | "jobs" | "at-once", otherwise: number) => {
    const value = Number(values[name] ?? otherwise);
    if (!Number.isInteger(value) || value < 1) throw new Usage(`--${name} takes a whole number from 1 up.`);
    return value;
  };
  const size = {
    agents: count("agents", 2_000),
    leases: count("leases", 500),
    jobs: count("jobs", 2_000),
    atOnce: count("at-once", 64),
  };
  if (size.leases > size.agents) throw new Usage("--leases: an agent has one GPU here, and so one lease.");
  return size;
}

/** Resident memory and open descriptors, where the system tells (proc_pid_status(5)). */
function burden(child: Child | null): string {
  if (child === null) return "not started";
  if (!existsSync(`/proc/${child.pid}/status`)) return "not known on this system";
  const rss = /VmRSS:\s+([0-9]+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1];
  const files = readdirSync(`/proc/${child.pid}/fd`).length;
  return `${Math.round(Number(rss) / 1_024)} MiB, ${files} descriptors`;
}

async function phase<T>(name: string, crowd: Crowd, count: number, work: () => Promise<T>): Promise<T> {
  const spent = () => (processorUs(crowd.workerd.pid) ?? 0) / 1_000;
  const [since, before] = [performance.now(), spent()];
  const died = crowd.workerd.failed;
  // A client that cannot reach a dead workerd hears of it before we do, and knows less.
  const result = await Promise.race([work().catch((error) => Promise.race([died, rejectSoon(error)])), died]);
  const [seconds, ms] = [(performance.now() - since) / 1_000, spent() - before];
  const rate = `${(count / seconds).toFixed(1)}/s, workerd ${(ms / count).toFixed(1)} ms of processor each`;
  console.log(`${name.padEnd(26)} ${String(count).padStart(6)} in ${seconds.toFixed(1)} s: ${rate}`);
  console.log(`${"".padEnd(33)} workerd ${burden(crowd.workerd)}; agents ${burden(crowd.agents)}`);
  return result;
}

async function rejectSoon(error: unknown): Promise<never> {
  await wait(1_000);
  throw error;
}

const REST_S = 30;

async function run(size: CrowdSize & { readonly atOnce: number }, folder: string): Promise<void> {
  console.log("starting chain and workerd …");
  const crowd = await openCrowd(folder, size);
  try {
    await phase("agents online", crowd, size.agents, crowd.gather);
    const before = await Promise.all(crowd.consumers.map(({ ledger }) => ledger.balances()));
    const { leases, refused } = await phase("leases open", crowd, size.leases, () => crowd.open(size.leases));
    const refusals = Object.entries(refused).map(([code, times]) => `${code} ${times}`);
    console.log(`${"".padEnd(33)} refused and tried again: ${refusals.join(", ") || "none"}`);

    const jobs = Array.from({ length: size.jobs }, (_, n) => n);
    const prices = await phase("jobs", crowd, size.jobs, () =>
      inTurns(jobs, size.atOnce, async (n) => leases[n % leases.length]?.run(n) ?? 0n),
    );
    await phase(`rest of ${REST_S} s`, crowd, REST_S, () => wait(REST_S * 1_000));
    await phase("leases closed, paid out", crowd, size.leases, async () => {
      await inTurns(leases, size.atOnce, ({ consumer, id }) => consumer.client.leases.close(id));
      await inTurns(leases, size.atOnce, ({ consumer, id }) =>
        until(async () => (await consumer.client.leases.get(id)).status === "closed", `${id} is closed`),
      );
      await until(async () => {
        const owed = await Promise.all(crowd.consumers.map(({ ledger }) => ledger.owed()));
        return owed.every((amount) => amount === 0n);
      }, "everything is paid out");
    });

    const spent = prices.reduce((sum, price) => sum + price, 0n);
    const after = await Promise.all(crowd.consumers.map(({ ledger }) => ledger.balances()));
    const sum = (all: typeof before, party: "consumer") =>
      all.reduce((total, each) => total + each[party], 0n);
    const paid = sum(before, "consumer") - sum(after, "consumer");
    const [first, last] = [before[0], after[0]];
    const earned =
      first && last ? last.provider + last.fee_recipient - first.provider - first.fee_recipient : 0n;
    const left = last?.escrow ?? 0n;
    console.log(`${size.jobs} jobs cost ${spent} base units; consumers paid ${paid}, ${earned} was earned`);
    if (paid !== spent || earned !== spent || left !== 0n)
      throw new Error(`the books do not close: ${left} base units are left in escrow`);
    console.log("the books close to the base unit");
  } finally {
    await crowd.stop();
  }
}

// A signal alone would run no exit handlers, and those stop what was started.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));

try {
  const size = sizeOf(process.argv.slice(2));
  if (size === null) console.log(HELP);
  else {
    const folder = await mkdtemp(join(tmpdir(), "gpux-load-"));
    process.once("exit", () => void rm(folder, { recursive: true, force: true }));
    await run(size, folder);
    await rm(folder, { recursive: true, force: true });
    // The chain's node keeps timers of its own.
    process.exit(0);
  }
} catch (error) {
  console.error(error instanceof Usage ? `load: ${error.message}` : error);
  process.exit(error instanceof Usage ? 2 : 1);
}
