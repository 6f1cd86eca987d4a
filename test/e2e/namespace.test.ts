import { connect, createServer } from "node:net";
import { devnetAccount } from "@gpux/contracts/roles";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Market, openMarket, publish, scene, sumOf } from "./testing/market.ts";
import { canMakeNetworks, makePrivateNetwork, type PrivateNetwork } from "./testing/private-network.ts";
import { earsOf, familyOf } from "./testing/processes.ts";

const can = canMakeNetworks();
const why = can ? "" : " (skipped: needs root, ip and iptables)";

/** How long a packet that is dropped is waited for; one that is taken comes back within a millisecond. */
const PATIENCE_MS = 1_500;

type Knock = "opened" | "refused" | "no answer";

function knock(host: string, port: number): Promise<Knock> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const end = (result: Knock) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(result);
    };
    const timer = setTimeout(end, PATIENCE_MS, "no answer");
    socket.once("connect", () => end("opened"));
    socket.once("error", () => end("refused"));
  });
}

describe.runIf(can)(`an agent that can only dial out${why}`, () => {
  let network: PrivateNetwork;
  let market: Market;

  beforeAll(async () => {
    network = makePrivateNetwork();
    const { outside, within, forward } = network;
    const inside = await network.listenInside();
    const before = await knock(network.inside, inside.port);
    network.shut();
    const after = await knock(network.inside, inside.port);
    await inside.stop();
    // What is there to be seen through an open door, and not through this one.
    expect([before, after]).toEqual(["opened", "no answer"]);
    market = await openMarket({ host: outside, rpc: forward, within });
  });
  afterAll(async () => {
    try {
      await market?.stop();
    } finally {
      await network?.remove();
    }
  });

  test("runs jobs, listens on nothing while it does, and is paid", async () => {
    const before = await market.ledger.balances();
    const client = market.client();
    const pathtrace = await publish(client, "pathtrace");
    const input = {
      function: pathtrace,
      inputs: scene({ width: 64, height: 48, samples: 24 }),
      max_price: 5_000n,
    };

    const seen: { phase: string; processes: number; ears: unknown[] }[] = [];
    const listen = (phase: string) => {
      const family = familyOf(market.agent.pid);
      seen.push({ phase, processes: family.length, ears: family.flatMap(({ pid }) => earsOf(pid)) });
    };
    listen("idle");
    const job = await client.jobs.run(input, {
      onEvent: (event) => {
        if (event.type === "progress") listen("running");
      },
    });
    listen("after");
    expect(job).toMatchObject({ status: "succeeded", node: devnetAccount("agent").address });

    expect(new Set(seen.map(({ phase }) => phase))).toEqual(new Set(["idle", "running", "after"]));
    for (const { phase, processes, ears } of seen) {
      expect({ phase, ears }).toEqual({ phase, ears: [] });
      // The agent and its GPU process.
      expect(processes).toBeGreaterThanOrEqual(2);
    }

    await market.close(client, job.lease_id);
    const after = await market.ledger.balances();
    expect(after.provider - before.provider + after.fee_recipient - before.fee_recipient).toBe(sumOf([job]));
    expect(before.consumer - after.consumer).toBe(sumOf([job]));
  });

  test("cannot be called", async () => {
    const ports = [22, 80, 443, 8545, 8787];
    const answers = await Promise.all(ports.map((port) => knock(network.inside, port)));
    expect(answers).toEqual(ports.map(() => "no answer"));
  });
});

// Else an eye that sees nothing would pass for an agent that has nothing to show.
describe.runIf(process.platform === "linux")("what finds listening sockets", () => {
  test("finds TCP and unix ones", async () => {
    const [tcp, unix] = [createServer(), createServer()];
    const name = `\0gpux-e2e-${process.pid}`;
    try {
      await new Promise<void>((resolve) => tcp.listen(0, "127.0.0.1", resolve));
      await new Promise<void>((resolve) => unix.listen(name, resolve));
      const kinds = earsOf(process.pid).map(({ kind }) => kind);
      expect(kinds).toEqual(expect.arrayContaining(["tcp", "unix"]));
    } finally {
      tcp.close();
      unix.close();
    }
  });
});
