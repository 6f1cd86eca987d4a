import { env, runInDurableObject } from "cloudflare:test";
import type { JobId } from "@gpux/protocol/ids";
import { expect, test } from "vitest";
import type { Job } from "./job-state.ts";
import { LeaseStore } from "./store.ts";
import { submission } from "./testing/fixtures.ts";
import { active } from "./testing/scene.ts";

/** A lease and so many jobs of it. */
function leaseWith(count: number) {
  const scene = active();
  const numbers = Array.from({ length: count }, (_, n) => n + 1);
  for (const n of numbers) scene.tell(submission(scene.state, n));
  return { lease: scene.state.lease, jobs: numbers.map((n) => scene.job(n)) };
}

/** What a later life finds, and how the tables stand without it. */
function reading(storage: DurableObjectStorage, ids: readonly JobId[]) {
  const count = (table: string) =>
    storage.sql.exec<{ n: number }>(`SELECT count(*) AS n FROM ${table}`).one().n;
  const before = { tail: count("tail"), jobs: count("jobs"), journal: count("journal") };
  const store = new LeaseStore(storage.sql);
  const found = {
    state: store.load(),
    jobs: ids.map((id) => store.job(id)),
    events: ids.map((id) => store.events(id, 0, 100).map((event) => [event.id, event.data.status])),
    last: store.lastEvent,
  };
  return { before, found, after: { tail: count("tail"), jobs: count("jobs"), journal: count("journal") } };
}

function inLease<T>(name: string, act: (storage: DurableObjectStorage) => T): Promise<T> {
  return runInDurableObject(env.LEASE.getByName(name), (_, { storage }) => act(storage));
}

const status = (job: Job, at: number) => ({
  entry: { job: job.id, type: "status" as const, data: { status: job.status } },
  at,
});

test("what was written is one row until it is folded, and the same to whoever reads it", async () => {
  const { lease, jobs: queued } = leaseWith(3);
  const [first] = queued;
  if (first === undefined) throw new Error("no job");
  const ended: Job = { ...first, status: "aborted", endedAt: 7 };
  const read = await inLease("tail-one-row", (storage) => {
    const store = new LeaseStore(storage.sql);
    const events = store.write(
      { lease, jobs: queued, fresh: new Set(queued.map(({ id }) => id)), ticks: [] },
      queued.map((job) => status(job, 5)),
    );
    expect(events.map(({ id }) => id)).toEqual([1, 2, 3]);
    store.write({ lease: { ...lease, arrivals: 9 }, jobs: [ended], fresh: new Set(), ticks: [] }, [
      status(ended, 7),
    ]);
    // Asked for before it is folded: as it is by now, from memory.
    expect(store.job(first.id)).toEqual(ended);
    return reading(
      storage,
      queued.map(({ id }) => id),
    );
  });
  expect(read.before).toEqual({ tail: 2, jobs: 0, journal: 0 });
  expect(read.after).toEqual({ tail: 0, jobs: 3, journal: 4 });
  expect(read.found.state?.lease).toEqual({ ...lease, arrivals: 9 });
  expect([...(read.found.state?.jobs.values() ?? [])]).toEqual(queued.slice(1));
  expect(read.found.jobs).toEqual([ended, ...queued.slice(1)]);
  expect(read.found.events).toEqual([
    [
      [1, "starting"],
      [4, "aborted"],
    ],
    [[2, "queued"]],
    [[3, "queued"]],
  ]);
  expect(read.found.last).toBe(4);
});

test("a job that came before another was asked for in vain is found after it", async () => {
  const { lease, jobs } = leaseWith(3);
  const [before, after, never] = jobs;
  if (before === undefined || after === undefined || never === undefined) throw new Error("no job");
  const found = await inLease("tail-in-vain", (storage) => {
    const store = new LeaseStore(storage.sql);
    store.write({ lease, jobs: [before], fresh: new Set([before.id]), ticks: [] }, []);
    expect(store.job(never.id)).toBeNull();
    store.write({ lease, jobs: [after], fresh: new Set([after.id]), ticks: [] }, []);
    store.load();
    return [before, after, never].map(({ id }) => store.job(id));
  });
  expect(found).toEqual([before, after, null]);
});

test("a write that one row could not hold is several, of which none is lost", async () => {
  const { lease, jobs: small } = leaseWith(20);
  const large = { data: { base64: "AAEC".repeat(8_000) } };
  const jobs = small.map((job) => ({ ...job, request: { ...job.request, inputs: large } }));
  const read = await inLease("tail-large", (storage) => {
    const store = new LeaseStore(storage.sql);
    store.write({ lease, jobs, fresh: new Set(jobs.map(({ id }) => id)), ticks: [] }, []);
    return reading(
      storage,
      jobs.map(({ id }) => id),
    );
  });
  expect(read.before.tail).toBeGreaterThan(1);
  expect(read.found.jobs).toEqual(jobs);
  expect(read.found.state?.lease).toEqual(lease);
});

test("a tail is folded before it grows long", async () => {
  const { lease } = leaseWith(0);
  const rows = await inLease("tail-long", (storage) => {
    const store = new LeaseStore(storage.sql);
    const seen: number[] = [];
    for (let n = 0; n < 200; n += 1) {
      store.write({ lease: { ...lease, arrivals: n }, jobs: [], fresh: new Set(), ticks: [] }, []);
      seen.push(storage.sql.exec<{ n: number }>("SELECT count(*) AS n FROM tail").one().n);
    }
    expect(new LeaseStore(storage.sql).load()?.lease.arrivals).toBe(199);
    return seen;
  });
  expect(Math.max(...rows)).toBeLessThan(64);
  expect(rows.filter((n) => n === 0)).toHaveLength(3);
});
