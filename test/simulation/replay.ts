import { parseArgs } from "node:util";
import { BUGS } from "./bugs/bugs.ts";
import { PRODUCT } from "./machines.ts";
import { EVENTS, type Options, type Report, simulate } from "./simulation.ts";

// Plays seeds of the market's simulation: one with a trace, or many to search.

const HELP = `Usage: node test/simulation/replay.ts --seed N [--shrink] [--bug NAME] [--events N]
       node test/simulation/replay.ts --from N --count N [--bug NAME] [--events N]

  --seed N     plays seed N and prints every event
  --shrink     first finds how few events before the healing still break the rule
  --from N     the first of --count seeds to play without a trace; a seed that breaks a rule is printed
  --events N   events of the part with faults (default ${EVENTS})
  --bug NAME   with a planted bug: ${BUGS.map((bug) => bug.name).join(", ")}`;

/** The shortest part with faults after which the same rule still breaks. */
function shrink(seed: number, options: Options, rule: string): number {
  let [holds, breaks] = [0, options.events ?? EVENTS];
  while (breaks - holds > 1) {
    const middle = Math.floor((holds + breaks) / 2);
    if (simulate(seed, { ...options, events: middle }).violation?.rule === rule) breaks = middle;
    else holds = middle;
  }
  return breaks;
}

function tell(seed: number, report: Report): void {
  const { events, jobs, leases, violation } = report;
  const what = violation === null ? "every rule held" : violation.message;
  console.log(`seed ${seed}: ${events} events, ${leases} leases, ${jobs} jobs: ${what}`);
}

function trace(seed: number, options: Options, isShrunk: boolean): number {
  const first = simulate(seed, options);
  const { violation } = first;
  const events = isShrunk && violation !== null ? shrink(seed, options, violation.rule) : options.events;
  let from = -1;
  const report = simulate(seed, {
    ...options,
    ...(events === undefined ? {} : { events }),
    onEvent(at, what) {
      if (from < 0) from = at;
      console.log(`${((at - from) / 1_000).toFixed(3).padStart(10)} s  ${what}`);
    },
  });
  if (isShrunk && violation !== null) console.log(`${events} events of faults are enough`);
  tell(seed, report);
  return report.violation === null ? 0 : 1;
}

function search(from: number, count: number, options: Options): number {
  const began = performance.now();
  let events = 0;
  let broken = 0;
  for (let seed = from; seed < from + count; seed += 1) {
    const report = simulate(seed, options);
    events += report.events;
    if (report.violation !== null) {
      broken += 1;
      tell(seed, report);
    }
    if ((seed - from + 1) % 1_000 === 0) {
      const seconds = (performance.now() - began) / 1_000;
      console.log(`${seed - from + 1} seeds, ${events} events, ${broken} broken, ${seconds.toFixed(0)} s`);
    }
  }
  const seconds = (performance.now() - began) / 1_000;
  console.log(
    `${count} seeds, ${events} events in ${seconds.toFixed(1)} s (${Math.round(events / seconds)}/s), ${broken} broke a rule`,
  );
  return broken === 0 ? 0 : 1;
}

function main(): number {
  const { values } = parseArgs({
    options: {
      seed: { type: "string" },
      from: { type: "string" },
      count: { type: "string" },
      events: { type: "string" },
      bug: { type: "string" },
      shrink: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const bug = BUGS.find((each) => each.name === values.bug);
  const isWrong = values.bug !== undefined && bug === undefined;
  if (values.help || isWrong || (values.seed === undefined && values.count === undefined)) {
    console.log(HELP);
    return values.help ? 0 : 2;
  }
  const options = {
    ...(bug === undefined ? {} : { machines: bug.plant(PRODUCT) }),
    ...(values.events === undefined ? {} : { events: Number(values.events) }),
  };
  if (values.seed !== undefined) return trace(Number(values.seed), options, values.shrink);
  return search(Number(values.from ?? 1), Number(values.count), options);
}

process.exitCode = main();
