import { runInDurableObject, SELF } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { sha256Hex } from "@gpux/protocol/canonical";
import { afterEach, beforeAll, expect, test, vi } from "vitest";
import { type Account, addressOf, call, newAccount, ORIGIN, requestOf, signed } from "../testing/client.ts";
import { ECHO } from "../testing/echo.ts";
import { store, unknownLease } from "../testing/functions.ts";
import { DataLine, funded, type Run } from "./testing/data-line.ts";
import { Neighbours } from "./testing/neighbours.ts";
import { node } from "./testing/open-lease.ts";

const CHUNK = 64 * 1024;
const CHUNKS = 8;

let neighbours: Neighbours;
let echo: string;
beforeAll(async () => {
  neighbours = await Neighbours.meet();
  echo = await store(newAccount(), ECHO);
});
afterEach(() => {
  vi.useRealTimers();
});

/** A job that its agent has begun, and an output of several chunks that no other test has. */
async function running() {
  const { wallet, lease, stub } = await funded(neighbours);
  const agent = await DataLine.dial(lease);
  const response = await call(wallet, `/v1/leases/${lease}/jobs`, {
    json: { function: echo, inputs: { value: { number: 1 } }, max_price: "100000" },
  });
  expect(response.status).toBe(202);
  const run = await agent.run();
  agent.started(run);
  const bytes = crypto.getRandomValues(new Uint8Array(CHUNK));
  const whole = new Uint8Array(CHUNKS * CHUNK);
  for (let n = 0; n < CHUNKS; n += 1) whole.set(bytes, n * CHUNK);
  return { wallet, lease, stub, agent, run, whole, sha256: await sha256Hex(whole) };
}
type Running = Awaited<ReturnType<typeof running>>;

