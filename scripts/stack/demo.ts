import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type JobView, SignedReceipt } from "@gpux/protocol/job";
import type { LeaseView } from "@gpux/protocol/lease";
import { packManifest } from "@gpux/protocol/manifest";
import { formatAmount } from "@gpux/protocol/money";
import { type Client, verifyReceipt } from "@gpux/sdk";
import { z } from "zod";
import { packFunction } from "../../examples/functions/pack.ts";
import type { Balances, Ledger } from "./balances.ts";
import type { Timeline, TimelineEntry } from "./timeline.ts";

/** What the run of the main job produced; `--report` writes exactly this. Amounts are decimal strings. */
export interface Report {
  readonly images: readonly { readonly path: string; readonly sha256: string }[];
  readonly receipts: readonly z.input<typeof SignedReceipt>[];
  readonly transactions: LeaseView["transactions"];
  readonly balances: { readonly before: Record<string, string>; readonly after: Record<string, string> };
  readonly timeline: readonly TimelineEntry[];
}

export interface DemoOptions {
  readonly client: Client;
  readonly ledger: Ledger;
  readonly timeline: Timeline;
  /** Where the two images go. */
  readonly folder: string;
  readonly settlement: { readonly chainId: number; readonly escrow: `0x${string}` };
}

const MAX_PRICE = 30_000n;
const EXAMPLES = new URL("../../examples/functions/", import.meta.url).pathname;
const CLOSE_CHECK_MS = 200;

const usdc = (amount: bigint) => `${formatAmount(amount)} USDC`;

/** The main job: a scene is path-traced on somebody's GPU, denoised on the same lease, and everyone is paid. */
export async function runDemo({
  client,
  ledger,
  timeline,
  folder,
  settlement,
}: DemoOptions): Promise<Report> {
  await mkdir(folder, { recursive: true });
  const before = await ledger.balances();
  const etherBefore = await ledger.ether();

  const publish = async (name: string) =>
    client.objects.put(packManifest(await packFunction(join(EXAMPLES, name))));
  const [pathtrace, denoise] = await timeline.run(
    "publish functions",
    () => Promise.all([publish("pathtrace"), publish("denoise")]),
    (hashes) => hashes.map((hash) => hash.slice(0, 8)).join(" "),
  );
  const scene: unknown = JSON.parse(await readFile(join(EXAMPLES, "pathtrace", "room.json"), "utf8"));

  const run = (name: string, hash: string, inputs: Record<string, { json: never } | { object: string }>) =>
    timeline.run(
      name,
      async () => {
        const job = await client.jobs.run({ function: hash, inputs, max_price: MAX_PRICE });
        if (job.status !== "succeeded")
          throw new Error(`${name} ${job.status}: ${job.error?.detail ?? job.error?.title ?? ""}`);
        return job;
      },
      (job) => `${job.billed_ms} ms on ${job.node.slice(0, 10)}, ${usdc(job.price)}`,
    );
  const save = async (job: JobView, name: string) => {
    const bytes = await client.jobs.output(job, 0);
    const path = join(folder, name);
    await writeFile(path, bytes);
    return { path, sha256: job.outputs[0]?.sha256 ?? "" };
  };

  const traced = await run("pathtrace", pathtrace, { scene: { json: scene as never } });
  const noisy = await save(traced, "room.png");
  const denoised = await run("denoise (warm lease)", denoise, { photo: { object: noisy.sha256 } });
  const clean = await save(denoised, "room-denoised.png");
  if (denoised.lease_id !== traced.lease_id) throw new Error("the second job did not run on the warm lease");

  const jobs = [traced, denoised];
  const { terms } = await client.leases.get(traced.lease_id);
  await timeline.run(
    "check receipts",
    async () => {
      for (const job of jobs) {
        const check = await verifyReceipt(job, { ...settlement, terms });
        if (!check.ok) throw new Error(`the receipt of ${job.id} does not verify: ${check.code}`);
      }
    },
    () => "both signatures, prices and output hashes hold",
  );

  const lease = await timeline.run(
    "close, settle, pay out",
    () => closed(client, ledger, traced.lease_id),
    (view) => `${usdc(view.spent)} spent of ${usdc(view.funded)}`,
  );
  const after = await ledger.balances();
  checkBooks(before, after, jobs, lease);
  if (JSON.stringify(await ledger.ether(), bigints) !== JSON.stringify(etherBefore, bigints))
    throw new Error("a party other than the relayer spent ETH");

  return {
    images: [noisy, clean],
    receipts: jobs.flatMap((job) =>
      job.receipt === undefined ? [] : [z.encode(SignedReceipt, job.receipt)],
    ),
    transactions: lease.transactions,
    balances: { before: strings(before), after: strings(after) },
    timeline: timeline.entries,
  };
}

/** Closed, and everybody holds what they are owed. */
async function closed(client: Client, ledger: Ledger, id: string): Promise<LeaseView> {
  await client.leases.close(id);
  for (;;) {
    const lease = await client.leases.get(id);
    if (lease.status === "expired" || lease.status === "lost")
      throw new Error(`the lease ended as ${lease.status}: ${lease.end?.detail ?? ""}`);
    // All payouts may ride in one transaction.
    const paidOut = lease.transactions.some((each) => each.kind === "withdraw");
    if (lease.status === "closed" && paidOut && (await ledger.owed()) === 0n) return lease;
    await new Promise((resolve) => setTimeout(resolve, CLOSE_CHECK_MS));
  }
}

/** The books close to the base unit, or the run has failed. */
function checkBooks(before: Balances, after: Balances, jobs: readonly JobView[], lease: LeaseView): void {
  const sum = (books: Balances) => Object.values(books).reduce((total, amount) => total + amount, 0n);
  const prices = jobs.reduce((total, job) => total + job.price, 0n);
  const earned = after.provider - before.provider + (after.fee_recipient - before.fee_recipient);
  const problems = [
    ...(sum(before) === sum(after) ? [] : ["the sum over all parties changed"]),
    ...(earned === prices ? [] : [`provider and fee recipient got ${earned}, the receipts say ${prices}`]),
    ...(before.consumer - after.consumer === prices ? [] : ["the consumer did not get the rest back"]),
    ...(lease.spent === prices ? [] : ["the lease's usage is not the sum of its receipts"]),
  ];
  if (problems.length > 0) throw new Error(`the books do not close: ${problems.join("; ")}`);
}

function strings(books: Balances): Record<string, string> {
  return Object.fromEntries(Object.entries(books).map(([party, amount]) => [party, amount.toString()]));
}

function bigints(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}
