import { ceiling } from "@gpux/durable-objects/lease/billing";
import { isDedicated, isOver, type Lease } from "@gpux/durable-objects/lease/state";
import type { Receipt } from "@gpux/protocol/eip712";
import { isFromCredit } from "@gpux/protocol/funding";
import { append, EMPTY_ROOT, root } from "@gpux/protocol/merkle";
import { accrued } from "@gpux/protocol/money";
import { Actor, type Flow, settled } from "./actor.ts";
import type { LeaseObject } from "./lease-object.ts";
import type { Random } from "./random.ts";
import { type Setting, sleep } from "./setting.ts";

/** Somebody inside the edge who would like more than there is, and asks meter and chain for it. Nothing may come of it. */
export class Adversary extends Actor {
  readonly #setting: Setting;
  readonly #random: Random;
  readonly #leases: () => readonly LeaseObject[];
  #tries = 0;
  isDone = false;

  constructor(setting: Setting, random: Random, leases: () => readonly LeaseObject[]) {
    super("adversary");
    this.#setting = setting;
    this.#random = random;
    this.#leases = leases;
  }

  *live(): Flow<void> {
    while (!this.isDone) {
      yield* sleep(this.#setting.schedule, this.#random.wait(30_000), "adversary acts");
      const working = this.#leases().flatMap((object) => {
        const lease = object.state()?.lease;
        return lease === undefined || isOver(lease) || lease.status === "quoted" ? [] : [lease];
      });
      if (working.length === 0 || this.isDone) continue;
      const lease = this.#random.pick(working);
      this.run(this.#random.pick([this.#undo, this.#inflate, this.#replay]).call(this, lease), () => {});
    }
  }

  /** The meter is to sign that less was used than it has signed already. */
  *#undo({ terms }: Lease): Flow<void> {
    const request = { terms, usage: { cumulative: 0n, evidence: EMPTY_ROOT }, receipts: [] };
    const { meter, network } = this.#setting;
    yield* network.call(this, meter, "attest less", () => settled(meter.attest(request)));
  }

  /** The meter is to sign a job that nobody allowed, or time that has not gone by. */
  *#inflate(lease: Lease): Flow<void> {
    const { meter, network, hasher } = this.#setting;
    const { frontier, spent, allowance, terms, hash } = lease;
    const { now } = this.#setting.schedule;
    // Of a dedicated lease the clock is what allows it: ten minutes more than have gone by.
    const cumulative = isDedicated(lease)
      ? terms.upfront + accrued(terms.ratePerHour, now - lease.createdAt + 600_000)
      : ceiling(lease) + 1n;
    const receipt: Receipt = {
      leaseId: hash,
      job: EMPTY_ROOT,
      sequence: frontier.size + 1,
      attempt: 1,
      inputHash: EMPTY_ROOT,
      outputHashes: [],
      node: terms.providerSigner,
      gpu: "RTX_4090",
      billedMs: 1n,
      price: cumulative - spent,
      cumulative,
      endedAt: Math.floor(this.#setting.schedule.now / 1_000),
    };
    const evidence = root(append(frontier, hasher.receipt(receipt)));
    const by = allowance === null ? {} : { allowance };
    const request = { terms, ...by, usage: { cumulative, evidence }, receipts: [receipt] };
    yield* network.call(this, meter, "attest more", () => settled(meter.attest(request)));
  }

  /** The payer's authorization is to pay twice. */
  *#replay({ funding, terms }: Lease): Flow<void> {
    yield* [];
    if (funding === null || isFromCredit(funding)) return;
    this.#tries += 1;
    this.#setting.chain.send({
      key: `fund:replay:${this.#tries}`,
      intent: {
        kind: "fund",
        from: terms.payer,
        terms: [terms],
        amounts: [funding.amount],
        salt: funding.salt,
        validAfter: funding.valid_after,
        validBefore: funding.valid_before,
        signature: funding.signature,
      },
    });
  }
}
