import type { IntentKey, TransactionCost } from "@gpux/protocol/intent";
import { parseTransaction } from "viem";
import type { Block, Receipt } from "./chain.ts";
import { apply, applyFlight, type Desk, earlier, log, warn } from "./desk.ts";
import { type Attempt, flightDuty, newest, outbid, stalled } from "./flight.ts";
import type { Flight } from "./flight-store.ts";
import { NodeFault } from "./json-rpc.ts";
import type { IntentEvent } from "./machine.ts";
import { fulfilmentByReceipt } from "./outcome.ts";
import { marketFees, type Order, priceOf, sign, TRANSFER_GAS } from "./signing.ts";

/** From a signed transaction to its block: one nonce's way. `aired`: hashes that this life of the object has sent. */

/** A node that lags by a block is not to make us look all the time. */
const HOLE_MS = 1_000;
/** Longer than a chain takes to be final, and any node to catch up. */
const SEEK_MS = 60 * 60_000;

/** Does what is due for the nonce. @throws NodeFault */
export async function advanceFlight(desk: Desk, nonce: number, aired: Set<string>): Promise<void> {
  const flight = desk.flights.read(nonce);
  const task = flight === null ? null : flightDuty(flight.state);
  if (flight === null || task === null) return;
  if (task === "send") return await send(desk, flight, aired);
  await watch(desk, flight, aired);
}

async function send(desk: Desk, flight: Flight, aired: Set<string>): Promise<void> {
  const { nonce } = flight.state;
  const { hash, raw } = newest(flight.state);
  // The one promise everything rests on: no node sees a transaction that a crash could make us forget.
  await desk.sync();
  const outcome = await desk.escrow.chain.send(raw);
  aired.add(hash);
  switch (outcome) {
    case "accepted":
    case "known": {
      const head = await desk.escrow.chain.head();
      applyFlight(desk, nonce, { t: "accepted", block: head.number });
      log(desk, "transaction_sent", { nonce, hash, known: outcome === "known" });
      return;
    }
    case "taken":
      // Perhaps by this very transaction or one that it replaced, sent before a crash.
      if (await land(desk, flight)) return;
      return leave(desk, flight);
    case "early": {
      applyFlight(desk, nonce, { t: "early" });
      const [lowest = nonce] = desk.flights.openNonces();
      if (lowest < nonce) applyFlight(desk, lowest, { t: "forgotten" });
      return seekHole(desk, lowest, await nextToLand(desk));
    }
    case "underpriced":
      warn("transaction_underpriced", { nonce, hash });
      applyFlight(desk, nonce, { t: "underpriced" });
      return;
    case "poor":
      warn("relay_low_balance", { address: desk.store.address(), nonce });
      throw new NodeFault("the node thinks that the key cannot pay");
  }
}

async function watch(desk: Desk, flight: Flight, aired: Set<string>): Promise<void> {
  const { escrow, policy } = desk;
  const { state } = flight;
  if (await land(desk, flight)) return;
  const count = await nextToLand(desk);
  if (count > state.nonce) return leave(desk, flight);
  seekHole(desk, state.nonce, count);
  // A node that went down with the last life of this object has forgotten it.
  if (!aired.has(newest(state).hash)) return await send(desk, flight, aired);
  const head = await escrow.chain.head();
  const verdict = stalled(state, { head: head.number, count }, Date.now(), policy);
  if (verdict === null) return void applyFlight(desk, state.nonce, { t: "unseen" });
  if (verdict === "resend" || !(await replace(desk, flight))) await send(desk, flight, aired);
}

async function nextToLand({ account, store, escrow }: Desk): Promise<number> {
  const address = account?.address ?? store.address();
  if (address === null) throw new Error("the key does not know its address");
  return await escrow.chain.transactionCount(address);
}

/**
 * Before `nonce` comes `count`. Where nothing is on its way for that, a reorganisation took it and nobody noticed yet,
 * or nobody ever signed for it; nothing above it lands until that is mended.
 */
function seekHole(desk: Desk, nonce: number, count: number): void {
  if (count >= nonce) return;
  const outcome = desk.flights.read(count)?.state.outcome;
  if (outcome !== "open")
    earlier(desk, outcome === "landed" ? "confirm_at" : "plan_at", Date.now() + HOLE_MS);
}

/** The nonce is used and nothing of ours is there; after a while of that, its intents look for another way. */
function leave(desk: Desk, { state, entries }: Flight): void {
  const next = applyFlight(desk, state.nonce, { t: "gone" });
  if (next?.outcome !== "displaced") return;
  for (const key of entries) apply(desk, key, { t: "displaced", nonce: state.nonce });
  earlier(desk, "confirm_at", Date.now() + HOLE_MS);
  desk.store.count("gpux_relay_displaced_total");
  warn("transaction_displaced", { nonce: state.nonce, hash: newest(state).hash });
}

/** Nonces that were given up lately: a node may know a count long before the receipt. */
export function givenUp({ flights }: Desk): number[] {
  return flights.givenUp(Date.now() - SEEK_MS);
}

/**
 * What was given up may have landed after all, and then its cost belongs on record. Its intents found another way
 * meanwhile. @throws NodeFault
 */
export async function seekGivenUp(desk: Desk): Promise<void> {
  for (const nonce of givenUp(desk)) {
    const flight = desk.flights.read(nonce);
    if (flight !== null) await land(desk, flight);
  }
}

