import { evictDurableObject, runDurableObjectAlarm } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { CLOSE } from "@gpux/protocol/frames";
import { type Address, leaseIdOf } from "@gpux/protocol/ids";
import { QuoteRequest } from "@gpux/protocol/lease";
import { bytesToHex } from "viem/utils";
import { expect, test } from "vitest";
import type { HoldRequest } from "../interfaces.ts";
import { addressOf, newAccount } from "../testing/client.ts";
import { offerOf, ScriptedAgent } from "../testing/scripted-agent.ts";

const nodeOf = (address: Address) => env.NODE.getByName(address);
const evict = (address: Address) => evictDurableObject(nodeOf(address));

/** A hold for one GPU of the agent's at its price, which lapses far later than any test lasts. */
function holdOn(agent: ScriptedAgent, model: string): HoldRequest {
  const address = addressOf(agent.account);
  return {
    lease: leaseIdOf(bytesToHex(crypto.getRandomValues(new Uint8Array(32)))),
    expiresAt: Date.now() + 600_000,
    terms: {
      payer: address,
      consumerSigner: address,
      provider: address,
      providerSigner: address,
      meter: address,
      feeRecipient: address,
      feeBps: 0,
      upfront: 0n,
      unattended: 0n,
      ratePerHour: 3_600_000n,
      expiry: Math.floor(Date.now() / 1000) + 3_600,
      quote: `0x${"01".repeat(32)}`,
    },
    text: {
      node: address,
      gpus: offerOf(model).gpus,
      resources: { gpus: 1, cpu: 0, memory_gb: 0 },
      prices: { gpu_hour: "3600000", core_hour: "0", gb_hour: "0" },
      tier: "firm",
      mode: "serverless",
      region: "eu-west",
      tick_s: 60,
      salt: `0x${"02".repeat(32)}`,
    },
  };
}

test("QTE-6 a hold lives through reservation, opening, a lost socket and release, with an eviction between every two", async () => {
  const offer = offerOf("NODE_A");
  let agent = await ScriptedAgent.join(offer);
  const address = addressOf(agent.account);
  const request = holdOn(agent, "NODE_A");
  await evict(address);

  const holding = nodeOf(address).hold(request);
  const asked = await agent.next("hold");
  expect(asked).toMatchObject({ hold: request.lease, terms: request.terms });
  agent.tell({ t: "held", hold: request.lease });
  expect(await holding).toEqual({ ok: true });
  await evict(address);

  expect(await nodeOf(address).hold(holdOn(agent, "NODE_A"))).toMatchObject({
    ok: false,
    code: "no_capacity",
  });
  expect(await nodeOf(address).reserve(request.lease, Date.now() + 900_000)).toEqual({ ok: true });
  agent.close(1000);
  await agent.closed;
  await evict(address);

  expect(await nodeOf(address).describe()).toMatchObject({ ok: false, code: "node_offline" });
  expect(await nodeOf(address).open(request.lease, request.terms)).toEqual({ ok: true });
  await evict(address);

  agent = await ScriptedAgent.dial(agent.account, agent);
  await evict(address);
  agent.hello(offer);
  expect(await agent.next("welcome")).toMatchObject({ leases: [request.lease] });
  expect(await agent.next("open")).toMatchObject({ lease: request.lease, terms: request.terms });
  agent.say({ t: "ack" });
  await evict(address);

  await nodeOf(address).release(request.lease);
  expect(await agent.next("release")).toMatchObject({ hold: request.lease });
  expect(await nodeOf(address).describe()).toMatchObject({ ok: true, entry: { free: 1, status: "online" } });
});

test("QTE-3 a price that rises between quote and lease is not this lease's: it is opened at its own, and the next at the new one", async () => {
  const agent = await ScriptedAgent.join(offerOf("NODE_H", { gpus: 2 }));
  const address = addressOf(agent.account);
  const request = holdOn(agent, "NODE_H");
  const holding = nodeOf(address).hold(request);
  await agent.confirm();
  expect(await holding).toEqual({ ok: true });

  agent.tell({ t: "offer", offer: offerOf("NODE_H", { gpus: 2, gpu_hour: "7200000" }) });
  await expect
    .poll(() => nodeOf(address).describe())
    .toMatchObject({ entry: { offer: { prices: { gpu_hour: 7_200_000n } } } });
  await evict(address);
  expect(await nodeOf(address).reserve(request.lease, Date.now() + 900_000)).toEqual({ ok: true });
  expect(await nodeOf(address).open(request.lease, request.terms)).toEqual({ ok: true });
  expect(await agent.next("open")).toMatchObject({
    lease: request.lease,
    terms: { ratePerHour: 3_600_000n },
  });
  expect(await nodeOf(address).hold(holdOn(agent, "NODE_H"))).toMatchObject({
    ok: false,
    code: "no_capacity",
    detail: "the node's offer has changed",
  });
});

test("LNK-5 a newer connection closes the older with the code that stops its reconnects", async () => {
  const first = await ScriptedAgent.join(offerOf("NODE_B"));
  const second = await ScriptedAgent.join(offerOf("NODE_B"), first.account);
  expect(await first.closed).toMatchObject({ code: CLOSE.replaced });
  expect(await nodeOf(addressOf(second.account)).describe()).toMatchObject({ ok: true });
});

