import { DurableObject } from "cloudflare:workers";
import { Address, type Bytes32 } from "@gpux/protocol/ids";
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
import { answerStranger, newLooks } from "./admission.ts";
import { answerOf } from "./answer.ts";
import { openChain } from "./chain.ts";
import { apply, applyFlight, type Desk, log, warn } from "./desk.ts";
import { dispatch, noteBalance } from "./dispatch.ts";
import { openFlights } from "./flight-store.ts";
import { NodeFault } from "./json-rpc.ts";
import { simulate, verify } from "./judge.ts";
import { relayerAccounts } from "./keys.ts";
import { backoff, duty, step } from "./machine.ts";
import { Policy } from "./policy.ts";
import { renew } from "./renewal.ts";
import type { KeyReport } from "./report.ts";
import { advanceFlight } from "./sending.ts";
import { type Clock, type Known, openStore } from "./store.ts";
import { confirm, holdVoucher, release, watchVouchers } from "./watching.ts";

export interface RelayKeyEnv {
  readonly CHAIN_ID: string;
  readonly ESCROW: string;
  /** JSON-RPC endpoints, separated by commas. */
  readonly RPC_URLS: string;
  readonly RELAYER_KEYS: string;
  /** See policy.ts; absent: as a local chain wants it. */
  readonly POLICY?: unknown;
}

/** How long a submission waits for its inclusion before it answers `pending`. */
const SUBMIT_WAIT_MS = 2_000;
/** How long one alarm works before it hands on to the next. */
const ALARM_RUN_MS = 5_000;
/** When the alarm takes over from a call that does not return. */
const STAND_BY_MS = 2_500;
const ALARM_RETRY_MS = 5_000;
/** Intents that are judged at the same time. */
const JUDGED = 16;

/**
 * One gas-paying key, and the only place that counts its nonces. The object's name is the key's address. It takes
 * intents by meaning and follows each to its end; whatever is interrupted goes on from the stored state, by the next
 * call or the alarm. Work runs in lanes that do not wait for each other: one for each intent under judgement, one that
 * signs, one for each nonce on its way, one each for confirmations and held vouchers.
 */
export class RelayKeyObject extends DurableObject<RelayKeyEnv> {
  readonly #desk = this.#openDesk();
  readonly #lanes = new Map<string, Promise<void>>();
  /** Clocks whose lane failed in a row. */
  readonly #failures = new Map<Clock, number>();
  readonly #aired = new Set<string>();
  readonly #appraised = new Set<IntentKey>();
  readonly #looks = newLooks();
  readonly #together = new Set<Bytes32>();
  /** Calls and alarms at work right now; the alarm then only stands by in case this life ends. */
  #workers = 0;
  /** When there may be something to start: many wait together, and one look does for all. */
  #lookAt = 0;
  /** Rings when a lane ends or something new arrives. */
  #bell = Promise.withResolvers<void>();

  constructor(ctx: DurableObjectState, env: RelayKeyEnv) {
    super(ctx, env);
    // The platform drops an alarm that failed too often; a woken object finds its duties again.
    ctx.blockConcurrencyWhile(async () => {
      if ((await ctx.storage.getAlarm()) === null) this.#arm(STAND_BY_MS);
    });
  }

