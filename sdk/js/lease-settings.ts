import type { WellKnown } from "@gpux/protocol/answers";
import type { KeptIntentWire } from "@gpux/protocol/kept";
import type { Demand } from "@gpux/protocol/resources";
import type { Account, Consumer } from "./account.ts";
import type { Timing } from "./timing.ts";
import type { Transport } from "./transport.ts";
import type { WarmLeases } from "./warm-leases.ts";

/** As `Demand` on the wire; amounts may be bigint. */
export type DemandInput = Omit<(typeof Demand)["_zod"]["input"], "max_rate_per_hour"> & {
  readonly max_rate_per_hour?: bigint | string;
};

export interface LeaseSettings {
  readonly transport: Transport;
  /** Stands in the terms as `consumerSigner`. */
  readonly account: Consumer;
  readonly payer: Account;
  readonly timing: Timing;
  readonly warm: WarmLeases;
  readonly wellKnown: () => Promise<WellKnown>;
  /** Base units; no allowance on any one lease goes above it. Without it, what the lease was funded with. */
  readonly spendLimit: bigint | null;
  readonly keep: (funding: KeptIntentWire) => void | Promise<void>;
}

/** Long enough for a congested chain, short enough that a hold does not stay for long; seconds. */
export const FUNDING_WINDOW_S = 600;
/** How long a lease may last when the caller does not say; seconds. */
export const DEFAULT_DURATION_S = 3_600;