test("a hold that the agent declines is refused with its reason", async () => {
  const agent = await ScriptedAgent.join(offerOf("NODE_C"));
  const request = holdOn(agent, "NODE_C");
  const holding = nodeOf(addressOf(agent.account)).hold(request);
  await agent.next("hold");
  agent.tell({ t: "declined", hold: request.lease, reason: "the owner plays" });
  expect(await holding).toEqual({ ok: false, code: "no_capacity", detail: "the owner plays" });
});

test("a hold is refused as soon as its agent is gone", async () => {
  const agent = await ScriptedAgent.join(offerOf("NODE_D"));
  const holding = nodeOf(addressOf(agent.account)).hold(holdOn(agent, "NODE_D"));
  await agent.next("hold");
  agent.close(1001);
  expect(await holding).toMatchObject({ ok: false, code: "node_offline" });
});

test.each([
  ["text that is not JSON", "{"],
  ["an unknown frame", JSON.stringify({ v: 1, seq: 1, ack: 0, t: "mine" })],
  ["an unknown version", JSON.stringify({ v: 2, seq: 1, ack: 0, t: "ack" })],
  ["an unknown field", JSON.stringify({ v: 1, seq: 0, ack: 0, t: "ack", more: 1 })],
  ["a frame over the limit", JSON.stringify({ v: 1, seq: 0, ack: 0, t: "ack", more: "x".repeat(70_000) })],
])("LNK-4 %s closes the socket and takes the node off the market", async (_, text) => {
  const agent = await ScriptedAgent.join(offerOf("NODE_E"));
  agent.raw(text);
  expect(await agent.closed).toMatchObject({ code: CLOSE.badFrame });
  expect(await nodeOf(addressOf(agent.account)).describe()).toMatchObject({ code: "node_offline" });
});

test("LNK-6 a heartbeat is answered while the object sleeps, and wakes nothing", async () => {
  const account = newAccount();
  const agent = await ScriptedAgent.join(offerOf("NODE_F"), account);
  await evict(addressOf(account));
  expect(await agent.ping()).toBe("pong");
  // Evicting an object that does not run is refused: the ping has started none.
  await expect(evict(addressOf(account))).rejects.toThrow();
});

/** A node that is asked at its next alarm, and answers. */
async function challenged(model: string): Promise<ScriptedAgent> {
  const agent = await ScriptedAgent.dial();
  agent.hello(offerOf(model), { challenges: true });
  await agent.next("welcome");
  await evict(addressOf(agent.account));
  expect(await runDurableObjectAlarm(nodeOf(addressOf(agent.account)))).toBe(true);
  await evict(addressOf(agent.account));
  return agent;
}

test("CHL-4 what a challenge has shown is in the market and in every quote, and lives through an eviction between every two steps", async () => {
  const agent = await challenged("SWIFTSHADER");
  const address = addressOf(agent.account);
  expect(await agent.prove()).toMatchObject({ verdict: { result: "verified" } });
  await evict(address);
  expect(await nodeOf(address).view()).toMatchObject({
    node: { status: "online", verified: true, challenge: { result: "verified" } },
  });
  const account = newAccount();
  const ask = (change: object) =>
    env.ACCOUNT.getByName(addressOf(account)).quote(
      {
        address: addressOf(account),
        nonce: crypto.randomUUID(),
        expires: Math.floor(Date.now() / 1_000) + 60,
      },
      QuoteRequest.parse({ demand: { gpu_model: "SWIFTSHADER", ...change }, firm: false }),
    );
  await expect.poll(() => ask({ verified: true })).toMatchObject({ ok: true, quote: { verified: true } });
  // Still the agent's word for how many there are.
  expect(await ask({ verified: true, resources: { gpus: 2 } })).toMatchObject({
    code: "no_capacity",
    wait: { blockers: { gpus: 1 } },
  });
});

test("CHL-2 a node that computes wrong is quarantined, for the market as for its owner", async () => {
  const agent = await challenged("NODE_J");
  const address = addressOf(agent.account);
  expect(await agent.prove((hashes) => hashes.fill(7))).toMatchObject({ verdict: { result: "wrong" } });
  await evict(address);
  expect(await nodeOf(address).describe()).toEqual({
    ok: false,
    code: "no_capacity",
    detail: "the node is quarantined",
  });
  const book = env.BOOK.getByName("NODE_J/any/0");
  await expect.poll(() => book.get(address)).toMatchObject({ status: "quarantined" });
});

test("the books show a node's free GPUs, and that it has gone", async () => {
  const agent = await ScriptedAgent.join(offerOf("NODE_G", { gpus: 2 }));
  const address = addressOf(agent.account);
  const book = env.BOOK.getByName("NODE_G/any/0");
  await expect.poll(() => book.get(address)).toMatchObject({ free: 2, status: "online" });
  const holding = nodeOf(address).hold(holdOn(agent, "NODE_G"));
  await agent.confirm();
  await holding;
  await expect.poll(() => book.get(address)).toMatchObject({ free: 1 });
  agent.close(1000);
  await expect.poll(() => book.get(address)).toMatchObject({ status: "offline" });
  await expect.poll(() => env.BOOK.getByName("any/any/0").get(address)).toMatchObject({ status: "offline" });
  // The hold's end is still due; once the books are right, nothing else is.
  expect(await runDurableObjectAlarm(nodeOf(address))).toBe(true);
});
