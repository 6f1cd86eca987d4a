import { CLIENT_CLOSE, type FromClient } from "@gpux/protocol/client-frames";
import { problem } from "@gpux/protocol/errors";
import { jobIdOf, type LeaseId } from "@gpux/protocol/ids";
import { describe, expect, it } from "vitest";
import { type ClientOptions, createClient } from "./client.ts";
import { GpuxError } from "./error.ts";
import { consumer, lower } from "./testing/market.ts";
import { createScriptedEdge, refuse } from "./testing/scripted-edge.ts";
import { createScriptedDial, type ScriptedSocket } from "./testing/scripted-socket.ts";
import { createTestClock } from "./testing/test-clock.ts";

const input = (n: number, max_price = 1_000n) => ({
  function: "ab".repeat(32),
  inputs: { n: { number: n } },
  max_price,
});

function view(lease: LeaseId, n: number, status = "succeeded") {
  const path = `/v1/jobs/${n}`;
  return {
    id: jobIdOf(lease, new Uint8Array(16).fill(n)),
    object: "job",
    status,
    lease_id: lease,
    node: `0x${"ab".repeat(20)}`,
    function: "ab".repeat(32),
    created_at: "2026-11-23T00:00:00.000Z",
    attempts: [],
    max_price: "1000",
    price: "10",
    billed_ms: 1,
    outputs: [],
    urls: { get: path, events: `${path}/events`, cancel: `${path}/cancel` },
  };
}

async function setUp(options: Partial<ClientOptions> = {}) {
  const { timing, slept } = createTestClock();
  const edge = createScriptedEdge({ now: timing.now });
  const { dial, next } = createScriptedDial();
  const url = "https://edge.test";
  const client = createClient({ url, account: consumer, fetch: edge.fetch, timing, dial, ...options });
  const quote = await client.quotes.create();
  await client.leases.open(quote, { amount: 1_000_000n });
  const lease = quote.lease_id;
  const opening = client.leases.session(lease, { allowAhead: 5_000n });
  const socket = await next();
  return { client, edge, lease, next, opening, slept, socket, timing };
}

async function connected(options: Partial<ClientOptions> = {}) {
  const made = await setUp(options);
  made.socket.ready(made.lease);
  return { ...made, session: await made.opening };
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "none",
    (error: unknown) => (error instanceof GpuxError ? error.code : String(error)),
  );
}

/** The allowance that a frame's first job brings. */
function allowed(frame: FromClient): unknown {
  const first = frame.t === "batch" ? frame.requests[0] : frame.t === "job" ? frame.request : null;
  if (typeof first !== "object" || first === null || !("allowance" in first)) return undefined;
  const { allowance } = first;
  return typeof allowance === "object" && allowance !== null && "cumulative" in allowance
    ? allowance.cumulative
    : undefined;
}

function succeed(socket: ScriptedSocket, lease: LeaseId, frame: FromClient, n: number): void {
  socket.say({ t: "result", id: frame.id, job: view(lease, n) });
}

