import { SELF } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { ORIGIN } from "@gpux/durable-objects/testing/client";
import type { RelayerHealth } from "@gpux/protocol/intent";
import { describe, expect, test } from "vitest";
import { openRelayerHealth } from "./relayer-health.ts";

const NOW = 1_800_000_000_000;
const ok: RelayerHealth = { status: "ok", reasons: [] };
const low: RelayerHealth = { status: "degraded", reasons: ["low_balance:0xa"] };

/** Answers in turn, and counts. */
function relayerOf(...answers: (() => Promise<RelayerHealth>)[]) {
  const relayer = {
    asked: 0,
    health: () => answers[relayer.asked++]?.() ?? Promise.reject(new Error("not asked for")),
  };
  return relayer;
}

describe("the relayer's health", () => {
  test("is asked once in five seconds, whoever looks", async () => {
    const health = openRelayerHealth();
    const relayer = relayerOf(
      async () => ok,
      async () => low,
    );
    expect(await health(relayer, NOW)).toEqual(ok);
    expect(await health(relayer, NOW + 4_999)).toEqual(ok);
    expect(relayer.asked).toBe(1);
    expect(await health(relayer, NOW + 5_000)).toEqual(low);
  });

  test("is down when its Worker throws or does not answer in time", async () => {
    const broken = relayerOf(() => Promise.reject(new Error("broken")));
    const down = { status: "down", reasons: ["unreachable"] };
    expect(await openRelayerHealth()(broken, NOW)).toEqual(down);
    const silent = relayerOf(() => new Promise(() => undefined));
    expect(await openRelayerHealth(1)(silent, NOW)).toEqual(down);
  });
});

test("healthz answers 200 and says degraded when no node of the relayer does", async () => {
  // The relayer beside the edge under test has one node, and nothing listens there.
  await expect.poll(() => env.RELAYER.health()).toMatchObject({ status: "down" });
  const response = await SELF.fetch(`${ORIGIN}/healthz`);
  expect(response.status).toBe(200);
  expect(await response.json()).toEqual({
    status: "degraded",
    relayer: { status: "down", reasons: ["endpoint_resting:0"] },
  });
});

describe("metrics", () => {
  const read = (authorization?: string, init: RequestInit = {}) =>
    SELF.fetch(`${ORIGIN}/metrics`, {
      ...init,
      headers: authorization === undefined ? {} : { authorization },
    });
  const token = "only-for-tests-0123456789abcdef01";

  test("are there for who has the token", async () => {
    const response = await read(`Bearer ${token}`);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    expect(await response.text()).toMatch(/^gpux_relay_open_nonces\{key="0x[0-9a-f]{40}"\} 0$/m);
  });

  const others: [title: string, authorization?: string][] = [
    ["nothing"],
    ["an empty token", "Bearer "],
    ["another token", `Bearer ${token.slice(0, -1)}2`],
    ["the beginning of it", `Bearer ${token.slice(0, -1)}`],
    ["another scheme", `Basic ${token}`],
  ];
  test.each(others)(
    "are no more there than any other path, for who shows %s",
    async (_title, authorization) => {
      const [response, nowhere] = await Promise.all([read(authorization), SELF.fetch(`${ORIGIN}/nowhere`)]);
      const strip = async (of: Response) => ({ ...(await of.json<object>()), request_id: "" });
      expect(response.status).toBe(404);
      expect(await strip(response)).toEqual(await strip(nowhere));
    },
  );

  test("and are read only", async () => {
    expect((await read(`Bearer ${token}`, { method: "POST" })).status).toBe(404);
  });
});
