import type { Offer, Prices } from "@gpux/protocol/resources";
import type { Presence } from "../presence.ts";

/** Whether two offers stand in the same places of a Book: alike in all that a demand can ask for or is priced by. */
export function sellsAlike(a: Offer, b: Offer): boolean {
  return (
    a === b ||
    (a.cpu === b.cpu &&
      a.memory_gb === b.memory_gb &&
      a.gpus_per_lease === b.gpus_per_lease &&
      a.isolation === b.isolation &&
      a.region === b.region &&
      a.duration_s.min === b.duration_s.min &&
      a.duration_s.max === b.duration_s.max &&
      a.start_price === b.start_price &&
      asksAlike(a.prices, b.prices) &&
      asksAlike(a.yieldable, b.yieldable) &&
      inOrder(a.features, b.features, isSame) &&
      inOrder(a.models, b.models, isSame) &&
      inOrder(a.gpus, b.gpus, isSameCard))
  );
}

/** Whether a node was there for the same time. */
export function wasAsMuch(a: Presence, b: Presence): boolean {
  return a === b || (a.at === b.at && inOrder(a.days, b.days, isSameDay));
}

function asksAlike(a: Prices | null, b: Prices | null): boolean {
  if (a === null || b === null) return a === b;
  return a.gpu_hour === b.gpu_hour && a.core_hour === b.core_hour && a.gb_hour === b.gb_hour;
}

function inOrder<T>(a: readonly T[], b: readonly T[], same: (a: T, b: T) => boolean): boolean {
  if (a.length !== b.length) return false;
  for (const [i, each] of a.entries()) {
    const other = b[i];
    if (other === undefined || !same(each, other)) return false;
  }
  return true;
}

function isSame(a: string, b: string): boolean {
  return a === b;
}

function isSameCard(a: Offer["gpus"][number], b: Offer["gpus"][number]): boolean {
  return a.model === b.model && a.vram_mb === b.vram_mb;
}

function isSameDay(a: Presence["days"][number], b: Presence["days"][number]): boolean {
  return a.day === b.day && a.on === b.on && a.off === b.off;
}