/** Signs what outbids the newest attempt; false when nothing may or can. */
async function replace(desk: Desk, { state }: Flight): Promise<boolean> {
  const { account, policy, escrow, chainId } = desk;
  const { nonce } = state;
  const last = newest(state);
  const market = (await marketFees(escrow.chain, policy.feeCap)) ?? {
    baseFee: 0n,
    maxFeePerGas: 0n,
    maxPriorityFeePerGas: 0n,
  };
  const next = outbid(last, market, policy.feeCap);
  if (next === null || account === null) return false;
  const call = next.purpose === "call" ? callIn(last) : null;
  const order: Order = {
    chainId,
    nonce,
    ...(call ?? { to: account.address, data: "0x", gas: TRANSFER_GAS }),
    fees: next.fees,
    purpose: next.purpose,
  };
  const { most } = await priceOf(escrow.chain, order, market.baseFee);
  const attempt = await sign(account, order, most);
  if (applyFlight(desk, nonce, { t: "replaced", attempt }) === null) return true;
  desk.store.count(`gpux_relay_replacements_total{purpose="${next.purpose}"}`);
  warn("transaction_replaced", { nonce, hash: attempt.hash, replaced: last.hash, purpose: next.purpose });
  return true;
}

function callIn(attempt: Attempt) {
  const { to, data, gas } = parseTransaction(attempt.raw);
  if (!to || data === undefined || gas === undefined) throw new Error(`${attempt.hash} is no call`);
  return { to, data, gas };
}

/** False when none of the nonce's transactions is on chain. */
async function land(desk: Desk, flight: Flight): Promise<boolean> {
  const { chain } = desk.escrow;
  const { state, entries } = flight;
  const receipts = await Promise.all(state.attempts.map(({ hash }) => chain.receipt(hash)));
  const index = receipts.findIndex((receipt) => receipt !== null);
  const [attempt, receipt] = [state.attempts[index], receipts[index]];
  if (!attempt || !receipt) return false;
  const block = await chain.block(receipt.blockNumber);
  if (block === null || block.hash !== receipt.blockHash)
    throw new NodeFault("the receipt's block is not on the chain");
  const cost: TransactionCost = {
    gasUsed: receipt.gasUsed.toString(),
    effectiveGasPrice: receipt.effectiveGasPrice.toString(),
    l1Fee: (receipt.l1Fee ?? 0n).toString(),
    calldataBytes: attempt.calldataBytes,
  };
  const events: [IntentKey, IntentEvent][] = [];
  for (const [n, key] of entries.entries()) {
    const share = shareOf(cost, n, entries.length);
    events.push([key, await fate(desk, key, flight, { attempt, receipt, block, share })]);
  }
  // From here on one synchronous block: the nonce and all that it carried.
  if (applyFlight(desk, state.nonce, { t: "landed" }) === null) return true;
  desk.flights.writeLanded(state.nonce, attempt, receipt, block, cost);
  desk.flights.wakeOthers(state.nonce, Date.now());
  for (const [key, event] of events) apply(desk, key, event);
  desk.store.count(
    `gpux_relay_transactions_total{purpose="${attempt.purpose}",ok="${receipt.status === "0x1"}"}`,
  );
  desk.store.count("gpux_relay_entries_total", BigInt(entries.length));
  const lost = entries.length - events.filter(([, { t }]) => t === "included").length;
  const { nonce } = state;
  log(desk, "transaction_landed", {
    nonce,
    hash: attempt.hash,
    block: block.number,
    entries: entries.length,
    lost,
  });
  return true;
}

interface Landing {
  readonly attempt: Attempt;
  readonly receipt: Receipt;
  readonly block: Block;
  readonly share: TransactionCost;
}

/** What the landed transaction means for one of its entries. */
async function fate(desk: Desk, key: IntentKey, flight: Flight, landing: Landing): Promise<IntentEvent> {
  const { attempt, receipt, block, share } = landing;
  const { nonce } = flight.state;
  const { hash } = attempt;
  if (attempt.purpose === "cancel") return { t: "displaced", nonce };
  const inBatch = flight.entries.length > 1;
  if (receipt.status === "0x0") return inBatch ? { t: "missed", nonce } : { t: "reverted", nonce, hash };
  const intent = desk.store.read(key)?.intent;
  if (intent === undefined) throw new Error(`${key} was signed for and is gone`);
  const fulfilment = await fulfilmentByReceipt(desk.escrow, intent, receipt, block);
  if (fulfilment !== null) return { t: "included", nonce, hash, fulfilment, cost: share };
  // Alone it cannot succeed without its events: the node lies.
  if (!inBatch) throw new NodeFault("the receipt lacks the events of its call");
  return { t: "missed", nonce };
}

/** The n-th of `of` shares; all of them add up to the wei and the byte. */
export function shareOf(cost: TransactionCost, n: number, of: number): TransactionCost {
  const part = (text: string) => {
    const whole = BigInt(text);
    return ((whole * BigInt(n + 1)) / BigInt(of) - (whole * BigInt(n)) / BigInt(of)).toString();
  };
  const bytes = (count: number) => Math.floor((count * (n + 1)) / of) - Math.floor((count * n) / of);
  return {
    gasUsed: part(cost.gasUsed),
    effectiveGasPrice: cost.effectiveGasPrice,
    l1Fee: part(cost.l1Fee),
    calldataBytes: bytes(cost.calldataBytes),
  };
}
