import { addresses } from "@gpux/protocol/addresses";
import { WellKnown } from "@gpux/protocol/answers";
import { digest } from "@gpux/protocol/eip712";
import { Address } from "@gpux/protocol/ids";
import { KeptIntent } from "@gpux/protocol/kept";
import { LeaseView } from "@gpux/protocol/lease";
import { expect, it } from "vitest";
import { type ClientOptions, createClient } from "./client.ts";
import { GpuxError } from "./error.ts";
import { consumer, domain, quoteAt, wellKnown } from "./testing/market.ts";
import { createScriptedEdge, list, refuse } from "./testing/scripted-edge.ts";
import { createTestClock } from "./testing/test-clock.ts";

const URL_OF_EDGE = "https://edge.test";
const request = { function: "ab".repeat(32), inputs: { n: { number: 8 } }, max_price: 50_000n };
const autoOpen = { maxAmount: 1_000_000n };

function setUp(options: Partial<ClientOptions> = {}) {
  const { timing, slept } = createTestClock();
  const edge = createScriptedEdge({ now: timing.now });
  const client = createClient({
    url: URL_OF_EDGE,
    account: consumer,
    autoOpen,
    fetch: edge.fetch,
    timing,
    ...options,
  });
  const refusal = async (work: Promise<unknown>) => {
    const error = await work.then(
      () => null,
      (reason: unknown) => reason,
    );
    if (!(error instanceof GpuxError)) throw new Error(`no refusal but ${String(error)}`);
    return error;
  };
  return { client, edge, slept, refusal };
}

const keysOf = (edge: ReturnType<typeof createScriptedEdge>) =>
  edge.seen.map((each) => each.headers.get("idempotency-key")).filter((key) => key !== null);

it("searches offers with the operators as they are, in base units where amounts come back", async () => {
  const { client, edge } = setUp();
  const found = await client.offers.search({ gpu_name: "SWIFTSHADER", "num_gpus[gte]": 4, order: "-score" });
  expect(found.data).toMatchObject([{ gpu_name: "SWIFTSHADER", rate_per_hour: 3_600_000n }]);
  expect(edge.seen[0]).toMatchObject({
    route: "GET /v1/offers",
    query: "?gpu_name=SWIFTSHADER&num_gpus%5Bgte%5D=4&order=-score",
    signer: null,
  });
});

it("opens the quoted lease, allows the job's price and sends it again under the same key", async () => {
  const { client, edge } = setUp({ allowAhead: 0n });
  const job = await client.jobs.create(request, { wait: 5 });
  expect(job.status).toBe("succeeded");
  expect(edge.routes()).toEqual([
    "GET /.well-known/gpux",
    "POST /v1/jobs",
    "POST /v1/leases",
    "POST /v1/jobs",
  ]);
  expect(new Set(keysOf(edge)).size).toBe(1);
  expect(edge.lease).toMatchObject({ amount: 900_000n, allowance: 50_000n });
});

it("adds to a lease, and then allows jobs as much more", async () => {
  const { client, edge, refusal } = setUp({ allowAhead: 0n });
  await client.jobs.create({ ...request, max_price: "900000" }, { wait: 5 });
  const id = edge.quote.lease_id;
  const lease = await client.leases.topUp(id, 1_000_000n);
  expect(lease.funded).toBe(1_900_000n);
  await client.jobs.create({ ...request, max_price: "1800000", lease: id }, { wait: 5 });
  expect(edge.lease?.allowance).toBe(1_840_000n);
  const other = { ...edge.quote.terms, payer: edge.quote.terms.provider };
  edge.script(`GET /v1/leases/${id}`, async () => {
    const view = LeaseView.encode({ ...lease, terms: other });
    return Response.json({ ...view, lease_hash: digest(domain, "LeaseTerms", other) });
  });
  expect(await refusal(client.leases.topUp(id, 1n))).toMatchObject({ code: "quote_mismatch" });
});

it("moves a lease's end, and adds to it on the way", async () => {
  const { client, edge } = setUp();
  await client.jobs.create({ ...request, max_price: "900000" }, { wait: 5 });
  const id = edge.quote.lease_id;
  expect((await client.leases.extend(id, 7_200)).funded).toBe(900_000n);
  expect((await client.leases.extend(id, 3_600, { amount: 100_000n })).funded).toBe(1_000_000n);
  expect(edge.extendedS).toBe(7_200);
});

