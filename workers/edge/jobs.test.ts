import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import {
  type Account,
  addressOf,
  CHAIN_ID,
  call,
  newAccount,
  type Sent,
} from "@gpux/durable-objects/testing/client";
import { ECHO } from "@gpux/durable-objects/testing/echo";
import { store } from "@gpux/durable-objects/testing/functions";
import { offerOf, ScriptedAgent } from "@gpux/durable-objects/testing/scripted-agent";
import { digest, escrowDomain } from "@gpux/protocol/eip712";
import { JobEvent, JobView } from "@gpux/protocol/job";
import { Quote } from "@gpux/protocol/lease";
import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";

const MODEL = "JOBS_TEST";
const account = newAccount();
let quote: Quote;
let job: object;

/** A lease whose funding the chain has not seen yet: it takes jobs, which wait. */
beforeAll(async () => {
  const agent = await ScriptedAgent.listed(offerOf(MODEL));
  const asking = call(account, "/v1/quotes", { json: { demand: { gpu_model: MODEL } } });
  await agent.confirm();
  quote = Quote.parse(await (await asking).json());
  const funding = {
    amount: quote.amount.toString(),
    salt: `0x${"5a".repeat(32)}`,
    valid_before: Math.floor(Date.now() / 1000) + 600,
    signature: `0x${"11".repeat(65)}`,
  };
  const opened = await call(account, "/v1/leases", { json: { lease: quote.lease_id, funding } });
  expect([opened.status, await opened.json()]).toMatchObject([201, { status: "funding" }]);
  expect(opened.headers.get("location")).toBe(`/v1/leases/${quote.lease_id}`);
  job = {
    function: await store(account, ECHO),
    inputs: { value: { number: 1 } },
    max_price: "1000",
    allowance: await allowance(account, 500_000n),
  };
});

async function allowance(by: Account, cumulative: bigint) {
  const domain = escrowDomain({ chainId: CHAIN_ID, escrow: quote.settlement.escrow });
  const hash = digest(domain, "Allowance", { leaseId: quote.lease_hash, cumulative });
  return { cumulative: cumulative.toString(), signature: await by.sign({ hash }) };
}

async function send(path: string, sent: Sent = {}, by = account) {
  const response = await call(by, path, sent);
  const body: Record<string, unknown> = await response.json();
  return { response, body };
}
const withKey = (key: string, change: Sent = {}): Sent => ({
  json: job,
  headers: { "idempotency-key": key },
  ...change,
});

describe.each([
  ["the warm path", () => `/v1/leases/${quote.lease_id}/jobs`],
  ["the routed path, which finds the warm lease", () => "/v1/jobs"],
])("%s", (name, path) => {
  test("takes a job, and the same request again is the same job", async () => {
    const key = `key of ${name}`.replaceAll(/\W/g, "-");
    const first = await send(path(), withKey(key));
    expect(first.response.status).toBe(202);
    const { id, urls } = JobView.parse(first.body);
    expect(first.response.headers.get("location")).toBe(urls.get);
    expect(first.response.headers.get("idempotent-replayed")).toBeNull();
    const again = await send(path(), withKey(key));
    expect([again.response.status, again.body.id]).toEqual([200, id]);
    expect(again.response.headers.get("idempotent-replayed")).toBe("true");
    const other = await send(path(), withKey(key, { json: { ...job, inputs: { value: { number: 2 } } } }));
    expect(other.body.code).toBe("idempotency_key_reused");
  });

  test("asks for the allowance that a job needs", async () => {
    const { response, body } = await send(path(), { json: { ...job, max_price: "600000" } });
    expect(response.status).toBe(402);
    expect(body).toMatchObject({ code: "allowance_required", allowance: { lease_id: quote.lease_id } });
  });

  test("refuses an allowance that another signed", async () => {
    const forged = { ...job, max_price: "600000", allowance: await allowance(newAccount(), 700_000n) };
    expect((await send(path(), { json: forged })).body.code).toBe("allowance_invalid");
  });

  test("says that it waited as asked", async () => {
    const { response } = await send(path(), { json: job, headers: { prefer: "wait=1" } });
    expect([response.status, response.headers.get("preference-applied")]).toEqual([202, "wait=1"]);
  });
});

