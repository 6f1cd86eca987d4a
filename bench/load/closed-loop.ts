import { performance } from "node:perf_hooks";

/** What one connection does over and over; each turn is timed as one. */
export interface Connection {
  /** Does the next piece of work. Null when there is none left. */
  turn(): Promise<Turn | null>;
  /** What must be done before the next turn can be, and belongs to no turn's time. */
  between?(): Promise<void>;
  close(): void;
}

export type Turn =
  /** `firstAt`: when the first of several answers came, by `performance.now()`. */
  | { readonly ok: true; readonly firstAt?: number }
  /** What came instead, to be shown. */
  | { readonly ok: false; readonly sample: string };

export interface Loaded {
  /** Turns that went well. */
  readonly turns: number;
  readonly errors: number;
  /** The first wrong answer, cut; empty when there was none. */
  readonly sample: string;
  /** From the first turn's begin to the last one's end. */
  readonly wallMs: number;
  /** Of good turns, in microseconds, sorted. */
  readonly latenciesUs: Float64Array;
  /** Up to the first answer, of those turns that have several; sorted. */
  readonly firstUs: Float64Array;
}

const SAMPLE = 600;

/** A closed loop: each connection begins its next turn when the last one is over, and none after `ms`. */
export async function closedLoop(
  dial: (index: number) => Promise<Connection>,
  connections: number,
  ms: number,
): Promise<Loaded> {
  const dialled = await Promise.all(Array.from({ length: connections }, (_, index) => dial(index)));
  const latencies: number[] = [];
  const first: number[] = [];
  let errors = 0;
  let sample = "";
  const since = performance.now();
  const until = since + ms;
  const run = async (connection: Connection) => {
    for (;;) {
      const begunAt = performance.now();
      if (begunAt >= until) return;
      const turn = await connection.turn();
      if (turn === null) return;
      if (turn.ok) {
        latencies.push((performance.now() - begunAt) * 1_000);
        if (turn.firstAt !== undefined) first.push((turn.firstAt - begunAt) * 1_000);
      } else {
        errors += 1;
        if (sample === "") sample = turn.sample.slice(0, SAMPLE);
      }
      await connection.between?.();
    }
  };
  try {
    await Promise.all(dialled.map(run));
  } finally {
    for (const connection of dialled) connection.close();
  }
  const wallMs = performance.now() - since;
  return {
    turns: latencies.length,
    errors,
    sample,
    wallMs,
    latenciesUs: Float64Array.from(latencies).sort(),
    firstUs: Float64Array.from(first).sort(),
  };
}
