import { z } from "zod";
import { type ErrorEntry, type Fault, later, tenant } from "./error-entry.ts";
import { RELAY_ERRORS } from "./relay-errors.ts";
import { SESSION_ERRORS } from "./session-errors.ts";
import { SOCKET_ERRORS } from "./socket-errors.ts";

export type { Fault } from "./error-entry.ts";

/**
 * The closed table of refusals: a code maps to one HTTP status, one fault and one hint, everywhere.
 * The wire form is RFC 9457 problem+json with `code`, `hint`, `request_id` and `retryable`.
 */
export const ERRORS = {
  invalid_json: tenant(
    400,
    "The body is not JSON",
    "Send one JSON object, UTF-8, with content-type application/json.",
  ),
  invalid_request: tenant(
    422,
    "The request does not fit the schema",
    "See `errors`: each entry points at a field; /openapi.json has the schema.",
  ),
  body_too_large: tenant(
    413,
    "The body is too large",
    "Put large inputs to /v1/objects/{sha256} and refer to them by hash.",
  ),
  unsupported_media_type: tenant(
    415,
    "The content type is not accepted",
    "Send application/json; objects take any type.",
  ),
  not_found: tenant(404, "There is nothing here", "See /openapi.json for the routes."),
  method_not_allowed: tenant(405, "The method is not accepted here", "See /openapi.json for the routes."),
  forbidden: tenant(
    403,
    "This key may not do that",
    "Sign with the payer's or the consumer signer's key of the lease.",
  ),

  signature_missing: tenant(
    401,
    "The request is not signed",
    "Sign it by ERC-8128 (RFC 9421): Signature-Input, Signature and, with a body, Content-Digest.",
  ),
  signature_malformed: tenant(
    401,
    "The signature headers cannot be read",
    "Send one label, in the form of RFC 9421 section 4.",
  ),
  signature_expired: tenant(401, "The signature has expired", "Sign again; check this machine's clock."),
  signature_not_yet_valid: tenant(401, "The signature lies in the future", "Check this machine's clock."),
  signature_wrong_chain: tenant(
    401,
    "The signature names another chain",
    "Use the chain id of /.well-known/gpux in keyid.",
  ),
  signature_wrong_audience: tenant(
    401,
    "The signature is for another host",
    "Send the request to the origin of /.well-known/gpux, and sign it for that host.",
  ),
  signature_component_missing: tenant(
    401,
    "The signature does not cover enough",
    "Cover @method, @authority, @path, @query, content-digest and idempotency-key, where present.",
  ),
  signature_invalid: tenant(
    401,
    "The signature does not verify",
    "Sign exactly the request that is sent: method, host, path, query and body. Smart wallets open a session (POST /v1/sessions).",
  ),
  signature_replayed: tenant(
    401,
    "This signature was used before",
    "Sign again with a fresh nonce; keep the Idempotency-Key to get the same job.",
  ),
  digest_missing: tenant(
    400,
    "A body needs a Content-Digest",
    "Add Content-Digest: sha-256=:...: (RFC 9530) and cover it.",
  ),
  digest_mismatch: tenant(
    400,
    "The body is not what its digest says",
    "Compute Content-Digest over the raw bytes that are sent.",
  ),

  idempotency_key_reused: tenant(
    422,
    "The idempotency key was used with another body",
    "Use a new key for a new request.",
  ),
  idempotency_in_progress: later(
    409,
    "tenant",
    "The first request with this key is still running",
    "Ask again after Retry-After.",
  ),

  manifest_invalid: tenant(
    422,
    "The function's manifest is not valid",
    "See `detail`; docs/functions.md describes the manifest.",
  ),
  function_unknown: tenant(
    404,
    "No object has this function's hash",
    "PUT the packed function to /v1/objects/{sha256} first.",
  ),
  input_invalid: tenant(
    422,
    "An input does not fit the function",
    "See `detail` and the function's manifest.",
  ),
  object_unknown: tenant(404, "No object has this hash", "PUT it to /v1/objects/{sha256} first."),
  object_mismatch: tenant(
    422,
    "The bytes are not what the hash says",
    "The path must be the lower-case hex SHA-256 of the body.",
  ),

  payment_required: tenant(
    402,
    "No lease pays for this yet",
    "Sign `quote` and POST it to /v1/leases, then send this request again with the same Idempotency-Key.",
  ),
  allowance_required: tenant(
    402,
    "The lease needs a higher allowance",
    "Sign Allowance(leaseId, cumulative) for at least `allowance.cumulative` and send it with the job.",
  ),
  allowance_invalid: tenant(
    422,
    "The allowance is not signed by the lease's consumer",
    "Sign it with the key that the terms name as consumerSigner.",
  ),
  lease_underfunded: tenant(
    402,
    "What is left in the lease does not cover max_price",
    "Top the lease up, or lower max_price.",
  ),
  funding_invalid: tenant(
    422,
    "The funding authorization is not valid",
    "Sign ReceiveWithAuthorization over exactly the quoted terms; see `detail`.",
  ),
  insufficient_funds: tenant(
    402,
    "The payer does not hold this much USDC",
    "Deposit USDC to the payer's address, or ask for a smaller amount.",
  ),
  price_below_offers: tenant(
    422,
    "Every fitting offer asks for more",
    "Raise max_rate_per_hour; `wait.blockers` says by how many offers each condition fails.",
  ),
  no_capacity: later(
    503,
    "platform",
    "No node fits right now",
    "Ask again later; `wait.blockers` says by how many offers each condition fails.",
  ),
  too_many_quotes: later(429, "tenant", "Too many open quotes", "Use or let lapse the quotes that are open."),

  hold_limit: later(
    429,
    "tenant",
    "You hold too much that you do not pay for",
    "Fund what is quoted, or ask again when `detail` says; a USDC in your escrow credit lets you hold one GPU-hour more.",
  ),

  order_unknown: tenant(404, "There is no such order", "An order is seen by the account that made it alone."),
  order_closed: tenant(
    409,
    "The order is funded by another signature, or was released",
    "GET the order for how it stands; ask for a new one.",
  ),
  quote_unknown: tenant(404, "There is no such quote", "Quotes live 30 s; ask for a new one."),
  quote_expired: tenant(410, "The quote has lapsed", "Ask for a new quote and sign that."),
  lease_unknown: tenant(404, "There is no such lease", "Check the id."),
  lease_gone: tenant(
    410,
    "The lease is over, or never was",
    "Nothing more is expected of its agent: forget it.",
  ),
  lease_closed: tenant(409, "The lease is closing or closed", "Open a new lease."),
  not_extendable: tenant(
    409,
    "The lease cannot last so long",
    "Its terms say how far its end can be moved (`extendable_s`); for more, open another lease.",
  ),
  job_unknown: tenant(404, "There is no such job", "Check the id; results are kept for 7 days."),
  job_not_ended: tenant(409, "The job has not ended yet", "Wait for its end, or cancel it first."),
  job_ended: tenant(409, "The job has already ended", "GET the job for its end state."),
  job_moving: later(
    409,
    "tenant",
    "The job is on its way to another lease",
    "Ask again after Retry-After; GET the job for where it is.",
  ),
  job_moved: tenant(409, "The job is with another lease now", "GET the job: `lease_id` is where it is."),
  queue_full: later(
    429,
    "tenant",
    "The lease's queue is full",
    "Wait for jobs to end, or open another lease.",
  ),

  node_unknown: tenant(404, "There is no such node", "GET /v1/nodes lists the nodes."),
  node_offline: later(503, "provider", "The node is offline", "Ask for a new quote; another node may fit."),
  node_draining: later(
    503,
    "provider",
    "The node is about to stop",
    "Send it without `lease`, or ask for a new quote; another node may fit.",
  ),
  edge_busy: later(
    503,
    "platform",
    "Too many agents dial at once",
    "Dial again after Retry-After; leases and jobs wait for their agents.",
  ),
  chain_unavailable: later(503, "chain", "The chain cannot be reached", "Ask again later; nothing was lost."),
  internal: later(
    500,
    "platform",
    "Something broke on our side",
    "Ask again with the same Idempotency-Key; quote request_id when you report it.",
  ),

  ...SESSION_ERRORS,
  ...SOCKET_ERRORS,
  ...RELAY_ERRORS,
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;

/** Why a job ended without success. Charged by fault: only a tenant's fault after `running` costs anything. */
interface Failure {
  readonly title: string;
  readonly hint: string;
  readonly fault: Fault;
}

export const JOB_FAILURES = {
  wgsl_invalid: {
    fault: "tenant",
    title: "The shader does not compile",
    hint: "`detail` has the compiler's line, column and message.",
  },
  manifest_invalid: { fault: "tenant", title: "The manifest is not valid", hint: "See `detail`." },
  input_invalid: { fault: "tenant", title: "An input cannot be used", hint: "See `detail`." },
  limit_exceeded: {
    fault: "tenant",
    title: "The job went over a limit",
    hint: "See `detail`; make the job smaller.",
  },
  execution_timeout: {
    fault: "tenant",
    title: "The job ran longer than it may",
    hint: "Raise timeouts.execution_s, or make the job smaller.",
  },
  start_timeout: {
    fault: "platform",
    title: "The job did not start in time",
    hint: "Nothing was charged; send it again.",
  },
  object_unavailable: {
    fault: "platform",
    title: "An input object could not be fetched",
    hint: "PUT the object again; nothing was charged.",
  },
  device_lost: { fault: "provider", title: "The GPU was lost", hint: "Nothing was charged; send it again." },
  executor_failed: {
    fault: "provider",
    title: "The node's executor broke",
    hint: "Nothing was charged; send it again.",
  },
  terms_refused: {
    fault: "provider",
    title: "The node refused the lease's terms",
    hint: "Nothing was charged; open another lease.",
  },
  node_draining: {
    fault: "provider",
    title: "The node stops before the job could end",
    hint: "Nothing was charged; send it again without `lease`, and another node takes it.",
  },
  node_lost: {
    fault: "provider",
    title: "The node went away",
    hint: "Nothing was charged for the lost attempt; send it again.",
  },
  lease_ended: {
    fault: "tenant",
    title: "The lease ended first",
    hint: "Open a new lease and send it again.",
  },
  funding_failed: {
    fault: "chain",
    title: "The lease's funding did not land",
    hint: "See `detail`; the money stayed with the payer.",
  },
} as const satisfies Record<string, Failure>;

export const JobFailureCode = z.literal(
  // Object.keys widens to string; the table is the list.
  Object.keys(JOB_FAILURES) as (keyof typeof JOB_FAILURES)[],
);
export type JobFailureCode = z.infer<typeof JobFailureCode>;

/** RFC 9457 body for a code. `extra` carries what the code promises (`errors`, `quote`, `wait`, ...). */
export function problem(
  code: ErrorCode,
  requestId: string,
  detail?: string,
  extra: object = {},
): Record<string, unknown> {
  const { status, title, hint, fault, retryable } = ERRORS[code];
  return {
    type: `https://gpux.dev/errors/${code}`,
    title,
    status,
    ...(detail === undefined ? {} : { detail }),
    code,
    hint,
    fault,
    retryable,
    request_id: requestId,
    ...extra,
  };
}
