import { type Machines, PRODUCT } from "./machines.ts";
import { checkEnd, checkJobs, checkReclaim, isQuiet, unrest } from "./settlement.ts";
import { Violation } from "./violation.ts";
import { World } from "./world.ts";

/** Events of the part in which everything may fail. */
export const EVENTS = 500;

/** Where jobs move, leases are opened first, on several nodes. */
const SCATTERED = 2;

/** After the faults the market must have settled within this time; a lost lease is refunded a day after its expiry. */
const SETTLE_MS = 3 * 3_600_000;
const AFTERMATH_MS = 30 * 3_600_000;
/** More events than any honest world has: beyond it something runs in circles. */
const RUNAWAY = 60_000;

export interface Options {
  readonly machines?: Machines;
  readonly events?: number;
  /** Called with every event, for a trace. */
  readonly onEvent?: (at: number, what: string) => void;
}

export interface Report {
  readonly events: number;
  readonly jobs: number;
  readonly leases: number;
  /** Jobs that another lease took over. */
  readonly moved: number;
  /** Token base units that leases have paid in all. */
  readonly paid: bigint;
  /** Of the virtual world, in ms. */
  readonly elapsed: number;
  readonly violation: {
    readonly rule: string;
    readonly message: string;
    readonly afterEvents: number;
  } | null;
}

/** Plays one seed: faults, healing, settling, aftermath. What breaks a rule ends it. */
export function simulate(seed: number, options: Options = {}): Report {
  const world = new World(seed, options.machines ?? PRODUCT);
  let violation: Report["violation"] = null;
  try {
    play(world, options);
  } catch (error) {
    if (error instanceof Violation)
      violation = { rule: error.rule, message: error.message, afterEvents: world.schedule.events };
    else if (error instanceof Error)
      violation = {
        rule: "thrown",
        message: error.stack ?? error.message,
        afterEvents: world.schedule.events,
      };
    else throw error;
  }
  const { schedule, truth, watch } = world;
  return {
    events: schedule.events,
    jobs: truth.acknowledged.size,
    leases: watch.ledgers.size,
    moved: watch.moves.count,
    paid: [...world.setting.chain.escrow.leases.values()].reduce((sum, { paid }) => sum + paid, 0n),
    elapsed: schedule.now - schedule.start,
    violation,
  };
}

function play(world: World, { events = EVENTS, onEvent }: Options): void {
  const { schedule } = world;
  const next = (until: number): boolean => {
    const what = schedule.next(until);
    if (what === null) return false;
    onEvent?.(schedule.now, what === "fault" ? `fault: ${world.lastFault}` : what);
    if (schedule.events > RUNAWAY) throw new Violation("J1 the market comes to rest", "it runs in circles");
    return true;
  };
  world.start();
  const most = world.climate.isScattered ? SCATTERED * events : events;
  while (schedule.events < most && next(Number.POSITIVE_INFINITY));
  checkReclaim(world);
  world.heal();
  const healedAt = schedule.now;
  settle(world, next, healedAt + SETTLE_MS);
  checkJobs(world, healedAt);
  world.end();
  settle(world, next, schedule.now + AFTERMATH_MS, true);
  checkEnd(world, healedAt);
}

function settle(world: World, next: (until: number) => boolean, until: number, throughTime = false): void {
  for (let count = 0; ; count += 1) {
    if (count % 20 === 0 && !throughTime && isQuiet(world)) return;
    if (!next(until)) break;
  }
  if (!isQuiet(world)) throw new Violation("J1 the market comes to rest", unrest(world));
}
