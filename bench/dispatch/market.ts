import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { AgentConfig } from "@gpux/agent/config";
import { devnetAccount } from "@gpux/contracts/roles";
import { accountSigner, signRequest } from "@gpux/protocol/http-signature/erc8128";
import { packManifest } from "@gpux/protocol/manifest";
import { type Client, createClient } from "@gpux/sdk";
import { signAllowance } from "@gpux/sdk/spending";
import { generatePrivateKey, privateKeyToAddress } from "viem/accounts";
import { edgeUrl } from "../../scripts/stack/edge.ts";
import { edgeOptionsOf, startChain } from "../../scripts/stack/stack.ts";
import { type Child, startOurs } from "../child.ts";
import { freePort } from "../free-port.ts";
import type { AgentsSetup } from "./agents.ts";
import { echoManifest, PAYLOAD_BYTES } from "./echo.ts";
import { startWorkerd } from "./workerd.ts";

/** Base units that each lease is funded with and allowed to spend, and the most that one job may cost of them. */
const FUNDING = 1_000_000n;
const MAX_PRICE = 1_000n;
const UP_MS = 60_000;
/** Leases opened at once: an account may hold only a few quotes that are not funded yet. */
const AT_ONCE = 4;
/** The longest that a signature may be good for (ERC-8128 as the edge takes it). */
const SIGNED_FOR_S = 300;

interface OpenLease {
  readonly id: string;
  readonly allowance: { readonly cumulative: string; readonly signature: string };
}

/** A whole GPUX whose consumer has open, funded, connected leases. */
export interface BenchMarket {
  readonly port: number;
  readonly leases: number;
  readonly workerd: Child;
  readonly agents: Child;
  /**
   * Signed requests for new jobs on one lease, as bytes to be sent within five minutes, each once. `returns`: the job
   * gives its 256 bytes back as an output, which the agent puts into the object store.
   */
  signedJobs(lease: number, count: number, returns: boolean): Promise<Uint8Array[]>;
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
  const workerd = await startWorkerd(options);
  stops.push(workerd.stop);

  const config = AgentConfig.parse({
    edge: url,
    rpc: devnet.url,
    chain_id: devnet.chainId,
    escrow: devnet.escrow,
    payout: devnetAccount("provider").address,
    prices: { gpu_hour: "0.60" },
    region: "local",
  });
  const setup: AgentsSetup = {
    agents: Array.from({ length: count }, (_, i) => ({
      key: generatePrivateKey(),
      stateDir: join(folder, `agent-${i}`),
      config,
    })),
  };
  const agents = startOurs("agents", folder, new URL("./agents.ts", import.meta.url));
  stops.push(agents.stop);
  await agents.ask(setup);

  const { account } = devnetAccount("consumer");
  const client = createClient({ url, account, fetch: unpooled });
  const functions = {
    echo: await client.objects.put(packManifest(echoManifest(true))),
    sink: await client.objects.put(packManifest(echoManifest(false))),
  };
  const opened: OpenLease[] = [];
  const nodes = setup.agents.map(({ key }) => privateKeyToAddress(key));
  for (let i = 0; i < count; i += AT_ONCE) {
    const opening = Promise.all(nodes.slice(i, i + AT_ONCE).map((node) => openLease(client, node)));
    opened.push(...(await Promise.race([agents.failed, workerd.failed, opening])));
  }

  let made = 0;
  const signer = accountSigner(account, devnet.chainId);
  return {
    port,
    leases: count,
    workerd,
    agents,
    async signedJobs(index, wanted, returns) {
      const lease = opened[index];
      if (lease === undefined) throw new RangeError(`there are ${count} leases`);
      const requests: Uint8Array[] = [];
      for (let i = 0; i < wanted; i += 1) {
        const body = {
          function: returns ? functions.echo : functions.sink,
          inputs: { data: { base64: payload(made++) } },
          max_price: MAX_PRICE.toString(),
          allowance: lease.allowance,
        };
        const request = new Request(`${url}/v1/leases/${lease.id}/jobs`, {
          method: "POST",
          headers: { "content-type": "application/json", prefer: "wait=30" },
          body: JSON.stringify(body),
        });
        requests.push(await bytesOf(await signRequest(request, signer, { expiresInS: SIGNED_FOR_S })));
      }
      return requests;
    },
    stop: () => stopAll(stops),
  };
}

/** workerd closes idle keep-alive connections, on which a pooled client's next request would fail. */
const unpooled: typeof fetch = (request, init) => {
  const asked = new Request(request, init);
  asked.headers.set("connection", "close");
  return fetch(asked);
};

async function openLease(client: Client, node: string): Promise<OpenLease> {
  const demand = { node: node.toLowerCase() };
  const until = Date.now() + UP_MS;
  while (!(await isOnline(client, demand.node))) await pauseBefore(until, `node ${node} online`);
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

async function isOnline(client: Client, node: string): Promise<boolean> {
  for await (const each of client.nodes.list()) if (each.id === node) return each.status === "online";
  return false;
}

async function pauseBefore(until: number, what: string): Promise<void> {
  if (Date.now() > until) throw new Error(`${what}: not within ${UP_MS / 1_000} s`);
  await wait(50);
}

/** Other bytes for every job, so that no output is in the store already. */
function payload(n: number): string {
  const bytes = Buffer.alloc(PAYLOAD_BYTES, 7);
  bytes.writeUInt32LE(n);
  return bytes.toString("base64");
}

/** The request as HTTP/1.1 on the wire. */
async function bytesOf(request: Request): Promise<Uint8Array> {
  const url = new URL(request.url);
  const body = Buffer.from(await request.arrayBuffer());
  const fields = [...request.headers].map(([name, value]) => `${name}: ${value}`);
  const head = [
    `${request.method} ${url.pathname} HTTP/1.1`,
    `host: ${url.host}`,
    ...fields,
    `content-length: ${body.length}`,
  ];
  return Buffer.concat([Buffer.from(`${head.join("\r\n")}\r\n\r\n`), body]);
}
