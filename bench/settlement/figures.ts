import type { Address } from "@gpux/protocol/ids";
import type { Figures } from "../rounds.ts";
import type { Ledger, Sent } from "./ledger.ts";
import type { Life } from "./life.ts";
import { type Layers, PARTS, type Parts, partsOf } from "./parts.ts";

export function nameOf({ leases, owners }: Pick<Life, "leases" | "owners">): string {
  const count = leases === 1 ? "1 lease" : `${leases} leases`;
  return owners === 1 ? count : `${count} of ${owners} owners`;
}

const sum = (sent: readonly Sent[], of: "gas" | "calldataBytes" | "l1FeeWei") =>
  sent.reduce((total, each) => total + each[of], 0);

const isPermit = ({ purpose }: Sent) => purpose === "permit";
const withoutPermits = (sent: readonly Sent[]) => sent.filter((each) => !isPermit(each));

/** The seed example as a whole; the permit, where there is one, in a figure of its own. */
export function seedFigures(all: readonly Sent[]): Figures {
  const sent = withoutPermits(all);
  const permits = all.filter(isPermit);
  return {
    "seed, transactions": sent.length,
    "seed, gas": sum(sent, "gas"),
    "seed, calldata_bytes": sum(sent, "calldataBytes"),
    "seed, l1_fee_wei": sum(sent, "l1FeeWei"),
    ...(permits.length === 0 ? {} : { "seed, gas of the permit": sum(permits, "gas") }),
  };
}

/** A lease's share in the transactions of all that lived together. */
export function leaseFigures(life: Life, all: readonly Sent[]): Figures {
  const sent = withoutPermits(all);
  const name = nameOf(life);
  return {
    [`${name}, transactions`]: sent.length,
    [`${name}, gas_per_lease`]: sum(sent, "gas") / life.leases,
    [`${name}, calldata_bytes_per_lease`]: sum(sent, "calldataBytes") / life.leases,
    [`${name}, l1_fee_wei_per_lease`]: sum(sent, "l1FeeWei") / life.leases,
  };
}

/** A job's share, where all of them do `jobs` together. */
export function jobFigures(name: string, all: readonly Sent[], jobs: number): Figures {
  const sent = withoutPermits(all);
  return {
    [`${name}, gas_per_job`]: sum(sent, "gas") / jobs,
    [`${name}, calldata_bytes_per_job`]: sum(sent, "calldataBytes") / jobs,
    [`${name}, l1_fee_wei_per_job`]: sum(sent, "l1FeeWei") / jobs,
  };
}

/** Where a lease's gas goes: by what the transactions are for, and again by what they spend it on. */
export async function partFigures(
  { chain }: Ledger,
  forwarder: Address,
  life: Life,
  all: readonly Sent[],
): Promise<Figures> {
  const sent = withoutPermits(all);
  const layersAt = (to: Address): Layers => {
    if (to === chain.escrow) return ["escrow", "token"];
    return to === chain.multicall3 || to === forwarder ? ["relaying", "escrow", "token"] : ["token"];
  };
  const parts: Parts[] = [];
  for (const each of sent) parts.push(await partsOf(chain.url, each, layersAt));
  const figures: Record<string, number> = {};
  const name = nameOf(life);
  for (const purpose of ["fund", "close", "payout"] as const) {
    const some = sent.filter((each) => each.purpose === purpose);
    if (some.length > 0) figures[`${name}, gas_per_lease to ${purpose}`] = sum(some, "gas") / life.leases;
  }
  for (const part of PARTS) {
    const gas = parts.reduce((total, each) => total + each[part], 0);
    figures[`${name}, gas_per_lease for ${part}`] = gas / life.leases;
  }
  return figures;
}
