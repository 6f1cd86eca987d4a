import { env, SELF } from "cloudflare:test";
import { call, newAccount, requestOf, signed } from "@gpux/durable-objects/testing/client";
import { offerOf, ScriptedAgent } from "@gpux/durable-objects/testing/scripted-agent";
import { Quote } from "@gpux/protocol/lease";
import { expect, test } from "vitest";
import { connectAgent, UPGRADES_AT_ONCE } from "./agent-sockets.ts";

async function quotedLease(agent: ScriptedAgent, model: string): Promise<string> {
  const asking = call(newAccount(), "/v1/quotes", { json: { demand: { gpu_model: model } } });
  await agent.confirm();
  return Quote.parse(await (await asking).json()).lease_id;
}

const listed = (model: string) => ScriptedAgent.listed(offerOf(model));

test("a lease's data socket is for the node that its terms name, and for no other", async () => {
  const agent = await listed("SOCKETS_A");
  const path = `/v1/agent/leases/${await quotedLease(agent, "SOCKETS_A")}`;
  const dial = async (account = agent.account) =>
    SELF.fetch(await signed(account, requestOf(path, { headers: { upgrade: "websocket" } })));
  const mine = await dial();
  expect(mine.status).toBe(101);
  mine.webSocket?.accept();
  mine.webSocket?.close(1000);
  const others = await dial(newAccount());
  expect([others.status, await others.json()]).toMatchObject([403, { code: "forbidden" }]);
  expect(others.headers.get("x-request-id")).toMatch(/^req_[0-9a-f]{32}$/);
});

test("upgrades beyond what can be checked at once are told at once when to come back", async () => {
  const dials = await Promise.all(
    Array.from({ length: UPGRADES_AT_ONCE + 1 }, () =>
      signed(newAccount(), requestOf("/v1/agent/connect", { headers: { upgrade: "websocket" } })),
    ),
  );
  const answers = dials.map((dial) => connectAgent(dial, env));
  expect(await answers.at(-1)).toMatchObject({ ok: false, code: "edge_busy" });
  for (const answer of answers.slice(0, -1)) expect(await answer).toMatchObject({ status: 101 });
  const next = await signed(
    newAccount(),
    requestOf("/v1/agent/connect", { headers: { upgrade: "websocket" } }),
  );
  expect((await SELF.fetch(next)).status, "there is room again").toBe(101);
});

test("an upgrade that another host was meant to get is refused", async () => {
  const request = await signed(
    newAccount(),
    requestOf("/v1/agent/connect", { headers: { upgrade: "websocket" } }),
  );
  const moved = await SELF.fetch(new Request("https://other.test/v1/agent/connect", request));
  expect(await moved.json()).toMatchObject({ code: "signature_wrong_audience" });
});