it("gives each funding away to be kept before it leaves, and sends none that could not be kept", async () => {
  const kept: KeptIntent[] = [];
  const { client, edge } = setUp({
    keep: (funding) => {
      expect(edge.routes()).not.toContain("POST /v1/leases");
      kept.push(KeptIntent.parse(funding));
    },
  });
  await client.jobs.create(request, { wait: 5 });
  const { chain_id, escrow } = edge.quote.settlement;
  expect(kept).toMatchObject([
    { chain_id, escrow, intent: { kind: "fund", amounts: [900_000n], terms: [edge.quote.terms] } },
  ]);

  const full = setUp({ keep: () => Promise.reject(new Error("the disk is full")) });
  await expect(full.client.jobs.create(request)).rejects.toThrow("the disk is full");
  expect(full.edge.routes()).not.toContain("POST /v1/leases");
});

it("sends later jobs in one hop to the warm lease, with what the first one left over still in hand", async () => {
  const { client, edge } = setUp({ allowAhead: 0n });
  await client.jobs.create(request, { wait: 5 });
  edge.seen.length = 0;
  await client.jobs.create(request, { wait: 5 });
  expect(edge.routes()).toEqual([`POST /v1/leases/${edge.quote.lease_id}/jobs`]);
  // 40,000 were used by the first, 50,000 are the most for the second.
  expect(edge.lease?.allowance).toBe(90_000n);
});

it("books jobs that are sent at once one after another, so that each has its own allowance", async () => {
  const { client, edge } = setUp({ allowAhead: 0n });
  await client.jobs.create(request, { wait: 5 });
  await Promise.all([client.jobs.create(request), client.jobs.create(request), client.jobs.create(request)]);
  expect(edge.jobs.size).toBe(4);
  expect(edge.lease?.allowance).toBe(40_000n + 3n * 50_000n);
});

it("sends a batch in one request under one allowance for the sum, and once more where it needs more", async () => {
  const { client, edge, refusal } = setUp({ allowAhead: 0n });
  await client.jobs.create(request, { wait: 5 });
  const { lease_id: id, lease_hash } = edge.quote;
  const path = `POST /v1/leases/${id}/jobs`;
  edge.seen.length = 0;
  const needed = { lease_id: id, lease_hash, cumulative: "260000" };
  edge.script(path, () => refuse("allowance_required", { allowance: needed }));
  const inputs = [1, 2, 3].map((number) => ({ ...request, inputs: { n: { number } } }));
  const jobs = await client.jobs.batch(id, inputs, { wait: 5 });
  expect(jobs.map(({ status }) => status)).toEqual(["succeeded", "succeeded", "succeeded"]);
  expect(edge.routes()).toEqual([path, path]);
  expect(new Set(keysOf(edge)).size).toBe(1);
  const cumulatives = edge.seen.map(({ body }) =>
    JSON.parse(body).map((each: { allowance?: { cumulative: string } }) => each.allowance?.cumulative),
  );
  expect(cumulatives).toEqual([
    ["190000", undefined, undefined],
    ["260000", undefined, undefined],
  ]);
  // What they did not use is in hand for the next one: 70,000 of others, and 4 x 40,000 are spent.
  await client.jobs.create(request, { wait: 5 });
  expect(JSON.parse(edge.seen.at(-1)?.body ?? "").allowance.cumulative).toBe("280000");

  const dear = inputs.map((each) => ({ ...each, max_price: 300_000n }));
  expect((await refusal(client.jobs.batch(id, dear))).code).toBe("spend_limit");
  edge.script(path, () => refuse("lease_underfunded", { errors: [{ pointer: "/1", detail: "too much" }] }));
  const refused = await refusal(client.jobs.batch(id, inputs));
  expect(refused.problem).toMatchObject({ code: "lease_underfunded", errors: [{ pointer: "/1" }] });
});

it("answers allowance_required on a lease that another process opened, up to what it was funded with", async () => {
  const first = setUp({ allowAhead: 0n });
  await first.client.jobs.create(request, { wait: 5 });
  const second = createClient({
    url: URL_OF_EDGE,
    account: consumer,
    allowAhead: 0n,
    fetch: first.edge.fetch,
    timing: createTestClock().timing,
  });
  first.edge.seen.length = 0;
  await second.jobs.create(request, { wait: 5 });
  const { lease_id } = first.edge.quote;
  expect(first.edge.routes().slice(1)).toEqual([
    "POST /v1/jobs",
    `GET /v1/leases/${lease_id}`,
    "POST /v1/jobs",
  ]);
  expect(first.edge.lease?.allowance).toBe(90_000n);
});

it("signs no allowance above the caller's limit, whatever the edge asks for", async () => {
  const { client, edge, refusal } = setUp({ allowAhead: 0n, spendLimit: 60_000n });
  await client.jobs.create(request, { wait: 5 });
  const { lease_id, lease_hash } = edge.quote;
  edge.script(`POST /v1/leases/${lease_id}/jobs`, () =>
    refuse("allowance_required", { allowance: { lease_id, lease_hash, cumulative: "60001" } }),
  );
  const error = await refusal(client.jobs.create({ ...request, max_price: 20_000n }));
  expect(error.code).toBe("spend_limit");
  const allowed = edge.seen.map((each) => /"cumulative":"(\d+)"/.exec(each.body)?.[1]).filter(Boolean);
  expect(allowed).toEqual(["50000", "60000"]);
});

