import { ECHO, echoWith } from "@gpux/durable-objects/testing/echo";
import type { ErrorCode } from "@gpux/protocol/errors";
import { LIMITS } from "@gpux/protocol/manifest";
import { type Ground, jobBody, store, warmPath } from "./ground.ts";
import type { Sent } from "./signed-requests.ts";

type Made = readonly [path: string, sent?: Sent];

/** A well signed request that is refused, and as what. */
export type BadRequest = readonly [
  title: string,
  code: ErrorCode,
  make: (ground: Ground) => Made | Promise<Made>,
];

const routed = (change: object) => (ground: Ground) =>
  ["/v1/jobs", { json: jobBody(ground, change) }] as const;
const warm = (change: object) => (ground: Ground) =>
  [warmPath(ground), { json: jobBody(ground, change) }] as const;
const text =
  (body: string | Uint8Array<ArrayBuffer>, type = "application/json") =>
  () =>
    ["/v1/jobs", { method: "POST", body, headers: { "content-type": type } }] as const;
const get = (path: string | ((ground: Ground) => string)) => (ground: Ground) =>
  [typeof path === "string" ? path : path(ground)] as const;
/** A job of the function that this manifest is. */
const running = (manifest: object) => async (ground: Ground) =>
  warm({ function: await store(ground.client, manifest) })(ground);

const NOWHERE = "a".repeat(32);
const UNKNOWN_HASH = "00".repeat(32);
const output = { name: "out", kind: "array", buffer: "nowhere", type: "f32", length: 1 };
const tooLarge = { kind: "storage", from: "zero", bytes: LIMITS.bufferBytes };
const soon = (seconds: number) => Math.floor(Date.now() / 1_000) + seconds;
const topUp =
  (change: object) =>
  ({ first }: Ground) => {
    const signature = `0x${"11".repeat(65)}`;
    const funding = { amount: "1", salt: `0x${"5a".repeat(32)}`, valid_before: soon(600), signature };
    return [`/v1/leases/${first.lease_id}/topup`, { json: { funding: { ...funding, ...change } } }] as const;
  };
const forged = { cumulative: "100000", signature: `0x${"11".repeat(65)}` };

export const BAD_REQUESTS: readonly BadRequest[] = [
  ["malformed JSON", "invalid_json", text('{"function":')],
  ["a body that is not UTF-8", "invalid_json", text(Uint8Array.of(0x22, 0xff, 0x22))],
  ["no body", "invalid_json", (ground) => [warmPath(ground), { method: "POST" }]],
  ["an array", "invalid_request", text("[]")],
  ["a mode that there is not", "invalid_request", () => ["/v1/quotes", { json: { mode: "reserved" } }]],
  ["an unknown field", "invalid_request", routed({ colour: "red" })],
  ["an unknown field on the warm path", "invalid_request", warm({ demand: {} })],
  ["a number for an amount", "invalid_request", routed({ max_price: 1_000 })],
  ["a text for a number", "invalid_request", routed({ inputs: { value: { number: "1" } } })],
  ["a negative amount", "invalid_request", routed({ max_price: "-1" })],
  ["a hash that is none", "invalid_request", routed({ function: "room" })],
  ["a time-out of nothing", "invalid_request", routed({ timeouts: { execution_s: 0 } })],
  [
    "an unknown query parameter",
    "invalid_request",
    (ground) => ["/v1/jobs?dry=1", { json: jobBody(ground) }],
  ],
  ["a path that is no lease id", "invalid_request", get("/v1/leases/lse_short")],
  ["a body over 48 KB", "body_too_large", routed({ inputs: { value: { base64: "A".repeat(49_152) } } })],
  ["another content type", "unsupported_media_type", text("{}", "text/plain")],

  ["a function that nobody stored", "function_unknown", warm({ function: UNKNOWN_HASH })],
  [
    "an object that is no manifest",
    "manifest_invalid",
    async (ground) => {
      const hash = await ground.client.objects.put(new TextEncoder().encode("only a text"));
      return warm({ function: hash })(ground);
    },
  ],
  ["a manifest with an unknown buffer", "manifest_invalid", running(echoWith({ outputs: [output] }))],
  ["a manifest with an unknown field", "manifest_invalid", running(echoWith({ entrypoint: "main" }))],
  [
    "a manifest with too many bytes",
    "manifest_invalid",
    running(echoWith({ buffers: { ...ECHO.buffers, more: tooLarge } })),
  ],
  ["a missing input", "input_invalid", warm({ inputs: {} })],
  ["an input out of its range", "input_invalid", warm({ inputs: { value: { number: 11 } } })],
  [
    "an input that the function has not",
    "input_invalid",
    warm({ inputs: { value: { number: 1 }, more: { number: 1 } } }),
  ],

  [
    "a job that nobody allowed to be paid",
    "allowance_required",
    (ground) => warm({ max_price: `${ground.allowed + 1n}` })(ground),
  ],
  ["a job that costs more than the lease holds", "lease_underfunded", warm({ max_price: "1000000000" })],
  ["an allowance that somebody else signed", "allowance_invalid", warm({ allowance: forged })],

  ["a job of a lease that is not there", "lease_unknown", get(`/v1/jobs/job_${NOWHERE}_${"a".repeat(26)}`)],
  [
    "a job that this lease never had",
    "job_unknown",
    get(({ first }) => `/v1/jobs/job_${first.lease_id.slice(4)}_${"a".repeat(26)}`),
  ],
  ["a client's job id that was never used", "job_unknown", get("/v1/jobs/never-made")],
  [
    "a job to cancel that has ended",
    "job_ended",
    ({ first }) => [`/v1/jobs/${first.id}/cancel`, { method: "POST" }],
  ],
  ["a lease that is not there", "lease_unknown", get(`/v1/leases/lse_${NOWHERE}`)],
  ["a top-up of nothing", "funding_invalid", topUp({ amount: "0" })],
  ["a top-up that expires too soon", "funding_invalid", topUp({ valid_before: soon(30) })],
  ["a top-up whose amount is a number", "invalid_request", topUp({ amount: 1 })],
  ["an object that is not there", "object_unknown", get(`/v1/objects/${UNKNOWN_HASH}`)],
  ["a path that is not there", "not_found", get("/v1/nothing")],
  ["a method that is not there", "method_not_allowed", get("/v1/quotes")],
];

/** What somebody who is neither payer nor consumer may not do with a lease and its jobs. */
export const TRESPASSES: readonly BadRequest[] = [
  ["see a lease", "forbidden", get(({ first }) => `/v1/leases/${first.lease_id}`)],
  ["top up a lease", "forbidden", topUp({})],
  ["close a lease", "forbidden", ({ first }) => [`/v1/leases/${first.lease_id}/close`, { method: "POST" }]],
  ["run on a lease", "forbidden", warm({})],
  ["route a job to a lease", "forbidden", (ground) => routed({ lease: ground.first.lease_id })(ground)],
  ["see a job", "forbidden", get(({ first }) => `/v1/jobs/${first.id}`)],
  ["follow a job", "forbidden", get(({ first }) => `/v1/jobs/${first.id}/events`)],
  ["fetch an output", "forbidden", get(({ first }) => `/v1/jobs/${first.id}/outputs/0`)],
  ["cancel a job", "forbidden", ({ first }) => [`/v1/jobs/${first.id}/cancel`, { method: "POST" }]],
];
