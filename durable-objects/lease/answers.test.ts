import { evictDurableObject, runDurableObjectAlarm } from "cloudflare:test";
import { expect, test, vi } from "vitest";
import { address } from "./testing/fixtures.ts";
import { meetNeighbours, neighbours } from "./testing/neighbours.ts";
import { active, CONSUMER, hasher, Line, node, request } from "./testing/open-lease.ts";
import { LOST_MS, RETENTION_MS } from "./timers.ts";

const STRANGER = address(0x99);

meetNeighbours();

test("CKP-1, CKP-2 what an attempt kept is paid, survives an eviction, and is what the next one goes on from", async () => {
  const { stub, hash, job } = await active(neighbours, { text: { tier: "yieldable" } });
  neighbours.asked.length = 0;
  const first = await Line.dial(stub);
  first.say({ t: "hello", seq: 0, attempts: [], last_seq: 0, checkpoints: true });
  await first.frame("welcome");
  await stub.submit(CONSUMER, job(1), { ...request, checkpoint: true }, null, 0);
  const { attempt, ...run } = await first.frame("run");
  expect(run).toMatchObject({ checkpoint: null, max_price: 100_000n });
  first.say({ t: "started", seq: 1, job: job(1), attempt });
  first.say({ t: "yield", seq: 2, notice_s: 30 });
  await scheduler.wait(50);
  const checkpoint = { sha256: "c0".repeat(32), bytes: 8 };
  first.say({ t: "yielded", seq: 3, job: job(1), attempt, ms: 20, gpu: "SWIFTSHADER", checkpoint });
  const { usage, receipts } = await first.frame("settle");
  expect(receipts).toMatchObject([{ attempt: 1, outputHashes: [], price: 20n, billedMs: 20n }]);
  const signature = await node.sign({ hash: hasher.usage({ leaseId: hash, ...usage }) });
  const wire = { cumulative: usage.cumulative.toString(), evidence: usage.evidence };
  first.say({ t: "signed", seq: 4, usage: { ...wire, signature } });
  await vi.waitUntil(() => neighbours.asked.includes("node:rouse"), { timeout: 60_000 });
  await neighbours.quiet();
  await evictDurableObject(stub, { webSockets: "close" });

  const next = await Line.dial(stub);
  next.say({ t: "hello", seq: 0, attempts: [], last_seq: 0, checkpoints: true });
  const again = await next.frame("run");
  expect(again).toMatchObject({ job: job(1), attempt: { n: 2 }, checkpoint, max_price: 99_980n });
  next.say({
    t: "result",
    seq: 5,
    job: job(1),
    attempt: again.attempt,
    ms: 0,
    gpu: "SWIFTSHADER",
    outputs: [],
  });
  const view = await stub.job(CONSUMER, job(1), 60_000);
  expect(view).toMatchObject({
    job: {
      status: "succeeded",
      price: 20n,
      billed_ms: 20,
      attempts: [
        { outcome: "yielded", paid: 20n, billed_ms: 20, receipt: { edge_signature: expect.any(String) } },
        { paid: 0n },
      ],
    },
  });
  expect(await stub.retry(CONSUMER, job(1), job(2), null, 0)).toMatchObject({ ok: true });
  expect(await next.frame("run")).toMatchObject({ job: job(2), attempt: { n: 1 }, checkpoint });
});

test("a batch that is waited for is answered in its order when its last job has ended", async () => {
  const { stub, job } = await active(neighbours);
  const agent = await Line.dial(stub);
  agent.hello();
  await agent.frame("welcome");
  const asked = [3, 1, 2].map((n) => ({ id: job(n), request }));
  const waiting = stub.submitAll(CONSUMER, asked, 60_000);
  for (const [index, { id }] of asked.entries()) {
    const run = await agent.frame("run");
    expect(run.job).toBe(id);
    const end = { job: id, attempt: run.attempt, ms: 0, gpu: "SWIFTSHADER", outputs: [] };
    agent.say({ t: "result", seq: index + 1, ...end });
  }
  const answer = await waiting;
  expect(answer).toMatchObject({
    ok: true,
    replayed: false,
    jobs: asked.map(({ id }) => ({ id, status: "succeeded" })),
  });
});

