import { calldataOf } from "@gpux/protocol/calldata";
import type { IntentKey } from "@gpux/protocol/intent";
import { planBatch, type Waiting } from "./batch.ts";
import { apply, type Desk, log, warn } from "./desk.ts";
import { NodeFault } from "./json-rpc.ts";
import { simulate } from "./judge.ts";
import { SIMULATION_FRESH_MS } from "./machine.ts";
import { batchCall, batchOutcome, type EntryCall } from "./multicall.ts";
import { claimsOf } from "./outcome.ts";
import { budgetFor } from "./policy.ts";
import { marketFees, type Order, priceOf, sign, TRANSFER_GAS } from "./signing.ts";
import type { Known } from "./store.ts";

/** From simulated intents to signed transactions: the only place that takes a nonce. One at a time per key. */

const QUEUE = 100;
const NO_KEY_MS = 30_000;
const TOO_DEAR_MS = 5_000;
const POOR_MS = 1_000;
/** Nobody uses a relayer's key so often beside us; a node that says so lies. */
const JUMP_MAX = 1_000;

interface Entry extends EntryCall {
  readonly known: Known;
}

/** Signs what is due, until nothing is. Sets when to plan again. @throws NodeFault */
export async function dispatch(desk: Desk): Promise<void> {
  const { store, flights, policy } = desk;
  for (;;) {
    const queue = store.inState("simulated", QUEUE).flatMap((known) => waitingOf(desk, known));
    const room = flights.openNonces().length < policy.inFlight;
    const plan = planBatch(queue, { now: Date.now(), arriving: store.arriving(), room }, policy);
    store.setClock("plan_at", plan.wakeAt);
    if (plan.batch === null) return;
    const pause = await dispatchBatch(desk, plan.batch);
    if (pause !== null) return store.setClock("plan_at", Date.now() + pause);
  }
}

function waitingOf(desk: Desk, { key, intent, state }: Known): Waiting[] {
  const { life } = state;
  const gas = calldataOf(intent)?.gas;
  if (life.state !== "simulated" || gas === undefined) return [];
  return [
    {
      key,
      kind: intent.kind,
      since: life.since,
      alone: state.alone,
      value: life.value === null ? null : BigInt(life.value),
      gas,
      claims: claimsOf(desk.escrow.hasher, intent),
    },
  ];
}

/** How long to wait before anything else is signed (ms); null: go on. */
async function dispatchBatch(desk: Desk, keys: readonly IntentKey[]): Promise<number | null> {
  const { account, policy, escrow, flights, store, chainId } = desk;
  if (account === null) {
    warn("relay_key_missing", { address: store.address() });
    return NO_KEY_MS;
  }
  const entries = await stillFit(
    desk,
    keys.flatMap((key) => entryOf(desk, key)),
  );
  const [first] = entries;
  if (first === undefined) return null;
  const fees = await marketFees(escrow.chain, policy.feeCap);
  if (fees === null) {
    warn("relay_gas_too_dear", { cap: policy.feeCap.toString() });
    return TOO_DEAR_MS;
  }
  const nonce = await nextNonce(desk, account.address);
  const single = entries.length === 1;
  const call = single ? first : batchCall(escrow.address, entries);
  const to = single ? escrow.address : policy.multicall;
  const order: Order = { chainId, nonce, to, data: call.data, gas: call.gas, fees, purpose: "call" };
  const [price, balance] = await Promise.all([
    priceOf(escrow.chain, order, fees.baseFee),
    escrow.chain.balance(account.address),
  ]);
  noteBalance(desk, balance);
  if (refuseDear(desk, entries, price.expected)) return null;
  const needed = flights.reserved() + price.most;
  if (balance < needed) {
    // What is under way may cost less than it could.
    if (flights.openNonces().length > 0) return POOR_MS;
    const detail = `${account.address} holds ${balance} wei and needs ${needed}`;
    for (const { known } of entries)
      apply(desk, known.key, { t: "refused", code: "relayer_low_balance", detail });
    return null;
  }
  const attempt = await sign(account, order, price.most);
  const names = entries.map(({ known }) => known.key);
  flights.open(nonce, names, attempt, Date.now());
  for (const name of names) apply(desk, name, { t: "signed", nonce });
  log(desk, "transaction_signed", {
    nonce,
    hash: attempt.hash,
    entries: names.length,
    first: first.known.key,
  });
  return null;
}

