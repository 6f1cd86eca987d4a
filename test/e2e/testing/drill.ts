import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Devnet } from "@gpux/contracts/devnet";
import { devnetAccount } from "@gpux/contracts/roles";
import { echoWith } from "@gpux/durable-objects/testing/echo";
import { Address } from "@gpux/protocol/ids";
import type { Tier } from "@gpux/protocol/resources";
import { type Client, createClient } from "@gpux/sdk";
import { nodesOf } from "../../../scripts/seed/scenario.ts";
import { type Balances, openLedger } from "../../../scripts/stack/balances.ts";
import { startEdgeProcess } from "../../../scripts/stack/edge-process.ts";
import { edgeOptionsOf, startChain } from "../../../scripts/stack/stack.ts";
import { store } from "./ground.ts";
import { freePort, until } from "./market.ts";
import { type ToldNode, toldNode } from "./told-node.ts";

/** Cards and jobs of each lease; a node has two leases. */
export const GPUS = 25;
const FUNDING = 2_000_000n;
/** The edge comes back within seconds; a request that was cut off is repeated until then. */
const RETRIES = 60;

/** What a job of a gang is asked with. */
export interface Asked {
  readonly retries?: number;
  readonly queue_s?: number;
  readonly execution_s?: number;
  /** Base units that its lease is allowed to spend beyond it. */
  readonly ahead?: bigint;
}

/** Jobs of one lease, each known by its number to the executor and by its id to the market. */
export interface Gang {
  readonly node: ToldNode;
  readonly lease: string;
  /** Id by number, in the order in which they were created. */
  readonly jobs: ReadonlyMap<number, string>;
  /** Creates so many more; their numbers. */
  send(count: number, asked?: Asked): Promise<number[]>;
}

/** A market of several nodes whose jobs run until they are told to end. */
export interface Drill {
  readonly devnet: Devnet;
  readonly client: Client;
  readonly nodes: readonly ToldNode[];
  /** Opens a lease with so many cards of this node, {@link GPUS} unless it is said otherwise. */
  gang(node: ToldNode | undefined, tier: Tier, gpus?: number): Promise<Gang>;
  killEdge(): Promise<void>;
  startEdge(): Promise<void>;
  /** Of all parties, what the chain has of each; `provider` is all of them together. */
  balances(): Promise<Balances & { readonly owed: bigint }>;
  stop(): Promise<void>;
}

/** A node for each price, in USDC per GPU-hour. */
export async function openDrill(prices: readonly string[]): Promise<Drill> {
  const folder = await mkdtemp(join(tmpdir(), "gpux-drill-"));
  const devnet = await startChain(await freePort());
  const edgeOptions = edgeOptionsOf(devnet, { folder, port: await freePort() });
  let edge = await startEdgeProcess(edgeOptions);
  const owners = nodesOf(prices.length);
  const consumer = devnetAccount("consumer");
  const nodes = owners.map(({ payout, agent, key }, n) =>
    toldNode({
      address: Address.parse(agent.address),
      key,
      folder: join(folder, `node-${n}`),
      config: {
        edge: edge.url,
        rpc: devnet.url,
        chain_id: devnet.chainId,
        escrow: devnet.escrow,
        payout: Address.parse(payout.address),
        prices: { gpu_hour: prices[n] ?? "" },
        yieldable_prices: { gpu_hour: "0.18" },
        region: "local",
        concurrency: 2 * GPUS,
        simulated: { gpus: 2 * GPUS, cpu: 32, memory_gb: 128 },
      },
    }),
  );
  await Promise.all(nodes.map((node) => node.start()));
  const client = createClient({ url: edge.url, account: consumer.account, maxRetries: RETRIES });
  const echo = await store(
    client,
    echoWith({ inputs: { value: { kind: "number", type: "f32", min: 0, max: 1_000 } } }),
  );
  const ledgers = owners.map(({ payout, agent }) =>
    openLedger(devnet, {
      consumer: consumer.address,
      provider: Address.parse(payout.address),
      feeRecipient: devnetAccount("feeRecipient").address,
      agent: Address.parse(agent.address),
    }),
  );
  let created = 0;

  return {
    devnet,
    client,
    nodes,
    async gang(node, tier, gpus = GPUS) {
      if (node === undefined) throw new Error(`the drill has ${prices.length} nodes`);
      const demand = { node: node.address, tier, resources: { gpus } };
      const quote = await client.quotes.create({ demand, amount: FUNDING });
      const { id } = await client.leases.open(quote, { demand });
      await until(async () => (await client.leases.get(id)).status === "active", "the lease is active");
      const jobs = new Map<number, string>();
      return {
        node,
        lease: id,
        jobs,
        async send(wanted, { retries = 2, queue_s = 600, execution_s = 300, ahead = 0n } = {}) {
          const numbers: number[] = [];
          for (let n = 0; n < wanted; n += 1) {
            created += 1;
            const number = created;
            const request = {
              function: echo,
              inputs: { value: { number } },
              max_price: 40_000n,
              timeouts: { queue_s, execution_s },
              retries,
              lease: id,
              demand,
            };
            const job = await client.jobs.create(request, { allowAhead: ahead });
            jobs.set(number, job.id);
            numbers.push(number);
          }
          return numbers;
        },
      };
    },
    killEdge: () => edge.kill(),
    async startEdge() {
      edge = await startEdgeProcess(edgeOptions);
    },
    async balances() {
      const all = await Promise.all(ledgers.map((ledger) => ledger.balances()));
      const owed = await Promise.all(ledgers.map((ledger) => ledger.owed()));
      const sum = (amounts: readonly bigint[]) => amounts.reduce((total, each) => total + each, 0n);
      const first = all[0];
      if (first === undefined) throw new Error("a drill has nodes");
      return { ...first, provider: sum(all.map(({ provider }) => provider)), owed: sum(owed) };
    },
    async stop() {
      await Promise.all(nodes.map((node) => node.kill()));
      await edge.stop();
      await devnet.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Tells these to end. */
export function finish({ node }: Gang, jobs: readonly number[]): void {
  node.tell({ end: [...jobs] });
}

/** Resolves when the executors have begun each of these so often. */
export async function begun({ node }: Gang, jobs: readonly number[], times = 1): Promise<void> {
  const count = (job: number) =>
    node.sights.filter((sight) => sight.what === "began" && sight.job === job).length;
  await until(
    async () => jobs.every((job) => count(job) === times),
    `${jobs.length} jobs have begun ${times} time(s)`,
  );
}

/** For how long the job ran in the attempt that its executor ended well; null when none did. */
export function deliveredMs({ node }: Gang, job: number): number | null {
  const own = node.sights.filter((sight) => sight.what !== "notice").filter((sight) => sight.job === job);
  const end = own.findLast(({ what }) => what === "ended");
  const began = own.findLast(({ what, at }) => what === "began" && at <= (end?.at ?? 0));
  return end === undefined || began === undefined ? null : end.at - began.at;
}
