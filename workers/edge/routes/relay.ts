import {
  Intent,
  type IntentAnswer,
  IntentKey,
  IntentRefusalCode,
  intentHints,
  type RelayerRpc,
} from "@gpux/protocol/intent";
import { IntentView } from "@gpux/protocol/intent-view";
import { relayErrorOf } from "@gpux/protocol/relay-errors";
import { z } from "zod";
import { jsonAnswer } from "../json-answer.ts";
import { MOST_WAIT_S, preferenceApplied, waitOf } from "../prefer.ts";
import { type Refusal, refuse } from "../refusal.ts";
import { refuseIntent } from "../relay-refusal.ts";
import { type Answer, type Mounted, NO_BODY, NONE, openRoute } from "../route.ts";

const PREFER =
  "wait=n: answer when it is on chain or refused, or after n seconds (at most 60) with how it stands";

const postIntent = openRoute(
  {
    method: "post",
    path: "/v1/relay",
    summary:
      "Land signed typed data of the escrow, whoever brings it; idempotent by its meaning. The signatures are all the authority there is",
    params: NONE,
    query: NONE,
    headers: { Prefer: PREFER },
    body: Intent,
    answers: {
      200: { description: "It is on chain", schema: IntentView },
      202: { description: "It is on its way", schema: IntentView },
    },
    refusals: [
      "invalid_json",
      "body_too_large",
      "unsupported_media_type",
      "chain_unavailable",
      ...new Set(IntentRefusalCode.options.map(relayErrorOf)),
    ],
  },
  async ({ env, request, body }) => {
    const wait = waitOf(request);
    const answer = await asked(env.RELAYER, (relayer) =>
      relayer.relay(z.encode(Intent, body), (wait ?? 0) * 1_000),
    );
    if ("ok" in answer) return answer;
    return answer.status === "rejected"
      ? refuseIntent(answer)
      : shown(answer, wait, answer.status === "done" ? 200 : 202);
  },
);

const getIntent = openRoute(
  {
    method: "get",
    path: "/v1/relay/{key}",
    summary: "How an intent stands; with `wait`, when it is on chain or refused, or after that many seconds",
    params: z.strictObject({ key: IntentKey }),
    query: z.strictObject({ wait: z.coerce.number().int().min(0).max(MOST_WAIT_S).optional() }),
    headers: { Prefer: PREFER },
    body: NO_BODY,
    answers: { 200: { description: "The intent", schema: IntentView } },
    refusals: ["intent_unknown", "invalid_request", "chain_unavailable"],
  },
  async ({ env, request, params, query }) => {
    const preferred = waitOf(request);
    const answer = await asked(env.RELAYER, (relayer) =>
      relayer.status(params.key, (query.wait ?? preferred ?? 0) * 1_000),
    );
    if (answer === null) return refuse("intent_unknown");
    return "ok" in answer ? answer : shown(answer, preferred, 200);
  },
);

export const relayRoutes: readonly Mounted[] = [postIntent, getIntent];

/** The relayer's Worker may be away while it is deployed; what it was given, it has. */
async function asked<Answered>(
  relayer: RelayerRpc,
  ask: (relayer: RelayerRpc) => Promise<Answered>,
): Promise<Answered | Refusal> {
  try {
    return await ask(relayer);
  } catch (error) {
    console.error(JSON.stringify({ event: "relayer_unreachable", error: String(error) }));
    return refuse("chain_unavailable", "the relayer does not answer");
  }
}

function shown(answer: IntentAnswer, wait: number | null, status: number): Answer {
  const { key } = answer;
  // Only what does not fit the schema has none, and that was never kept.
  if (key === null) return refuse("intent_unknown");
  const hint = answer.status === "rejected" ? { hint: intentHints[answer.code] } : {};
  return jsonAnswer(IntentView, IntentView.parse({ object: "intent", ...answer, ...hint }), status, {
    ...(status === 202 ? { location: `/v1/relay/${key}`, "retry-after": "1" } : {}),
    ...preferenceApplied(wait),
  });
}