function entryOf(desk: Desk, key: IntentKey): Entry[] {
  const known = desk.store.read(key);
  const calldata = known === null ? null : calldataOf(known.intent);
  return known === null || calldata === null || known.state.life.state !== "simulated"
    ? []
    : [{ known, ...calldata }];
}

/** RLY-4: those that a call with the transaction's gas shows to succeed, together, at the latest block. */
async function stillFit(desk: Desk, entries: readonly Entry[]): Promise<readonly Entry[]> {
  const [first] = entries;
  if (first === undefined) return [];
  if (entries.length === 1) {
    const { life } = first.known.state;
    if (life.state === "simulated" && Date.now() - life.at <= SIMULATION_FRESH_MS) return entries;
    const verdict = await simulate(desk.escrow, desk.policy, first.known.intent);
    apply(desk, first.known.key, verdict);
    return verdict.t === "simulated" ? entries : [];
  }
  const answer = await desk.escrow.chain.call({
    to: desk.policy.multicall,
    ...batchCall(desk.escrow.address, entries),
  });
  const fit = answer.ok ? batchOutcome(answer.data, entries.length) : null;
  if (fit === null)
    warn("relay_batch_unusable", { multicall: desk.policy.multicall, entries: entries.length });
  const left = entries.filter((_, index) => fit?.[index] === true);
  for (const [index, { known }] of entries.entries()) {
    if (fit?.[index] !== true) apply(desk, known.key, { t: "unfit" });
  }
  return left;
}

/**
 * The chain's count is a floor only: behind it are transactions that never can land. Gaps are filled first, for nothing
 * above one ever lands.
 */
async function nextNonce(desk: Desk, address: `0x${string}`): Promise<number> {
  const count = await desk.escrow.chain.transactionCount(address);
  const next = desk.flights.nextNonce();
  if (count > next + JUMP_MAX) throw new NodeFault(`a count of ${count}, where ${next} was expected`);
  await fillGaps(desk, count);
  return Math.max(desk.flights.nextNonce(), count);
}

/** A 0-value transfer to ourselves for each nonce that was skipped. */
async function fillGaps(desk: Desk, count: number): Promise<void> {
  const { account, escrow, chainId, policy, flights } = desk;
  if (account === null) return;
  for (const nonce of flights.gaps(count).slice(0, policy.inFlight)) {
    const fees = await marketFees(escrow.chain, policy.feeCap);
    if (fees === null) return;
    const order: Order = {
      chainId,
      nonce,
      to: account.address,
      data: "0x",
      gas: TRANSFER_GAS,
      fees,
      purpose: "cancel",
    };
    const { most } = await priceOf(escrow.chain, order, fees.baseFee);
    const attempt = await sign(account, order, most);
    flights.open(nonce, [], attempt, Date.now());
    desk.store.count("gpux_relay_gaps_filled_total");
    warn("nonce_filled", { nonce, hash: attempt.hash });
  }
}

/** True when one was refused: then the rest is planned anew. Each bears its share by gas. */
function refuseDear(desk: Desk, entries: readonly Entry[], expected: bigint): boolean {
  const gas = entries.reduce((sum, entry) => sum + entry.gas, 0n);
  let refused = false;
  for (const entry of entries) {
    const { life } = entry.known.state;
    const value = life.state === "simulated" && life.value !== null ? BigInt(life.value) : null;
    const cost = (expected * entry.gas) / gas;
    const budget = budgetFor(desk.policy, value);
    if (cost <= budget) continue;
    refused = true;
    const detail = `it would cost ${cost} wei, and ${budget} is the most`;
    apply(desk, entry.known.key, { t: "refused", code: "over_budget", detail });
  }
  return refused;
}

/** The alarm is raised once, when it falls below. */
export function noteBalance(desk: Desk, balance: bigint): void {
  const before = desk.store.balance();
  desk.store.setBalance(balance);
  const { lowBalance } = desk.policy;
  if (balance < lowBalance && (before === null || before >= lowBalance))
    warn("relay_low_balance", { address: desk.store.address(), wei: balance.toString() });
}
