import { CHALLENGE_FUNCTION, UNITS } from "@gpux/protocol/challenge/function";
import { operationsOf, unitHash, type Work } from "@gpux/protocol/challenge/work";
import type { ToNode } from "@gpux/protocol/frames";
import { beforeEach, describe, expect, test } from "vitest";
import { DRAWS, isChallengeDue } from "./challenge.ts";
import type { NodeEvent } from "./event.ts";
import { step } from "./machine.ts";
import { dueAt, entryOf, type NodeState, statusOf, unknownNode } from "./state.ts";
import {
  connected,
  frame,
  from,
  gpu,
  hello as helloOf,
  lease,
  node,
  offer as offerOfTwo,
  request,
} from "./testing/scene.ts";
import { ANSWER_MS } from "./verdict.ts";

const ID = "11111111-1111-4111-8111-111111111111";
const AFTER = 300_000;
const HOUR = 3_600_000;

const offer = { ...offerOfTwo, gpus: [gpu] };

let state: NodeState;
let sent: ToNode[];
let seq: number;

beforeEach(() => {
  state = unknownNode(node);
  sent = [];
  seq = 0;
});

function apply(event: NodeEvent, now: number): void {
  const result = step(state, event, now);
  if (!result.ok) throw new Error(`${event.t}: ${result.code}`);
  state = result.next;
  sent.push(...result.effects.flatMap((effect) => (effect.t === "send" ? [effect.frame] : [])));
}

function says(body: object, now: number, connection = "a"): void {
  seq += 1;
  apply(from(connection, frame(seq, 0, body)), now);
}

function hello(
  now: number,
  change: { offer?: object; challenges?: boolean; connection?: string } = {},
): void {
  const { connection = "a", challenges = true } = change;
  apply(connected(connection), now);
  const said = { offer: { ...offer, ...change.offer }, ...(challenges ? { challenges } : {}) };
  apply(from(connection, helloOf(0, said)), now);
}

const draws = Array.from({ length: DRAWS }, (_, i) => (i * 0x9e3779b1) >>> 0);
const begin = (now: number) => apply({ t: "challenge", id: ID, draws }, now);

/** What the node was last asked. */
function asked(): Work {
  const frame = sent.findLast((each) => each.t === "challenge");
  if (frame?.t !== "challenge") throw new Error("it was not asked");
  const { seed_a = 0, seed_b = 0, depth = 0, dispatches = 0 } = frame.inputs;
  return { seedA: seed_a, seedB: seed_b, depth: depth * dispatches };
}

/** Right where it is looked at, which is all that can be seen of it. */
function proof(work: Work, challenge = ID): object {
  const hashes = new Uint8Array(2 * UNITS);
  const looks = state.challenges.question?.draws.slice(2, 4).map((draw) => draw % UNITS) ?? [];
  for (const at of looks) new DataView(hashes.buffer).setUint16(2 * at, unitHash(work, at), true);
  return { t: "proof", challenge, output: btoa(String.fromCharCode(...hashes)) };
}

/** Answers whatever is asked, by a card of so many Gop/s that is `away` ms from the edge, until there is a verdict. */
function answerAll(now: number, gops: number, away = 50): number {
  let at = now;
  while (state.challenges.question !== null) {
    const work = asked();
    at += away + Math.ceil(operationsOf(work) / gops / 1e6);
    says(proof(work), at);
  }
  return at;
}

const verdict = () => state.challenges.verdict;

test("CHL-1 the first comes some minutes after a node is there that answers; it is the published function, with seeds of its own", () => {
  hello(1_000);
  expect(dueAt({ ...state, publication: null })).toBe(1_000 + AFTER);
  expect(isChallengeDue(state, 999 + AFTER)).toBe(false);
  begin(999 + AFTER);
  expect(state.challenges.question).toBeNull();
  begin(1_000 + AFTER);
  expect(sent.at(-1)).toMatchObject({
    t: "challenge",
    seq: 0,
    challenge: ID,
    function: CHALLENGE_FUNCTION,
    inputs: { seed_a: draws[0], seed_b: draws[1] },
  });
  expect(JSON.stringify(sent.at(-1)), "where it is looked at is told to nobody").not.toContain(
    String(draws[2]),
  );
});

