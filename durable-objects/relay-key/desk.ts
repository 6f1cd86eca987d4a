import type { IntentKey } from "@gpux/protocol/intent";
import type { PrivateKeyAccount } from "viem/accounts";
import { type FlightEvent, type FlightState, flightStep } from "./flight.ts";
import type { Flights } from "./flight-store.ts";
import { type IntentEvent, step } from "./machine.ts";
import type { Escrow } from "./outcome.ts";
import type { Policy } from "./policy.ts";
import type { Store } from "./store.ts";

/** What every part of one key's work shares. Writes made here without an await between them commit together. */
export interface Desk {
  readonly escrow: Escrow;
  readonly chainId: number;
  readonly policy: Policy;
  readonly store: Store;
  readonly flights: Flights;
  /** Null when the key was taken out of the secret: what it has signed is still followed. */
  readonly account: PrivateKeyAccount | null;
  /** Resolves when all that was written is durable. */
  readonly sync: () => Promise<void>;
}

type Ids = Readonly<Record<string, string | number | boolean | null>>;

/** One line of structured log about what goes as it should: an event's name, and the ids that it is about. */
export function log(desk: Desk, event: string, ids: Ids): void {
  if (desk.policy.logRoutine) console.log(JSON.stringify({ event, ...ids }));
}
/** The same about what an operator may want to look at. */
export function warn(event: string, ids: Ids): void {
  console.warn(JSON.stringify({ event, ...ids }));
}

/** Time for a block or two; then its standing is looked at for the first time. */
const FIRST_LOOK_MS = 2_000;

/** Sets the clock, unless it rings before anyway. */
export function earlier(desk: Desk, clock: "plan_at" | "confirm_at", at: number): void {
  const known = desk.store.clock(clock);
  if (known === null || known > at) desk.store.setClock(clock, at);
}

/** Stores what the event makes of the intent. False: it came too late and changed nothing. */
export function apply(desk: Desk, key: IntentKey, event: IntentEvent): boolean {
  const known = desk.store.read(key);
  const now = Date.now();
  const result = step(known?.state ?? null, event, now);
  if (known === null || !result.ok) return false;
  desk.store.write({ ...known, state: result.next });
  const { life } = result.next;
  // Who leaves the judgement may be whom a batch waits for.
  earlier(desk, "plan_at", now);
  if (life.state === known.state.life.state) return true;
  if (life.state === "included" || life.state === "superseded")
    earlier(desk, "confirm_at", now + FIRST_LOOK_MS);
  if (life.state === "included" || life.state === "superseded" || life.state === "rejected") {
    const code = life.state === "rejected" ? `,code="${life.code}"` : "";
    desk.store.count(`gpux_relay_intents_total{kind="${known.intent.kind}",end="${life.state}"${code}}`);
    log(desk, `intent_${life.state}`, {
      key,
      ...(life.state === "included" ? { hash: life.hash, nonce: life.nonce } : {}),
      ...(life.state === "rejected" ? { code: life.code, detail: life.detail } : {}),
    });
  }
  return true;
}

/** Null: the event does not belong to the flight's state, and nothing was stored. */
export function applyFlight(desk: Desk, nonce: number, event: FlightEvent): FlightState | null {
  const flight = desk.flights.read(nonce);
  const next = flight === null ? null : flightStep(flight.state, event, Date.now());
  if (next === null) return null;
  desk.flights.write(next);
  // There is room for one more.
  if (next.outcome !== "open") earlier(desk, "plan_at", Date.now());
  return next;
}
