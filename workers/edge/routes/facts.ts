import { WellKnown } from "@gpux/protocol/answers";
import { Address } from "@gpux/protocol/ids";
import { RelayerHealth } from "@gpux/protocol/intent";
import { z } from "zod";
import { jsonAnswer } from "../json-answer.ts";
import { refuse } from "../refusal.ts";
import { openRelayerHealth } from "../relayer-health.ts";
import { type Mounted, NO_BODY, NONE, openRoute } from "../route.ts";

const Facts = WellKnown.extend({
  /** Addresses that pay the gas; they have no other power. */
  relayers: z.array(Address),
});

const wellKnown = openRoute(
  {
    method: "get",
    path: "/.well-known/gpux",
    summary: "What a signer needs to know: chain, escrow, token, meter, fee, relayers",
    params: NONE,
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "Facts of this deployment", schema: Facts } },
    refusals: ["chain_unavailable"],
  },
  async ({ env, config }) => {
    const relayers = await env.RELAYER.info().catch(() => null);
    if (relayers === null) return refuse("chain_unavailable", "the relayer does not answer");
    const facts = {
      origin: config.publicOrigin,
      settlement: config.settlement,
      meter: config.meter,
      fee_recipient: config.feeRecipient,
      fee_bps: config.feeBps,
      relayers: relayers.addresses,
    };
    return jsonAnswer(Facts, facts, 200, { "cache-control": "public, max-age=60" });
  },
);

const Health = z.strictObject({
  /** `degraded`: jobs run, and what is to land on chain may have to wait. */
  status: z.enum(["ok", "degraded"]),
  relayer: RelayerHealth,
});
const relayerHealth = openRelayerHealth();

const health = openRoute(
  {
    method: "get",
    path: "/healthz",
    summary: "Whether this Worker answers, and how the relayer is, at most some seconds old",
    params: NONE,
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "It does, whatever the relayer says", schema: Health } },
    refusals: [],
  },
  async ({ env }) => {
    const relayer = await relayerHealth(env.RELAYER, Date.now());
    return jsonAnswer(Health, { status: relayer.status === "ok" ? "ok" : "degraded", relayer });
  },
);

export const factRoutes: readonly Mounted[] = [wellKnown, health];