test("CHL-1 a node whose agent does not answer, which drains, whose owner uses it or which has cards of two kinds is not asked", () => {
  hello(0, { challenges: false });
  expect(state.challenges.dueAt).toBeNull();
  hello(0, { offer: { gpus: [gpu, { ...gpu, model: "RTX_3060" }] } });
  expect(state.challenges.dueAt).toBeNull();
  hello(0);
  expect(isChallengeDue(state, AFTER)).toBe(true);
  says({ t: "claim", gpus: 1 }, 1);
  expect(isChallengeDue(state, AFTER)).toBe(false);
  says({ t: "claim", gpus: 0 }, 2);
  says({ t: "drain", deadline_s: 60 }, 3);
  expect(isChallengeDue(state, AFTER)).toBe(false);
});

test("CHL-3 a card as fast as its model is verified, by questions that grow until they take long enough to tell", () => {
  hello(0);
  begin(AFTER);
  const at = answerAll(AFTER, 5_000);
  expect(verdict()).toMatchObject({ result: "verified", at });
  expect(verdict()?.gops).toBeGreaterThan(4_000);
  expect(verdict()?.gops).toBeLessThanOrEqual(5_000);
  const depths = sent.flatMap((each) =>
    each.t === "challenge" ? [(each.inputs.depth ?? 0) * (each.inputs.dispatches ?? 0)] : [],
  );
  expect(depths).toEqual(depths.toSorted((a, b) => a - b));
  expect(depths.at(-1)).toBe(2 ** 18);
  expect(sent.at(-1)).toMatchObject({ t: "ack" });
  expect(sent.filter(({ t }) => t === "verdict")).toMatchObject([{ verdict: { result: "verified", at } }]);
  expect(entryOf(state)?.challenge).toEqual({ result: "verified", gops: verdict()?.gops, at });
  expect(new Set(sent.flatMap((each) => (each.t === "challenge" ? [each.inputs.seed_a] : []))).size).toBe(
    depths.length,
  );
});

test("CHL-3 a CPU that calls itself an RTX 4090 is slow, however it answers the small ones", () => {
  hello(0);
  begin(AFTER);
  answerAll(AFTER, 300, 1);
  expect(verdict()).toMatchObject({ result: "slow" });
  expect(verdict()?.gops).toBeLessThanOrEqual(300);
  expect(statusOf(state)).toBe("online");
});

test("CHL-3 one pause is forgiven: what is too slow is asked once more", () => {
  hello(0);
  begin(AFTER);
  let at = AFTER;
  let paused = 0;
  while (state.challenges.question !== null) {
    const work = asked();
    at += 50 + Math.ceil(operationsOf(work) / 5e9);
    if (work.depth > 1_000 && paused === 0) {
      paused = work.depth;
      at += 9_000;
    }
    says(proof(work), at);
  }
  expect(verdict()).toMatchObject({ result: "verified" });
});

test("CHL-3 a model of which nothing is known is measured and not verified, whatever else the card says of itself; a CPU by its own name is what it says", () => {
  for (const software of [false, true]) {
    state = unknownNode(node);
    hello(0, { offer: { gpus: [{ ...gpu, model: "RIVA_TNT", software }] } });
    begin(AFTER);
    answerAll(AFTER, 500);
    expect(verdict()).toMatchObject({ result: "unrated" });
  }
  hello(HOUR, { offer: { gpus: [{ ...gpu, software: true }] } });
  begin(2 * HOUR);
  answerAll(2 * HOUR, 500);
  expect(verdict()).toMatchObject({ result: "slow" });
  hello(3 * HOUR, { offer: { gpus: [{ ...gpu, model: "SWIFTSHADER", software: true }] } });
  begin(4 * HOUR);
  answerAll(4 * HOUR, 0.4);
  expect(verdict()).toMatchObject({ result: "verified" });
});

