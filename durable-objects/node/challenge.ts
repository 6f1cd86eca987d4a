import { floorOf } from "@gpux/protocol/challenge/floor";
import { CHALLENGE_FUNCTION, UNITS } from "@gpux/protocol/challenge/function";
import type { Verdict } from "@gpux/protocol/challenge/verdict";
import { inputsOf, isRight, operationsOf, type Work } from "@gpux/protocol/challenge/work";
import type { FromNode } from "@gpux/protocol/frames";
import { say } from "./allocation.ts";
import { type NodeEffect, type NodeStep, unchanged } from "./event.ts";
import { canAnswer, type NodeState } from "./state.ts";
import { ANSWER_MS, type Challenges, type Question, verdictOf } from "./verdict.ts";

/** Questions of a challenge at most, and what one takes of the draws: two seeds, and the units that are looked at. */
const ROUNDS = 10;
const LOOKS = 2;
const DRAWN = 2 + LOOKS;
export const DRAWS = ROUNDS * DRAWN + 1;

const FIRST_DEPTH = 16;
/** 2.2 x 10^12 operations; to look at a unit takes the edge a tenth of a second. */
const MOST_DEPTH = 2 ** 18;
const MOST_GROWTH = 16;
/** What a question should take, and from where on its answer tells the rate. Milliseconds. */
const LONG_MS = 1_500;
const TELLING_MS = 1_000;

const MINUTE = 60_000;
/** After the node's other work, or what broke the last one off. */
const CALM_MS = MINUTE;
const BUSY_MS = 10 * MINUTE;
const BAD_MS = 60 * MINUTE;
/** After a good one: this, and up to four times as much more. */
const GOOD_MS = 6 * 60 * MINUTE;

/** Whether the next one may begin. */
export function isChallengeDue(state: NodeState, now: number): boolean {
  const { question, dueAt } = state.challenges;
  return question === null && dueAt !== null && dueAt <= now && canAnswer(state);
}

/** CHL-1: begins one. `draws`: {@link DRAWS} random numbers below 2^32. */
export function challenge(state: NodeState, id: string, draws: readonly number[], now: number): NodeStep {
  if (!isChallengeDue(state, now)) return unchanged(state);
  return ask(state, { challenge: id, depth: FIRST_DEPTH, round: 0, again: false, draws }, now);
}

function ask(
  state: NodeState,
  { depth, ...rest }: Omit<Question, "work" | "askedAt"> & { readonly depth: number },
  now: number,
): NodeStep {
  const [seedA = 0, seedB = 0] = rest.draws;
  const work = { seedA, seedB, depth };
  const next = withChallenges(state, { question: { ...rest, work, askedAt: now } });
  const frame = {
    t: "challenge",
    challenge: rest.challenge,
    function: CHALLENGE_FUNCTION,
    inputs: inputsOf(work),
    execution_ms: ANSWER_MS,
  } as const;
  return { ok: true, next, effects: [say(next, frame)] };
}

/** CHL-2, CHL-3 */
export function proved(state: NodeState, frame: Extract<FromNode, { t: "proof" }>, now: number): NodeStep {
  const { question } = state.challenges;
  const card = state.inventory?.offer.gpus[0];
  if (question?.challenge !== frame.challenge || card === undefined) return unchanged(state);
  const { work, round, again, draws } = question;
  const looks = draws.slice(2, DRAWN).map((draw) => draw % UNITS);
  if (!isRight(work, bytesOf(frame.output), looks)) return judged(state, "wrong", 0, now);
  const tookMs = Math.max(1, now - question.askedAt);
  const gops = rateOf(work, tookMs);
  const following = { ...question, round: round + 1, draws: draws.slice(DRAWN) };
  const isTelling = round > 0 && (tookMs >= TELLING_MS || work.depth === MOST_DEPTH);
  if (!isTelling && round + 1 < ROUNDS)
    return ask(state, { ...following, again: false, depth: nextDepth(question, tookMs) }, now);
  const floor = floorOf(card.model);
  if (floor === null) return judged(state, "unrated", gops, now);
  if (gops >= floor) return judged(state, "verified", gops, now);
  // A pause of anybody's in between is no proof of a slow card.
  if (!again && round + 1 < ROUNDS) return ask(state, { ...following, again: true, depth: work.depth }, now);
  return judged(state, "slow", gops, now);
}

/** The first answer is late by whatever had to be started for it: it only says that there is more to ask. */
function nextDepth({ work, round }: Question, tookMs: number): number {
  const least = round === 0 ? 4 : 2;
  const growth = Math.min(MOST_GROWTH, Math.max(least, Math.floor(LONG_MS / tookMs)));
  return Math.min(MOST_DEPTH, work.depth * 2 ** Math.floor(Math.log2(growth)));
}

function rateOf(work: Work, ms: number): number {
  return Math.round(operationsOf(work) / ms / 10_000) / 100;
}

export function unproven(
  state: NodeState,
  { challenge }: Extract<FromNode, { t: "unproven" }>,
  now: number,
): NodeStep {
  if (state.challenges.question?.challenge !== challenge) return unchanged(state);
  return { ok: true, next: later(state, now + BUSY_MS), effects: [] };
}

function judged(state: NodeState, result: Verdict["result"], gops: number, now: number): NodeStep {
  const card = state.inventory?.offer.gpus[0];
  if (card === undefined) return unchanged(state);
  const drawn = (state.challenges.question?.draws.at(-1) ?? 0) / 2 ** 32;
  const isGood = result === "verified" || result === "unrated";
  const verdict = { result, gops, at: now };
  const next = withChallenges(state, {
    question: null,
    verdict: { ...verdict, card },
    // So that nobody has a card for the hour in which it is asked for.
    dueAt: now + (isGood ? GOOD_MS + Math.floor(4 * GOOD_MS * drawn) : BAD_MS),
  });
  const effects: NodeEffect[] = [say(next, { t: "verdict", verdict })];
  return { ok: true, next, effects };
}

/**
 * After every event: a question that is too old is answered by that; one whose node has got other work, or has gone, was
 * never asked. The first challenge comes `challengeAfterMs` after the node could answer one, as does the first of another card.
 */
export function challengedOn(before: NodeState, state: NodeState, now: number): NodeStep {
  const { question, dueAt } = state.challenges;
  const can = canAnswer(state);
  if (question !== null) {
    if (!can) return { ok: true, next: later(state, now + BUSY_MS), effects: [] };
    if (now < question.askedAt + ANSWER_MS) return unchanged(state);
    // Silence is no right answer: who computed wrong stays in quarantine.
    if (state.challenges.verdict?.result === "wrong") return judged(state, "wrong", 0, now);
    return judged(state, "slow", rateOf(question.work, now - question.askedAt), now);
  }
  if (!can) return unchanged(state);
  const first = now + state.challengeAfterMs;
  const isOther = known(before) !== null && known(state) === null;
  const wanted = dueAt === null || isOther ? Math.min(dueAt ?? first, first) : dueAt;
  const at = canAnswer(before) || dueAt === null ? wanted : Math.max(wanted, now + CALM_MS);
  return at === dueAt ? unchanged(state) : { ok: true, next: later(state, at), effects: [] };
}

function known({ challenges, inventory }: NodeState): Verdict | null {
  return verdictOf(challenges, inventory?.offer.gpus ?? []);
}

function later(state: NodeState, dueAt: number): NodeState {
  return withChallenges(state, { question: null, dueAt });
}

function withChallenges(state: NodeState, change: Partial<Challenges>): NodeState {
  return { ...state, challenges: { ...state.challenges, ...change } };
}

function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
