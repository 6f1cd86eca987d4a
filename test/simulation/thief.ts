import { isOver, type Lease } from "@gpux/durable-objects/lease/state";
import { fundingKey, isFromCredit, type LeaseFunding } from "@gpux/protocol/funding";
import type { LeaseId } from "@gpux/protocol/ids";
import type { Intent } from "@gpux/protocol/intent";
import { Actor, type Flow, settled } from "./actor.ts";
import type { LeaseObject } from "./lease-object.ts";
import type { Random } from "./random.ts";
import { METER, type Setting, sleep } from "./setting.ts";

type CreditFunding = Extract<LeaseFunding, { readonly kind: "credit" }>;

/** Somebody inside the edge who has all that consumers signed and wants more of payers' credit. Nothing may come of it. */
export class Thief extends Actor {
  readonly #setting: Setting;
  readonly #random: Random;
  readonly #leases: () => readonly LeaseObject[];
  /** All that it ever saw signed for one lease alone: it lasts longer than the lease. */
  readonly #seen = new Map<LeaseId, Map<string, CreditFunding>>();
  #tries = 0;
  isDone = false;

  constructor(setting: Setting, random: Random, leases: () => readonly LeaseObject[]) {
    super("thief");
    this.#setting = setting;
    this.#random = random;
    this.#leases = leases;
  }

  *live(): Flow<void> {
    while (!this.isDone) {
      yield* sleep(this.#setting.schedule, this.#random.wait(8_000), "thief acts");
      const known = this.#leases().flatMap((object) => {
        const lease = object.state()?.lease;
        return lease === undefined || lease.status === "quoted" ? [] : [lease];
      });
      for (const lease of known) this.#look(lease);
      if (known.length === 0 || this.isDone) continue;
      // Who has ended, or is about to, is no longer looked after.
      const ending = known.filter(
        ({ id, closing }) => closing !== null && (this.#seen.get(id)?.size ?? 0) > 1,
      );
      if (ending.length > 0 && this.#random.chance(0.6)) {
        this.run(this.#land(this.#random.pick(ending), true), () => {});
        continue;
      }
      const lease = this.#random.pick(known);
      const deed = this.#random.pick([this.#land, this.#land, this.#inflate, this.#release, this.#reclaim]);
      this.run(deed.call(this, lease), () => {});
    }
  }

  #look({ id, funding, plan, topUps, autoTopUp }: Lease): void {
    const opening = funding === null || plan !== null ? [] : [funding];
    const all = [...opening, ...topUps.map((each) => each.funding), ...(autoTopUp?.allocations ?? [])];
    const seen = this.#seen.get(id) ?? new Map<string, CreditFunding>();
    for (const each of all) if (isFromCredit(each)) seen.set(fundingKey(each), each);
    this.#seen.set(id, seen);
  }

  #signed({ id }: Lease): CreditFunding[] {
    return [...(this.#seen.get(id)?.values() ?? [])];
  }

  /** A signed target at a moment that its consumer did not choose: again, out of turn, or for a lease that has ended. */
  *#land(lease: Lease, isHighest = false): Flow<void> {
    const signed = this.#signed(lease).sort((a, b) => (a.funded_to < b.funded_to ? 1 : -1));
    const [highest] = signed;
    if (highest === undefined) return;
    yield* this.#ask(lease, isHighest ? highest : this.#random.pick(signed));
  }

  /** A higher target, or one that lasts longer, with the signature of the one that was asked for. */
  *#inflate(lease: Lease): Flow<void> {
    const [signed] = this.#signed(lease);
    if (signed === undefined || isOver(lease)) return;
    const more = BigInt(this.#random.pick([0, 1, 1_000_000]));
    const longer = this.#random.pick([1, 60]);
    const changed = { funded_to: signed.funded_to + more, valid_before: signed.valid_before + longer };
    yield* this.#ask(lease, { ...signed, ...changed });
  }

  *#ask({ terms }: Lease, { funded_to, valid_before: validBefore, signature }: CreditFunding): Flow<void> {
    const { meter, network, keyring, hasher } = this.#setting;
    const request = { terms: [terms], fundedTo: [funded_to], validBefore, signature };
    const cosign = () => settled(meter.allocate(request));
    const cosigned = yield* network.call(this, meter, "allocate more", cosign);
    const digest = hasher.allocate({ ...request, leaseIds: [hasher.leaseTerms(terms)] });
    // Without the meter's half it tries one of its own making.
    const own = `0x${"00".repeat(65)}` as const;
    const meterSignature = cosigned.ok ? cosigned.signature : own;
    if (!cosigned.ok && keyring.isSigned(METER, digest, own)) throw new Error("a signature was guessed");
    this.#send({ kind: "allocate", ...request, meterSignature });
  }

  /** The credit's release by a key that is neither its payer's nor its spender's. */
  *#release({ terms }: Lease): Flow<void> {
    yield* [];
    const { hasher, keyring, schedule } = this.#setting;
    const { payer, consumerSigner: spender, providerSigner } = terms;
    const validBefore = Math.floor(schedule.now / 1_000) + 300;
    const digest = hasher.release({ payer, spender, meter: METER, validBefore });
    const signature = keyring.sign(providerSigner, digest);
    this.#send({ kind: "release", payer, spender, meter: METER, validBefore, signature });
  }

  /** A release's money before its time. */
  *#reclaim({ terms: { payer, consumerSigner: spender } }: Lease): Flow<void> {
    yield* [];
    this.#send({ kind: "reclaim_credit", payer, spender, meter: METER, releaseAt: 1 });
  }

  #send(intent: Intent): void {
    this.#tries += 1;
    this.#setting.chain.send({ key: `thief:${this.#tries}`, intent });
  }
}
