import type { Bench, BenchSettings } from "../bench.ts";
import type { Goal, Report } from "../report.ts";
import { type Figures, pairedRatio, type Round, rowsOf } from "../rounds.ts";
import { payEach } from "./exact.ts";
import { jobFigures, leaseFigures, nameOf, partFigures, seedFigures } from "./figures.ts";
import { deployForwarder, forwarder } from "./forwarder.ts";
import { openLedger } from "./ledger.ts";
import { type Life, live } from "./life.ts";
import { ours } from "./ours.ts";

const FEE_BPS = 500;
const SEED: Life = { leases: 3, owners: 3, topUp: true };

/** What to measure. */
export interface Scope {
  /** Numbers of leases that live together; of one owner, and where there are several also of as many owners. */
  readonly sizes: readonly number[];
  /** So many requests are paid by x402 `exact`, and so many jobs share the gas of a lease. */
  readonly jobs: number;
}

/** Ours beside an ERC-2771 forwarder and x402 `exact`, on one chain in one run. */
export const settlement: Bench = {
  run: (settings) => measureSettlement({ sizes: [1, 3, 20], jobs: 1_000 }, settings.say),
};

export async function measureSettlement(scope: Scope, say: BenchSettings["say"]): Promise<Report> {
  say("starting a chain");
  const ledger = await openLedger();
  try {
    const place = await deployForwarder(ledger);
    const ways = [
      forwarder(ledger, place, false),
      forwarder(ledger, place, true),
      ours(ledger, FEE_BPS),
      ours(ledger, 0),
    ];
    const most = Math.max(...scope.sizes);
    const figures = new Map<string, Figures>();
    for (const way of ways) {
      say(`${way.name}: the seed example, ${scope.sizes.join(", ")} leases`);
      let all = await live(ledger, way, SEED, async (sent) => seedFigures(sent));
      for (const leases of scope.sizes)
        for (const owners of new Set([1, leases])) {
          const life: Life = { leases, owners, topUp: false };
          const more = await live(ledger, way, life, async (sent) => ({
            ...leaseFigures(life, sent),
            ...(owners === 1 ? jobFigures(nameOf(life), sent, leases * scope.jobs) : {}),
            ...(owners === 1 && leases === most
              ? await partFigures(ledger, place.forwarder, life, sent)
              : {}),
          }));
          all = { ...all, ...more };
        }
      figures.set(way.name, all);
    }
    say(`exact: ${scope.jobs} requests`);
    const paid = await payEach(ledger, scope.jobs);
    // A request's payment is the same beside however many leases.
    const shares = scope.sizes.map((leases) => jobFigures(nameOf({ leases, owners: 1 }), paid, scope.jobs));
    figures.set("exact", Object.assign({}, ...shares));
    return reportOf(figures, scope);
  } finally {
    await ledger.chain.close();
  }
}

function reportOf(round: Round, { sizes, jobs }: Scope): Report {
  return {
    bench: "settlement",
    // Gas is no matter of how often or how long.
    rounds: 1,
    seconds: 0,
    rows: rowsOf([round], ["exact", "forwarder"]),
    goals: goalsOf(round, Math.max(...sizes)),
    notes: [
      "forwarder: OpenZeppelin's ERC2771Forwarder, unmodified, before a minimal escrow of one slot per lease (ForwarderEscrow.sol), a transaction per request; forwarder batched: its executeBatch. The escrow takes the provider's word and has no fee, cap, expiry or exit. The consumer's permit is counted apart.",
      `ours: the LeaseEscrow, one funding and then the relayer's own batches, all payouts included, with a fee of ${FEE_BPS / 100} %. ours without fee: what the forwarder's escrow can be held against like for like.`,
      `exact: transferWithAuthorization for each of ${jobs} requests, as the x402 scheme exact settles them. A job of the others is a share of a lease that does ${jobs} jobs.`,
      "Payees are new holders of the token, in every variant. The token is a double without the proxy of USDC, which adds some gas to each call of the token, and so most to exact and forwarder.",
      "The L1 fee is what the chain's oracle asks at an L1 base fee of 1 gwei, a blob base fee of 0.01 gwei and scalars 5227 and 1014213.",
    ],
  };
}

/** Issue 3's goals. */
function goalsOf(round: Round, most: number): Goal[] {
  const all = nameOf({ leases: most, owners: 1 });
  const goal = (text: string, target: number, measured: number | null): Goal => ({
    goal: text,
    target,
    measured,
    met: measured === null ? null : measured <= target,
  });
  const own = (metric: string) => round.get("ours")?.[metric] ?? null;
  return [
    goal(
      "gas of the seed example over the forwarder's nine transactions, at most",
      0.65,
      pairedRatio([round], "seed, gas", "ours", "forwarder"),
    ),
    goal("transactions of the seed example, at most", 3, own("seed, transactions")),
    goal(
      `gas of a lease's whole life among ${most} in a batch, at most`,
      80_000,
      own(`${all}, gas_per_lease`),
    ),
    goal(
      `gas of a job over exact's, among ${most} leases in a batch, at most`,
      0.001,
      pairedRatio([round], `${all}, gas_per_job`, "ours", "exact"),
    ),
  ];
}
