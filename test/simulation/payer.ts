import type { Address } from "@gpux/protocol/ids";
import type { Intent } from "@gpux/protocol/intent";
import { Actor, type Flow, Unreachable } from "./actor.ts";
import { EXIT_DELAY_S } from "./escrow.ts";
import type { Credit } from "./escrow-credit.ts";
import type { EscrowLease } from "./escrow-rules.ts";
import type { Random } from "./random.ts";
import { METER, type Setting, sleep } from "./setting.ts";

const MEAN_PAUSE_MS = 20_000;
/** When nothing fails any more: how often it looks whether there is something to take back. */
const LAST_LOOKS_MS = 20 * 60_000;

/**
 * Whose credit a consumer spends: puts money in, and takes it back at moments that suit nobody. It sees the chain
 * through its own node, and has the relayer land what it signs.
 */
export class Payer extends Actor {
  readonly address: Address;
  readonly #spender: Address;
  readonly #setting: Setting;
  readonly #random: Random;
  readonly #said: Intent[] = [];
  #isDone = false;
  #occasions = 0;

  constructor(address: Address, spender: Address, setting: Setting, random: Random) {
    super(`payer ${address.slice(2, 4)} for ${spender.slice(2, 4)}`);
    this.address = address;
    this.#spender = spender;
    this.#setting = setting;
    this.#random = random;
  }

  start(): void {
    this.run(this.#live(), () => {});
  }

  *#live(): Flow<void> {
    yield* this.#try(this.#deposit());
    while (!this.#isDone) {
      yield* sleep(this.#setting.schedule, this.#random.wait(MEAN_PAUSE_MS), `${this.name} acts`);
      if (this.#isDone) return;
      const intent = this.#choice();
      if (intent !== null) yield* this.#try(intent);
    }
  }

  /** Leaves nothing behind: what leases give back is taken out as it comes. */
  *leave(): Flow<void> {
    this.#isDone = true;
    for (;;) {
      yield* sleep(this.#setting.schedule, LAST_LOOKS_MS, `${this.name} looks`);
      for (const { terms } of this.#stranded()) yield* this.#try({ kind: "reclaim", terms });
      const { amount, releaseAt } = this.#credit();
      if (releaseAt > 0) yield* this.#try(this.#reclaim());
      else if (amount > 0n) yield* this.#try(this.#release(this.address));
      if ((this.#setting.chain.escrow.owed.get(this.address) ?? 0n) > 0n) yield* this.#try(this.#withdraw());
    }
  }

  /**
   * Leases of its credit that somebody opened after their object had given up: what was refused once is good until its
   * `valid_before`, and who has seen it may land it (docs/simulation.md). Nobody but the payer asks for these back.
   */
  #stranded(): EscrowLease[] {
    const { chain, schedule, watch } = this.#setting;
    const gaveUp = [...watch.ledgers.values()].flatMap(({ state: { lease } }) =>
      lease.status === "expired" && lease.terms.payer === this.address ? [lease.hash] : [],
    );
    return gaveUp.flatMap((hash) => {
      const lease = chain.escrow.leases.get(hash);
      const isOpen = lease !== undefined && lease.status === "open" && lease.fromCredit;
      return isOpen && schedule.now >= (lease.terms.expiry + EXIT_DELAY_S) * 1_000 ? [lease] : [];
    });
  }

  #credit(): Credit {
    return this.#setting.chain.escrow.credits.of(this.address, this.#spender);
  }

  #choice(): Intent | null {
    const dice = this.#random.next();
    if (dice < 0.4) return this.#deposit();
    // Either key may ask for it back; it goes to the payer.
    if (dice < 0.6) return this.#release(this.#random.chance(0.7) ? this.address : this.#spender);
    // Also before its time.
    if (dice < 0.8) return this.#reclaim();
    if (dice < 0.9) return this.#withdraw();
    return this.#said.length === 0 ? null : this.#random.pick(this.#said);
  }

  #deposit(): Intent {
    const { hasher, keyring } = this.#setting;
    const wallet = this.#setting.chain.escrow.wallets.get(this.address) ?? 0n;
    const wanted = BigInt(this.#random.pick([300_000, 2_000_000, 10_000_000, 60_000_000]));
    const amount = wanted < wallet ? wanted : wallet / 2n + 1n;
    const salt = this.#random.bytes32();
    const plan = { payer: this.address, spender: this.#spender, meter: METER, amount, salt };
    const signature = keyring.sign(this.address, hasher.depositNonce(plan));
    return {
      kind: "deposit",
      from: this.address,
      spender: this.#spender,
      meter: METER,
      amount,
      salt,
      validAfter: 0,
      validBefore: this.#soon(),
      signature,
    };
  }

  #release(by: Address): Intent {
    const { hasher, keyring } = this.#setting;
    const what = { payer: this.address, spender: this.#spender, meter: METER, validBefore: this.#soon() };
    return { kind: "release", ...what, signature: keyring.sign(by, hasher.release(what)) };
  }

  #reclaim(): Intent {
    const { releaseAt } = this.#credit();
    const credit = { payer: this.address, spender: this.#spender, meter: METER };
    return { kind: "reclaim_credit", ...credit, releaseAt: releaseAt === 0 ? 1 : releaseAt };
  }

  #withdraw(): Intent {
    this.#occasions += 1;
    return { kind: "withdraw", account: this.address, occasion: `${this.#spender}_${this.#occasions}` };
  }

  #soon(): number {
    return Math.floor(this.#setting.schedule.now / 1_000) + this.#random.pick([60, 300, 3_000]);
  }

  *#try(intent: Intent): Flow<void> {
    const { network, relayer } = this.#setting;
    this.#said.push(intent);
    try {
      yield* network.call(this, relayer, `relay ${intent.kind}`, () => relayer.submit(intent), true);
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      // It may have got there; the chain will tell.
    }
  }
}