test("ACK-5 a batch of which a crash left a part is made whole by the same request", async () => {
  const { stub, job } = await active(neighbours);
  const agent = await Line.dial(stub);
  agent.hello();
  await agent.frame("welcome");
  const asked = [1, 2].map((n) => ({ id: job(n), request }));
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  const waiting = stub.submitAll(CONSUMER, asked, 60_000);
  const run = await agent.frame("run");
  const { attempt, ticket } = run;
  const end = { t: "result", attempt, ms: 0, gpu: "SWIFTSHADER", outputs: [] };
  agent.say({ ...end, seq: 1, job: job(1) });
  const { seq } = await agent.frame("run");
  agent.say({ ...end, seq: 2, job: job(2) });
  expect(await waiting).toMatchObject({ jobs: [{ status: "succeeded" }, { status: "succeeded" }] });
  await evictDurableObject(stub, { webSockets: "close" });
  vi.useRealTimers();
  const back = await Line.dial(stub);
  back.say({ t: "hello", seq: 0, attempts: [{ job: job(1), attempt }], last_seq: seq });
  await back.frame("welcome");
  back.say({ t: "accepted", seq: 0, job: job(1), attempt, inputs: {}, ticket, function: request.function });
  back.say({ ...end, seq: 3, job: job(1) });
  await back.frame("ack");
  expect(await stub.job(CONSUMER, job(2), 0)).toMatchObject({ code: "job_unknown" });
  expect(await stub.submitAll(CONSUMER, asked, 0)).toMatchObject({
    ok: true,
    replayed: false,
    jobs: [{ status: "succeeded" }, { status: "starting" }],
  });
  expect((await back.frame("run")).job).toBe(job(2));
});

test("JOB-9 an ended job is done again as another, once for each key; one that has not ended is not", async () => {
  const { stub, job } = await active(neighbours);
  const asked = { ...request, priority: 3 };
  await stub.submit(CONSUMER, job(1), asked, null, 0);
  expect(await stub.retry(CONSUMER, job(1), job(2), null, 0)).toMatchObject({ code: "job_not_ended" });
  await stub.cancel(CONSUMER, job(1));
  await evictDurableObject(stub);
  const again = await stub.retry(CONSUMER, job(1), job(2), null, 0);
  expect(again).toMatchObject({
    ok: true,
    replayed: false,
    job: { id: job(2), retry_of: job(1), status: "queued" },
  });
  expect(await stub.retry(CONSUMER, job(1), job(2), null, 0)).toMatchObject({ replayed: true });
  expect(await stub.retry(CONSUMER, job(9), job(3), null, 0)).toMatchObject({ code: "job_unknown" });
  expect(await stub.retry(STRANGER, job(1), job(3), null, 0)).toMatchObject({ code: "forbidden" });
});

test("JOB-8 an ended job and its events are answered again until seven days after its lease has ended", async () => {
  const { stub, job } = await active(neighbours);
  await stub.submit(CONSUMER, job(1), request, null, 0);
  await stub.cancel(CONSUMER, job(1));
  await stub.close(CONSUMER);
  vi.useFakeTimers({ toFake: ["Date"] });
  try {
    // Nobody comes to sign the close: the lease is lost after a quarter of an hour, and that is its end.
    vi.setSystemTime(Date.now() + LOST_MS);
    await runDurableObjectAlarm(stub);
    expect(await stub.view(CONSUMER)).toMatchObject({ lease: { status: "lost" } });
    await evictDurableObject(stub);
    vi.setSystemTime(Date.now() + RETENTION_MS - 1_000);
    expect(await stub.submit(CONSUMER, job(1), request, null, 0)).toMatchObject({
      replayed: true,
      job: { status: "canceled" },
    });
    expect(await stub.events(CONSUMER, job(1), 0, 10)).toMatchObject({
      ok: true,
      events: [{ id: 1 }, { id: 2 }],
    });
  } finally {
    vi.useRealTimers();
  }
});

