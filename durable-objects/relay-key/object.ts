import { DurableObject } from "cloudflare:workers";
import { Address } from "@gpux/protocol/ids";
import {
  type Intent,
  type IntentAnswer,
  type IntentKey,
  intentKey,
  type RelayedTransaction,
} from "@gpux/protocol/intent";
import { placeOf } from "@gpux/protocol/place";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import type { PrivateKeyAccount } from "viem/accounts";
import { calldataOf, deadlineOf } from "./calldata.ts";
import { openChain } from "./chain.ts";
import { NodeFault } from "./json-rpc.ts";
import { relayerAccounts } from "./keys.ts";
import {
  type Duty,
  duty,
  type IntentEvent,
  type IntentState,
  type SignedTransaction,
  step,
} from "./machine.ts";
import { type Escrow, fulfilmentByReceipt, fulfilmentByState } from "./outcome.ts";
import { refusalOf } from "./refusal.ts";
import { signTransaction } from "./signing.ts";
import { openStore } from "./store.ts";

export interface RelayKeyEnv {
  readonly CHAIN_ID: string;
  readonly ESCROW: string;
  /** JSON-RPC endpoints, separated by commas. */
  readonly RPC_URLS: string;
  readonly RELAYER_KEYS: string;
}

/** How long a submission waits for its inclusion before it answers `pending`. */
const SUBMIT_WAIT_MS = 2_000;
/** How long one alarm follows intents before it hands on to the next. */
const ALARM_RUN_MS = 5_000;
/** When the alarm takes over from a call that does not return. */
const STAND_BY_MS = 2_500;
const ALARM_INTENTS = 16;
const ALARM_RETRY_MS = 5_000;
/** Two OP blocks: what has less time left would only burn gas. */
const INCLUSION_MS = 4_000;

/**
 * One gas-paying key, and the only place that counts its nonces. The object's name is the key's address. It takes
 * intents by meaning and follows each to its end; whatever is interrupted goes on from the stored state, by the next
 * call or the alarm.
 */
export class RelayKeyObject extends DurableObject<RelayKeyEnv> {
  readonly #place = placeOf(this.env);
  readonly #store = openStore(this.ctx.storage.sql);
  readonly #escrow: Escrow = {
    chain: openChain(
      this.env.RPC_URLS.split(",").map((url) => url.trim()),
      this.#place.chainId,
    ),
    hasher: createHasher(this.#place),
    address: this.#place.escrow,
  };
  readonly #account = this.#ownAccount();
  /** Calls and alarms that follow intents right now; the alarm then only stands by in case this life ends. */
  #followers = 0;
  /** Duties under way: whoever asks for the same intent meanwhile waits for the same one. */
  readonly #underWay = new Map<IntentKey, Promise<void>>();
  /** One transaction is signed at a time, so that no two take the same nonce. */
  #signing: Promise<unknown> = Promise.resolve();

  constructor(ctx: DurableObjectState, env: RelayKeyEnv) {
    super(ctx, env);
    // The platform drops an alarm that failed too often; a woken object finds its duties again.
    ctx.blockConcurrencyWhile(async () => {
      if ((await ctx.storage.getAlarm()) === null) this.#arm(STAND_BY_MS);
    });
  }

  /** Takes an intent and waits a while for its end. Idempotent by meaning; a rejected one is tried anew. */
  async submit(intent: Intent): Promise<IntentAnswer> {
    const key = this.receive(intent);
    await this.#follow(key, Date.now() + SUBMIT_WAIT_MS);
    const known = this.#store.read(key);
    if (known === null) throw new Error(`${key} was stored and is gone`);
    return answerOf(key, known.state);
  }