  /** Takes an intent and waits a while for its end. Idempotent by meaning; a rejected one is tried anew. */
  async submit(intent: Intent, waitMs = SUBMIT_WAIT_MS): Promise<IntentAnswer> {
    await renew(this.#desk, intentKey(this.#desk.escrow.hasher, intent), intent);
    const key = this.receive(intent);
    await this.#work(Date.now() + waitMs, () => this.#desk.store.hasEnded(key));
    return this.#read(key);
  }

  /**
   * As `submit`, for what anybody brings: within the account's rate and daily gas. What is known already costs nothing,
   * and what is refused or done by others leaves no trace here, so that nobody fills the storage or uses up an
   * account's rate without its signature.
   */
  async relay(intent: Intent, waitMs = SUBMIT_WAIT_MS): Promise<IntentAnswer> {
    const answer = await answerStranger(this.#desk, intent, this.#looks);
    return answer ?? (await this.submit(intent, waitMs));
  }

  /** Keeps a voucher until it is worth a transaction; see RelayerRpc. */
  hold(intent: Intent): IntentAnswer {
    const key = intentKey(this.#desk.escrow.hasher, intent);
    if (intent.kind !== "settle") throw new Error(`${key} is no voucher`);
    holdVoucher(this.#desk, key, intent);
    this.#ring();
    return this.#read(key);
  }

  /** Stores the intent and arms the alarm: from here on it will be followed to its end, whatever happens. */
  receive(intent: Intent): IntentKey {
    const { store, escrow } = this.#desk;
    const key = intentKey(escrow.hasher, intent);
    const known = store.read(key);
    const result = step(known?.state ?? null, { t: "submitted" }, Date.now());
    if (result.ok && result.next !== known?.state) {
      store.write({ key, intent, state: result.next });
      log(this.#desk, "intent_received", { key });
      this.#ring();
    }
    return key;
  }

  /** Waits up to `waitMs` for its end, where it is known. */
  async status(key: IntentKey, waitMs = 0): Promise<IntentAnswer | null> {
    const isOpen = () => this.#standing(key)?.status === "pending";
    if (waitMs > 0 && isOpen()) await this.#work(Date.now() + waitMs, () => !isOpen());
    return this.#standing(key);
  }

  /** Transactions that this key paid for, from block `since` on, oldest first. */
  transactions(since: number): RelayedTransaction[] {
    return this.#desk.flights.landed(since);
  }

  /** For health and metrics. The balance is asked anew where a node answers. */
  async report(): Promise<KeyReport> {
    const { store, flights, escrow, policy, account } = this.#desk;
    const address = store.address();
    if (address !== null) {
      await escrow.chain.balance(address).then(
        (balance) => noteBalance(this.#desk, balance),
        () => undefined,
      );
    }
    const open = flights.openNonces();
    return {
      balance: store.balance()?.toString() ?? null,
      lowBalance: policy.lowBalance.toString(),
      signs: account !== null,
      intents: [...store.counts()].map(([state, count]) => ({ state, count })),
      open: open.length,
      stuck: open.filter((nonce) => (flights.read(nonce)?.state.attempts.length ?? 0) > 2),
      counters: [...store.counters()].map(([name, value]) => ({ name, value: value.toString() })),
      spent: flights.spent().toString(),
      endpoints: [...escrow.chain.endpoints()],
    };
  }

  override async alarm(): Promise<void> {
    try {
      const until = Date.now() + ALARM_RUN_MS;
      await this.#work(until, () => this.#lanes.size === 0 && (this.#nextDue() ?? until) >= until);
    } catch (error) {
      // A throw would count towards the six after which the platform forgets the alarm.
      console.error(JSON.stringify({ event: "relay_alarm_failed", error: String(error) }));
      await this.ctx.storage.setAlarm(Date.now() + ALARM_RETRY_MS);
    }
  }

  /** Does once what is to be done, due already or not. */
  async advance(): Promise<void> {
    this.#start(Number.MAX_SAFE_INTEGER);
    await Promise.all(this.#lanes.values());
  }

  /** Keeps all lanes going until `ended`, or `until`. */
  async #work(until: number, ended: () => boolean): Promise<void> {
    this.#workers += 1;
    try {
      for (let now = Date.now(); now < until && !ended(); now = Date.now()) {
        if (now >= this.#lookAt) {
          this.#start(now);
          this.#lookAt = this.#nextDue(now) ?? Number.POSITIVE_INFINITY;
          if (ended()) return;
        }
        await this.#rung(Math.max(1, Math.min(this.#lookAt, until) - now));
      }
    } finally {
      this.#workers -= 1;
      this.#arm();
    }
  }

  #start(now: number): void {
    const { store, flights } = this.#desk;
    for (const known of store.due(now, JUDGED)) {
      const failed = () => apply(this.#desk, known.key, { t: "failed" });
      this.#lane(known.key, () => this.#judge(known), failed);
    }
    for (const nonce of flights.due(now)) {
      const failed = () => applyFlight(this.#desk, nonce, { t: "failed" });
      this.#lane(`nonce:${nonce}`, () => advanceFlight(this.#desk, nonce, this.#aired), failed);
    }
    this.#clock("plan_at", now, () => dispatch(this.#desk));
    this.#clock("confirm_at", now, () => confirm(this.#desk, this.#together));
    this.#clock("watch_at", now, () => watchVouchers(this.#desk, this.#appraised));
  }

  #clock(clock: Clock, now: number, run: () => Promise<void>): void {
    const at = this.#desk.store.clock(clock);
    if (at === null || at > now) return;
    const tracked = () => run().then(() => void this.#failures.delete(clock));
    this.#lane(clock, tracked, () => {
      const failures = (this.#failures.get(clock) ?? 0) + 1;
      this.#failures.set(clock, failures);
      this.#desk.store.setClock(clock, Date.now() + backoff(failures));
    });
  }

  /** Whoever asks for the same work meanwhile gets the same run. */
  #lane(name: string, run: () => Promise<void>, failed: () => void): void {
    if (this.#lanes.has(name)) return;
    const settle = (error: unknown) => {
      const fault = error instanceof NodeFault;
      warn(fault ? "relay_node_fault" : "relay_lane_failed", { lane: name, error: String(error) });
      failed();
    };
    const lane = run()
      .catch(settle)
      .finally(() => {
        this.#lanes.delete(name);
        this.#ring();
      });
    this.#lanes.set(name, lane);
  }

  async #judge({ key, intent, state }: Known): Promise<void> {
    const desk = this.#desk;
    switch (duty(state)) {
      case "release":
        return release(desk, { key, intent, state }, "expiry");
      case "verify":
        return void apply(desk, key, await verify(desk.escrow, intent));
      case "simulate":
        return void apply(
          desk,
          key,
          await simulate(desk.escrow, desk.policy, intent, desk.store.restsOn(intent)),
        );
      case null:
        return;
    }
  }

  #standing(key: IntentKey): IntentAnswer | null {
    const known = this.#desk.store.read(key);
    return known === null ? null : answerOf(known, this.#desk.flights, this.#desk.policy);
  }

  #read(key: IntentKey): IntentAnswer {
    const answer = this.#standing(key);
    if (answer === null) throw new Error(`${key} was stored and is gone`);
    return answer;
  }

  #ring(): void {
    this.#lookAt = 0;
    this.#bell.resolve();
    this.#bell = Promise.withResolvers();
    if (this.#workers === 0) this.#arm();
  }

  /** The next ring, or `ms` later. A timer that runs on would keep the object from being evicted. */
  async #rung(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    await Promise.race([promise, this.#bell.promise]);
    clearTimeout(timer);
  }

  /** The earliest time after `after` at which something falls due; null when nothing does. */
  #nextDue(after = 0): number | null {
    const { store, flights } = this.#desk;
    const clocks = (["plan_at", "confirm_at", "watch_at"] as const).map((clock) => store.clock(clock));
    const times = [store.nextDue(after), flights.nextDue(after), ...clocks].filter(
      (at) => at !== null && at > after,
    );
    return times.reduce<number | null>(
      (least, at) => (at !== null && (least === null || at < least) ? at : least),
      null,
    );
  }

  #arm(delay = this.#workers > 0 ? STAND_BY_MS : 0): void {
    const dueAt = this.#nextDue();
    if (dueAt !== null) void this.ctx.storage.setAlarm(Math.max(dueAt, Date.now() + delay));
  }

  #openDesk(): Desk {
    const place = placeOf(this.env);
    const policy = Policy.parse(this.env.POLICY ?? {});
    const store = openStore(this.ctx.storage.sql);
    if (this.ctx.id.name !== undefined) store.adopt(Address.parse(this.ctx.id.name));
    const urls = this.env.RPC_URLS.split(",").map((url) => url.trim());
    return {
      escrow: {
        chain: openChain(urls, place.chainId, policy.rpcTimeoutMs),
        hasher: createHasher(place),
        address: place.escrow,
      },
      chainId: place.chainId,
      policy,
      store,
      flights: openFlights(this.ctx.storage.sql),
      account: ownAccount(this.env.RELAYER_KEYS, store.address()),
      sync: () => this.ctx.storage.sync(),
    };
  }
}

function ownAccount(secret: string, address: Address | null): PrivateKeyAccount | null {
  return relayerAccounts(secret).find((account) => Address.parse(account.address) === address) ?? null;
}
