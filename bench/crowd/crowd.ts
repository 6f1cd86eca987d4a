import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { AgentConfig } from "@gpux/agent/config";
import type { Devnet } from "@gpux/contracts/devnet";
import { devnetAccount } from "@gpux/contracts/roles";
import { packManifest } from "@gpux/protocol/manifest";
import { type Client, createClient, GpuxError } from "@gpux/sdk";
import { generatePrivateKey, type PrivateKeyAccount, privateKeyToAccount } from "viem/accounts";
import { type Ledger, openLedger } from "../../scripts/stack/balances.ts";
import { edgeUrl } from "../../scripts/stack/edge.ts";
import { edgeOptionsOf, startChain } from "../../scripts/stack/stack.ts";
import { type Child, startOurs } from "../child.ts";
import type { AgentsSetup } from "../dispatch/agents.ts";
import { echoManifest, PAYLOAD_BYTES } from "../dispatch/echo.ts";
import { startWorkerd } from "../dispatch/workerd.ts";
import { freePort } from "../free-port.ts";
import { inTurns, until } from "./turns.ts";

/**
 * Base units that each lease is funded with, and the most that one job may cost of them. An hour is dear, so that a
 * job which takes a millisecond costs something and the books are put to the test.
 */
const GPU_HOUR = "3600";
const FUNDING = 4_000_000n;
const MAX_PRICE = 100_000n;
/** One consumer may hold only a few quotes at once, and a person rarely has more leases than this. */
const LEASES_PER_CONSUMER = 50;

export interface CrowdSize {
  readonly agents: number;
  readonly leases: number;
  readonly jobs: number;
}

interface Consumer {
  readonly account: PrivateKeyAccount;
  readonly client: Client;
  readonly ledger: Ledger;
}

/** A whole GPUX of many: one chain, one bare workerd, and every agent with its own key, sockets and journals. */
export interface Crowd {
  readonly workerd: Child;
  /** Null until {@link Crowd.gather}. */
  readonly agents: Child | null;
  readonly consumers: readonly Consumer[];
  /** Starts the agents, a troop after another: owners do not press a button together. Resolves when all are online. */
  gather(): Promise<void>;
  /** Opens leases until there are `count`; says what the market refused on the way, by code. */
  open(count: number): Promise<{ leases: readonly CrowdLease[]; refused: Record<string, number> }>;
  stop(): Promise<void>;
}

export interface CrowdLease {
  readonly id: string;
  readonly consumer: Consumer;
  /** Runs one job to its end and resolves with its price. @throws when it does not succeed. */
  run(n: number): Promise<bigint>;
}

