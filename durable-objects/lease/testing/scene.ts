import type { ToLease } from "@gpux/protocol/frames";
import type { QuoteText } from "@gpux/protocol/lease";
import { MAX_AMOUNT } from "@gpux/protocol/money";
import type { Job } from "../job-state.ts";
import { type Event, type Step, step } from "../machine.ts";
import { quotedLease } from "../quoted.ts";
import type { State } from "../state.ts";
import { FUND, funded, HELLO, holdOf, jobId, PLACE, START, said, submission, termsOf } from "./fixtures.ts";

/** A lease and its clock for a test of the machine; every event must be taken unless the test asks for the refusal. */
export class Scene {
  state: State;
  now = START;
  sent: ToLease[] = [];

  constructor(hold = holdOf(termsOf())) {
    this.state = quotedLease(hold, PLACE, START);
  }

  try(event: Event): Step {
    const result = step(this.state, event, this.now);
    if (result.ok) {
      this.state = result.next;
      this.sent.push(...result.frames);
    }
    return result;
  }

  tell(...events: Event[]): this {
    for (const event of events) {
      const result = this.try(event);
      if (!result.ok) throw new Error(`${event.t} was refused: ${result.code}`);
    }
    return this;
  }

  after(ms: number): this {
    this.now += ms;
    return this.tell({ t: "tick" });
  }

  job(n: number): Job {
    const job = this.state.jobs.get(jobId(this.state, n));
    if (job === undefined) throw new Error(`job ${n} is not live`);
    return job;
  }

  frames<T extends ToLease["t"]>(t: T): Extract<ToLease, { t: T }>[] {
    return this.sent.filter((frame): frame is Extract<ToLease, { t: T }> => frame.t === t);
  }
}

/** Funded, with its agent there. */
export function active(): Scene {
  const scene = new Scene();
  return scene.tell(FUND, funded(scene.state), { t: "wake", connected: false }, HELLO);
}

/** A dedicated lease with its money on L1, whose agent serves it; of 1,000 base units a second, counted every minute. */
export function dedicated(text: Partial<QuoteText> = {}): Scene {
  const hold = holdOf(termsOf({ unattended: MAX_AMOUNT }));
  const scene = new Scene({ ...hold, text: { ...hold.text, mode: "dedicated", ...text } });
  scene.tell(FUND);
  const landed = funded(scene.state);
  const hard = { ...landed, answer: { ...landed.answer, confirmation: "safe" as const } };
  scene.tell(hard, { t: "wake", connected: false }, HELLO);
  return scene.tell(said({ t: "serving", seq: 1 }), counted(scene, 0));
}

/** The agent's answer to the last `tick`. */
export function counted(scene: Scene, ms: number): Event {
  return said({ t: "served", seq: 0, n: scene.state.lease.service.asked, ms });
}

/** Attempt `n` of job `job`, in the scene's only epoch. */
export const of = (scene: Scene, job: number, n = 1) => ({
  job: jobId(scene.state, job),
  attempt: { epoch: 1, n },
});
export const gpu = "SWIFTSHADER";

/** With a job that has begun. */
export function running(job = 1): Scene {
  const scene = active();
  return scene.tell(submission(scene.state, job), said({ t: "started", seq: 1, ...of(scene, job) }));
}

/** With a job that has succeeded and is not signed for. */
export function ended(ms = 2_000): Scene {
  const scene = running();
  scene.now += ms;
  return scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms, gpu, outputs: [] }));
}

/** The provider's answer to the block that it was asked for. */
export function signed(scene: Scene, seq: number): Event {
  const { block } = scene.state.lease;
  if (block === null) throw new Error("nothing is asked for");
  const { cumulative, evidence } = block;
  return said({ t: "signed", seq, usage: { cumulative, evidence, signature: "0x01" } });
}

/** The meter's. */
export function attested(scene: Scene): Event {
  const sequence = scene.state.lease.block?.sequence ?? scene.state.lease.frontier.size;
  return { t: "attested", sequence, usage: "0x04", close: null };
}
