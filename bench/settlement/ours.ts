import { batchCall } from "@gpux/durable-objects/relay-key/multicall";
import { Policy } from "@gpux/durable-objects/relay-key/policy";
import type { Hex } from "viem";
import { closing, funding, withdrawals } from "../../scripts/seed/plan.ts";
import type { Ledger, Purpose, Sent } from "./ledger.ts";
import type { Way } from "./life.ts";

/** As many calls as the relayer puts into one transaction. */
const ENTRIES = Policy.parse({}).batchEntries;

/** The LeaseEscrow as the relayer drives it: one funding for all leases, then its own Multicall3 batches. */
export function ours(ledger: Ledger, feeBps: number): Way {
  const { chain } = ledger;

  const batches = async (calls: readonly { purpose: Purpose; data: Hex }[]): Promise<Sent[]> => {
    const sent: Sent[] = [];
    for (let from = 0; from < calls.length; from += ENTRIES) {
      const entries = calls.slice(from, from + ENTRIES);
      const [first] = entries;
      if (first === undefined) continue;
      const { data } = batchCall(
        chain.escrow,
        entries.map((entry) => ({ data: entry.data, gas: 0n })),
      );
      sent.push(await ledger.send(first.purpose, chain.multicall3, data));
    }
    return sent;
  };

  return {
    name: feeBps === 0 ? "ours without fee" : "ours",
    feeBps,
    // The funding's own signature is all that the token asks for.
    prepare: async () => [],
    fund: async (leases, amount, purpose) => {
      const { to, data } = await funding(chain, leases, amount, await ledger.now(), purpose);
      return [await ledger.send(purpose, to, data)];
    },
    finish: async (leases) => {
      const now = await ledger.now();
      const closes = await Promise.all(leases.map((lease) => closing(chain, lease, now)));
      return await batches([
        ...closes.map((data) => ({ purpose: "close" as const, data })),
        ...withdrawals(leases).map((data) => ({ purpose: "payout" as const, data })),
      ]);
    },
  };
}
