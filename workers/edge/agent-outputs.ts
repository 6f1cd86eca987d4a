import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { configOf } from "@gpux/durable-objects/config";
import { JobId, LeaseId, Sha256 } from "@gpux/protocol/ids";
import { hexToBytes } from "viem/utils";
import { z } from "zod";
import { authenticate } from "./auth/authenticate.ts";
import { OBJECT_LIMIT } from "./object-limit.ts";
import { type Refusal, refuse } from "./refusal.ts";
import type { Answer } from "./route.ts";

const PATH = /^\/v1\/agent\/leases\/([^/]+)\/jobs\/([^/]+)\/outputs\/([0-9]{1,2})$/;

const Asked = z.strictObject({
  lease: LeaseId,
  job: JobId,
  n: z.string().refine((n) => Number(n) <= 63, "0 to 63"),
  /** Fencing token of the attempt that made it. */
  epoch: z.string().regex(/^[0-9]{1,15}$/),
  attempt: z.string().regex(/^[0-9]{1,15}$/),
  sha256: Sha256,
});

export function isAgentOutput(request: Request): boolean {
  return request.method === "PUT" && PATH.test(new URL(request.url).pathname);
}

/**
 * `PUT /v1/agent/leases/{id}/jobs/{job}/outputs/{n}?epoch=&attempt=&sha256=` by the lease's agent: an output goes through
 * the Lease into storage, and to whoever waits for it there. As with any object, the signature is checked against the
 * hash before a byte is read, and the bytes are kept only if they have it. The same again changes nothing.
 */
export async function putAgentOutput(request: Request, env: ObjectEnv): Promise<Answer> {
  const url = new URL(request.url);
  const [, lease, job, n] = PATH.exec(url.pathname) ?? [];
  const asked = Asked.safeParse({ lease, job, n, ...Object.fromEntries(url.searchParams) });
  if (!asked.success) return refuse("invalid_request", z.prettifyError(asked.error));
  const bytes = z.coerce
    .number()
    .int()
    .min(0)
    .safeParse(request.headers.get("content-length") ?? "x");
  if (!bytes.success) return refuse("invalid_request", "Content-Length is needed");
  if (bytes.data > OBJECT_LIMIT) return refuse("body_too_large", `at most ${OBJECT_LIMIT} bytes`);
  const { lease: to, ...output } = asked.data;
  const digest = { sha256: hexToBytes(`0x${output.sha256}`) };
  const agents = { scope: null, contracts: false } as const;
  const authentic = await authenticate(request, digest, configOf(env), agents);
  if (!authentic.ok) return authentic;
  const type = (request.headers.get("content-type") ?? "application/octet-stream").slice(0, 100);
  const query = new URLSearchParams({
    ...output,
    as: authentic.principal.address,
    bytes: String(bytes.data),
    type,
  });
  const inner = new Request(`https://lease/output?${query}`, { method: "PUT", body: request.body });
  const { status } = await env.LEASE.getByName(to).fetch(inner);
  return status === 201 ? new Response(null, { status }) : refusalOf(status);
}

function refusalOf(status: number): Refusal {
  if (status === 403) return refuse("forbidden", "the lease is another node's");
  if (status === 404) return refuse("job_unknown");
  if (status === 409) return refuse("job_ended", "another attempt took over, or the job has ended");
  if (status === 410) return refuse("lease_gone");
  if (status === 422) return refuse("object_mismatch");
  return refuse("internal");
}
