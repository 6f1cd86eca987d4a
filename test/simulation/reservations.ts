import { AgentConfig } from "@gpux/agent/config";
import {
  type Admission,
  admitResources,
  admitTerms,
  admitText,
  type House,
} from "@gpux/agent/control/admission";
import { enterHold, type Hold, type HoldEntry, type Holds, rememberedHolds } from "@gpux/agent/control/holds";
import type { Share } from "@gpux/protocol/capacity";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { ToNode } from "@gpux/protocol/frames";
import type { Address, LeaseId } from "@gpux/protocol/ids";
import type { Offer } from "@gpux/protocol/resources";
import type { Flow } from "./actor.ts";
import { Journal } from "./journal.ts";
import { PLACE, type Setting } from "./setting.ts";

export interface Provider {
  readonly address: Address;
  readonly payout: Address;
  readonly offer: Offer;
  /** How far its machine's wall clock is from the world's, in ms. */
  readonly skewMs: number;
}

/** What the machine has in hand while a quote or an opening is judged. */
export interface Occupied {
  readonly leases: readonly ({ readonly id: LeaseId; readonly isResting: boolean } & Share)[];
  /** GPUs that the owner uses for himself. */
  readonly claimed: number;
}

/** What an agent has promised: the shell of agent/control/control.ts over the same admission and holds. */
export class Reservations {
  readonly #setting: Setting;
  readonly #provider: Provider;
  readonly #house: House;
  readonly #journal: Journal<HoldEntry>;
  #holds: Holds = new Map();

  constructor(provider: Provider, setting: Setting) {
    this.#setting = setting;
    this.#provider = provider;
    const { prices, yieldable, region, start_price } = provider.offer;
    const config = AgentConfig.parse({
      edge: "http://edge.invalid",
      rpc: "http://chain.invalid",
      chain_id: PLACE.chainId,
      escrow: PLACE.escrow,
      payout: provider.payout,
      prices: { gpu_hour: "0", core_hour: "0", gb_hour: "0" },
      region,
    });
    this.#house = {
      config: {
        ...config,
        prices,
        start_price,
        ...(yieldable === null ? {} : { yieldable_prices: yieldable }),
      },
      offer: provider.offer,
      address: provider.address,
      hasher: setting.hasher,
    };
    this.#journal = new Journal(setting.schedule, setting.random);
  }

  /** A new life reads what the last one wrote. */
  remember(): void {
    const all = this.#journal.entries.reduce<Holds>(enterHold, new Map());
    this.#holds = rememberedHolds(all, this.#now());
  }

  crash(power: boolean): void {
    this.#journal.crash(power);
  }

  enter(entry: HoldEntry): void {
    this.#holds = rememberedHolds(enterHold(this.#holds, entry), this.#now());
    this.#journal.append(entry);
  }

  *sync(): Flow<void> {
    yield* this.#journal.sync();
  }

  get(lease: LeaseId): Hold | undefined {
    return this.#holds.get(lease);
  }

  /** Those that keep resources from others now. */
  current(): Hold[] {
    return [...this.#holds.values()].filter((hold) => hold.expiresAt > this.#now());
  }

  admit(
    { hold: lease, terms, resources, text }: Extract<ToNode, { t: "hold" }>,
    occupied: Occupied,
  ): Admission {
    if (text === undefined) return { ok: false, code: "text_mismatch", detail: "What is sold is not said." };
    const proposal = { lease, terms, resources, tier: text.tier };
    const admission = admitTerms(this.#house, proposal, Math.floor(this.#now() / 1_000));
    if (!admission.ok) return admission;
    const sold = admitText(this.#house, proposal, text);
    return sold.ok ? this.#hasRoom(lease, { gpus: text.gpus, resources }, occupied) : sold;
  }

  /** Whether a lease that is to be opened is served. */
  agree(lease: LeaseId, terms: LeaseTerms, share: Share, occupied: Occupied): Admission {
    const { hasher } = this.#house;
    const held = this.#holds.get(lease);
    const isHeld = held !== undefined && hasher.leaseTerms(held.terms) === hasher.leaseTerms(terms);
    const proposal = { lease, terms, resources: share.resources };
    const agreed = isHeld
      ? { ok: true as const }
      : admitTerms(this.#house, proposal, Math.floor(this.#now() / 1_000));
    return agreed.ok ? this.#hasRoom(lease, share, occupied) : agreed;
  }

  #hasRoom(lease: LeaseId, share: Share, { leases, claimed }: Occupied): Admission {
    const { machines } = this.#setting;
    const taken = machines.agent.takenShares(this.#holds, leases, this.#now(), lease);
    const owners: Share = { gpus: [], resources: { gpus: claimed, cpu: 0, memory_gb: 0 } };
    return admitResources(this.#provider.offer, share, [...taken, owners]);
  }

  /** By the machine's own wall clock. */
  #now(): number {
    return this.#setting.schedule.now + this.#provider.skewMs;
  }
}
