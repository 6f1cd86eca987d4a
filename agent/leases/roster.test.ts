import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LeaseTerms } from "@gpux/protocol/eip712";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { type Executor, executionFailure, type FunctionJob } from "../executors/executor.ts";
import { card, configWith, credentials, house, jobOf, leaseOf, place, termsWith } from "../fixtures.ts";
import { openJournal } from "../journal.ts";
import { dueBy, leaseBody, ownClock } from "../link/frames.ts";
import { type ScriptedEdge, startScriptedEdge } from "../scripted-edge.ts";
import { statePaths } from "../state-dir.ts";
import { BookEntry } from "./book.ts";
import { createChain } from "./chain.ts";
import { createExposure } from "./exposure.ts";
import { createPreparation } from "./job.ts";
import { createObjects } from "./objects.ts";
import { createRoster, type Roster } from "./roster.ts";
import { createSlots } from "./slots.ts";

/** No job comes in these tests. */
const executor: Executor<FunctionJob> = {
  describe: () => Promise.reject(new Error("nobody asks")),
  run: async () => executionFailure("executor_failed", "no job comes"),
  close: async () => {},
};

const terms = termsWith({ expiry: Math.floor(Date.now() / 1_000) + 7_200 });
const { id } = leaseOf(terms);
const share = { gpus: [card], resources: { gpus: 1, cpu: 0, memory_gb: 0 } };

let edge: ScriptedEdge;
let folder: string;
let roster: Roster;
let faults: unknown[];

beforeEach(async () => {
  edge = await startScriptedEdge();
  folder = await mkdtemp(join(tmpdir(), "gpux-roster-"));
  faults = [];
  const config = configWith({ edge: edge.url, rpc: `${edge.url}/rpc` });
  const objects = createObjects(edge.url, credentials);
  roster = createRoster({
    workshop: {
      house: { ...house, config },
      credentials,
      paths: statePaths(folder),
      chain: createChain({ rpc: config.rpc, ...place }),
      objects,
      prepare: createPreparation(objects, config.limits),
      executor,
      exposure: createExposure(5_000_000n),
      slots: createSlots(1),
      gpu: card.model,
      log: () => {},
    },
    onFault: (error) => faults.push(error),
    onChange: () => {},
  });
  await roster.takeUp();
});

afterEach(async () => {
  await roster.leave();
  await edge.close();
  await rm(folder, { recursive: true });
  expect(faults).toEqual([]);
});

async function online(lease: LeaseId) {
  const socket = await edge.lease(lease);
  await socket.next("hello");
  socket.say(0, 0, {
    t: "welcome",
    heartbeat_s: 25,
    epoch: 1,
    terms: z.encode(LeaseTerms, terms),
    last_seq: 0,
    attempts: [],
  });
  return socket;
}

describe("LSE-10 a lease that is opened while its node drains", () => {
  test("is told of it with what is left, and the control socket's next frames do not wait until it is wound up", async () => {
    await roster.drain(3_600);
    await roster.open(id, terms, share, null);
    const socket = await online(id);
    const { deadline_s } = await socket.next("drain");
    expect(deadline_s).toBeGreaterThan(0);
    expect(deadline_s).toBeLessThanOrEqual(3_600);
    const other = termsWith({ expiry: terms.expiry + 1 });
    await roster.open(leaseOf(other).id, other, share, null);
    expect(roster.serving().map((lease) => lease.id)).toEqual([id, leaseOf(other).id]);
  });
});

test("LSE-10 a drain that its agent's last life could not tell says at the next that nothing is left of it", async () => {
  const drain = (until: number) => dueBy(leaseBody({ t: "drain", deadline_s: 600 }), until);
  const { journal } = await openJournal(join(statePaths(folder).leases, `${id}.jsonl`), BookEntry);
  journal.append({ is: "lease", terms, ...share, refusal: null });
  journal.append({ is: "sent", seq: 1, body: drain(ownClock() - 1_000) });
  // The machine's clock was set back by an hour since this was written.
  journal.append({ is: "sent", seq: 2, body: drain(ownClock() + 4_200_000) });
  await journal.close();
  await roster.takeUp();
  const socket = await online(id);
  expect(await socket.next("drain")).toMatchObject({ seq: 1, deadline_s: 0 });
  expect(await socket.next("drain")).toMatchObject({ seq: 2, deadline_s: 600 });
});

test("ACK-5 says what a ticket stands for right before that job's end, after the ends before it", async () => {
  const attempt = { epoch: 1, n: 1 };
  const [first, second] = [jobOf(id, 1), jobOf(id, 2)];
  const endOf = (job: JobId) =>
    leaseBody({ t: "failed", job, attempt, ms: 1, gpu: card.model, code: "limit_exceeded" });
  const accepted = { function: "f".repeat(64), inputs: {}, ticket: "the edge's own word" };
  const ended = (job: JobId) => ({
    job,
    attempt,
    inputHash: "1a".repeat(32),
    payableMs: 1,
    unheardMs: 0,
    body: endOf(job),
  });
  const { journal } = await openJournal(join(statePaths(folder).leases, `${id}.jsonl`), BookEntry);
  journal.append({ is: "lease", terms, ...share, refusal: null });
  journal.append({ is: "ended", ended: ended(first) });
  journal.append({ is: "sent", seq: 1, body: endOf(first) });
  journal.append({ is: "ended", ended: { ...ended(second), accepted } });
  journal.append({ is: "sent", seq: 2, body: endOf(second) });
  await journal.close();
  await roster.takeUp();
  const socket = await online(id);
  expect(await socket.next("failed")).toMatchObject({ seq: 1, job: first });
  expect(await socket.next("accepted")).toMatchObject({ seq: 0, job: second, ...accepted });
  expect(await socket.next("failed")).toMatchObject({ seq: 2, job: second });
});
