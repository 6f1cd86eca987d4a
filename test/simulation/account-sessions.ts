import type { Place, Session } from "@gpux/durable-objects/account/session-cap";
import type { Outcome, Refused } from "@gpux/durable-objects/interfaces";
import type { LeaseId } from "@gpux/protocol/ids";
import type { SessionId } from "@gpux/protocol/session";
import { type Actor, type Flow, Unreachable } from "./actor.ts";
import { Bell } from "./bell.ts";
import type { Setting } from "./setting.ts";

/** As in durable-objects/account/sessions.ts. */
const FIRST_RETRY_MS = 2_000;
const LAST_RETRY_MS = 300_000;

interface Row {
  session: Session;
  readonly places: Map<LeaseId, Place>;
  readonly turns: Map<LeaseId, number>;
}

/** The shell of durable-objects/account/sessions.ts over the same decisions. */
export class AccountSessions {
  readonly #account: Actor;
  readonly #setting: Setting;
  /** What a crash leaves. */
  readonly #rows = new Map<SessionId, Row>();
  #alarmAt = Number.POSITIVE_INFINITY;
  /** Reservations are made one after another. */
  #isBusy = false;
  #turn: Bell;
  #retryMs = FIRST_RETRY_MS;

  constructor(account: Actor, setting: Setting) {
    this.#account = account;
    this.#setting = setting;
    this.#turn = new Bell(setting.schedule);
  }

  crash(): void {
    this.#isBusy = false;
    this.#turn = new Bell(this.#setting.schedule);
    this.#retryMs = FIRST_RETRY_MS;
  }

  open(id: SessionId, cap: bigint, expiresAt: number): Outcome {
    if (!this.#rows.has(id))
      this.#rows.set(id, {
        session: { cap, expiresAt, revokedAt: null },
        places: new Map(),
        turns: new Map(),
      });
    return { ok: true };
  }

  /** Null for the wallet itself, and for a session that stands. */
  refusal(id: SessionId | null): Refused | null {
    if (id === null) return null;
    const { machines, schedule } = this.#setting;
    return machines.sessions.refusal(this.#rows.get(id)?.session ?? null, schedule.now);
  }

  *admit(id: SessionId, lease: LeaseId, needs: bigint): Flow<Outcome> {
    while (this.#isBusy) yield* this.#turn.wait(this.#setting.schedule.now + FIRST_RETRY_MS);
    this.#isBusy = true;
    try {
      return yield* this.#admit(id, lease, needs);
    } finally {
      this.#isBusy = false;
      this.#turn.ring();
    }
  }

  *#admit(id: SessionId, lease: LeaseId, needs: bigint): Flow<Outcome> {
    const { machines, network } = this.#setting;
    const refused = this.refusal(id);
    const row = this.#rows.get(id);
    if (refused !== null || row === undefined) return refused ?? { ok: false, code: "session_unknown" };
    const { freeOf, missingAt, setAside } = machines.sessions;
    const places = [...row.places.values()];
    if (missingAt(lease, places, needs) > freeOf(row.session, places)) yield* this.#trim(id, row, lease);
    const late = this.refusal(id);
    if (late !== null) return late;
    const aside = setAside(row.session, [...row.places.values()], lease, needs);
    if (!aside.ok) return aside;
    const { reserved } = aside;
    if (machines.shell.setsAsideFirst) this.#reserve(row, lease, reserved);
    const turn = turnOf(row, lease);
    const door = this.#setting.lease(lease);
    const { expiresAt } = row.session;
    const vouch = () => door.admitSession(id, expiresAt, reserved, turn);
    const admitted = yield* network.call(this.#account, door, "admit session", vouch);
    if (!machines.shell.setsAsideFirst) this.#reserve(row, lease, reserved);
    return admitted;
  }

  *#trim(id: SessionId, row: Row, besides: LeaseId): Flow<void> {
    for (const { lease, reserved } of [...row.places.values()]) {
      if (lease === besides || reserved === 0n) continue;
      const door = this.#setting.lease(lease);
      const turn = turnOf(row, lease);
      const trim = () => door.trimSession(id, row.session.expiresAt, turn);
      const used = yield* this.#setting.network.call(this.#account, door, "trim session", trim);
      if (used !== null && used < reserved) this.#reserve(row, lease, used);
    }
  }

  #reserve(row: Row, lease: LeaseId, reserved: bigint): void {
    row.places.set(lease, { told: false, ...row.places.get(lease), lease, reserved });
  }

  /** Answers when every lease was tried; those that have not heard are named. */
  *revoke(id: SessionId): Flow<Outcome<{ untold: readonly LeaseId[] }>> {
    const row = this.#rows.get(id);
    if (row === undefined) return { ok: false, code: "session_unknown" };
    const { now } = this.#setting.schedule;
    row.session = { ...row.session, revokedAt: row.session.revokedAt ?? now };
    this.#retryMs = FIRST_RETRY_MS;
    this.#wakeAt();
    yield* this.#tell();
    return { ok: true, untold: this.#untold().flatMap((each) => (each.id === id ? [each.lease] : [])) };
  }

  /** Whether nobody has to hear of a revocation any more. */
  isQuiet(): boolean {
    return this.#untold().length === 0;
  }

  *#tell(): Flow<void> {
    for (const { id, row, lease } of this.#untold()) {
      const door = this.#setting.lease(lease);
      const { expiresAt } = row.session;
      try {
        const tell = () => door.revokeSession(id, expiresAt);
        yield* this.#setting.network.call(this.#account, door, "revoke session", tell, true);
        row.places.set(lease, { reserved: 0n, ...row.places.get(lease), lease, told: true });
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
      }
    }
    if (this.#untold().length > 0) this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
    this.#wakeAt();
  }

  #untold(): { readonly id: SessionId; readonly row: Row; readonly lease: LeaseId }[] {
    const { machines, schedule } = this.#setting;
    return [...this.#rows].flatMap(([id, row]) =>
      machines.sessions
        .untoldLeases(row.session, [...row.places.values()], schedule.now)
        .map((lease) => ({ id, row, lease })),
    );
  }

  /** The alarm, which a crash leaves. */
  #wakeAt(): void {
    const { schedule } = this.#setting;
    const at = schedule.now + this.#retryMs;
    if (this.#untold().length === 0 || this.#alarmAt <= at) return;
    this.#alarmAt = at;
    schedule.at(at, `${this.#account.name} sessions`, () => {
      if (this.#alarmAt !== at) return;
      this.#alarmAt = Number.POSITIVE_INFINITY;
      // This life may end before it is done.
      this.#wakeAt();
      this.#account.run(this.#tell(), () => {});
    });
  }
}

/** The number of the next word to the lease, kept at once. */
function turnOf({ turns }: Row, lease: LeaseId): number {
  const turn = (turns.get(lease) ?? 0) + 1;
  turns.set(lease, turn);
  return turn;
}
