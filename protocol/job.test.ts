import { expect, it } from "vitest";
import { z } from "zod";
import { inputHash, JobRequest, JobStatus, RoutedJobRequest, TERMINAL } from "./job.ts";

const minimal = { function: "f".repeat(64), max_price: "100" };

it("fills a request with what a job gets when nothing is said", () => {
  expect(JobRequest.parse(minimal)).toEqual({
    kind: "function",
    function: "f".repeat(64),
    inputs: {},
    max_price: 100n,
    timeouts: { queue_s: 600, start_s: 60, execution_s: 120 },
    retries: 2,
    priority: 0,
  });
});

it.each([
  ["a field that nobody knows", { nice: true }],
  ["no price", { max_price: undefined }],
  ["a price that is a number", { max_price: 100 }],
  ["a function that is no hash", { function: "pathtrace" }],
  ["a function in upper case", { function: "F".repeat(64) }],
  ["more retries than we give", { retries: 6 }],
  ["no time to run", { timeouts: { execution_s: 0 } }],
  ["more time than an hour", { timeouts: { execution_s: 3_601 } }],
  ["half a second", { timeouts: { start_s: 0.5 } }],
  ["an input of two kinds", { inputs: { a: { number: 1, json: 1 } } }],
  ["an input of no kind", { inputs: { a: 1 } }],
  ["an input that is infinite", { inputs: { a: { number: Number.POSITIVE_INFINITY } } }],
  ["bytes above the inline limit", { inputs: { a: { base64: "A".repeat(65_540) } } }],
  ["bytes that are not base64", { inputs: { a: { base64: "*" } } }],
  ["an allowance without a signature", { allowance: { cumulative: "1" } }],
])("refuses a request with %s", (_, change) => {
  expect(JobRequest.safeParse({ ...minimal, ...change }).success).toBe(false);
});

it("comes back the same from the wire, so that a stored job is the job that was sent", () => {
  const request = RoutedJobRequest.parse({
    ...minimal,
    inputs: {
      scene: { json: { a: [1, null] } },
      n: { number: -0.5 },
      raw: { base64: "AAE=" },
      big: { object: "0".repeat(64) },
    },
    allowance: { cumulative: "100", signature: "0xab" },
    demand: { gpu_model: "RTX_4090", max_rate_per_hour: "1" },
  });
  expect(RoutedJobRequest.parse(JSON.parse(JSON.stringify(z.encode(RoutedJobRequest, request))))).toEqual(
    request,
  );
});

it("hashes function and inputs, in any order of their fields, and nothing else", async () => {
  const inputs = { a: { number: 1 }, b: { json: { x: 1, y: 2 } } };
  const hash = await inputHash({ function: minimal.function, inputs });
  // printf '%s' '{"function":"ff…","inputs":{"a":{"number":1},"b":{"json":{"x":1,"y":2}}}}' | sha256sum
  expect(hash).toBe("beea7581bf36a00f346a0e2ddd8b41a6e1010cb5dc42d9d74e1ade80caa11921");
  expect(
    await inputHash({
      inputs: { b: { json: { y: 2, x: 1 } }, a: { number: 1 } },
      function: minimal.function,
    }),
  ).toBe(hash);
  expect(await inputHash(JobRequest.parse({ ...minimal, inputs, max_price: "7", retries: 0 }))).toBe(hash);
  expect(await inputHash({ function: minimal.function, inputs: { ...inputs, a: { number: 2 } } })).not.toBe(
    hash,
  );
  expect(await inputHash({ function: "e".repeat(64), inputs })).not.toBe(hash);
});

it("knows which states are ends", () => {
  const live = JobStatus.options.filter((status) => !TERMINAL.has(status));
  expect(live).toEqual(["queued", "starting", "running"]);
});
