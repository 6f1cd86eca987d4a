import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { socketUrl, upgradeHeaders } from "@gpux/agent/link/credentials";
import { devnetAccount } from "@gpux/contracts/roles";
import { FRAME_VERSION } from "@gpux/protocol/frames";
import { privateKeyToAccount } from "viem/accounts";
import { afterAll, beforeAll, expect, test } from "vitest";
import WebSocket from "ws";
import { type Market, openMarket, until } from "./testing/market.ts";
import { openFiles } from "./testing/open-files.ts";

const HEARTBEATS = 40;
const HEARTBEAT_EVERY_MS = 150;
const OBJECTS = ["LeaseObject", "NodeObject"] as const;

let market: Market;
beforeAll(async () => {
  market = await openMarket();
});
afterAll(() => market.stop());

/** workerd keeps a Durable Object's database open while the object is in memory, and closes it with the object. */
function awake(): string[] {
  const open = openFiles(market.edge.workerdPid);
  return OBJECTS.filter((name) =>
    open.some((file) => file.includes(name) && /\/[0-9a-f]{64}\.sqlite$/.test(file)),
  );
}

/** Every file of leases and nodes, the runtime's list of alarms (metadata.sqlite) among them, as it was last written. */
function written(): Record<string, string> {
  const storage = join(market.folder, "edge");
  const files = readdirSync(storage, { recursive: true, encoding: "utf8" }).filter(
    (file) => OBJECTS.some((name) => file.includes(name)) && /\.sqlite(-wal)?$/.test(file),
  );
  return Object.fromEntries(
    files.map((file) => {
      const { size, mtimeMs } = statSync(join(storage, file));
      return [file, `${size} bytes at ${mtimeMs}`];
    }),
  );
}

/** A socket of the agent's, dialled and greeted as the agent does it, on which the test sends the heartbeats. */
async function dial(path: string, hello: object): Promise<{ beat(): Promise<string>; socket: WebSocket }> {
  const url = socketUrl(market.edge.url, path);
  const account = privateKeyToAccount(devnetAccount("agent").privateKey);
  const credentials = { account, chainId: market.devnet.chainId, clock: { now: Date.now, refusedAt() {} } };
  const socket = new WebSocket(url, { headers: await upgradeHeaders(credentials, url) });
  const closed = new Promise<never>((_, reject) => {
    socket.once("close", (code) => reject(new Error(`${path} was closed with ${code}`)));
  });
  // At the end of the test nobody waits any more.
  closed.catch(() => undefined);
  const next = () =>
    Promise.race([
      closed,
      new Promise<string>((resolve) => socket.once("message", (data) => resolve(String(data)))),
    ]);
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const welcome = next();
  socket.send(JSON.stringify({ v: FRAME_VERSION, seq: 0, ack: 0, t: "hello", ...hello }));
  expect(JSON.parse(await welcome)).toMatchObject({ t: "welcome" });
  return {
    socket,
    beat() {
      const answer = next();
      socket.send("ping");
      return answer;
    },
  };
}

test("LNK-6, SOC-7: an idle node and an idle lease with a client on it hibernate, and heartbeats wake, write and arm nothing", async () => {
  const client = market.client();
  const quote = await client.quotes.create({ amount: 100_000n });
  await client.leases.open(quote, { amount: 100_000n });
  await until(
    async () => (await client.leases.get(quote.lease_id)).node_connected,
    "the agent has dialled the lease",
  );
  // From here on the test speaks for the agent: its own heartbeats come every half a minute only.
  await market.agent.kill();
  const { terms, text } = quote;
  const control = await dial("/v1/agent/connect", {
    agent_version: "1.0.0",
    provider: terms.provider,
    offer: {
      gpus: text.gpus,
      cpu: 1,
      memory_gb: 1,
      region: text.region,
      prices: text.prices,
      concurrency: 1,
    },
    leases: [quote.lease_id],
    draining: false,
  });
  const data = await dial(`/v1/agent/leases/${quote.lease_id}`, { attempts: [], last_seq: 0 });
  const session = await client.leases.session(quote.lease_id);
  expect(awake()).toEqual(OBJECTS);

  await until(async () => awake().length === 0, "both objects have left memory");
  const before = written();
  expect(Object.keys(before).length).toBeGreaterThanOrEqual(4);
  for (let i = 0; i < HEARTBEATS; i += 1) {
    expect(await Promise.all([control.beat(), data.beat()])).toEqual(["pong", "pong"]);
    expect(awake()).toEqual([]);
    await new Promise((resolve) => setTimeout(resolve, HEARTBEAT_EVERY_MS));
  }
  expect(written()).toEqual(before);

  // Only asleep: who asks is answered, and the socket is the same.
  expect((await client.leases.get(quote.lease_id)).node_connected).toBe(true);
  expect(awake()).toContain("LeaseObject");
  const nothing = `job_${quote.lease_id.slice(4)}_${"a".repeat(26)}`;
  await expect(session.cancel(nothing)).rejects.toMatchObject({ code: "job_unknown" });
  await session.close();
  control.socket.close();
  data.socket.close();
});
