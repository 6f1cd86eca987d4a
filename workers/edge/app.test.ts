import { env } from "cloudflare:test";
import { expect, test } from "vitest";
import { answerWarm, app } from "./app.ts";

const lease = `lse_${"a".repeat(32)}`;
const job = `job_${"a".repeat(32)}_${"b".repeat(26)}`;

async function seen(response: Response) {
  const { "x-request-id": id, ...headers } = Object.fromEntries(response.headers);
  expect(id).toMatch(/^req_[0-9a-f]{32}$/);
  const { request_id, ...body } = await response.json<Record<string, unknown>>();
  expect(request_id).toBe(id);
  return { status: response.status, headers, body };
}

test.each([
  ["POST", `/v1/leases/${lease}/jobs`, "{}"],
  ["POST", `/v1/leases/${lease}/jobs?x=1`, "not JSON"],
  ["POST", "/v1/leases/nonsense/jobs", "{}"],
  ["GET", `/v1/jobs/${job}`, null],
  ["GET", `/v1/jobs/${job}?wait=1`, null],
  ["GET", "/v1/jobs/nonsense", null],
])("%s %s is answered past the router as by the router", async (method, path, body) => {
  const request = () => new Request(`https://edge.test${path}`, { method, body });
  const warm = await answerWarm(request(), env);
  if (warm === null) throw new Error("it was left to the router");
  expect(await seen(warm)).toEqual(await seen(await app.fetch(request(), env)));
});

test.each([
  ["GET", `/v1/leases/${lease}/jobs`],
  ["POST", `/v1/leases/${lease}/jobs/`],
  ["POST", `/v1/leases/%6c/jobs`],
  ["OPTIONS", `/v1/jobs/${job}`],
  ["HEAD", `/v1/jobs/${job}`],
  ["GET", `/v1/jobs/${job}/events`],
  ["GET", "/v1/jobs/"],
])("%s %s is left to the router", async (method, path) => {
  expect(await answerWarm(new Request(`https://edge.test${path}`, { method }), env)).toBeNull();
});
