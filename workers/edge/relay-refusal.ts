import { type IntentAnswer, intentHints } from "@gpux/protocol/intent";
import { relayErrorOf } from "@gpux/protocol/relay-errors";
import { type Refusal, refuse } from "./refusal.ts";

/** `refusal` is the relayer's own code, as `GET /v1/relay/{key}` shows it; the hint is that of an intent. */
export function refuseIntent(answer: Extract<IntentAnswer, { status: "rejected" }>): Refusal {
  const { code, key, detail } = answer;
  return refuse(relayErrorOf(code), detail, {
    refusal: code,
    hint: intentHints[code],
    ...(key === null ? {} : { key }),
  });
}
