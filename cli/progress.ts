import { type JobEvent, JobStatus, type JobView, TERMINAL } from "@gpux/protocol/job";
import { formatAmount } from "@gpux/protocol/money";
import { printable } from "./outcome.ts";
import { paint, type Terminal } from "./terminal.ts";

/** What is known of a job on its way; rebuilt from its views and events. */
export interface JobState {
  readonly status: JobStatus;
  readonly node: string;
  readonly fraction: number | null;
  readonly note: string | null;
  /** Base units so far. */
  readonly price: bigint;
  /** Jobs ahead of it, while it is queued. */
  readonly ahead: number | null;
  readonly blockers: readonly string[];
  readonly attempt: number;
}

export function stateOfView(job: JobView, before: JobState | null): JobState {
  const waits = job.status === "queued" ? job.wait : undefined;
  return {
    status: job.status,
    node: job.node,
    fraction: job.progress?.fraction ?? before?.fraction ?? null,
    note: job.progress?.note ?? before?.note ?? null,
    price: job.price,
    ahead: waits?.position ?? null,
    blockers: Object.keys(waits?.blockers ?? {}).filter((blocker) => blocker !== "jobs_ahead"),
    attempt: before?.attempt ?? 1,
  };
}

export function stateAfterEvent(state: JobState, event: JobEvent): JobState {
  const { data } = event;
  if (event.type === "progress") {
    const fraction =
      typeof data.fraction === "number" ? Math.min(Math.max(data.fraction, 0), 1) : state.fraction;
    const note = typeof data.note === "string" ? data.note : state.note;
    return { ...state, fraction, note };
  }
  if (event.type !== "status") return state;
  const status = JobStatus.safeParse(data.status);
  if (!status.success) return state;
  const attempt = typeof data.attempt === "number" ? data.attempt : state.attempt;
  // A new attempt begins at its beginning.
  const fresh = status.data === "queued" || status.data === "starting";
  return { ...state, status: status.data, attempt, ...(fresh ? { fraction: null, note: null } : {}) };
}

/** `running on 0xa1b2…c3d4 · 42 % · light bounce 3 · 0.0012 USDC` */
export function describe(state: JobState): string {
  const parts: string[] = [];
  const placed = state.status === "starting" || state.status === "running";
  parts.push(placed ? `${state.status} on ${shortAddress(state.node)}` : state.status.replace("_", " "));
  if (state.attempt > 1) parts.push(`attempt ${state.attempt}`);
  if (state.status === "queued" && state.ahead !== null) {
    parts.push(state.ahead === 0 ? "next in line" : `${state.ahead} ahead`);
    if (state.blockers.length > 0)
      parts.push(`waiting for ${state.blockers.join(", ").replaceAll("_", " ")}`);
  }
  if (state.status === "running" && state.fraction !== null)
    parts.push(`${Math.floor(state.fraction * 100)} %`);
  if (state.status === "running" && state.note !== null) parts.push(state.note);
  if (state.price > 0n) parts.push(`${formatAmount(state.price)} USDC`);
  return printable(parts.join(" · ")).replaceAll("\n", " ");
}

export function shortAddress(address: string): string {
  return `${address.slice(0, 6)}…${address.slice(-4)}`;
}

/** Shows the job's way on stderr: one line that changes on a terminal, else a line for each change worth one. */
export interface Progress {
  show(state: JobState): void;
  /** A line of its own, above the changing one. */
  line(text: string): void;
  end(): void;
}

/** Without a terminal, a line at every tenth is enough. */
const PLAIN_STEPS = 10;

export function createProgress(terminal: Terminal): Progress {
  return terminal.err.live ? liveProgress(terminal) : plainProgress(terminal);
}

const CLEAR_LINE = "\r\x1b[2K";

function liveProgress(terminal: Terminal): Progress {
  let shown = "";
  return {
    show(state) {
      const width = Math.max((process.stderr.columns ?? 80) - 1, 20);
      const text = describe(state).slice(0, width);
      if (text === shown) return;
      shown = text;
      const color = state.status === "succeeded" ? "green" : TERMINAL.has(state.status) ? "red" : "dim";
      terminal.err.write(CLEAR_LINE + paint(terminal, color, text));
    },
    line(text) {
      terminal.err.write(`${CLEAR_LINE}${printable(text)}\n`);
      terminal.err.write(shown);
    },
    end() {
      if (shown !== "") terminal.err.write("\n");
      shown = "";
    },
  };
}

function plainProgress(terminal: Terminal): Progress {
  let last = "";
  return {
    show(state) {
      const step = state.fraction === null ? "" : Math.floor(state.fraction * PLAIN_STEPS);
      const key = [state.status, state.attempt, state.ahead, state.status === "running" ? step : ""].join(
        "/",
      );
      if (key === last) return;
      last = key;
      terminal.err.write(`${describe(state)}\n`);
    },
    line: (text) => terminal.err.write(`${printable(text)}\n`),
    end() {},
  };
}