it("opens nothing without leave, and hands the caller the quote", async () => {
  const { timing } = createTestClock();
  const edge = createScriptedEdge({ now: timing.now });
  const client = createClient({ url: URL_OF_EDGE, account: consumer, fetch: edge.fetch, timing });
  await expect(client.jobs.create(request)).rejects.toMatchObject({
    code: "payment_required",
    status: 402,
    problem: { quote: { lease_id: edge.quote.lease_id } },
  });
  expect(edge.routes()).not.toContain("POST /v1/leases");
});

it("opens nothing for a job that may cost more than autoOpen allows", async () => {
  const { client, edge, refusal } = setUp({ autoOpen: { maxAmount: 40_000n } });
  expect((await refusal(client.jobs.create(request))).code).toBe("spend_limit");
  expect(edge.lease).toBeNull();
});

it("signs nothing when the edge quotes another rate than the caller's limit", async () => {
  const { client, edge, refusal } = setUp({ autoOpen: { ...autoOpen, maxRatePerHour: 3_599_999n } });
  const error = await refusal(client.jobs.create(request));
  expect(error).toMatchObject({
    code: "quote_mismatch",
    detail: expect.stringContaining("terms.ratePerHour"),
  });
  expect(edge.lease).toBeNull();
});

it("signs nothing when the edge names another escrow than the pinned one", async () => {
  const { edge, refusal } = setUp();
  const settlement = { ...edge.quote.settlement, escrow: `0x${"bb".repeat(20)}` as const };
  const client = createClient({
    url: URL_OF_EDGE,
    account: consumer,
    fetch: edge.fetch,
    autoOpen,
    settlement,
  });
  expect((await refusal(client.wellKnown())).code).toBe("quote_mismatch");
});

it("takes another escrow on a chain that it knows for a trap, unless it is pinned", async () => {
  const answer = (escrow: string, usdc: string) => ({
    ...wellKnown,
    settlement: { ...wellKnown.settlement, chain_id: 10, escrow, token: usdc },
  });
  const { escrow, usdc } = addresses[10] ?? { escrow: "", usdc: "" };
  const other = `0x${"bb".repeat(20)}` as const;
  for (const [named, trusted] of [
    [answer(escrow, usdc), true],
    [answer(other, usdc), false],
    [answer(escrow, other), false],
  ] as const) {
    const options = { url: URL_OF_EDGE, account: consumer, fetch: async () => Response.json(named) };
    const asked = createClient(options).wellKnown();
    if (trusted) expect((await asked).settlement.escrow).toBe(escrow);
    else await expect(asked).rejects.toMatchObject({ code: "quote_mismatch" });
    const { settlement } = WellKnown.parse(named);
    expect((await createClient({ ...options, settlement }).wellKnown()).settlement).toEqual(settlement);
  }
});

it("chooses again when its warm lease was closed meanwhile", async () => {
  const { client, edge } = setUp();
  await client.jobs.create(request, { wait: 5 });
  const { lease_id } = edge.quote;
  edge.script(`POST /v1/leases/${lease_id}/jobs`, () => {
    edge.quote = quoteAt(Date.parse("2026-11-22T12:00:00Z"), { text: { salt: `0x${"5b".repeat(32)}` } });
    edge.lease = null;
    return refuse("lease_closed");
  });
  const job = await client.jobs.create(request, { wait: 5 });
  expect(job.lease_id).toBe(edge.quote.lease_id);
  expect(job.lease_id).not.toBe(lease_id);
});

it("retries what was cut off under the same key with a fresh nonce, and runs the job once", async () => {
  const { client, edge, slept } = setUp();
  await client.jobs.create(request, { wait: 5 });
  edge.seen.length = 0;
  const path = `POST /v1/leases/${edge.quote.lease_id}/jobs`;
  edge.script(path, () => new TypeError("socket hang up"));
  edge.script(path, () => refuse("queue_full", {}, { "retry-after": "3" }));
  await client.jobs.create(request, { idempotencyKey: "mine-1" });
  expect(keysOf(edge)).toEqual(["mine-1", "mine-1", "mine-1"]);
  expect(new Set(edge.seen.map((each) => each.nonce)).size).toBe(3);
  expect(slept).toEqual([250, 3_000]);
  expect(edge.jobs.size).toBe(2);
});

