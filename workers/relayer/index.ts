import { WorkerEntrypoint } from "cloudflare:workers";
import { relayerAccounts } from "@gpux/durable-objects/relay-key/keys";
import type { RelayKeyEnv, RelayKeyObject } from "@gpux/durable-objects/relay-key/object";
import { healthOf, metricsOf, type Reports } from "@gpux/durable-objects/relay-key/report";
import { Address } from "@gpux/protocol/ids";
import {
  Intent,
  type IntentAnswer,
  IntentKey,
  intentKey,
  intentLeases,
  type RelayedTransaction,
  type RelayerHealth,
  type RelayerInfo,
  type RelayerRpc,
  SettleIntent,
} from "@gpux/protocol/intent";
import { placeOf } from "@gpux/protocol/place";
import { createHasher, type TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { keccak256, stringToBytes } from "viem";
import { z } from "zod";

export { RelayKeyObject } from "@gpux/durable-objects/relay-key/object";

interface RelayerEnv extends RelayKeyEnv {
  readonly RELAY_KEY: DurableObjectNamespace<RelayKeyObject>;
  /** Addresses of keys that take nothing new, separated by commas; what they have begun they finish. */
  readonly RELAYER_RETIRED?: string;
}

/**
 * Lands signed intents on chain and pays their gas. The one Worker that holds relayer keys; it can send nothing but
 * calls of our escrow, and its keys hold nothing but gas money. Reached by service binding alone.
 */
export class Relayer extends WorkerEntrypoint<RelayerEnv> implements RelayerRpc {
  readonly #place = placeOf(this.env);
  readonly #addresses = relayerAccounts(this.env.RELAYER_KEYS).map((account) =>
    Address.parse(account.address),
  );
  readonly #retired = new Set(
    (this.env.RELAYER_RETIRED ?? "")
      .split(",")
      .flatMap((text) => (text.trim() === "" ? [] : [Address.parse(text.trim())])),
  );

  async info(): Promise<RelayerInfo> {
    return { addresses: this.#addresses, ...this.#place };
  }

  async submit(intent: z.input<typeof Intent>): Promise<IntentAnswer> {
    return await this.#hand(Intent.safeParse(intent), (key, known) => key.submit(known));
  }

  async relay(intent: unknown, waitMs?: number): Promise<IntentAnswer> {
    const wait = waitMs === undefined ? undefined : bounded(waitMs);
    return await this.#hand(Intent.safeParse(intent), (key, known) => key.relay(known, wait));
  }

  async hold(voucher: z.input<typeof SettleIntent>): Promise<IntentAnswer> {
    return await this.#hand(SettleIntent.safeParse(voucher), (key, known) => key.hold(known));
  }

  async status(key: IntentKey, waitMs = 0): Promise<IntentAnswer | null> {
    const parsed = IntentKey.safeParse(key);
    if (!parsed.success) return null;
    const answers = await Promise.all(
      this.#addresses.map(async (address) => ({
        address,
        answer: await this.#key(address).status(parsed.data),
      })),
    );
    const known = answers.find(({ answer }) => answer !== null);
    if (known?.answer?.status !== "pending" || waitMs <= 0) return structuredClone(known?.answer ?? null);
    return structuredClone(await this.#key(known.address).status(parsed.data, bounded(waitMs)));
  }

  async transactions(since = 0): Promise<RelayedTransaction[]> {
    const perKey = await Promise.all(
      this.#addresses.map((address) => this.#key(address).transactions(since)),
    );
    return perKey
      .flat()
      .sort((a, b) => a.blockNumber - b.blockNumber)
      .slice(0, 1_000);
  }

  async health(): Promise<RelayerHealth> {
    return healthOf(await this.#reports());
  }

  async metrics(): Promise<string> {
    return metricsOf(await this.#reports());
  }

  override async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/metrics") {
      const headers = { "content-type": "text/plain; version=0.0.4; charset=utf-8" };
      return new Response(await this.metrics(), { headers });
    }
    if (pathname !== "/healthz") return new Response("not found\n", { status: 404 });
    const health = await this.health();
    return Response.json(health, { status: health.status === "down" ? 503 : 200 });
  }

  async #hand<I extends Intent>(
    parsed: z.ZodSafeParseResult<I>,
    give: (key: DurableObjectStub<RelayKeyObject>, intent: I) => Promise<IntentAnswer>,
  ): Promise<IntentAnswer> {
    if (!parsed.success) {
      const detail = z.prettifyError(parsed.error).slice(0, 500);
      return { status: "rejected", key: null, code: "intent_invalid", detail };
    }
    const hasher = createHasher(this.#place);
    const key = intentKey(hasher, parsed.data);
    const first = this.#keyFor(placementOf(hasher, parsed.data));
    // What a key took before it retired stays with it, or it might land twice.
    for (const address of this.#retired) {
      const answer = await this.#key(address).status(key);
      if (answer !== null && answer.status !== "rejected") return structuredClone(answer);
    }
    // An RPC's answer carries a disposer. Handed on, it would keep the calling lease from hibernating until called.
    return structuredClone(await give(this.#key(first), parsed.data));
  }

  /**
   * What belongs to one lease goes to one key: so it is known again, shares transactions, and lands in order also when
   * a reorganisation makes all of it land anew. Rendezvous hashing: another key in the list takes over only what falls
   * to it.
   */
  #keyFor(place: string): Address {
    const weight = (address: Address) => keccak256(stringToBytes(`${address}:${place}`));
    const active = this.#addresses.filter((address) => !this.#retired.has(address));
    const [first] = active.toSorted((a, b) => (weight(a) < weight(b) ? 1 : -1));
    if (first === undefined) throw new Error("every key of RELAYER_KEYS is in RELAYER_RETIRED");
    return first;
  }

  #key(address: Address): DurableObjectStub<RelayKeyObject> {
    return this.env.RELAY_KEY.getByName(address);
  }

  async #reports(): Promise<Reports> {
    return await Promise.all(
      this.#addresses.map(async (address) => [address, await this.#key(address).report()] as const),
    );
  }
}

/** No longer than a minute: a caller that waits keeps the key's object awake. */
function bounded(waitMs: number): number {
  return Math.max(0, Math.min(waitMs, 60_000));
}

/**
 * What an intent belongs to: its (first) lease, a withdrawal to the lease that is its occasion, and what moves a whole
 * credit to that credit.
 */
function placementOf(hasher: TypedDataHasher, intent: Intent): string {
  switch (intent.kind) {
    case "deposit":
      return `credit:${intent.from}:${intent.spender}:${intent.meter}`;
    case "release":
    case "reclaim_credit":
      return `credit:${intent.payer}:${intent.spender}:${intent.meter}`;
    case "revoke_meter":
      return intent.meter;
    case "withdraw":
      return intent.occasion;
    case "fund":
    case "allocate":
    case "settle":
    case "close":
    case "exit":
    case "reclaim": {
      const [lease = ""] = intentLeases(hasher, intent);
      return lease;
    }
  }
}

export default Relayer;
