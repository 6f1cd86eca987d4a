import { devnetAccount } from "@gpux/contracts/roles";
import { ERRORS, type ErrorCode, JOB_FAILURES, type JobFailureCode } from "@gpux/protocol/errors";
import type { JobView } from "@gpux/protocol/job";
import { NodeView, Quote } from "@gpux/protocol/lease";
import { type Account, type Client, GpuxError } from "@gpux/sdk";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { BAD_REQUESTS, TRESPASSES } from "./testing/bad-requests.ts";
import { BAD_SIGNATURES, unsignedJob } from "./testing/bad-signatures.ts";
import { FAILING_JOBS, FOREVER, shader, type Work } from "./testing/failing-jobs.ts";
import { type Ground, jobBody, store, warmPath } from "./testing/ground.ts";
import { type Market, openMarket, until } from "./testing/market.ts";
import { type Answered, problemOf, type Requests, requestsTo, type Sent } from "./testing/signed-requests.ts";

// The table of issue 2, "Bad input", over HTTP against a whole market: each refusal has its code, status and hint,
// and changes nothing that anybody could see or that anybody paid.

const consumer = devnetAccount("consumer").account;
const stranger = privateKeyToAccount(generatePrivateKey());
const MAX_PRICE = 5_000n;

let market: Market;
let client: Client;
let requests: Requests;
let echo = "";

beforeAll(async () => {
  market = await openMarket();
  // What one job may cost is allowed for that job alone, so that another is not covered.
  client = market.client({ allowAhead: 0n });
  requests = requestsTo(market.edge.url, market.devnet.chainId);
  echo = await store(client);
});
afterAll(() => market?.stop());

async function node(): Promise<NodeView> {
  return NodeView.parse(
    (await requests.send(requests.of(`/v1/nodes/${devnetAccount("agent").address}`))).body,
  );
}

async function ask(path: string, sent: Sent = {}, account: Account = consumer): Promise<Answered> {
  return requests.send(await requests.signed(account, requests.of(path, sent)));
}

/** RFC 9457, and everything that the table promises for the code. */
function expectProblem(answer: Answered, code: ErrorCode): void {
  const { status, title, hint, fault, retryable } = ERRORS[code];
  expect(answer.body).toMatchObject({ code, status, title, hint, fault, retryable });
  expect(answer.status).toBe(status);
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  const { request_id } = problemOf(answer);
  expect(request_id).toMatch(/^req_[0-9a-f]{32}$/);
  expect(answer.headers.get("x-request-id")).toBe(request_id);
}

/** What there is to see of money, leases, jobs and machines. */
async function world(lease: string | null, jobs: readonly string[]) {
  const idsOf = async (of: Client) => {
    const ids: string[] = [];
    for await (const { id } of of.leases.list()) ids.push(id);
    return ids;
  };
  const { gpus_free, status } = await node();
  return {
    balances: await market.ledger.balances(),
    owed: await market.ledger.owed(),
    leases: await Promise.all([client, market.client({ account: stranger })].map(idsOf)),
    lease: lease === null ? null : await client.leases.get(lease),
    jobs: await Promise.all(jobs.map((id) => client.jobs.get(id))),
    node: { gpus_free, status },
  };
}

describe("before anybody has a lease", () => {
  const demand = { max_rate_per_hour: "1" };

  test.each([
    ["a quote", "/v1/quotes", () => ({ demand })],
    ["a job", "/v1/jobs", () => jobBody({ echo }, { demand })],
  ])("price_below_offers: %s below every offer, with what blocks it", async (_, path, json) => {
    const before = await world(null, []);
    const answer = await ask(path, { json: json() });
    expectProblem(answer, "price_below_offers");
    expect(answer.body).toMatchObject({ wait: { possible: false, blockers: { price: 1 } } });
    expect(await world(null, [])).toEqual(before);
  });

  test("payment_required, then insufficient_funds: a consumer without USDC gets a quote and no lease", async () => {
    const before = await world(null, []);
    const answer = await ask("/v1/jobs", { json: jobBody({ echo }) }, stranger);
    expectProblem(answer, "payment_required");
    const { quote } = z.looseObject({ quote: Quote }).parse(answer.body);
    const refused = await market
      .client({ account: stranger })
      .leases.open(quote)
      .catch((error: unknown) => error);
    const { status, hint } = ERRORS.insufficient_funds;
    expect(refused).toBeInstanceOf(GpuxError);
    expect(refused).toMatchObject({ code: "insufficient_funds", status, hint });
    expect(refused).toHaveProperty("requestId", expect.stringMatching(/^req_/));
    await until(async () => (await node()).gpus_free === before.node.gpus_free, "the node is free again");
    expect(await world(null, [])).toEqual(before);
  });
});