describe("leases.session", () => {
  it("signs its upgrade as a GET, as subprotocols, and resolves when the lease is ready", async () => {
    const { socket, lease, timing } = await connected();
    expect(socket.url).toBe(`wss://edge.test/v1/leases/${lease}/session`);
    expect(await socket.signer(timing.now())).toBe(lower(consumer.address));
  });

  it("throws what the upgrade was refused for, which only the same GET tells", async () => {
    const { opening, socket, edge, lease } = await setUp();
    edge.script(`GET /v1/leases/${lease}/session`, () => refuse("lease_closed"));
    socket.lose();
    expect(await codeOf(opening)).toBe("lease_closed");
  });

  it("gives up when nobody answers, after several tries further and further apart", async () => {
    const { opening, socket, edge, lease, next, slept } = await setUp();
    const path = `GET /v1/leases/${lease}/session`;
    for (let n = 0; n < 8; n += 1) edge.script(path, () => new Error("nobody there"));
    const code = codeOf(opening);
    socket.lose();
    for (let n = 1; n < 8; n += 1) (await next()).lose();
    expect(await code).toBe("network");
    expect(slept.length).toBeGreaterThanOrEqual(8);
    expect(Math.max(...slept)).toBeGreaterThan(slept[0] ?? 0);
  });

  it("lets the account sign where the session has no scope for it", async () => {
    const made = await setUp();
    const session = await made.client.session({ cap: 1n, scopes: ["read"] });
    made.socket.ready(made.lease);
    await made.opening;
    const path = `GET /v1/leases/${made.lease}/session`;
    made.edge.script(path, () => refuse("scope_missing"));
    made.socket.lose();
    const second = await made.next();
    await expect(second.signer(made.timing.now())).rejects.toThrow();
    second.lose();
    const third = await made.next();
    expect(await third.signer(made.timing.now())).toBe(lower(consumer.address));
    await session.close();
  });

  it("answers each request with its own job, whatever the order", async () => {
    const { session, socket, lease } = await connected();
    const seen: string[] = [];
    const first = session.run(input(1), {
      id: "one",
      onAccepted: ({ status }) => seen.push(`accepted ${status}`),
      onEvent: ({ data }) => seen.push(`event ${data.status}`),
    });
    const second = session.run(input(2));
    const [a, b] = [await socket.next(), await socket.next()];
    expect(a).toMatchObject({ t: "job", id: "one" });
    socket.say({ t: "accepted", id: "one", job: view(lease, 1, "starting") });
    succeed(socket, lease, b, 2);
    const event = { id: 1, job: view(lease, 1).id, at: "2026-11-23T00:00:00.000Z", type: "status" };
    socket.say({ t: "event", id: "one", event: { ...event, data: { status: "running" } } });
    socket.say({ t: "failed", id: "one", job: view(lease, 1, "failed") });
    expect((await first).status).toBe("failed");
    expect((await second).id).toBe(view(lease, 2).id);
    expect(seen).toEqual(["accepted starting", "event running"]);
  });

  it("answers a batch in its order when its last job has ended, and a cancel with how the job stands", async () => {
    const { session, socket, lease } = await connected();
    const batch = session.batch([input(1), input(2)]);
    const { id } = await socket.next();
    socket.say({ t: "result", id, index: 1, job: view(lease, 2) });
    socket.say({ t: "result", id, index: 0, job: view(lease, 1) });
    expect((await batch).map((job) => job.id)).toEqual([view(lease, 1).id, view(lease, 2).id]);
    const canceled = session.cancel(view(lease, 3).id);
    const frame = await socket.next();
    expect(frame).toMatchObject({ t: "cancel", job: view(lease, 3).id });
    socket.say({ t: "state", id: frame.id, job: view(lease, 3, "canceled") });
    expect((await canceled).status).toBe("canceled");
  });

  it("allows a block of spending at once, and signs again when that is used up", async () => {
    const { session, socket, lease } = await connected();
    const brought: unknown[] = [];
    for (let n = 1; n <= 8; n += 1) {
      const running = session.run(input(n, 2_000n));
      const frame = await socket.next();
      brought.push(allowed(frame));
      socket.say({ t: "result", id: frame.id, job: { ...view(lease, n), price: "2000" } });
      await running;
    }
    // 2,000 and 5,000 more; that covers 3 jobs.
    expect(brought).toEqual([
      "7000",
      undefined,
      undefined,
      "13000",
      undefined,
      undefined,
      "19000",
      undefined,
    ]);
  });

  it("signs no allowance above the limit, and asks again with more where the lease needs more", async () => {
    const { session, socket, lease, edge } = await connected({ spendLimit: 9_000n });
    expect(await codeOf(session.run(input(1, 9_001n)))).toBe("spend_limit");
    const running = session.run(input(1, 1_000n));
    const first = await socket.next();
    expect(allowed(first)).toBe("6000");
    const needed = { lease_id: lease, lease_hash: edge.quote.lease_hash, cumulative: "7500" };
    const refused = problem("allowance_required", "req_1", undefined, { allowance: needed });
    socket.say({ t: "refused", id: first.id, problem: refused });
    const again = await socket.next();
    expect({ id: again.id, allowed: allowed(again) }).toEqual({ id: first.id, allowed: "9000" });
    succeed(socket, lease, again, 1);
    await running;
  });

  it("dials again when the socket is lost, and asks for what was not answered under the same names", async () => {
    const { session, socket, lease, next, timing } = await connected();
    const running = [session.run(input(1)), session.run(input(2)), session.run(input(3))];
    const frames = [await socket.next(), await socket.next(), await socket.next()];
    const [first] = frames;
    if (first === undefined) throw new Error("three were sent");
    succeed(socket, lease, first, 1);
    await running[0];
    socket.lose(CLIENT_CLOSE.unauthorized);
    const later = session.run(input(4));
    const again = await next();
    expect(await again.signer(timing.now())).toBe(lower(consumer.address));
    again.ready(lease);
    const resent = [await again.next(), await again.next()];
    expect(resent).toEqual(frames.slice(1));
    resent.push(await again.next());
    for (const [n, frame] of resent.entries()) succeed(again, lease, frame, n + 2);
    expect((await Promise.all([...running, later])).length).toBe(4);
  });

  it("sends no more at once than the lease takes", async () => {
    const { session, socket, lease, next } = await connected();
    socket.lose();
    const again = await next();
    again.ready(lease, 2);
    const running = [1, 2, 3].map((n) => session.run(input(n)));
    const first = await again.next();
    const second = await again.next();
    expect(again.waiting).toBe(0);
    succeed(again, lease, second, 2);
    const third = await again.next();
    succeed(again, lease, first, 1);
    succeed(again, lease, third, 3);
    await Promise.all(running);
  });

  it("throws what is refused, with all that it promises, and goes on", async () => {
    const { session, socket, lease } = await connected();
    const wrong = session.batch([input(1), input(2)]);
    const { id } = await socket.next();
    const errors = [{ pointer: "/1", detail: "x" }];
    socket.say({ t: "refused", id, problem: problem("function_unknown", "req_9", undefined, { errors }) });
    await expect(wrong).rejects.toMatchObject({
      code: "function_unknown",
      status: 404,
      requestId: "req_9",
      problem: { errors },
    });
    const running = session.run(input(3));
    succeed(socket, lease, await socket.next(), 3);
    expect((await running).status).toBe("succeeded");
  });

  it("refuses before sending what the lease would close the socket for", async () => {
    const { session, socket } = await connected();
    const large = {
      ...input(1),
      inputs: { a: { base64: "A".repeat(30_000) }, b: { base64: "A".repeat(30_000) } },
    };
    expect(await codeOf(session.run(large))).toBe("request_invalid");
    expect(await codeOf(session.run({ ...input(1), max_price: "-1" }))).toBe("request_invalid");
    expect(await codeOf(session.cancel("no id"))).toBe("request_invalid");
    const running = session.run(input(1), { id: "same" });
    await socket.next();
    expect(await codeOf(session.run(input(1), { id: "same" }))).toBe("request_invalid");
    void running.catch(() => undefined);
    expect(socket.waiting).toBe(0);
  });

  it.each([
    [CLIENT_CLOSE.gone, "lease_closed"],
    [CLIENT_CLOSE.badFrame, "response_invalid"],
  ])("does not dial again after %i, and tells everybody", async (code, expected) => {
    const { session, socket } = await connected();
    const running = codeOf(session.run(input(1)));
    await socket.next();
    socket.lose(code);
    expect(await running).toBe(expected);
    expect(await codeOf(session.run(input(2)))).toBe(expected);
  });

  it("ends the wait of whoever aborts, and of everybody when it is closed", async () => {
    const { session, socket, lease } = await connected();
    const aborted = new AbortController();
    const one = codeOf(session.run(input(1), { signal: aborted.signal }));
    const frame = await socket.next();
    aborted.abort();
    expect(await one).toBe("aborted");
    // Its end changes nothing any more.
    succeed(socket, lease, frame, 1);
    const two = codeOf(session.run(input(2)));
    await socket.next();
    await session[Symbol.asyncDispose]();
    expect(await two).toBe("aborted");
    expect(await codeOf(session.run(input(3)))).toBe("aborted");
  });

  it("passes over what a newer edge says, and ends on what is no frame", async () => {
    const { session, socket, lease } = await connected();
    socket.say({ t: "made_up", id: "x" });
    const running = session.run(input(1));
    succeed(socket, lease, await socket.next(), 1);
    await running;
    const broken = codeOf(session.run(input(2)));
    await socket.next();
    socket.say({ t: "result", id: 7 });
    expect(await broken).toBe("response_invalid");
  });
});