test("both paths agree on which job a key stands for", async () => {
  const warm = await send(`/v1/leases/${quote.lease_id}/jobs`, withKey("both-paths"));
  const routed = await send("/v1/jobs", withKey("both-paths"));
  expect([routed.response.status, routed.body.id]).toEqual([200, warm.body.id]);
});

describe("an array of jobs", () => {
  const path = () => `/v1/leases/${quote.lease_id}/jobs`;
  const batch = (...changes: object[]) => changes.map((change) => ({ ...job, ...change }));
  const values = (...numbers: number[]) =>
    batch(...numbers.map((number) => ({ inputs: { value: { number } } })));
  const open = async () => (await send(`/v1/leases/${quote.lease_id}`)).body.jobs_open;
  const JobList = z.object({ object: z.literal("list"), data: z.array(JobView), has_more: z.literal(false) });

  test("is taken as a list in its order, and under its key it is the same jobs again", async () => {
    const first = await send(path(), withKey("batch", { json: values(3, 1, 2) }));
    const { data } = JobList.parse(first.body);
    expect([first.response.status, data.map(({ status }) => status)]).toEqual([202, Array(3).fill("queued")]);
    expect(data.map(({ wait }) => wait?.position)).toEqual(
      data.map((_, index) => (data[0]?.wait?.position ?? Number.NaN) + index),
    );
    await evictDurableObject(env.LEASE.getByName(quote.lease_id));
    const again = await send(path(), withKey("batch", { json: values(3, 1, 2) }));
    expect([again.response.status, again.response.headers.get("idempotent-replayed")]).toEqual([200, "true"]);
    expect(JobList.parse(again.body).data.map(({ id }) => id)).toEqual(data.map(({ id }) => id));
  });

  test.each([
    ["fewer jobs", () => values(3, 1)],
    ["more jobs", () => values(3, 1, 2, 4)],
    ["another order", () => values(1, 3, 2)],
    ["its first job alone", () => values(3)[0]],
  ])("is another request with %s, which its key refuses", async (_, json) => {
    const { response, body } = await send(path(), withKey("batch", { json: json() }));
    expect([response.status, body.code]).toEqual([422, "idempotency_key_reused"]);
  });

  test.each([
    ["price", 402, "allowance_required", () => batch({}, {}, { max_price: "600000" }, {})],
    ["funding", 402, "lease_underfunded", () => batch({}, {}, { max_price: "9000000000000" })],
    ["input", 422, "input_invalid", () => batch({}, {}, { inputs: {} })],
    ["function", 404, "function_unknown", () => batch({}, {}, { function: "0".repeat(64) })],
  ])(
    "is not taken at all for the %s of one job, at which the refusal points",
    async (_, status, code, json) => {
      const before = await open();
      const { response, body } = await send(path(), { json: json() });
      expect([response.status, body]).toMatchObject([status, { code, errors: [{ pointer: "/2" }] }]);
      expect(await open()).toBe(before);
    },
  );

  test("is told the allowance that all of its jobs need together", async () => {
    const { body: lease } = await send(`/v1/leases/${quote.lease_id}`);
    const { body } = await send(path(), {
      json: batch({}, { max_price: "600000" }, { max_price: "600000" }),
    });
    expect(body.allowance).toMatchObject({ cumulative: (Number(lease.committed) + 1_201_000).toString() });
  });

  test("is refused for an allowance that another signed, and takes the highest that its jobs bring", async () => {
    const forged = await allowance(newAccount(), 800_000n);
    const { body } = await send(path(), { json: batch({}, { allowance: forged }) });
    expect(body).toMatchObject({ code: "allowance_invalid", errors: [{ pointer: "/1" }] });
    const raised = { max_price: "500000", allowance: await allowance(account, 700_000n) };
    expect((await send(path(), { json: batch({}, raised) })).response.status).toBe(202);
  });

  test.each([
    ["no job", () => [], ""],
    ["65 jobs", () => Array(65).fill(job), ""],
    ["a field too many in one", () => batch({}, { extra: 1 }), "/1"],
  ])("of %s does not fit the schema", async (_, json, pointer) => {
    const { response, body } = await send(path(), { json: json() });
    expect([response.status, body.code]).toEqual([422, "invalid_request"]);
    expect(body.errors).toMatchObject([{ pointer: expect.stringContaining(pointer) }]);
  });
});

