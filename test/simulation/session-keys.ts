import { neededFor } from "@gpux/durable-objects/caller";
import type { Caller, Outcome } from "@gpux/durable-objects/interfaces";
import type { Address } from "@gpux/protocol/ids";
import { type SessionId, sessionIdOf } from "@gpux/protocol/session";
import { hexToBytes } from "viem/utils";
import type { Actor, Flow } from "./actor.ts";
import type { Random } from "./random.ts";
import type { Setting } from "./setting.ts";

/** As in durable-objects/caller.ts. */
const MOST_TURNS = 2;

/** The same as `askAs` there, in virtual time: a lease that must be vouched for first says so, and is asked again. */
export function* askAs<Answer extends object>(
  address: Address,
  session: SessionId | null,
  ask: (as: Caller) => Flow<Answer>,
  admit: (session: SessionId, needs: bigint) => Flow<Outcome>,
): Flow<Answer | Exclude<Outcome, { ok: true }>> {
  if (session === null) return yield* ask(address);
  for (let turns = 0; ; turns += 1) {
    const answer = yield* ask({ address, session, bearer: false });
    const needs = neededFor(answer);
    if (needs === null) return answer;
    if (turns === MOST_TURNS) return { ok: false, code: "session_cap_exceeded" };
    const admitted = yield* admit(session, needs);
    if (!admitted.ok) return admitted;
  }
}

export interface SessionHabits {
  readonly random: Random;
  /** Asks for job after job, whatever becomes of those before. */
  readonly isHurried: boolean;
}

/** Jobs that each cost most of a small cap, one after another, and nobody asks after them before they have ended. */
export interface Hurry {
  readonly max_price: bigint;
  readonly waitMs: number;
  /** When the next is asked for; null: not before its time. */
  readonly nextInMs: number | null;
}

/** The sessions that a wallet has granted, as its own notes say. */
export class SessionKeys {
  readonly #owner: Actor;
  readonly #address: Address;
  readonly #setting: Setting;
  readonly #random: Random;
  readonly #isHurried: boolean;
  readonly #granted: SessionId[] = [];

  constructor(owner: Actor, address: Address, setting: Setting, { random, isHurried }: SessionHabits) {
    this.#owner = owner;
    this.#address = address;
    this.#setting = setting;
    this.#random = random;
    this.#isHurried = isHurried;
  }

  /** Something to be done with sessions; null most of the time. */
  act(): Flow<void> | null {
    if (this.#granted.length === 0) return this.#random.chance(0.5) ? this.#grant() : null;
    if (!this.#random.chance(this.#isHurried ? 0.2 : 0.06)) return null;
    return this.#random.chance(0.5) ? this.#grant() : this.#revoke();
  }

  /** Under which a job is asked for; null: the wallet signs itself. Mostly the newest, and now and then one that is over. */
  ofJob(): SessionId | null {
    if (this.#granted.length === 0 || this.#random.chance(0.1)) return null;
    return this.#random.chance(0.85) ? (this.#granted.at(-1) ?? null) : this.#random.pick(this.#granted);
  }

  /** Of a job under a session of one who hurries; null: it is asked for as any other. */
  hurry(): Hurry | null {
    if (!this.#isHurried) return null;
    const nextInMs = this.#random.chance(0.85) ? this.#random.wait(this.#random.pick([100, 1_000])) : null;
    return { max_price: 60_000n, waitMs: 5_000, nextInMs };
  }

  *#grant(): Flow<void> {
    const { schedule, watch } = this.#setting;
    const id = sessionIdOf(hexToBytes(this.#random.bytes32()).subarray(0, 16));
    const cap = BigInt(this.#random.pick([65_000, 130_000, 260_000]));
    const expiresAt = schedule.now + this.#random.pick([60_000, 3_600_000, 86_400_000]);
    watch.sessions.opens(id, cap, expiresAt);
    const account = this.#setting.account(this.#address);
    const open = () => account.openSession(id, cap, expiresAt);
    const opened = yield* this.#setting.network.call(this.#owner, account, "open session", open, true);
    if (opened.ok) this.#granted.push(id);
  }

  *#revoke(): Flow<void> {
    const id = this.#random.pick(this.#granted);
    const account = this.#setting.account(this.#address);
    const revoke = () => account.revokeSession(id);
    const answer = yield* this.#setting.network.call(this.#owner, account, "revoke session", revoke, true);
    const { schedule, watch } = this.#setting;
    if (answer.ok) watch.sessions.answered(id, answer.untold, schedule.now);
  }
}
