import { Intent } from "@gpux/protocol/intent";
import { IntentView } from "@gpux/protocol/intent-view";
import { relayErrorOf } from "@gpux/protocol/relay-errors";
import { GpuxError } from "./error.ts";
import { backoff, type Timing } from "./timing.ts";
import { checked, jsonBody, type Transport } from "./transport.ts";

/** Signed typed data of the escrow in its wire form: amounts are decimal strings. */
export type IntentInput = (typeof Intent)["_zod"]["input"];
export type IntentDoneView = Extract<IntentView, { status: "done" }>;

interface Following {
  /** Milliseconds to wait for its end; without it, as long as it takes. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** What the edge's relayer lands on chain for anybody who brings the signatures. */
export interface Intents {
  /**
   * Submits an intent and follows it until it is on chain; what is there already, whoever brought it, is done at once.
   * Submitting again is free of danger: an intent is known by its meaning. `confirmation` and `enough` of the answer
   * say how hard it is. Throws the refusal with its hint; `timed_out` while it goes on.
   */
  relay(intent: IntentInput, options?: Following): Promise<IntentDoneView>;
  /** How it stands, after at most `wait` seconds while it is pending. `intent_unknown`: the relayer keeps no such. */
  get(key: string, options?: { wait?: number; signal?: AbortSignal }): Promise<IntentView>;
}

const LONGEST_WAIT_S = 30;
const PROMPT_MS = 1_000;

export function createIntents(transport: Transport, timing: Timing): Intents {
  async function get(
    key: string,
    { wait = 0, signal }: { wait?: number | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<IntentView> {
    const seconds = Math.min(Math.max(Math.floor(wait), 0), LONGEST_WAIT_S);
    const path = `/v1/relay/${encodeURIComponent(key)}?wait=${seconds}`;
    return transport.json({ method: "GET", path, signed: false, signal }, IntentView);
  }

  return {
    get,
    async relay(intent, { timeoutMs = Number.POSITIVE_INFINITY, signal } = {}) {
      checked(Intent, intent);
      const deadline = timing.now() + timeoutMs;
      const left = () => Math.min(LONGEST_WAIT_S, Math.max(0, Math.ceil((deadline - timing.now()) / 1_000)));
      let before = timing.now();
      let view = await transport.json(
        {
          method: "POST",
          path: "/v1/relay",
          headers: { "content-type": "application/json", prefer: `wait=${left()}` },
          body: jsonBody(intent),
          signed: false,
          signal,
        },
        IntentView,
      );
      for (let asked = 0; view.status === "pending"; asked += 1) {
        const now = timing.now();
        if (now >= deadline) throw timedOut(view.key);
        // An answer that was not held back must not become a tight loop.
        if (now - before < PROMPT_MS) await timing.sleep(backoff(asked, timing), signal);
        before = timing.now();
        view = await get(view.key, { wait: left(), signal });
      }
      if (view.status === "rejected") throw refused(view);
      return view;
    },
  };
}

function refused({ key, code, detail, hint }: Extract<IntentView, { status: "rejected" }>): GpuxError {
  return new GpuxError({
    code: relayErrorOf(code),
    title: "The relayer does not land the intent",
    detail: `${key}: ${detail}`,
    hint,
  });
}

function timedOut(key: string): GpuxError {
  return new GpuxError({
    code: "timed_out",
    title: "The intent is not on chain yet",
    hint: "It goes on: submit it again, or ask for it by its key.",
    detail: key,
  });
}