async function answeredAndLost(isAskedAgain = false) {
  const lease = await active(neighbours);
  const { stub, job } = lease;
  const agent = await Line.dial(stub);
  agent.hello();
  await agent.frame("welcome");
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  const waiting = stub.submit(CONSUMER, job(1), request, "my-first-job-1", 60_000);
  const run = await agent.frame("run");
  const { attempt, ticket = "" } = run;
  const end = { t: "result", seq: 2, job: job(1), attempt, ms: 0, gpu: "SWIFTSHADER", outputs: [] };
  agent.say({ t: "started", seq: 1, job: job(1), attempt });
  agent.say(end);
  const answer = await waiting;
  expect(answer).toMatchObject({ ok: true, job: { status: "succeeded" } });
  await evictDurableObject(stub, { webSockets: "close" });
  vi.useRealTimers();
  expect(await stub.job(CONSUMER, job(1), 0)).toMatchObject({ code: "job_unknown" });
  if (isAskedAgain) await stub.submit(CONSUMER, job(1), request, "my-first-job-1", 0);
  const accepted = { t: "accepted", seq: 0, job: job(1), attempt, inputs: {}, ticket };
  const back = await Line.dial(stub);
  back.say({ t: "hello", seq: 0, attempts: [{ job: job(1), attempt }], last_seq: run.seq });
  await back.frame("welcome");
  return { ...lease, back, end, accepted: { ...accepted, function: request.function } };
}

test("ACK-5 a job that was answered before it was written is known again by what its agent kept", async () => {
  const { stub, job, back, accepted, end } = await answeredAndLost();
  back.say(accepted);
  back.say(end);
  expect(await back.frame("ack")).toMatchObject({ ack: 2 });
  const answer = await stub.job(CONSUMER, job(1), 0);
  expect(answer).toMatchObject({ ok: true, job: { status: "succeeded", client_id: "my-first-job-1" } });
  // Said once more, it changes nothing.
  back.say(accepted);
  back.say({ ...end, seq: 3 });
  await back.frame("ack");
  expect(await stub.view(CONSUMER)).toMatchObject({ lease: { jobs_ended: 1, jobs_open: 0 } });
});

test("ACK-5 the same request again runs again, and is charged once", async () => {
  const { stub, job, back, accepted, end } = await answeredAndLost(true);
  const { attempt } = await back.frame("run");
  back.say(accepted);
  back.say(end);
  await back.frame("ack");
  expect(await stub.job(CONSUMER, job(1), 0)).toMatchObject({ ok: true, job: { status: "starting" } });
  back.say({ ...end, seq: 3, attempt });
  await back.frame("ack");
  expect(await stub.view(CONSUMER)).toMatchObject({ lease: { jobs_ended: 1, jobs_open: 0 } });
});

test("ACK-5 a ticket that the lease did not make, or with other inputs, brings no job", async () => {
  const { stub, job, back, accepted, end } = await answeredAndLost();
  back.say({ ...accepted, inputs: { n: { number: 1 } } });
  back.say({ ...accepted, ticket: accepted.ticket.replace('"retries":2', '"retries":5') });
  back.say({ ...accepted, attempt: { ...accepted.attempt, n: 2 } });
  back.say(end);
  await back.frame("ack");
  expect(await stub.job(CONSUMER, job(1), 0)).toMatchObject({ ok: false, code: "job_unknown" });
});

test("ACK-1 a job that is not waited for is in its row before the answer", async () => {
  const { stub, job } = await active(neighbours);
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  expect(await stub.submit(CONSUMER, job(1), request, null, 0)).toMatchObject({ ok: true });
  await evictDurableObject(stub, { webSockets: "close" });
  vi.useRealTimers();
  expect(await stub.job(CONSUMER, job(1), 0)).toMatchObject({ ok: true, job: { status: "queued" } });
});
