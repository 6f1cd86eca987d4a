import { DIRECTORY, shardsOf } from "@gpux/durable-objects/books";
import { isTerminal, type Job, receiptsOf } from "@gpux/durable-objects/lease/job-state";
import { isOver } from "@gpux/durable-objects/lease/state";
import { entryOf } from "@gpux/durable-objects/node/state";
import { fundingAmount } from "@gpux/protocol/funding";
import type { Address, JobId, LeaseId } from "@gpux/protocol/ids";
import type { Agent } from "./agent.ts";
import { type Escrow, EXIT_DELAY_S, INCLUDED_UP_TO } from "./escrow.ts";
import { RELEASE_DELAY_S } from "./escrow-credit.ts";
import { METER, ONE_SHARD } from "./setting.ts";
import { hold } from "./violation.ts";
import type { World } from "./world.ts";

/** Beyond this after the healing, whoever is still there has had the time to sign. */
const CLOSING_MS = 200_000;

/** Whether nothing is left to do: every lease has ended, every duty is done, every machine is free. */
export function isQuiet(world: World): boolean {
  return (
    world.leases().every((lease) => lease.isQuiet()) &&
    world.nodes().every((node) => node.state.allocations.size === 0 && node.state.publication === null) &&
    world.agents.every((agent) => agent.taken().length === 0 && isHeard(world, agent)) &&
    world.accounts().every((account) => account.orders.isQuiet() && account.sessions.isQuiet())
  );
}

/** Whether its Node knows what its owner wants for himself. */
function isHeard(world: World, { provider, claimed }: Agent): boolean {
  const inventory = world.nodes().find(({ address }) => address === provider.address)?.state.inventory;
  return inventory === undefined || inventory === null || inventory.claimed === claimed;
}

/** What keeps it from being quiet, for a message. */
export function unrest(world: World): string {
  const leases = world.leases().flatMap((lease) => {
    const state = lease.state();
    if (lease.isQuiet() || state === null) return [];
    const duties = world.setting.machines.lease.duties(state, world.schedule.now).map((duty) => duty.key);
    const jobs = [...state.jobs.values()].map(
      (job) => `${job.n} ${job.status}${job.receipt?.settled === null ? "?" : ""}`,
    );
    return [`lease ${lease.name} is ${state.lease.status} [${jobs.join(", ")}], due: ${duties.join(", ")}`];
  });
  const nodes = world
    .nodes()
    .flatMap((node) =>
      [...node.state.allocations].map(([id, { phase }]) => `${node.name} has ${id.slice(0, 9)} ${phase}`),
    );
  const agents = world.agents.flatMap((agent) =>
    agent.taken().length > 0
      ? [`${agent.name} serves ${[...agent.leases.keys()].map((id) => id.slice(0, 9))}`]
      : isHeard(world, agent)
        ? []
        : [`${agent.name} claims ${agent.claimed} and its node does not know`],
  );
  return [...leases, ...nodes, ...agents].join("; ");
}

/** J1: once nothing fails any more, every job that was acknowledged has ended by its own time-outs. */
export function checkJobs(world: World, healedAt: number): void {
  const { truth, schedule } = world;
  for (const [id, { lease }] of truth.acknowledged) {
    const job = whereItIs(world, id, lease);
    hold(job !== null, "J1 an acknowledged job is never lost", () => id);
    if (job === null) continue;
    const { queue_s, start_s, execution_s } = job.request.timeouts;
    const most = (queue_s + start_s + execution_s + 10) * 1_000 * (job.request.retries + 1);
    const endedAt = job.endedAt ?? schedule.now;
    hold(
      isTerminal(job) && endedAt <= Math.max(healedAt, job.createdAt) + most,
      "J1 an acknowledged job ends by its deadline",
      () => `${id} is ${job.status}, ${endedAt - job.createdAt} ms after it came`,
    );
    const told = truth.toldEnds.get(id);
    hold(
      told === undefined || told === job.status,
      "J4 an end that a consumer was told of is final",
      () => `${id} was told ${told} and is ${job.status}`,
    );
    const canceledAt = truth.canceled.get(id);
    if (canceledAt !== undefined && job.endedAt !== null)
      hold(
        job.endedAt <= Math.max(canceledAt, healedAt) + 10_000,
        "J1 a canceled job stops within seconds",
        () => `${id} ended ${job.endedAt} after ${canceledAt}`,
      );
  }
}

