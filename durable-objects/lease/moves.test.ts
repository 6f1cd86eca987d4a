import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { jobIdOf, type LeaseId } from "@gpux/protocol/ids";
import { JobEvent, JobRequest } from "@gpux/protocol/job";
import { sessionIdOf } from "@gpux/protocol/session";
import { expect, test } from "vitest";
import type { Carried } from "../interfaces.ts";
import { movedReason } from "../moved.ts";
import { type Account, addressOf } from "../testing/client.ts";
import { DataLine, funded, quotedTo } from "./testing/data-line.ts";
import { address, done } from "./testing/fixtures.ts";
import { meetNeighbours, neighbours } from "./testing/neighbours.ts";

// Jobs that move (SPEC JOB-11): two leases and the account that has both, as they are in workerd.

meetNeighbours();

const request = JobRequest.parse({ function: "f".repeat(64), inputs: {}, max_price: "100000" });

type Made = Awaited<ReturnType<typeof quotedTo>>;

/** As the account has them once it has opened them: rows of its table (docs/storage-schema.md). */
async function opened(wallet: Account, ...leases: readonly Made[]): Promise<void> {
  await runInDurableObject(env.ACCOUNT.getByName(addressOf(wallet)), (_, { storage }) => {
    for (const { lease, hold } of leases)
      storage.sql.exec(
        "INSERT INTO leases (id, phase, text, expires_at, created_at) VALUES (?, 'open', ?, ?, ?)",
        lease,
        JSON.stringify(hold.text),
        hold.terms.expiry * 1_000,
        Date.now(),
      );
  });
}

/** Two leases of one wallet on two nodes, the first with its agent. */
async function pair(second: (wallet: Account) => Promise<Made>) {
  const a = await funded(neighbours, { text: { node: address(0xa1) } });
  const b = await second(a.wallet);
  await opened(a.wallet, a, b);
  return { by: addressOf(a.wallet), a, b, agent: await DataLine.dial(a.lease) };
}

const other = (wallet: Account) => funded(neighbours, { wallet, text: { node: address(0xb2) } });
const idOf = (lease: LeaseId, n: number) => jobIdOf(lease, new Uint8Array(16).fill(n));

/** What a reader of the job's events hears at a lease, to the end. */
async function watched(made: Made, job: string, after: number) {
  const query = new URLSearchParams({ job, after: String(after), as: addressOf(made.wallet) });
  const { webSocket } = await env.LEASE.getByName(made.lease).fetch(
    new Request(`https://lease/watch?${query}`, { headers: { upgrade: "websocket" } }),
  );
  if (webSocket === null || webSocket === undefined) throw new Error("nothing to watch");
  const events: JobEvent[] = [];
  webSocket.addEventListener("message", ({ data }) => {
    events.push(JobEvent.parse(JSON.parse(String(data))));
  });
  const reason = new Promise<string>((resolve) => {
    webSocket.addEventListener("close", (closed) => resolve(closed.reason));
  });
  webSocket.accept();
  return { events, reason };
}

test("JOB-11 a job that waits on a node which stops goes on, under its id, on the account's other lease", async () => {
  const { by, a, b, agent } = await pair(other);
  const [first, moving] = [idOf(a.lease, 1), idOf(a.lease, 2)];
  await a.stub.submit(by, first, request, null, 0);
  const stays = await agent.run();
  agent.started(stays);
  await a.stub.submit(by, moving, request, "my-own-name", 0);
  const there = await watched(a, moving, 0);
  const waiting = a.stub.job(by, moving, 20_000);
  const target = await DataLine.dial(b.lease);
  agent.drains(60);

  const run = await target.run();
  expect(run).toMatchObject({ job: moving, attempt: { n: 1 } });
  const moved = { ok: false, code: "job_moved", lease: b.lease };
  expect(await waiting, "who waits is told where").toEqual(moved);
  expect(await there.reason).toBe(movedReason(b.lease));
  expect(there.events.map(({ type, data }) => [type, data])).toEqual([
    ["status", { status: "queued" }],
    ["move", { to: b.lease }],
  ]);
  // Whatever is asked of it at its first lease, in this life or the next.
  for (const life of [1, 2]) {
    expect(await a.stub.job(by, moving, 0), `life ${life}`).toEqual(moved);
    expect(await a.stub.cancel(by, moving)).toEqual(moved);
    expect(await a.stub.retry(by, moving, idOf(a.lease, 3), null, 0)).toEqual(moved);
    expect(await a.stub.submit(by, moving, request, null, 0)).toEqual(moved);
    const other = { ...request, inputs: { n: { number: 1 } } };
    const reused = { ok: false, code: "idempotency_key_reused" };
    expect(await a.stub.submit(by, moving, other, null, 0)).toEqual(reused);
    if (life === 1) await evictDurableObject(a.stub, { webSockets: "hibernate" });
  }

  target.started(run);
  target.succeeded(run);
  await expect
    .poll(() => b.stub.job(by, moving, 0))
    .toMatchObject({ job: { id: moving, client_id: "my-own-name", status: "succeeded", lease_id: b.lease } });
  // The events go on above the numbers of those that the reader has.
  const last = there.events.at(-1)?.id ?? 0;
  const here = await watched(b, moving, last);
  expect(await here.reason).toBe("the job has ended");
  expect(here.events.map(({ data }) => data.status)).toEqual(["queued", "starting", "running", "succeeded"]);
  expect(here.events.every(({ id }) => id > last)).toBe(true);
  const again = await watched(a, moving, last);
  expect([await again.reason, again.events]).toEqual([movedReason(b.lease), []]);

  agent.succeeded(stays);
  await expect.poll(() => a.stub.job(by, first, 0)).toMatchObject({ job: { status: "succeeded" } });
});

