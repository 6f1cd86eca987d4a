import type { JobEvent } from "@gpux/protocol/job";
import { expect, it } from "vitest";
import { createClient } from "./client.ts";
import { consumer } from "./testing/market.ts";
import { createScriptedEdge, frame, refuse } from "./testing/scripted-edge.ts";
import { createTestClock } from "./testing/test-clock.ts";

const request = { function: "ab".repeat(32), max_price: 50_000n };
const QUEUED = frame(3, "status", { status: "queued" });
const RUNNING = frame(5, "status", { status: "running" });
const HALF = frame(5, "progress", { fraction: 0.5 });
const DONE = frame(9, "status", { status: "succeeded" });

async function setUp() {
  const { timing, slept } = createTestClock();
  const edge = createScriptedEdge({ now: timing.now });
  const autoOpen = { maxAmount: 1_000_000n };
  const client = createClient({
    url: "https://edge.test",
    account: consumer,
    autoOpen,
    fetch: edge.fetch,
    timing,
  });
  const { id } = await client.jobs.create(request);
  const asked = () =>
    edge.seen
      .filter((each) => each.route.endsWith("/events"))
      .map((each) => each.headers.get("last-event-id"));
  return { edge, client, id, slept, asked };
}

async function idsOf(events: AsyncIterable<JobEvent>) {
  const ids = [];
  for await (const event of events) ids.push(`${event.id} ${event.type}`);
  return ids;
}

it("resumes a cut stream after the last event it saw, and drops what comes again", async () => {
  const { edge, client, id, asked } = await setUp();
  edge.streams = [QUEUED + RUNNING.slice(0, -9), QUEUED + RUNNING + HALF, DONE];
  expect(await idsOf(client.jobs.events(id))).toEqual(["3 status", "5 status", "5 progress", "9 status"]);
  expect(asked()).toEqual([null, "3", "5"]);
});

it("begins after the event that the caller names", async () => {
  const { edge, client, id, asked } = await setUp();
  edge.streams = [RUNNING + DONE];
  expect(await idsOf(client.jobs.events(id, { lastEventId: 5 }))).toEqual(["9 status"]);
  expect(asked()).toEqual(["5"]);
});

it("ends when it begins after the job's end, with what came since", async () => {
  const { edge, client, id, asked } = await setUp();
  edge.streams = [DONE, frame(10, "receipt", {}), ""];
  expect(await idsOf(client.jobs.events(id))).toEqual(["9 status"]);
  expect(await idsOf(client.jobs.events(id, { lastEventId: 9 }))).toEqual(["10 receipt"]);
  expect(await idsOf(client.jobs.events(id, { lastEventId: 10 }))).toEqual([]);
  expect(asked()).toEqual([null, "9", "10", "10", "10"]);
});

it("resumes over a connection that breaks while it is read and one that is never made", async () => {
  const { edge, client, id, slept } = await setUp();
  const path = `GET /v1/jobs/${id}/events`;
  const broken = new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode(QUEUED.replaceAll("JOB", id))),
    pull: (controller) => controller.error(new TypeError("terminated")),
  });
  edge.script(
    path,
    () => new Response(broken),
    () => new TypeError("connection refused"),
  );
  edge.streams = [DONE];
  expect(await idsOf(client.jobs.events(id))).toEqual(["3 status", "9 status"]);
  expect(slept.length).toBeGreaterThan(0);
});

it("passes over kinds of events that it does not know", async () => {
  const { edge, client, id } = await setUp();
  edge.streams = [frame(4, "weather", {}) + DONE];
  expect(await idsOf(client.jobs.events(id))).toEqual(["9 status"]);
});

it("tells a refusal at once, and a network that stays away in the end", async () => {
  const { edge, client, id } = await setUp();
  edge.script(`GET /v1/jobs/${id}/events`, () => refuse("job_unknown"));
  await expect(idsOf(client.jobs.events(id))).rejects.toMatchObject({ code: "job_unknown" });
  edge.streams = [": ping\n\n"];
  await expect(idsOf(client.jobs.events(id))).rejects.toMatchObject({ code: "network" });
});

it("refuses an event outside the schema", async () => {
  const { edge, client, id } = await setUp();
  edge.streams = ["event: status\ndata: {}\n\n"];
  await expect(idsOf(client.jobs.events(id))).rejects.toMatchObject({ code: "response_invalid" });
});

it("closes the connection when the caller leaves the loop", async () => {
  const { edge, client, id } = await setUp();
  let canceled = false;
  const open = new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode(QUEUED.replaceAll("JOB", id))),
    cancel: () => {
      canceled = true;
    },
  });
  edge.script(`GET /v1/jobs/${id}/events`, () => new Response(open));
  for await (const _ of client.jobs.events(id)) break;
  expect(canceled).toBe(true);
});

it("runs a job to its end, telling each event, and frees what the job did not use", async () => {
  const { edge, client } = await setUp();
  edge.streams = [QUEUED + HALF + DONE];
  const told: string[] = [];
  const job = await client.jobs.run(request, { onEvent: (event) => told.push(event.type) });
  expect(job).toMatchObject({ status: "succeeded", price: 40_000n });
  expect(told).toEqual(["status", "progress", "status"]);
});

it("waits for the end without a tight loop, and no longer than it was told", async () => {
  const { edge, client, id, slept } = await setUp();
  edge.outcome = "queued";
  await expect(client.jobs.wait(id, { timeoutMs: 10_000 })).rejects.toMatchObject({ code: "timed_out" });
  expect(slept.length).toBeLessThan(10);
  expect(slept.reduce((sum, ms) => sum + ms, 0)).toBeGreaterThanOrEqual(10_000);
});