/** @throws with the end of a log when a part does not come up; what had started is stopped. */
export async function openCrowd(folder: string, size: CrowdSize): Promise<Crowd> {
  const stops: (() => Promise<void>)[] = [];
  const stop = async () => {
    for (const each of stops.splice(0).reverse()) await each();
  };
  try {
    const devnet = await startChain(0);
    stops.push(() => devnet.close());
    const options = edgeOptionsOf(devnet, { folder, port: await freePort() });
    await mkdir(options.storage, { recursive: true });
    const { workerd, store } = await startWorkerd(options);
    stops.push(store.stop, workerd.stop);
    let agents: Child | null = null;
    const consumers = await consumersOf(
      devnet,
      edgeUrl(options),
      Math.ceil(size.leases / LEASES_PER_CONSUMER),
    );
    const [first] = consumers;
    if (first === undefined) throw new RangeError("a crowd has a lease at least");
    const sink = await first.client.objects.put(packManifest(echoManifest("sink")));
    return {
      workerd,
      get agents() {
        return agents;
      },
      consumers,
      stop,
      async gather() {
        const setups = troopsOf(folder, devnet, edgeUrl(options), size.agents);
        agents = startOurs("agents", folder, new URL("../dispatch/agents.ts", import.meta.url));
        stops.push(agents.stop);
        for (const [i, setup] of setups.entries()) {
          await agents.ask(setup);
          await until(
            async () => (await online(first.client)) >= i * TROOP + setup.agents.length,
            `the ${i + 1}. troop of agents is online`,
          );
        }
      },
      open: (count) => openLeases(consumers, count, sink),
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function online(client: Client): Promise<number> {
  let count = 0;
  for await (const node of client.nodes.list()) if (node.status === "online") count += 1;
  return count;
}

const TROOP = 50;

function troopsOf(folder: string, devnet: Devnet, edge: string, count: number): AgentsSetup[] {
  const config = AgentConfig.parse({
    edge,
    rpc: devnet.url,
    chain_id: devnet.chainId,
    escrow: devnet.escrow,
    payout: devnetAccount("provider").address,
    prices: { gpu_hour: GPU_HOUR },
    region: "local",
  });
  const agents = Array.from({ length: count }, (_, i) => ({
    key: generatePrivateKey(),
    stateDir: join(folder, "agents", String(i)),
    config,
  }));
  return Array.from({ length: Math.ceil(count / TROOP) }, (_, i) => ({
    agents: agents.slice(i * TROOP, (i + 1) * TROOP),
  }));
}

async function consumersOf(devnet: Devnet, url: string, count: number): Promise<Consumer[]> {
  const consumers: Consumer[] = [];
  for (let i = 0; i < count; i += 1) {
    const account = privateKeyToAccount(generatePrivateKey());
    const consumer = devnetAccount("consumer").address;
    const parties = {
      consumer: account.address.toLowerCase() as typeof consumer,
      provider: devnetAccount("provider").address,
      feeRecipient: devnetAccount("feeRecipient").address,
      agent: devnetAccount("agent").address,
    };
    await devnet.mint(parties.consumer, FUNDING * BigInt(LEASES_PER_CONSUMER));
    consumers.push({
      account,
      client: createClient({ url, account, fetch: unpooled }),
      ledger: openLedger(devnet, parties),
    });
  }
  return consumers;
}

/** workerd closes idle keep-alive connections, on which a pooled client's next request would fail. */
const unpooled: typeof fetch = (request, init) => {
  const asked = new Request(request, init);
  asked.headers.set("connection", "close");
  return fetch(asked);
};

/** Refusals are part of a race for the same nodes: each opening may meet this many before the run fails. */
const TRIES = 20;
const AT_ONCE = 8;

async function openLeases(consumers: readonly Consumer[], count: number, sink: string) {
  const refused: Record<string, number> = {};
  const wanted = Array.from({ length: count }, (_, i) => i);
  const leases = await inTurns(wanted, AT_ONCE, async (i) => {
    const consumer = consumers[i % consumers.length];
    if (consumer === undefined) throw new RangeError("there are no consumers");
    for (let tries = 1; ; tries += 1)
      try {
        return await openLease(consumer, sink);
      } catch (error) {
        if (!(error instanceof GpuxError) || tries === TRIES) throw error;
        refused[error.code] = (refused[error.code] ?? 0) + 1;
      }
  });
  return { leases, refused };
}

async function openLease(consumer: Consumer, sink: string): Promise<CrowdLease> {
  const { client } = consumer;
  const quote = await client.quotes.create({ amount: FUNDING });
  const lease = await client.leases.open(quote, { amount: FUNDING });
  return {
    id: lease.id,
    consumer,
    async run(n) {
      const bytes = Buffer.alloc(PAYLOAD_BYTES);
      bytes.writeUInt32LE(n);
      const job = await client.jobs.create(
        {
          function: sink,
          inputs: { data: { base64: bytes.toString("base64") } },
          max_price: MAX_PRICE,
          lease: lease.id,
        },
        { wait: 60 },
      );
      const ended = job.ended_at === undefined ? await client.jobs.wait(job.id) : job;
      if (ended.status === "succeeded") return ended.price;
      throw new Error(`job ${job.id} on ${lease.id} ${ended.status}: ${ended.error?.code}`);
    },
  };
}