  /** Stores the intent and arms the alarm: from here on it will be followed to its end, whatever happens. */
  receive(intent: Intent): IntentKey {
    const key = intentKey(this.#escrow.hasher, intent);
    const known = this.#store.read(key);
    const result = step(known?.state ?? null, { t: "submitted" }, Date.now());
    if (result.ok && result.next !== known?.state) {
      this.#store.write(key, intent, result.next);
      this.#arm();
    }
    return key;
  }

  status(key: IntentKey): IntentAnswer | null {
    const known = this.#store.read(key);
    return known === null ? null : answerOf(key, known.state);
  }

  /** Transactions that this key paid for, from block `since` on, oldest first. */
  transactions(since: number): RelayedTransaction[] {
    return this.#store.landed(since);
  }

  override async alarm(): Promise<void> {
    try {
      const now = Date.now();
      const due = this.#store.due(now, ALARM_INTENTS);
      await Promise.all(due.map((key) => this.#follow(key, now + ALARM_RUN_MS)));
    } catch (error) {
      // A throw would count towards the six after which the platform forgets the alarm.
      console.error(JSON.stringify({ event: "relay_alarm_failed", error: String(error) }));
      await this.ctx.storage.setAlarm(Date.now() + ALARM_RETRY_MS);
    }
  }

  /** Does the one duty that the intent's state asks for, and stores what came of it. */
  async advance(key: IntentKey): Promise<void> {
    const running = this.#underWay.get(key);
    if (running !== undefined) return await running;
    const run = this.#perform(key).finally(() => this.#underWay.delete(key));
    this.#underWay.set(key, run);
    return await run;
  }

  async #follow(key: IntentKey, until: number): Promise<void> {
    this.#followers += 1;
    try {
      while (Date.now() < until) {
        const dueAt = this.#store.read(key)?.state.dueAt ?? null;
        if (dueAt === null || dueAt >= until) return;
        const pause = dueAt - Date.now();
        if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
        await this.advance(key);
      }
    } finally {
      this.#followers -= 1;
      this.#arm();
    }
  }

  async #perform(key: IntentKey): Promise<void> {
    const known = this.#store.read(key);
    const task = known === null ? null : duty(known.state, Date.now());
    if (known === null || task === null) return;
    try {
      await this.#carryOut(task, key, known.intent, known.state);
    } catch (error) {
      if (!(error instanceof NodeFault)) throw error;
      console.warn(JSON.stringify({ event: "relay_node_fault", key, task, error: error.message }));
      this.#apply(key, { t: "failed" });
    }
  }

  async #carryOut(task: Duty, key: IntentKey, intent: Intent, state: IntentState): Promise<void> {
    switch (task) {
      case "verify":
      case "simulate":
        return this.#apply(key, await this.#judge(task, intent));
      case "sign": {
        const turn = this.#signing.then(() => this.#sign(key, intent));
        this.#signing = turn.catch(() => undefined);
        return await turn;
      }
      case "send":
      case "watch": {
        const { life } = state;
        if (life.state !== "signed" && life.state !== "broadcast") return;
        return task === "send"
          ? await this.#send(key, intent, life.transaction, life.state === "broadcast")
          : await this.#watch(key, intent, life.transaction);
      }
    }
  }

  async #judge(task: "verify" | "simulate", intent: Intent): Promise<IntentEvent> {
    const calldata = calldataOf(intent);
    if (calldata === null) return { t: "refused", code: "bad_signature", detail: "malformed or high-s" };
    if (task === "verify") return { t: "verified" };
    const { chain, address } = this.#escrow;
    const deadline = deadlineOf(intent);
    const late = deadline !== null && deadline * 1000 <= Date.now() + INCLUSION_MS;
    // From nobody: the escrow never asks who calls, and with a sender some nodes check its balance first.
    const outcome = await chain.call({ to: address, ...calldata });
    if (outcome.ok && !late) return { t: "simulated" };
    // A revert says that it cannot be done now; perhaps because it is done.
    const fulfilment = await fulfilmentByState(this.#escrow, intent);
    if (fulfilment !== null) return { t: "fulfilled", fulfilment };
    // A call runs at the time of the latest block, which may still be before the deadline.
    if (outcome.ok) return { t: "refused", code: "expired", detail: `it had to land before ${deadline}` };
    return { t: "refused", ...refusalOf(intent.kind, outcome.data, outcome.message) };
  }