it.each([
  ["idempotency_in_progress", 3],
  ["no_capacity", 3],
  ["internal", 3],
  ["queue_full", 3],
  ["signature_invalid", 1],
  ["job_ended", 1],
  ["insufficient_funds", 1],
] as const)("asks %s's request %i times in all", async (code, times) => {
  const { client, edge, refusal } = setUp();
  const path = "POST /v1/quotes";
  edge.script(path, ...Array.from({ length: 3 }, () => () => refuse(code)));
  expect(await refusal(client.quotes.create())).toMatchObject({ code, requestId: "req_test" });
  expect(edge.routes().filter((route) => route === path)).toHaveLength(times);
});

it("tells a proxy's page from the edge's refusals", async () => {
  const { client, edge, refusal } = setUp({ maxRetries: 0 });
  edge.script("POST /v1/quotes", () => new Response("<h1>Bad gateway</h1>", { status: 502 }));
  expect(await refusal(client.quotes.create())).toMatchObject({
    code: "response_invalid",
    status: 502,
    retryable: true,
  });
});

it("refuses an answer outside the schema", async () => {
  const { client, edge, refusal } = setUp();
  edge.script("POST /v1/quotes", () => Response.json({ object: "quote", amount: 5 }));
  expect((await refusal(client.quotes.create())).code).toBe("response_invalid");
});

it("refuses a request outside the schema before it is sent", async () => {
  const { client, edge, refusal } = setUp();
  expect((await refusal(client.jobs.create({ ...request, max_price: "-1" }))).code).toBe("request_invalid");
  expect(edge.seen).toHaveLength(0);
});

it("stops at the caller's signal", async () => {
  const { client, refusal } = setUp();
  const error = await refusal(client.jobs.create(request, { signal: AbortSignal.abort() }));
  expect(error.code).toBe("aborted");
});

it("sends an object once, and refuses bytes that are not what their hash says", async () => {
  const { client, edge, refusal } = setUp();
  const sha256 = await client.objects.put(new Uint8Array([1, 2, 3]));
  await client.objects.put(new Uint8Array([1, 2, 3]));
  expect(edge.routes().filter((route) => route.startsWith("PUT"))).toHaveLength(1);
  expect(await client.objects.get(sha256)).toEqual(new Uint8Array([1, 2, 3]));
  edge.objects.set(sha256, new Uint8Array([1, 2, 4]));
  expect((await refusal(client.objects.get(sha256))).code).toBe("object_mismatch");
});

it("gets an output that has yet to come, checked against the hash that comes with it", async () => {
  const { client, edge, refusal } = setUp();
  const job = await client.jobs.create(request);
  const path = `GET /v1/jobs/${job.id}/outputs/3`;
  const bytes = new TextEncoder().encode("as it comes");
  const hash = Buffer.from(await crypto.subtle.digest("SHA-256", bytes)).toString("base64");
  const headers = { "repr-digest": `sha-256=:${hash}:` };
  edge.script(path, () => new Response(bytes, { headers }));
  expect(await client.jobs.awaitOutput(job.id, 3, { wait: 20 })).toEqual(bytes);
  expect(edge.seen.at(-1)?.query).toBe("?wait=20");
  edge.script(path, () => new Response("others", { headers }));
  expect((await refusal(client.jobs.awaitOutput(job.id, 3))).code).toBe("object_mismatch");
  edge.script(path, () => new Response(bytes));
  expect((await refusal(client.jobs.awaitOutput(job.id, 3))).code).toBe("response_invalid");
});

it("checks an output's bytes, and signs nothing for another origin", async () => {
  const { client, edge, refusal } = setUp();
  const job = await client.jobs.create(request, { wait: 5 });
  expect(new TextDecoder().decode(await client.jobs.output(job, 0))).toBe("a picture");
  const elsewhere = {
    ...job,
    outputs: job.outputs.map((output) => ({ ...output, url: "https://bytes.test/x" })),
  };
  edge.script("GET /x", () => new Response("a pictur3"));
  expect((await refusal(client.jobs.output(elsewhere, 0))).code).toBe("object_mismatch");
  expect(edge.seen.at(-1)?.headers.has("signature")).toBe(false);
});

it("looks at one node, without a signature", async () => {
  const { client, edge } = setUp();
  const id = Address.parse(`0x${"01".repeat(20)}`);
  edge.script(`GET /v1/nodes/${id}`, () => Response.json({ ...edge.nodeView(), id }));
  expect(await client.nodes.get(id)).toMatchObject({ id, object: "node" });
  expect(edge.seen.at(-1)?.headers.has("signature")).toBe(false);
});

it("walks a list to its end, and not in circles", async () => {
  const { client, edge } = setUp();
  const [first, second] = [`0x${"01".repeat(20)}`, `0x${"02".repeat(20)}`];
  const page = (id: string) => () => list([{ ...edge.nodeView(), id }], true);
  edge.script("GET /v1/nodes", page(first), page(second), page(second));
  const nodes = [];
  for await (const node of client.nodes.list()) nodes.push(node.id);
  expect(nodes).toEqual([first, second, second]);
});
