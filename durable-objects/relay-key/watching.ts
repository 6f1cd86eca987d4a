import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import type { Bytes32 } from "@gpux/protocol/ids";
import type { IntentKey, SettleIntent } from "@gpux/protocol/intent";
import { getAbiItem, toEventSelector } from "viem";
import type { z } from "zod";
import { LOG_BLOCKS } from "./chain.ts";
import { standingOf } from "./confirm.ts";
import { apply, applyFlight, type Desk, log, warn } from "./desk.ts";
import { type IntentState, step } from "./machine.ts";
import { isExiting, valueMoved } from "./outcome.ts";
import { givenUp, seekGivenUp } from "./sending.ts";
import type { Known } from "./store.ts";

/** What is looked after on chain without anybody asking: how hard outcomes are, and exits of leases with held vouchers. */

const CONFIRM_MIN_MS = 2_000;
const CONFIRM_MAX_MS = 30_000;

/**
 * RLY-8: hardens what stands and puts back what a reorganisation took. Sets when to look again. `together`: what this
 * life of the object saw standing when it last looked. @throws NodeFault
 */
export async function confirm(desk: Desk, together: Set<Bytes32>): Promise<void> {
  const { store, flights, escrow, policy } = desk;
  await seekGivenUp(desk);
  const anchors = [...flights.anchors(), ...store.anchors()];
  const { gone, hardened, standing, head } = await standingOf(escrow.chain, anchors, policy, together);
  together.clear();
  for (const block of standing) together.add(block);
  for (const block of gone) {
    const taken = flights.landedIn(block);
    warn("reorg", { block, transactions: taken.length });
    store.count("gpux_relay_reorged_blocks_total");
    for (const { state, entries } of taken) {
      applyFlight(desk, state.nonce, { t: "dislodged" });
      flights.writeDislodged(state.nonce);
      for (const key of entries) {
        const life = store.read(key)?.state.life;
        if (life?.state === "included" && life.nonce === state.nonce) apply(desk, key, { t: "dislodged" });
      }
    }
    for (const { key } of store.supersededIn(block)) apply(desk, key, { t: "dislodged" });
  }
  for (const [block, confirmation] of hardened) {
    for (const { state, entries } of flights.landedIn(block)) {
      flights.writeConfirmation(state.nonce, confirmation);
      for (const key of entries) {
        const life = store.read(key)?.state.life;
        if (life?.state === "included" && life.nonce === state.nonce)
          apply(desk, key, { t: "hardened", confirmation });
      }
    }
    for (const { key } of store.supersededIn(block)) apply(desk, key, { t: "hardened", confirmation });
  }
  const left = [...flights.anchors(), ...store.anchors()];
  const youngest = Math.max(...left.map(({ number }) => number));
  // OP's blocks take two seconds; the deeper the youngest lies, the less happens to it.
  const pause = Math.min(CONFIRM_MAX_MS, Math.max(CONFIRM_MIN_MS, ((head - youngest) * 2_000) / 4));
  const idle = left.length === 0 && givenUp(desk).length === 0;
  store.setClock("confirm_at", idle ? null : Date.now() + pause);
}

const EXIT_REQUESTED = toEventSelector(getAbiItem({ abi: leaseEscrowAbi, name: "ExitRequested" }));
/** So many blocks are looked at again: a reorganisation may have put an exit where we have been. */
const OVERLAP = 64;
const HELD = 500;
/** Before a lease's expiry, its last voucher goes. */
export const BEFORE_EXPIRY_MS = 30 * 60_000;

type Voucher = z.output<typeof SettleIntent>;

/** RLY-10: keeps a voucher; of a lease only the highest. */
export function holdVoucher(desk: Desk, key: IntentKey, voucher: Voucher): void {
  const { store, escrow } = desk;
  const known = store.read(key);
  const until = voucher.terms.expiry * 1_000 - BEFORE_EXPIRY_MS;
  const result = step(known?.state ?? null, { t: "held", until }, Date.now());
  if (!result.ok || result.next === known?.state) return;
  const lease = escrow.hasher.leaseTerms(voucher.terms);
  const others = heldOf(desk).filter((other) => other.lease === lease && other.known.key !== key);
  store.write({ key, intent: voucher, state: result.next });
  const highest = others.every((other) => other.voucher.cumulative < voucher.cumulative);
  const detail = "a higher voucher of the lease takes its place";
  for (const each of highest ? others.map((other) => other.known.key) : [key])
    apply(desk, each, { t: "refused", code: "stale", detail });
  store.setClock("watch_at", Date.now());
}

interface Held {
  readonly known: Known;
  readonly voucher: Voucher;
  readonly lease: Bytes32;
}

function heldOf(desk: Desk): Held[] {
  return desk.store
    .inState("held", HELD)
    .flatMap((known) =>
      known.intent.kind === "settle"
        ? [{ known, voucher: known.intent, lease: desk.escrow.hasher.leaseTerms(known.intent.terms) }]
        : [],
    );
}

export function release(desk: Desk, { key, intent }: Known, why: "exit" | "value" | "expiry"): void {
  const state: IntentState | null = desk.store.read(key)?.state ?? null;
  const result = step(state, { t: "submitted" }, Date.now());
  if (!result.ok) return;
  desk.store.write({ key, intent, state: result.next });
  desk.store.count(`gpux_relay_vouchers_released_total{why="${why}"}`);
  log(desk, "voucher_released", { key, why });
}

/**
 * Lands what is held for a lease that is exiting, or that has become worth it. `appraised`: keys whose lease this life
 * of the object has looked at; from then on the events tell. @throws NodeFault
 */
export async function watchVouchers(desk: Desk, appraised: Set<IntentKey>): Promise<void> {
  const { store, escrow, policy } = desk;
  const held = heldOf(desk);
  if (held.length === 0) return store.setClock("watch_at", null);
  for (const each of held.filter(({ known }) => !appraised.has(known.key))) {
    const [exiting, value] = await Promise.all([
      isExiting(escrow, each.lease),
      valueMoved(escrow, each.voucher),
    ]);
    appraised.add(each.known.key);
    if (exiting) release(desk, each.known, "exit");
    else if (value !== null && value >= policy.holdValue) release(desk, each.known, "value");
  }
  const head = await escrow.chain.head();
  const seen = store.watchedTo();
  const from = Math.min(head.number, Math.max(0, head.number - LOG_BLOCKS, seen - OVERLAP));
  const exits = new Set(await escrow.chain.indexed(escrow.address, EXIT_REQUESTED, from, head.number));
  for (const each of heldOf(desk)) if (exits.has(each.lease)) release(desk, each.known, "exit");
  store.setWatchedTo(head.number);
  store.setClock("watch_at", Date.now() + policy.watchEveryMs);
}