function chunksOf(whole: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>[] {
  return Array.from({ length: CHUNKS }, (_, n) => whole.slice(n * CHUNK, (n + 1) * CHUNK));
}

function pathOf({ lease, sha256 }: Pick<Running, "lease" | "sha256">, { job, attempt }: Run): string {
  const query = new URLSearchParams({ epoch: String(attempt.epoch), attempt: String(attempt.n), sha256 });
  return `/v1/agent/leases/${lease}/jobs/${job}/outputs/0?${query}`;
}

/** The agent's upload as the edge hands it on, of whatever the test then writes. */
function upload({ stub, run, sha256, whole }: Running, change: Record<string, string> = {}) {
  const query = new URLSearchParams({
    job: run.job,
    n: "0",
    as: node.address,
    epoch: String(run.attempt.epoch),
    attempt: String(run.attempt.n),
    sha256,
    bytes: String(whole.length),
    type: "image/png",
    ...change,
  });
  const { readable, writable } = new FixedLengthStream(whole.length);
  const answered = stub.fetch(`https://lease/output?${query}`, { method: "PUT", body: readable });
  return { writer: writable.getWriter(), status: answered.then((answer) => answer.status) };
}

/** A caller's question as the edge hands it on. One stub's calls arrive in their order: it waits before an upload begins. */
function ask({ stub, run, wallet }: Running, change: Record<string, string> = {}) {
  const query = new URLSearchParams({ job: run.job, n: "0", as: wallet.address, wait: "60000", ...change });
  return stub.fetch(`https://lease/output?${query}`);
}

async function feed(
  writer: WritableStreamDefaultWriter<Uint8Array>,
  chunks: readonly Uint8Array[],
): Promise<void> {
  for (const chunk of chunks) await writer.write(chunk);
  await writer.close();
}

async function rest(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<number> {
  for (let bytes = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return bytes;
    bytes += value.length;
  }
}

function readerOf(response: Response): ReadableStreamDefaultReader<Uint8Array> {
  if (response.body === null) throw new Error("no body");
  return response.body.getReader();
}

test("BLK-1 a caller who waits has the bytes as they come, storage has them too, and others after the end", async () => {
  const job = await running();
  const { wallet, run, agent, whole, sha256 } = job;
  const asked = ask(job);
  const { writer, status } = upload(job);
  const [first, second, third, ...later] = chunksOf(whole);
  // The upload goes as fast as it is read: nobody waits for these yet.
  const begun = [writer.write(first), writer.write(second), writer.write(third)];
  const live = await asked;
  expect(Object.fromEntries(live.headers)).toMatchObject({
    "content-type": "image/png",
    "content-length": String(whole.length),
    "x-gpux-sha256": sha256,
  });
  const reader = readerOf(live);
  // Long before the upload is over.
  const { value } = await reader.read();
  expect(value?.length).toBeGreaterThan(0);
  const read = rest(reader);
  await Promise.all(begun);
  for (const chunk of later) await writer.write(chunk);
  await writer.close();
  expect((await read) + (value?.length ?? 0)).toBe(whole.length);
  expect(await status).toBe(201);
  expect((await env.OBJECTS.head(sha256))?.size).toBe(whole.length);

  agent.succeeded(run, { name: "out", content_type: "image/png", bytes: whole.length, sha256 });
  const path = `/v1/jobs/${run.job}/outputs/0`;
  const got = await call(wallet, `${path}?wait=30`);
  expect(await sha256Hex(new Uint8Array(await got.arrayBuffer()))).toBe(sha256);
  expect(got.headers.get("repr-digest")).toMatch(/^sha-256=:.{44}:$/);
  expect(got.headers.get("content-disposition")).toMatch(/^attachment/);
});

test("BLK-2 bytes that are not what their hash says are stored nowhere, and nobody gets the last of them", async () => {
  const job = await running();
  const asked = ask(job);
  const { writer, status } = upload(job);
  const live = asked.then((answer) => rest(readerOf(answer)));
  const wrong = chunksOf(job.whole);
  wrong[3] = new Uint8Array(CHUNK);
  for (const chunk of wrong) await writer.write(chunk);
  await writer.close();
  await expect(live).rejects.toThrow();
  expect(await status).toBe(422);
  expect(await env.OBJECTS.head(job.sha256)).toBeNull();
});

test("BLK-3 a caller who goes away keeps nothing from storage, or from another who waits", async () => {
  const job = await running();
  const [gone, stays] = [ask(job), ask(job)];
  const { writer, status } = upload(job);
  const read = stays.then((answer) => rest(readerOf(answer)));
  const written = feed(writer, chunksOf(job.whole));
  const reader = readerOf(await gone);
  await reader.read();
  void reader.cancel();
  await written;
  expect(await read).toBe(job.whole.length);
  expect(await status).toBe(201);
  expect((await env.OBJECTS.head(job.sha256))?.size).toBe(job.whole.length);
});

test("BLK-3 an agent that goes away leaves nothing, and its second upload is whole, for callers who ask again", async () => {
  const job = await running();
  const asked = ask(job);
  const broken = upload(job);
  const [first, second] = chunksOf(job.whole);
  const read = asked.then((answer) => rest(readerOf(answer)));
  await broken.writer.write(first);
  await broken.writer.write(second);
  await broken.writer.abort(new Error("the agent was killed"));
  await expect(read).rejects.toThrow();
  expect(await broken.status.catch(() => 422)).toBe(422);
  expect(await env.OBJECTS.head(job.sha256)).toBeNull();

  const again = ask(job).then((answer) => rest(readerOf(answer)));
  const { writer, status } = upload(job);
  for (const chunk of chunksOf(job.whole)) await writer.write(chunk);
  await writer.close();
  expect([await again, await status]).toEqual([job.whole.length, 201]);
});

test("BLK-3 whoever reads too slowly is cut off, and the upload goes on", async () => {
  const job = await running();
  const asked = ask(job);
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  const { writer, status } = upload(job);
  const chunks = chunksOf(job.whole);
  const written = feed(writer, chunks);
  const live = await asked;
  // It has its answer, and reads none of it.
  await runInDurableObject(job.stub, async () => {
    await vi.advanceTimersByTimeAsync(10_000);
  });
  await written;
  expect(await status).toBe(201);
  await expect(rest(readerOf(live))).rejects.toThrow();
});

test("BLK-4 JOB-12 an output may come before the word that its job has begun", async () => {
  const { wallet, lease, stub } = await funded(neighbours);
  const agent = await DataLine.dial(lease, [], undefined, { prefetches: true });
  for (const number of [1, 2]) {
    const json = { function: echo, inputs: { value: { number } }, max_price: "100000" };
    expect((await call(wallet, `/v1/leases/${lease}/jobs`, { json })).status).toBe(202);
  }
  const first = await agent.run();
  const run = await agent.run();
  expect(await stub.job(addressOf(wallet), run.job, 0)).toMatchObject({
    job: { status: "queued", attempts: [] },
  });
  const whole = crypto.getRandomValues(new Uint8Array(CHUNK));
  const job = { wallet, lease, stub, agent, run, whole, sha256: await sha256Hex(whole) };
  const put = upload(job);
  await put.writer.write(whole);
  await put.writer.close();
  expect(await put.status).toBe(201);
  agent.succeeded(first);
  agent.succeeded(run);
  await vi.waitFor(async () =>
    expect(await stub.job(addressOf(wallet), run.job, 0)).toMatchObject({
      job: { status: "succeeded", attempts: [{ n: 1, outcome: "succeeded" }] },
    }),
  );
});

test("BLK-4 only the attempt that is under way may upload, and only by its own node", async () => {
  const job = await running();
  const { wallet, agent, run, whole } = job;
  const put = async (path: string, by: Account = node) => {
    const request = await signed(by, requestOf(path, { method: "PUT", body: whole }));
    const headers = new Headers(request.headers);
    headers.set("content-length", String(whole.length));
    const response = await SELF.fetch(new Request(request, { headers, body: whole }));
    if (response.status === 201) return "201";
    const { code }: { code?: string } = await response.json();
    return `${response.status} ${code}`;
  };
  const path = pathOf(job, run);
  const other = { ...run, attempt: { ...run.attempt, n: run.attempt.n + 1 } };
  expect(await put(pathOf(job, other))).toBe("409 job_ended");
  expect(await put(path, wallet)).toBe("403 forbidden");
  expect(await put(path.replace(job.sha256, "0".repeat(64)))).toBe("400 digest_mismatch");
  expect(await put(path.replace("outputs/0", "outputs/99"))).toBe("422 invalid_request");
  expect(await put(path.replace(job.lease, unknownLease()))).toBe("410 lease_gone");
  expect(await put(path)).toBe("201");
  expect(await put(path)).toBe("201");
  agent.succeeded(run);
  await vi.waitFor(async () => expect(await put(path)).toBe("409 job_ended"));
  const plain = await SELF.fetch(`${ORIGIN}${path}`, { method: "PUT", body: "x" });
  expect(plain.status).toBe(401);
});

test("BLK-5 whoever waits too long is told so, and of a job that ended without it that there is none", async () => {
  const job = await running();
  const { wallet, run, agent } = job;
  const path = `/v1/jobs/${run.job}/outputs/0`;
  const early = await call(wallet, `${path}?wait=1`);
  expect([early.status, await early.json()]).toMatchObject([409, { code: "job_not_ended" }]);
  expect((await ask(job, { as: `0x${"99".repeat(20)}` })).status).toBe(403);
  const asked = call(wallet, `${path}?wait=60`);
  agent.failed(run);
  expect((await asked).status).toBe(404);
});