test("a lease is for its own parties", async () => {
  const { response, body } = await send(`/v1/leases/${quote.lease_id}/jobs`, { json: job }, newAccount());
  expect([response.status, body.code]).toEqual([403, "forbidden"]);
});

test("a client-made id is idempotent and finds the job in every route", async () => {
  const put: Sent = { method: "PUT", json: job };
  const { body: first } = await send("/v1/jobs/my-first-job", put);
  expect(first).toMatchObject({ client_id: "my-first-job" });
  await evictDurableObject(env.ACCOUNT.getByName(addressOf(account)));
  expect((await send("/v1/jobs/my-first-job", put)).body.id).toBe(first.id);
  expect((await send("/v1/jobs/my-first-job")).body.id).toBe(first.id);
  expect((await send(`/v1/jobs/${first.id}`)).body.client_id).toBe("my-first-job");
  expect((await send("/v1/jobs/my-first-job", {}, newAccount())).body.code).toBe("job_unknown");
  expect((await send("/v1/jobs/my-first-job/cancel", { method: "POST" })).body.status).toBe("canceled");
  expect((await send("/v1/jobs/my-first-job/outputs/0")).body.code).toBe("object_unknown");
});

/** Reads server-sent events to the stream's end. */
async function events(response: Response): Promise<{ id: number; event: string; data: JobEvent }[]> {
  const text = await response.text();
  return text.split("\n\n").flatMap((block) => {
    const fields = new Map(
      block.split("\n").map((line): [string, string] => {
        const [name = "", ...rest] = line.split(": ");
        return [name, rest.join(": ")];
      }),
    );
    const data = fields.get("data");
    if (data === undefined) return [];
    return [
      {
        id: Number(fields.get("id")),
        event: fields.get("event") ?? "",
        data: JobEvent.parse(JSON.parse(data)),
      },
    ];
  });
}

test("a job's events stream to its end, and again from where a reader was cut", async () => {
  const { body } = await send(`/v1/leases/${quote.lease_id}/jobs`, withKey("streamed"));
  const path = `/v1/jobs/${body.id}/events`;
  const stream = await call(account, path);
  expect(stream.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
  const [all] = await Promise.all([events(stream), send(`/v1/jobs/${body.id}/cancel`, { method: "POST" })]);
  expect(all.map(({ data }) => data.data.status)).toEqual(["queued", "canceled"]);
  for (const { id, event, data } of all) expect([id, event]).toEqual([data.id, data.type]);
  const resumed = await call(account, path, { headers: { "last-event-id": String(all[0]?.id) } });
  expect(await events(resumed)).toEqual(all.slice(1));
});

test("a reader that leaves closes the lease's socket", async () => {
  const { body } = await send(`/v1/leases/${quote.lease_id}/jobs`, withKey("left"));
  const stream = await call(account, `/v1/jobs/${body.id}/events`);
  const reader = stream.body?.getReader();
  await reader?.read();
  await reader?.cancel();
  const canceled = await send(`/v1/jobs/${body.id}/cancel`, { method: "POST" });
  expect(canceled.body.status).toBe("canceled");
});

test("a lease is listed while it lives, and cannot be closed before its funding is decided", async () => {
  const { body } = await send("/v1/leases");
  expect(body).toMatchObject({ data: [{ id: quote.lease_id }], has_more: false });
  const closing = await send(`/v1/leases/${quote.lease_id}/close`, { method: "POST" });
  expect([closing.response.status, closing.body.code]).toEqual([409, "lease_closed"]);
});