describe("on a lease", () => {
  let ground: Ground;
  /** All that were taken. */
  const jobs: string[] = [];

  beforeAll(async () => {
    const first = await run({ function: echo, inputs: { value: { number: 1 } } });
    expect(first.status).toBe("succeeded");
    ground = { client, requests, consumer, stranger, echo, first, allowed: MAX_PRICE };
    await settled();
  });

  const lease = () => client.leases.get(ground.first.lease_id);
  const seen = () => world(ground.first.lease_id, jobs);

  /** By the SDK, which signs allowances as they are needed. */
  async function run(work: Work): Promise<JobView> {
    const job = await client.jobs.run({ max_price: MAX_PRICE, ...work });
    jobs.push(job.id);
    return job;
  }

  /** Receipts are signed after the answer: the world stands still when the last one is. */
  async function settled(): Promise<void> {
    await until(async () => {
      const { voucher, spent } = await lease();
      return voucher !== undefined && voucher.meter_signature !== null && voucher.cumulative === spent;
    }, "the meter has signed all that was used");
  }

  test.each(BAD_REQUESTS)("%s: %s", async (_, code, make) => {
    const [path, sent] = await make(ground);
    const before = await seen();
    expectProblem(await ask(path, sent), code);
    expect(await seen()).toEqual(before);
  });

  test.each(TRESPASSES)("a stranger may not %s of somebody else's: %s", async (_, code, make) => {
    const [path, sent] = await make(ground);
    const before = await seen();
    expectProblem(await ask(path, sent, stranger), code);
    expect(await seen()).toEqual(before);
  });

  test.each(BAD_SIGNATURES)("%s: %s", async (_, code, answer) => {
    const before = await seen();
    expectProblem(await answer(ground), code);
    expect(await seen()).toEqual(before);
  });

  test("a replayed signature: signature_replayed", async () => {
    const before = await seen();
    const quote = await requests.signed(consumer, requests.of("/v1/quotes", { json: {} }));
    // Its only GPU is leased, which the first answer says; the second does not even look.
    expectProblem(await requests.send(quote.clone()), "no_capacity");
    expectProblem(await requests.send(quote), "signature_replayed");
    expect(await seen()).toEqual(before);
  });

  test("ACK-2 a replayed job of the warm path is the same job, once", async () => {
    const { jobs_ended } = await lease();
    const request = await requests.signed(consumer, unsignedJob(ground));
    const [once, again] = [await requests.send(request.clone()), await requests.send(request)];
    const { id } = z.looseObject({ id: z.string() }).parse(once.body);
    expect(again.body).toMatchObject({ id });
    expect(again.headers.get("idempotent-replayed")).toBe("true");
    expect(await client.jobs.wait(id)).toMatchObject({ status: "succeeded" });
    jobs.push(id);
    await settled();
    expect((await lease()).jobs_ended).toBe(jobs_ended + 1);
  });

  /** A job that was taken, and failed by its sender's fault. */
  async function failing(work: Work, code: JobFailureCode, status: JobView["status"]) {
    const before = await seen();
    const failed = await client.jobs.run({ max_price: MAX_PRICE, ...work });
    const { title, hint } = JOB_FAILURES[code];
    expect(failed).toMatchObject({ status, error: { code, title, hint, fault: "tenant" }, outputs: [] });
    const after = await seen();
    expect({ ...after, lease: null }).toEqual({ ...before, lease: null });
    const spent = (after.lease?.spent ?? 0n) - (before.lease?.spent ?? 0n);
    expect((after.lease?.committed ?? 0n) - (before.lease?.committed ?? 0n)).toBe(spent);
    return { failed, spent };
  }

  test.each(FAILING_JOBS)("%s: %s, with the reason, not charged", async (_, code, reason, work) => {
    const { failed, spent } = await failing(await work(ground), code, "failed");
    expect(failed.error?.detail).toMatch(reason);
    expect([failed.price, failed.billed_ms, spent]).toEqual([0n, 0, 0n]);
  });

  test("WGSL that loops for ever: killed at the limit, charged until there, and the next job runs", async () => {
    const forever = { ...(await shader(ground, FOREVER)), timeouts: { execution_s: 2 } };
    const { failed, spent } = await failing(forever, "execution_timeout", "timed_out");
    expect(failed.billed_ms).toBe(2_000);
    expect(failed.price).toBe(spent);
    expect(await run({ function: echo, inputs: { value: { number: 1 } } })).toMatchObject({
      status: "succeeded",
    });
  });

  test("after all of it the lease closes on exactly what its jobs cost", async () => {
    const before = await market.ledger.balances();
    const { spent, funded } = await lease();
    await market.close(client, ground.first.lease_id);
    const after = await market.ledger.balances();
    expect(after.provider + after.fee_recipient - before.provider - before.fee_recipient).toBe(spent);
    expect(after.consumer - before.consumer).toBe(funded - spent);
    expect(after.escrow).toBe(0n);
    expectProblem(await ask(warmPath(ground), { json: jobBody(ground) }), "lease_closed");
  });
});
