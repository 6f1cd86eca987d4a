import type { Address } from "@gpux/protocol/ids";
import type { Actor } from "./actor.ts";
import type { Slots } from "./slots.ts";
import type { Truth } from "./truth.ts";

/** What all leases of a machine share. */
export interface Workshop {
  readonly actor: Actor;
  readonly address: Address;
  readonly slots: Slots;
  readonly truth: Truth;
  readonly gpu: string;
  /** It keeps what attempts that give way have done: agents of before do not. */
  readonly keeps: boolean;
  /** It may be sent jobs before their turn: agents of before may not. */
  readonly prefetches: boolean;
  /** How far this machine's wall clock is from the world's, in ms. */
  readonly skewMs: number;
  /** Until when the owner's own node of the chain does not answer. */
  readonly rpcDownUntil: () => number;
}
