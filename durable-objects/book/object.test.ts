import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { Address } from "@gpux/protocol/ids";
import { Demand, Offer } from "@gpux/protocol/resources";
import { expect, test } from "vitest";
import type { BookEntry } from "../interfaces.ts";
import { NEVER_SEEN } from "../presence.ts";
import { addressOf } from "../testing/client.ts";
import { offerOf, ScriptedAgent } from "../testing/scripted-agent.ts";

const book = env.BOOK.getByName("BOOK_TEST/any/0");
const address = (n: number) => Address.parse(`0x${String(n).padStart(40, "0")}`);

function entry(n: number, gpu_hour: string, lastSeen: number): BookEntry {
  return {
    node: address(n),
    offer: Offer.parse(offerOf("BOOK_TEST", { gpu_hour })),
    free: 1,
    provider: address(n),
    agentVersion: "1.0.0",
    status: "online",
    lastSeen,
    presence: NEVER_SEEN,
    sales: [],
    challenge: null,
  };
}

test("rows outlive the object, with an eviction between every two calls", async () => {
  await book.put(entry(1, "300", 10));
  await evictDurableObject(book);
  await book.put(entry(2, "200", 10));
  await evictDurableObject(book);
  await book.put(entry(1, "100", 9));
  await evictDurableObject(book);

  const found = await book.find(Demand.parse({}), 10);
  expect(found.entries).toEqual([entry(2, "200", 10), entry(1, "300", 10)]);
  await evictDurableObject(book);
  expect(await book.find(Demand.parse({ max_rate_per_hour: "150" }), 10)).toMatchObject({
    entries: [],
    blockers: { price: 2 },
    onlyPrice: 2,
  });

  await book.remove(address(2));
  await evictDurableObject(book);
  expect(await book.get(address(2))).toBeNull();
  expect(await book.list(null, 10)).toEqual([entry(1, "300", 10)]);
});

test("MKT-8 a Book whose storage was lost has its rows again before it answers", async () => {
  const account = await ScriptedAgent.join(offerOf("BOOK_LOST", { gpu_hour: "100" }));
  const node = addressOf(account.account);
  const names = ["BOOK_LOST/any/0", "BOOK_LOST/eu-west/0"];
  const demand = Demand.parse({ gpu_model: "BOOK_LOST" });
  for (const name of names) {
    const lost = env.BOOK.getByName(name);
    await expect.poll(() => lost.get(node)).toMatchObject({ status: "online" });
    await runInDurableObject(lost, (_, state) => state.storage.deleteAll());
    await evictDurableObject(lost);
    expect((await lost.find(demand, 1)).entries).toMatchObject([{ node }]);
  }
  // Those of other models and regions are not in it.
  expect(await env.BOOK.getByName("BOOK_LOST/us-east/0").list(null, 10)).toEqual([]);
});

test("MKT-8 a directory that was lost is filled by what its nodes publish next", async () => {
  const agent = await ScriptedAgent.join(offerOf("BOOK_DIRECTORY"));
  const node = addressOf(agent.account);
  const directory = env.BOOK.getByName("any/any/0");
  await expect.poll(() => directory.get(node)).toMatchObject({ status: "online" });
  await runInDurableObject(directory, (_, state) => state.storage.deleteAll());
  await evictDurableObject(directory);
  expect(await directory.get(node)).toBeNull();
  await ScriptedAgent.join(offerOf("BOOK_DIRECTORY"), undefined, agent);
  await expect.poll(() => directory.get(node)).toMatchObject({ status: "online" });
});
