import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { AgentConfig } from "@gpux/agent/config";
import { devnetAccount } from "@gpux/contracts/roles";
import type { LeaseId } from "@gpux/protocol/ids";
import { packManifest } from "@gpux/protocol/manifest";
import { type Client, createClient } from "@gpux/sdk";
import { signAllowance } from "@gpux/sdk/spending";
import { generatePrivateKey, privateKeyToAddress } from "viem/accounts";
import { edgeUrl } from "../../scripts/stack/edge.ts";
import { edgeOptionsOf, startChain } from "../../scripts/stack/stack.ts";
import { type Child, startOurs } from "../child.ts";
import { freePort } from "../free-port.ts";
import type { AgentsSetup } from "./agents.ts";
import { echoManifest } from "./echo.ts";
import { startWorkerd } from "./workerd.ts";

/** Base units that each lease is funded with and allowed to spend. */
const FUNDING = 1_000_000n;
const UP_MS = 60_000;
/** Leases opened at once: an account may hold only a few quotes that are not funded yet. */
const AT_ONCE = 4;

export interface OpenLease {
  readonly id: LeaseId;
  /** For all that it is funded with. */
  readonly allowance: { readonly cumulative: string; readonly signature: string };
}

/** A whole GPUX whose consumer has open, funded, connected leases. */
export interface BenchMarket {
  readonly url: string;
  readonly port: number;
  readonly chainId: number;
  readonly workerd: Child;
  /** In place of R2. */
  readonly store: Child;
  readonly agents: Child;
  readonly leases: readonly OpenLease[];
  /** Of functions in the object store: one gives its 256 bytes back as an output, one nothing, one 64 MiB. */
  readonly functions: { readonly echo: string; readonly sink: string; readonly bulk: string };
  /** Starts one more agent, in a process of its own that the caller stops. Resolves when its node is online. */
  addAgent(name: string): Promise<{ readonly child: Child; readonly node: string }>;
  stop(): Promise<void>;
}

/** What must be stopped when the market only half came up, newest last. */
type Stops = (() => Promise<void>)[];

async function stopAll(stops: Stops): Promise<void> {
  for (const stop of stops.splice(0).reverse()) await stop();
}

export async function openBenchMarket(folder: string, leases: number): Promise<BenchMarket> {
  const stops: Stops = [];
  try {
    return await open(folder, leases, stops);
  } catch (error) {
    await stopAll(stops);
    throw error;
  }
}

async function open(folder: string, count: number, stops: Stops): Promise<BenchMarket> {
  const devnet = await startChain(0);
  stops.push(() => devnet.close());
  const port = await freePort();
  const options = edgeOptionsOf(devnet, { folder, port });
  const url = edgeUrl(options);
  await mkdir(options.storage, { recursive: true });
  const { workerd, store } = await startWorkerd(options);
  stops.push(store.stop, workerd.stop);

  const config = AgentConfig.parse({
    edge: url,
    rpc: devnet.url,
    chain_id: devnet.chainId,
    escrow: devnet.escrow,
    payout: devnetAccount("provider").address,
    prices: { gpu_hour: "0.60" },
    region: "local",
  });
  const startAgents = async (name: string, many: number) => {
    const setup: AgentsSetup = {
      agents: Array.from({ length: many }, (_, i) => ({
        key: generatePrivateKey(),
        stateDir: join(folder, `${name}-${i}`),
        config,
      })),
    };
    const child = startOurs(name, folder, new URL("./agents.ts", import.meta.url));
    stops.push(child.stop);
    await child.ask(setup);
    return { child, nodes: setup.agents.map(({ key }) => privateKeyToAddress(key).toLowerCase()) };
  };
  const { child: agents, nodes } = await startAgents("agents", count);

  const { account } = devnetAccount("consumer");
  const client = createClient({ url, account, fetch: unpooled });
  const functions = {
    echo: await client.objects.put(packManifest(echoManifest("echo"))),
    sink: await client.objects.put(packManifest(echoManifest("sink"))),
    bulk: await client.objects.put(packManifest(echoManifest("bulk"))),
  };
  const opened: OpenLease[] = [];
  for (let i = 0; i < count; i += AT_ONCE) {
    const opening = Promise.all(nodes.slice(i, i + AT_ONCE).map((node) => openLease(client, node)));
    opened.push(...(await Promise.race([agents.failed, workerd.failed, opening])));
  }

  return {
    url,
    port,
    chainId: devnet.chainId,
    leases: opened,
    functions,
    workerd,
    store,
    agents,
    async addAgent(name) {
      const {
        child,
        nodes: [node = ""],
      } = await startAgents(name, 1);
      await untilOnline(client, node);
      return { child, node };
    },
    stop: () => stopAll(stops),
  };
}

/** workerd closes idle keep-alive connections, on which a pooled client's next request would fail. */
export const unpooled: typeof fetch = (request, init) => {
  const asked = new Request(request, init);
  asked.headers.set("connection", "close");
  return fetch(asked);
};

async function openLease(client: Client, node: string): Promise<OpenLease> {
  const demand = { node };
  const until = Date.now() + UP_MS;
  await untilOnline(client, demand.node);
  const quote = await client.quotes.create({ demand, amount: FUNDING });
  await client.leases.open(quote, { demand, amount: FUNDING });
  for (;;) {
    const lease = await client.leases.get(quote.lease_id);
    if (lease.status === "active" && lease.node_connected) break;
    await pauseBefore(until, `lease ${lease.id}, now ${lease.status}, ready`);
  }
  const { settlement } = await client.wellKnown();
  const { account } = devnetAccount("consumer");
  const allowance = { leaseHash: quote.lease_hash, cumulative: FUNDING };
  return { id: quote.lease_id, allowance: await signAllowance(account, settlement, allowance) };
}

async function untilOnline(client: Client, node: string): Promise<void> {
  const until = Date.now() + UP_MS;
  while (!(await isOnline(client, node))) await pauseBefore(until, `node ${node} online`);
}

async function isOnline(client: Client, node: string): Promise<boolean> {
  for await (const each of client.nodes.list()) if (each.id === node) return each.status === "online";
  return false;
}

async function pauseBefore(until: number, what: string): Promise<void> {
  if (Date.now() > until) throw new Error(`${what}: not within ${UP_MS / 1_000} s`);
  await wait(50);
}
