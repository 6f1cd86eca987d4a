import type { Verdict } from "@gpux/protocol/challenge/verdict";
import type { Work } from "@gpux/protocol/challenge/work";
import type { Gpu } from "@gpux/protocol/resources";

/** One question of a challenge is under way. Nothing of it but `work` is told to the node. */
export interface Question {
  readonly challenge: string;
  readonly work: Work;
  /** Milliseconds. */
  readonly askedAt: number;
  /** How many were answered before. */
  readonly round: number;
  /** It was too slow with this much work once before. */
  readonly again: boolean;
  /** Random numbers below 2^32 for the rounds to come, and for what of an answer is looked at. */
  readonly draws: readonly number[];
}

/** What the object knows of the node's capacity, and when it asks next. */
export interface Challenges {
  readonly question: Question | null;
  /** With the card that it is of. */
  readonly verdict: (Verdict & { readonly card: Gpu }) | null;
  /** Milliseconds; null before the first hello of an agent that answers. While the node has work it waits. */
  readonly dueAt: number | null;
}

export const UNCHALLENGED: Challenges = { question: null, verdict: null, dueAt: null };

/** A question that is not answered by then is answered by that. Milliseconds. */
export const ANSWER_MS = 30_000;

/** What is known of the cards that the node offers now. */
export function verdictOf({ verdict }: Challenges, gpus: readonly Gpu[]): Verdict | null {
  if (verdict === null) return null;
  const { card, ...said } = verdict;
  // Who computed wrong does not get rid of it by another driver.
  return said.result === "wrong" || gpus.every((gpu) => isSameCard(gpu, card)) ? said : null;
}

export function isSameCard(a: Gpu, b: Gpu | undefined): boolean {
  return (
    a.model === b?.model && a.vram_mb === b.vram_mb && a.driver === b.driver && a.software === b.software
  );
}