/** The job as the lease has it that it moved to last. */
function whereItIs(world: World, id: JobId, first: LeaseId): Job | null {
  const at = (lease: LeaseId) =>
    world
      .leases()
      .find((each) => each.id === lease)
      ?.job_(id) ?? null;
  let job = at(first);
  while (job?.move?.gone) job = at(job.move.to);
  return job;
}

/** J5: from here on the payers have nobody but the chain, and still get back what was not used. */
export function checkReclaim(world: World): void {
  const escrow = world.setting.chain.escrow.copy();
  let latest = Math.ceil(world.schedule.now / 1_000) + RELEASE_DELAY_S;
  for (const { terms } of escrow.leases.values()) latest = Math.max(latest, terms.expiry + EXIT_DELAY_S);
  for (const lease of [...escrow.leases.values()]) {
    if (lease.status !== "open") continue;
    const landed = escrow.land({ kind: "reclaim", terms: lease.terms }, latest);
    hold(landed.ok, "J5 a refund needs nobody's goodwill", () => lease.terms.quote);
    hold(
      lease.refunded === lease.funded - lease.paid,
      "J5 the refund is all that was not used",
      () => lease.terms.quote,
    );
  }
  for (const { payer, spender } of escrow.credits.list()) takeBack(world, escrow, payer, spender, latest);
  for (const account of [...escrow.owed.keys()])
    escrow.land({ kind: "withdraw", account, occasion: "end" }, latest);
  hold(escrow.held === 0n, "J5 nothing stays behind", () => `${escrow.held}`);
}

/** A payer needs nobody for its credit either. */
function takeBack(world: World, escrow: Escrow, payer: Address, spender: Address, atS: number): void {
  const { hasher, keyring } = world.setting;
  const { amount, releaseAt } = escrow.credits.of(payer, spender);
  if (amount === 0n) return;
  if (releaseAt === 0) {
    const what = { payer, spender, meter: METER, validBefore: atS + 1 };
    const signature = keyring.sign(payer, hasher.release(what));
    escrow.land({ kind: "release", ...what, signature }, atS);
  }
  const later = atS + RELEASE_DELAY_S;
  escrow.land({ kind: "reclaim_credit", payer, spender, meter: METER, releaseAt: later }, later);
}