test("JOB-11 what the other lease has answered holds, asked again in another life", async () => {
  const { by, a, b } = await pair((wallet) => quotedTo({ wallet, text: { node: address(0xb2) } }));
  const carried: Carried = {
    job: idOf(a.lease, 1),
    clientId: null,
    retryOf: null,
    request,
    inputHash: "e".repeat(64),
    session: null,
    createdAt: Date.now(),
    queuedAt: Date.now(),
    checkpoint: null,
    been: [a.lease],
    past: { attempts: [], price: 0n, billedMs: 0 },
    billableMs: 1_000,
    payer: by,
    consumerSigner: by,
  };
  expect(await b.stub.adopt([carried], 7)).toEqual({ taken: [], declined: [carried.job] });
  // It could take the job now; but its first lease may have begun it since.
  const leases = [{ leaseId: b.hash, funded: "10000000", openedAt: Math.floor(Date.now() / 1_000) }];
  neighbours.relayed.set("fund", done("fund", { kind: "fund", leases }));
  const funding = {
    amount: 10_000_000n,
    salt: `0x${"01".repeat(32)}`,
    valid_after: 0,
    signature: "0x00",
  } as const;
  await b.stub.fund({ ...funding, valid_before: Math.floor(Date.now() / 1_000) + 600 });
  await DataLine.dial(b.lease);
  const next = { ...carried, job: idOf(a.lease, 2) };
  for (const life of [1, 2]) {
    expect(await b.stub.adopt([carried, next], 7), `life ${life}`).toEqual({
      taken: [next.job],
      declined: [carried.job],
    });
    if (life === 1) await evictDurableObject(b.stub, { webSockets: "hibernate" });
  }
  expect(await b.stub.view(by)).toMatchObject({ lease: { jobs_open: 1 } });
});

test("JOB-11 without another lease that would have it the job ends with its node, and says why", async () => {
  const { by, a, agent } = await pair((wallet) => quotedTo({ wallet, text: { node: address(0xb2) } }));
  await a.stub.submit(by, idOf(a.lease, 1), request, null, 0);
  agent.started(await agent.run());
  await a.stub.submit(by, idOf(a.lease, 2), request, null, 0);
  agent.drains(60);
  await expect
    .poll(() => a.stub.job(by, idOf(a.lease, 2), 0))
    .toMatchObject({ job: { status: "aborted", error: { code: "node_draining" } } });
  expect(await a.stub.job(by, idOf(a.lease, 1), 0)).toMatchObject({ job: { status: "running" } });
});

test("JOB-11, SES-5 a session's job moves where its cap has room set aside for it, and nowhere else", async () => {
  const { by, a, b, agent } = await pair(other);
  const session = sessionIdOf(new Uint8Array(16).fill(9));
  const as = { address: by, session, bearer: false } as const;
  const until = Date.now() + 600_000;
  await a.stub.admitSession(session, until, 300_000n, 1);
  await b.stub.admitSession(session, until, 100_000n, 1);
  const id = (n: number) => idOf(a.lease, n);
  for (const n of [1, 2, 3]) await a.stub.submit(as, id(n), request, null, 0);
  agent.started(await agent.run());
  const target = await DataLine.dial(b.lease);
  agent.drains(60);
  const run = await target.run();
  expect(run.job, "the first of those that wait").toBe(id(2));
  await expect
    .poll(() => a.stub.job(by, id(3), 0))
    .toMatchObject({ job: { status: "aborted", error: { code: "node_draining" } } });
  // What it may cost is the other lease's part of the cap now, and this one gives its own back.
  expect(await a.stub.trimSession(session, until, 2)).toBe(100_000n);
  await evictDurableObject(a.stub, { webSockets: "hibernate" });
  expect(await a.stub.trimSession(session, until, 3), "in another life").toBe(100_000n);
  expect(await b.stub.trimSession(session, until, 2)).toBe(100_000n);
  target.succeeded(run, undefined, 1_000);
  await expect.poll(() => b.stub.job(as, id(2), 0)).toMatchObject({ job: { status: "succeeded" } });
  expect(await b.stub.trimSession(session, until, 3)).toBeLessThan(100_000n);
});
