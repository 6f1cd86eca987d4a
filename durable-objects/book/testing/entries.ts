import { Address } from "@gpux/protocol/ids";
import { Offer } from "@gpux/protocol/resources";
import type { BookEntry } from "../../interfaces.ts";
import { NEVER_SEEN } from "../../presence.ts";

export const address = (n: number) => Address.parse(`0x${n.toString(16).padStart(40, "0")}`);

export interface Change extends Partial<Omit<BookEntry, "offer">> {
  readonly price?: number;
  readonly models?: readonly string[];
  readonly vram?: number;
  readonly offer?: object;
}

/** The row of node `n`, for tests: one RTX_4090 for 1,000 base units an hour unless it is said otherwise. */
export function entry(n: number, change: Change = {}): BookEntry {
  const { price = 1_000, models = ["RTX_4090"], vram = 24_000, offer = {}, ...rest } = change;
  return {
    node: address(n),
    offer: Offer.parse({
      gpus: models.map((model) => ({
        model,
        reported: model,
        vram_mb: vram,
        driver: "1",
        backend: "vulkan",
        software: false,
      })),
      cpu: 8,
      memory_gb: 32,
      region: "eu-west",
      prices: { gpu_hour: String(price), core_hour: "0", gb_hour: "0" },
      concurrency: 1,
      ...offer,
    }),
    free: models.length,
    provider: address(1_000 + n),
    agentVersion: "1.0.0",
    status: "online",
    lastSeen: 1,
    presence: NEVER_SEEN,
    sales: [],
    challenge: null,
    ...rest,
  };
}