/** When all is over: everything closed, paid out and equal in every book. */
export function checkEnd(world: World, healedAt: number): void {
  const { chain, hasher } = world.setting;
  const { escrow } = chain;
  checkNodes(world);
  for (const object of world.leases()) {
    const state = object.state();
    if (state === null) continue;
    const { lease } = state;
    hold(isOver(lease), "J4 every lease ends", () => `${object.name} is ${lease.status}`);
    const onChain = escrow.leases.get(hasher.leaseTerms(lease.terms));
    if (onChain === undefined) {
      // Up to so much, one block is enough, and a reorganisation may take it back for good (docs/simulation.md).
      const isSmall = fundingAmount(lease.funding) <= INCLUDED_UP_TO;
      hold(
        isSmall || lease.spent === 0n,
        "M5 work is done for money that is there",
        () => `${object.name} spent ${lease.spent}`,
      );
      continue;
    }
    hold(
      onChain.status === "closed",
      "J5 every lease is closed on chain",
      () => `${object.name} is ${onChain.status}`,
    );
    const { relayer } = world.setting;
    // A target counts what was there before it, so that after a reorganisation wallets' money may come to less beside it.
    const isMixed = world.watch.authorized.has(lease.hash) && world.watch.credit.target(lease.hash) > 0n;
    const isRisked = relayer.neverLanded.has(lease.hash) || (isMixed && relayer.undone.has(lease.hash));
    hold(
      isRisked || lease.funded <= onChain.funded,
      "M5 a lease counts on no money but the chain's",
      () => `${lease.funded} of ${onChain.funded}`,
    );
    const { watch } = world;
    const authorized = (watch.authorized.get(lease.hash) ?? 0n) + watch.credit.target(lease.hash);
    hold(
      onChain.funded <= authorized,
      "M5 an authorization pays once",
      () => `${onChain.funded} of ${authorized}`,
    );
    hold(
      onChain.paid === lease.settled,
      "M5 the lease knows what was paid",
      () => `${onChain.paid}, not ${lease.settled}`,
    );
    const lostAt = world.watch.ledgers.get(object.id)?.lostAt ?? null;
    hold(
      lostAt === null || lostAt <= healedAt + CLOSING_MS,
      "LSE-5 a lease that everybody is there to close is closed",
      () => `${object.name} was lost ${lostAt}`,
    );
    if (lostAt === null)
      hold(
        onChain.paid === lease.spent,
        "M2 what was used is what is paid",
        () => `${object.name}: ${onChain.paid} of ${lease.spent}`,
      );
    else hold(onChain.paid <= lease.spent, "M2 no more is paid than was used", () => object.name);
    let receipts = 0n;
    for (const { price } of world.watch.ledgers.get(object.id)?.ticks.values() ?? []) receipts += price;
    for (const job of object.disk.jobs.values())
      for (const { receipt } of receiptsOf(job)) receipts += receipt.price;
    hold(
      receipts === lease.spent,
      "M2 receipts add up to what was spent",
      () => `${receipts} of ${lease.spent}`,
    );
  }
  world.watch.moves.end();
  checkGas(world);
  checkOrders(world);
  for (const [account, amount] of escrow.owed)
    hold(amount === 0n, "J5 everybody is paid out", () => `${account} is owed ${amount}`);
  hold(escrow.held === 0n, "M1 the escrow is empty at the end", () => `${escrow.held}`);
}

/** ORD-1: of an order all leases have their money or none has, and whoever paid has each of them closed. */
function checkOrders(world: World): void {
  const { escrow } = world.setting.chain;
  for (const account of world.accounts())
    for (const { id, legs, nodes } of account.orders.states()) {
      const funded = legs.filter(({ leaseHash }) => escrow.leases.has(leaseHash)).length;
      // A raise that was signed for one of them alone opens that one, should somebody land it (docs/simulation.md).
      const isRaised = legs.some((leg) => world.watch.credit.target(leg.leaseHash) > leg.amount);
      hold(
        funded === 0 || funded === nodes || isRaised,
        "ORD-1 all or none",
        () => `${id}: ${funded} of ${nodes}`,
      );
    }
  for (const { terms, status } of escrow.leases.values())
    hold(status === "closed", "J5 every lease on chain is closed", () => `${terms.quote} is ${status}`);
}

/** M4: what the leases say that their transactions cost is what the relayer paid for them, each once. */
function checkGas(world: World): void {
  const told = new Map<string, bigint>();
  for (const object of world.leases())
    for (const { hash, gas } of object.state()?.lease.transactions ?? [])
      told.set(hash, (told.get(hash) ?? 0n) + BigInt(gas));
  for (const { txHash, gas } of world.setting.relayer.costs.values())
    hold(
      (told.get(txHash) ?? 0n) <= gas,
      "M4 leases are told of no more gas than was paid",
      () => `${txHash}: ${told.get(txHash)} of ${gas}`,
    );
}

/** The Books say what the Nodes know. */
function checkNodes(world: World): void {
  for (const node of world.nodes()) {
    const entry = entryOf(node.state);
    if (entry === null) continue;
    const book = world.books().find((each) => each.name === `book ${shardsOf(DIRECTORY, ONE_SHARD)[0]}`);
    const row = book?.row(node.address);
    if (row === undefined) continue;
    hold(
      row.free === entry.free && row.status === entry.status,
      "C6 a Book ends up with what its Nodes say",
      () => `${node.name}: ${row.free} ${row.status}, not ${entry.free} ${entry.status}`,
    );
  }
}