  async #sign(key: IntentKey, intent: Intent): Promise<void> {
    const calldata = calldataOf(intent);
    const account = this.#account;
    if (calldata === null || account === null) {
      console.error(JSON.stringify({ event: "relay_key_missing", key, address: this.#store.address() }));
      return this.#apply(key, { t: "failed" });
    }
    const signed = await signTransaction(this.#escrow.chain, {
      chainId: this.#place.chainId,
      account,
      to: this.#escrow.address,
      ...calldata,
      nextNonce: this.#store.nextNonce(),
      reserved: this.#store.reserved(),
    });
    if (!signed.ok) return this.#apply(key, { t: "refused", code: signed.code, detail: signed.detail });
    this.#apply(key, { t: "signed", transaction: signed.transaction }, () =>
      this.#store.writeSigned(key, signed.transaction),
    );
  }

  async #send(key: IntentKey, intent: Intent, transaction: SignedTransaction, again: boolean): Promise<void> {
    // The one promise everything rests on: no node sees a transaction that a crash could make us forget.
    await this.ctx.storage.sync();
    const outcome = await this.#escrow.chain.send(transaction.raw);
    // On the first "nonce is taken" it may be ours from before a crash: the next look at its receipt will tell.
    if (outcome !== "taken" || !again) return this.#apply(key, { t: "sent" });
    if (await this.#land(key, intent, transaction)) return;
    this.#apply(key, { t: "displaced" }, () => this.#store.writeDisplaced(transaction.hash));
  }

  async #watch(key: IntentKey, intent: Intent, transaction: SignedTransaction): Promise<void> {
    if (!(await this.#land(key, intent, transaction))) this.#apply(key, { t: "unseen" });
  }

  /** False when the transaction is not on chain. */
  async #land(key: IntentKey, intent: Intent, transaction: SignedTransaction): Promise<boolean> {
    const { chain } = this.#escrow;
    const receipt = await chain.receipt(transaction.hash);
    if (receipt === null) return false;
    const block = await chain.block(receipt.blockNumber);
    if (block === null || block.hash !== receipt.blockHash) {
      throw new NodeFault("the receipt's block is not on the chain");
    }
    const store = () => this.#store.writeLanded(receipt, block);
    if (receipt.status === "0x0") {
      this.#apply(key, { t: "reverted" }, store);
      return true;
    }
    const fulfilment = await fulfilmentByReceipt(this.#escrow, intent, receipt, block);
    const cost = {
      gasUsed: receipt.gasUsed.toString(),
      effectiveGasPrice: receipt.effectiveGasPrice.toString(),
      l1Fee: (receipt.l1Fee ?? 0n).toString(),
      calldataBytes: transaction.calldataBytes,
    };
    this.#apply(key, { t: "included", fulfilment, cost }, store);
    return true;
  }

  /** One synchronous block: state, what belongs to it, and the alarm commit together. */
  #apply(key: IntentKey, event: IntentEvent, alongside?: () => void): void {
    const known = this.#store.read(key);
    const result = step(known?.state ?? null, event, Date.now());
    if (known === null || !result.ok) return;
    this.#store.write(key, known.intent, result.next);
    alongside?.();
    this.#arm();
  }

  #arm(delay = this.#followers > 0 ? STAND_BY_MS : 0): void {
    const dueAt = this.#store.nextDue();
    if (dueAt !== null) void this.ctx.storage.setAlarm(Math.max(dueAt, Date.now() + delay));
  }

  /** Null when the key was taken out of the secret: what it has signed is still followed. */
  #ownAccount(): PrivateKeyAccount | null {
    if (this.ctx.id.name !== undefined) this.#store.adopt(Address.parse(this.ctx.id.name));
    const address = this.#store.address();
    const own = relayerAccounts(this.env.RELAYER_KEYS).find(
      (account) => Address.parse(account.address) === address,
    );
    return own ?? null;
  }
}

function answerOf(key: IntentKey, { life }: IntentState): IntentAnswer {
  switch (life.state) {
    case "included":
      return {
        status: "done",
        key,
        superseded: false,
        txHash: life.hash,
        ...life.fulfilment,
        cost: life.cost,
      };
    case "superseded":
      return { status: "done", key, superseded: true, txHash: null, ...life.fulfilment, cost: null };
    case "rejected":
      return { status: "rejected", key, code: life.code, detail: life.detail };
    case "signed":
    case "broadcast":
      return { status: "pending", key, txHash: life.transaction.hash };
    case "received":
    case "verified":
    case "simulated":
      return { status: "pending", key, txHash: null };
  }
}
