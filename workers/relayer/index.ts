import { WorkerEntrypoint } from "cloudflare:workers";
import { relayerAccounts } from "@gpux/durable-objects/relay-key/keys";
import type { RelayKeyEnv, RelayKeyObject } from "@gpux/durable-objects/relay-key/object";
import { Address } from "@gpux/protocol/ids";
import {
  Intent,
  type IntentAnswer,
  IntentKey,
  intentKey,
  type RelayedTransaction,
  type RelayerInfo,
  type RelayerRpc,
} from "@gpux/protocol/intent";
import { placeOf } from "@gpux/protocol/place";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import { keccak256, stringToBytes } from "viem";
import { z } from "zod";

export { RelayKeyObject } from "@gpux/durable-objects/relay-key/object";

interface RelayerEnv extends RelayKeyEnv {
  readonly RELAY_KEY: DurableObjectNamespace<RelayKeyObject>;
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

  async info(): Promise<RelayerInfo> {
    return { addresses: this.#addresses, ...this.#place };
  }

  async submit(intent: z.input<typeof Intent>): Promise<IntentAnswer> {
    const parsed = Intent.safeParse(intent);
    if (!parsed.success) {
      const detail = z.prettifyError(parsed.error).slice(0, 500);
      return { status: "rejected", key: null, code: "intent_invalid", detail };
    }
    const key = intentKey(createHasher(this.#place), parsed.data);
    const answer = await this.#keyFor(key).submit(parsed.data);
    // An RPC's answer carries a disposer. Handed on, it would keep the calling lease from hibernating until called.
    return structuredClone(answer);
  }

  async status(key: IntentKey): Promise<IntentAnswer | null> {
    const parsed = IntentKey.safeParse(key);
    return parsed.success ? await this.#keyFor(parsed.data).status(parsed.data) : null;
  }

  async transactions(since = 0): Promise<RelayedTransaction[]> {
    const perKey = await Promise.all(
      this.#addresses.map((address) => this.env.RELAY_KEY.getByName(address).transactions(since)),
    );
    return perKey
      .flat()
      .sort((a, b) => a.blockNumber - b.blockNumber)
      .slice(0, 1_000);
  }

  override async fetch(request: Request): Promise<Response> {
    const healthy = new URL(request.url).pathname === "/healthz";
    return healthy ? new Response("ok\n") : new Response("not found\n", { status: 404 });
  }

  /** One meaning always goes to one key, so that it is known again and never lands by two. */
  #keyFor(key: IntentKey): DurableObjectStub<RelayKeyObject> {
    const shard = Number.parseInt(keccak256(stringToBytes(key)).slice(2, 10), 16) % this.#addresses.length;
    const address = this.#addresses[shard];
    if (address === undefined) throw new Error("RELAYER_KEYS names no key");
    return this.env.RELAY_KEY.getByName(address);
  }
}

export default Relayer;
