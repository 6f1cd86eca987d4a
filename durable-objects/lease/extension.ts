import type { Draft } from "./draft.ts";
import { type Refusal, refuse } from "./jobs.ts";

/** LSE-15: its end is moved so far behind the quote's. Less than before changes nothing. */
export function extend(draft: Draft, extendedS: number): Refusal | null {
  const { lease } = draft;
  if (lease.status === "quoted") return refuse("payment_required", "the lease is not funded yet");
  if (lease.status !== "funding" && lease.status !== "active" && lease.status !== "suspended")
    return refuse("lease_closed");
  if (lease.drainAt !== null) return refuse("lease_closed", "its node is about to stop");
  const most = lease.text.extendable_s ?? 0;
  if (extendedS > most) return refuse("not_extendable", `its end can be moved by ${most} s in all`);
  if (extendedS > lease.extendedS) draft.lease = { ...lease, extendedS };
  return null;
}
