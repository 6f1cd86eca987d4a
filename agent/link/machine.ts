import { CLOSE } from "@gpux/protocol/frames";
import { backoff, STABLE_MS } from "./backoff.ts";

/**
 * How long a dial may take, and how long after the upgrade the welcome may. A dial that is given up is checked by a busy
 * edge all the same, so the next ones wait twice and then four times as long.
 */
const DIAL_MS = 15_000;
const WELCOME_MS = 15_000;
/** Pings without an answer after which the socket counts as dead. */
const MISSES = 2;

/** Why a link is over for good. */
export type LinkEnd =
  | { reason: "replaced" | "forbidden" | "bad_frame" | "gone"; detail: string }
  | { reason: "stopped"; detail: string };

/**
 * `failures` counts dials since the last stable link. `missed` counts pings since the peer last said anything.
 * All times in ms of one clock.
 */
export type LinkState =
  | { state: "waiting"; failures: number; until: number }
  | { state: "dialling"; failures: number; since: number }
  | { state: "greeting"; failures: number; since: number }
  | { state: "up"; failures: number; since: number; pinged: number; missed: number; heartbeatMs: number }
  | { state: "ended"; end: LinkEnd };

export type LinkEvent =
  | { type: "tick" }
  | { type: "opened" }
  | { type: "welcomed"; heartbeatMs: number }
  | { type: "heard" }
  /** The socket is gone: by a close frame, a broken connection or a refused upgrade (`status`). */
  | { type: "lost"; code: number; detail: string; status?: number; retryAfterMs?: number }
  | { type: "stop" };

/** `dial` opens a socket, `hello` greets on it, `drop` cuts it without waiting, `close` says goodbye first. */
export type LinkEffect = "dial" | "hello" | "ping" | "drop" | "close";

export interface LinkStep {
  readonly next: LinkState;
  readonly effects: readonly LinkEffect[];
  /** When a tick is due; null: none. */
  readonly wakeAt: number | null;
}

export const initialLink: LinkState = { state: "waiting", failures: 0, until: 0 };

/** What ends a link for good: the closes of protocol/frames.ts, and the upgrade's refusals that mean the same. */
function terminal(code: number, status: number | undefined, detail: string): LinkEnd | null {
  if (code === CLOSE.badFrame) return { reason: "bad_frame", detail };
  if (code === CLOSE.forbidden || status === 403) return { reason: "forbidden", detail };
  if (code === CLOSE.replaced) return { reason: "replaced", detail };
  if (code === CLOSE.gone || status === 410) return { reason: "gone", detail };
  return null;
}

/** The life of one reliable link, as a pure function. `random` in [0, 1) is drawn anew for each call. */
export function stepLink(state: LinkState, event: LinkEvent, now: number, random: number): LinkStep {
  if (state.state === "ended") return { next: state, effects: [], wakeAt: null };
  if (event.type === "stop") {
    const effects: LinkEffect[] = state.state === "waiting" ? [] : ["close"];
    return ended({ reason: "stopped", detail: "The agent stopped the link." }, effects);
  }
  if (event.type === "lost") return lost(state, event, now, random);

  switch (state.state) {
    case "waiting":
      if (event.type !== "tick" || now < state.until)
        return { next: state, effects: [], wakeAt: state.until };
      return {
        next: { state: "dialling", failures: state.failures, since: now },
        effects: ["dial"],
        wakeAt: now + dialMs(state.failures),
      };
    case "dialling":
      if (event.type === "opened")
        return {
          next: { state: "greeting", failures: state.failures, since: now },
          effects: ["hello"],
          wakeAt: now + WELCOME_MS,
        };
      return overdue(state, event, dialMs(state.failures), now, random);
    case "greeting":
      if (event.type === "welcomed") {
        const { failures } = state;
        const up: LinkState = {
          state: "up",
          failures,
          since: now,
          pinged: now,
          missed: 0,
          heartbeatMs: event.heartbeatMs,
        };
        return { next: up, effects: [], wakeAt: now + event.heartbeatMs };
      }
      return overdue(state, event, WELCOME_MS, now, random);
    case "up":
      return whileUp(state, event, now, random);
  }
}

function dialMs(failures: number): number {
  return DIAL_MS * 2 ** Math.min(failures, 2);
}

function whileUp(
  state: Extract<LinkState, { state: "up" }>,
  event: LinkEvent,
  now: number,
  random: number,
): LinkStep {
  const wakeAt = state.pinged + state.heartbeatMs;
  if (event.type === "heard") return { next: { ...state, missed: 0 }, effects: [], wakeAt };
  if (event.type !== "tick" || now < wakeAt) return { next: state, effects: [], wakeAt };
  if (state.missed >= MISSES) return drop(state, now, random, "Two heartbeats went unanswered.");
  const next = { ...state, pinged: now, missed: state.missed + 1 };
  return { next, effects: ["ping"], wakeAt: now + state.heartbeatMs };
}

function overdue(
  state: Extract<LinkState, { state: "dialling" | "greeting" }>,
  event: LinkEvent,
  limit: number,
  now: number,
  random: number,
): LinkStep {
  if (event.type !== "tick" || now < state.since + limit)
    return { next: state, effects: [], wakeAt: state.since + limit };
  return drop(state, now, random, "The edge did not answer in time.");
}

function drop(state: LinkState, now: number, random: number, detail: string): LinkStep {
  const after = lost(state, { type: "lost", code: 1006, detail }, now, random);
  return { ...after, effects: ["drop"] };
}

function lost(
  state: LinkState,
  event: Extract<LinkEvent, { type: "lost" }>,
  now: number,
  random: number,
): LinkStep {
  if (state.state === "ended" || state.state === "waiting")
    return { next: state, effects: [], wakeAt: state.state === "waiting" ? state.until : null };
  const end = terminal(event.code, event.status, event.detail);
  if (end !== null) return ended(end, []);
  const stable = state.state === "up" && now - state.since >= STABLE_MS;
  const failures = stable ? 0 : state.failures;
  const until = now + backoff(failures, random, event.retryAfterMs);
  return { next: { state: "waiting", failures: failures + 1, until }, effects: [], wakeAt: until };
}

function ended(end: LinkEnd, effects: LinkEffect[]): LinkStep {
  return { next: { state: "ended", end }, effects, wakeAt: null };
}
