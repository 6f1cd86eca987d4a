import { canonicalJson } from "./canonical.ts";
import type { Gpu, Offer, Resources } from "./resources.ts";

/** What of a machine is there: its cards one by one, cores, GB of memory. */
export interface Capacity {
  readonly gpus: readonly Gpu[];
  readonly cpu: number;
  readonly memory_gb: number;
}

/** What a hold or a lease has of a machine. `gpus` names the cards; those of older records are only counted. */
export interface Share {
  readonly gpus: readonly Gpu[];
  readonly resources: Resources;
}

/**
 * What of the machine nobody has. A card is known by its description, so cards of one description stand for each
 * other. One that is described otherwise by now (a new driver), or was only counted, takes a card of its model, else
 * any: a card that somebody has is never free.
 */
export function freeOf(
  machine: Pick<Offer, "gpus" | "cpu" | "memory_gb">,
  shares: Iterable<Share>,
): Capacity {
  let free = [...machine.gpus];
  let cpu = machine.cpu;
  let memory = machine.memory_gb;
  const others: (Gpu | null)[] = [];
  for (const { gpus, resources } of shares) {
    cpu -= resources.cpu;
    memory -= resources.memory_gb;
    const counted = Array.from({ length: Math.max(0, resources.gpus - gpus.length) }, () => null);
    for (const card of [...gpus, ...counted]) {
      const rest = card === null ? null : without(free, (each) => isSame(each, card));
      if (rest === null) others.push(card);
      else free = rest;
    }
  }
  for (const card of others) free = without(free, (each) => each.model === card?.model) ?? free.slice(0, -1);
  return { gpus: free, cpu: Math.max(0, cpu), memory_gb: Math.max(0, memory) };
}

/** The first kind of which `free` has not what `share` takes; null when it has everything. */
export function shortOf(free: Capacity, { gpus, resources }: Share): keyof Resources | null {
  let cards: readonly Gpu[] | null = free.gpus;
  for (const card of gpus) cards = cards === null ? null : without(cards, (each) => isSame(each, card));
  if (cards === null || free.gpus.length < resources.gpus) return "gpus";
  if (free.cpu < resources.cpu) return "cpu";
  return free.memory_gb < resources.memory_gb ? "memory_gb" : null;
}

function isSame(a: Gpu, b: Gpu): boolean {
  return a === b || (a.model === b.model && canonicalJson(a) === canonicalJson(b));
}

/** Without the first that is meant; null when there is none. */
function without<T>(list: readonly T[], isMeant: (each: T) => boolean): T[] | null {
  const index = list.findIndex(isMeant);
  return index === -1 ? null : [...list.slice(0, index), ...list.slice(index + 1)];
}
