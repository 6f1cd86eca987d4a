import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { JobId } from "@gpux/protocol/ids";
import { sessionIdOf } from "@gpux/protocol/session";
import { expect, test } from "vitest";
import type { Job } from "./job-state.ts";
import { SessionTable } from "./session-table.ts";
import { LeaseSessions, mayBringBack } from "./sessions.ts";
import { HELLO, jobId, START } from "./testing/fixtures.ts";
import { running } from "./testing/scene.ts";

const UNTIL = START + 3_600_000;
const session = sessionIdOf(new Uint8Array(16).fill(1));
const another = sessionIdOf(new Uint8Array(16).fill(2));
const as = { address: `0x${"aa".repeat(20)}`, session, bearer: false } as const;

/** Jobs as a lease has them; `max_price` of each is 1,000. */
class Jobs {
  readonly #jobs = new Map<JobId, Job>();

  add(n: number, change: Partial<Job> = {}): Job {
    const scene = running();
    const id = jobId(scene.state, n);
    const { request, ...rest } = scene.job(1);
    const job = { ...rest, id, session, request: { ...request, max_price: 1_000n }, ...change };
    this.#jobs.set(id, job);
    return job;
  }
  ofSession = (of: string) => [...this.#jobs.values()].filter((job) => job.session === of);
}

/** A lease's own storage; `life` is another life of the object over the same rows. */
async function inLease(
  name: string,
  act: (life: (isSure?: boolean) => LeaseSessions, jobs: Jobs, sql: SqlStorage) => void,
): Promise<void> {
  await runInDurableObject(env.LEASE.getByName(name), (_, { storage }) => {
    const jobs = new Jobs();
    const life = (isSure = true) =>
      new LeaseSessions(new SessionTable(storage.sql), jobs.ofSession, () => isSure);
    act(life, jobs, storage.sql);
  });
}

test("SES-6 nobody here until the Account has vouched, and nobody again once it is revoked, over evictions", () =>
  inLease("sessions-a", (life) => {
    expect(life().refusal(as)).toEqual({ ok: false, code: "session_unknown" });
    expect(life().refusal(as.address)).toBeNull();
    expect(life().admit(session, UNTIL, 0n, 1, START)).toEqual({ ok: true });
    expect(life().refusal(as)).toBeNull();
    expect(life().refusal({ ...as, session: another })).toMatchObject({ code: "session_unknown" });
    life().revoke(session, UNTIL);
    expect(life().refusal(as)).toEqual({ ok: false, code: "session_revoked" });
  }));

test("SES-6 a revocation that comes before the session stands", () =>
  inLease("sessions-b", (life) => {
    life().revoke(session, UNTIL);
    expect(life().admit(session, UNTIL, 5_000n, 1, START)).toEqual({ ok: false, code: "session_revoked" });
    expect(life().refusal(as)).toMatchObject({ code: "session_revoked" });
  }));

test("SES-5 what jobs may cost is counted while they run, what they cost once they have ended", () =>
  inLease("sessions-c", (life, jobs) => {
    const mine = life();
    mine.admit(session, UNTIL, 2_000n, 1, START);
    expect(mine.needs(session, 2_000n)).toBeNull();
    mine.take(session, jobs.add(1).id, 1_000n);
    expect(mine.needs(session, 1_000n)).toBeNull();
    expect(mine.needs(session, 1_001n)).toBe(2_001n);
    mine.ended(jobs.add(1, { status: "succeeded", price: 300n }));
    // What is told twice is counted once.
    mine.ended(jobs.add(1, { status: "succeeded", price: 300n }));
    expect(mine.needs(session, 1_700n)).toBeNull();
    expect(mine.needs(session, 1_701n)).toBe(2_001n);
  }));

test("SES-5 another life counts the same from the jobs themselves", () =>
  inLease("sessions-d", (life, jobs) => {
    life().admit(session, UNTIL, 2_000n, 1, START);
    jobs.add(1);
    jobs.add(2, { status: "failed", price: 250n });
    jobs.add(3, { session: another });
    jobs.add(4, { session: null });
    expect(life().needs(session, 750n)).toBeNull();
    expect(life().needs(session, 751n)).toBe(2_001n);
  }));

test("SES-5 a trimmed ceiling is what is used, and holds", () =>
  inLease("sessions-e", (life, jobs) => {
    const mine = life();
    mine.admit(session, UNTIL, 9_000n, 1, START);
    mine.take(session, jobs.add(1).id, 1_000n);
    expect(mine.trim(session, UNTIL, 2)).toBe(1_000n);
    expect(life().needs(session, 1n)).toBe(1_001n);
    mine.ended(jobs.add(1, { status: "canceled", price: 0n }));
    expect(mine.trim(session, UNTIL, 2)).toBe(0n);
  }));

test("SES-5 a word of the Account that comes after a later one raises nothing, over evictions, nor where it was the first", () =>
  inLease("sessions-h", (life) => {
    life().admit(session, UNTIL, 2_000n, 1, START);
    expect(life().trim(session, UNTIL, 3)).toBe(0n);
    expect(life().admit(session, UNTIL, 5_000n, 2, START)).toMatchObject({ code: "session_cap_exceeded" });
    expect(life().needs(session, 1n)).toBe(1n);
    expect(life().admit(session, UNTIL, 5_000n, 4, START)).toEqual({ ok: true });
    expect(life().trim(session, UNTIL, 3)).toBe(0n);
    expect(life().needs(session, 5_000n)).toBeNull();

    expect(life().trim(another, UNTIL, 2)).toBe(0n);
    expect(life().admit(another, UNTIL, 5_000n, 1, START)).toMatchObject({ code: "session_cap_exceeded" });
    expect(life().needs(another, 1n)).toBe(1n);
  }));

test("SES-5 what a crash may have taken counts as used, here and for the cap, until its agent has told", () =>
  inLease("sessions-g", (life, jobs) => {
    life().admit(session, UNTIL, 2_000n, 1, START);
    jobs.add(1);
    // A job of 700 was taken in and is in no row.
    const next = life(false);
    next.doubt();
    expect(next.needs(session, 100n)).toBe(2_100n);
    expect(next.trim(session, UNTIL, 2)).toBe(2_000n);
    next.takeBack(session, jobs.add(2).id, 700n);
    expect(next.needs(session, 1n)).toBe(2_001n);
    expect(life(false).trim(session, UNTIL, 2)).toBe(2_300n);
    const told = life(true);
    expect(told.needs(session, 1n)).toBe(2_001n);
    expect(told.trim(session, UNTIL, 2)).toBe(2_000n);
  }));

test("SES-5 a lease that lost its agent with its memory is not sure of it, whatever its rows say of the agent", () => {
  // Seed 29174: the rows of the life before said that its agent was there, and so a job was taken in for what is in doubt.
  const scene = running().after(90_000);
  expect(scene.state.lease.awayAt).toBeNull();
  expect(mayBringBack(scene.state, true, scene.now)).toBe(false);
  expect(mayBringBack(scene.state, false, scene.now)).toBe(true);
  scene.tell({ t: "gone" });
  expect(mayBringBack(scene.state, false, scene.now)).toBe(true);
  scene.tell(HELLO);
  expect(mayBringBack(scene.state, true, scene.now)).toBe(true);
  expect(mayBringBack(scene.after(75_000).state, true, scene.now)).toBe(false);
});

test("what has ended is forgotten when another comes, a revocation too, for no token opens it any more", () =>
  inLease("sessions-f", (life, _jobs, sql) => {
    life().revoke(another, START - 1);
    life().admit(session, UNTIL, 0n, 1, START);
    expect(sql.exec("SELECT id FROM sessions").toArray()).toEqual([{ id: session }]);
  }));