describe("CHL-2 a wrong answer", () => {
  beforeEach(() => {
    hello(0);
    begin(AFTER);
    says({ t: "proof", challenge: ID, output: btoa("\0".repeat(2 * UNITS)) }, AFTER + 50);
  });

  test("quarantines the node: it gets no new lease, and the market does not list it as online", () => {
    expect(verdict()).toMatchObject({ result: "wrong", gops: 0 });
    expect(statusOf(state)).toBe("quarantined");
    expect(entryOf(state)).toMatchObject({ status: "quarantined", challenge: { result: "wrong" } });
    expect(
      step(state, { t: "hold", request: request(1, { expiresAt: 10 * HOUR }) }, AFTER + 60),
    ).toMatchObject({
      ok: false,
      code: "no_capacity",
      detail: "the node is quarantined",
    });
  });

  test("is not got rid of by another driver, nor by dialling again", () => {
    hello(AFTER + 1_000, { connection: "b", offer: { gpus: [{ ...gpu, driver: "551" }] } });
    expect(statusOf(state)).toBe("quarantined");
  });

  test("is made good by a right one, an hour later", () => {
    expect(isChallengeDue(state, AFTER + HOUR)).toBe(false);
    begin(AFTER + HOUR + 50);
    answerAll(AFTER + HOUR + 50, 5_000);
    expect(verdict()).toMatchObject({ result: "verified" });
    expect(statusOf(state)).toBe("online");
  });

  test("is not made good by silence, nor by a refusal to answer", () => {
    begin(AFTER + HOUR + 50);
    says({ t: "unproven", challenge: ID, reason: "busy" }, AFTER + HOUR + 60);
    expect(statusOf(state)).toBe("quarantined");
    begin(AFTER + 2 * HOUR);
    expect(state.challenges.question).not.toBeNull();
    apply({ t: "tick" }, AFTER + 2 * HOUR + ANSWER_MS);
    expect(state.challenges.question).toBeNull();
    expect(statusOf(state)).toBe("quarantined");
  });

  test("to a question that nobody asked, or of a challenge that is over, is not heard", () => {
    const before = verdict();
    says({ t: "proof", challenge: ID, output: "AAAA" }, AFTER + 80);
    says({ t: "unproven", challenge: ID, reason: "busy" }, AFTER + 90);
    expect(verdict()).toBe(before);
  });
});

test("CHL-5 an answer that does not come is a slow one; a refusal is none, and it is asked again in ten minutes", () => {
  hello(0);
  begin(AFTER);
  expect(dueAt({ ...state, publication: null })).toBe(AFTER + ANSWER_MS);
  says({ t: "unproven", challenge: ID, reason: "busy" }, AFTER + 5);
  expect(verdict()).toBeNull();
  expect(state.challenges.dueAt).toBe(AFTER + 5 + 600_000);
  begin(2 * HOUR);
  apply({ t: "tick" }, 2 * HOUR + ANSWER_MS - 1);
  expect(state.challenges.question).not.toBeNull();
  apply({ t: "tick" }, 2 * HOUR + ANSWER_MS);
  expect(verdict()).toMatchObject({ result: "slow" });
});

test("CHL-5 who gets other work, or goes, in the middle of one was never asked; while it has work it is not woken for it", () => {
  hello(0);
  begin(AFTER);
  apply({ t: "disconnected", connection: "a" }, AFTER + 10);
  expect(state.challenges).toMatchObject({ question: null, verdict: null });
  expect(dueAt({ ...state, publication: null })).toBeNull();
  hello(AFTER + 20, { connection: "b" });
  expect(state.challenges.dueAt).toBe(AFTER + 10 + 600_000);
  begin(2 * HOUR);
  const held = state.challenges.question;
  expect(held).not.toBeNull();
  state = {
    ...state,
    allocations: new Map([
      [
        lease(1),
        {
          phase: "open",
          terms: request(1).terms,
          until: 9 * HOUR,
          tier: "firm",
          yielding: false,
          yieldAt: 0,
          notBefore: 0,
          turn: 0,
          gpus: [gpu],
          resources: { gpus: 1, cpu: 0, memory_gb: 0 },
        },
      ],
    ]),
  };
  apply({ t: "heartbeat", at: 2 * HOUR + 1 }, 2 * HOUR + 1);
  expect(state.challenges.question).toBeNull();
  expect(dueAt({ ...state, publication: null })).toBe(9 * HOUR);
  apply({ t: "release", lease: lease(1) }, 5 * HOUR);
  expect(state.challenges.dueAt, "a minute of calm first").toBe(5 * HOUR + 60_000);
});

test("CHL-4 the next comes at a time that nobody can tell, six to thirty hours later; another card is asked soon", () => {
  for (const wait of [0, 2 ** 31, 2 ** 32 - 1]) {
    state = unknownNode(node);
    hello(0);
    apply({ t: "challenge", id: ID, draws: [...draws.slice(0, -1), wait] }, AFTER);
    const at = answerAll(AFTER, 5_000);
    expect(state.challenges.dueAt).toBe(at + 6 * HOUR + Math.floor((24 * HOUR * wait) / 2 ** 32));
  }
  says({ t: "offer", offer: { ...offer, gpus: [{ ...gpu, model: "RTX_5090" }] } }, 3 * HOUR);
  expect(entryOf(state)?.challenge, "what was shown was another card").toBeNull();
  expect(state.challenges.dueAt).toBe(3 * HOUR + AFTER);
});

test("CHL-4 the market hears of every verdict", () => {
  hello(0);
  const before = state.version;
  begin(AFTER);
  expect(state.version).toBe(before);
  answerAll(AFTER, 5_000);
  expect(state.version).toBe(before + 1);
});
