import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { configOf } from "@gpux/durable-objects/config";
import { Sha256 } from "@gpux/protocol/ids";
import { hexToBytes } from "viem/utils";
import { z } from "zod";
import { authenticate } from "../auth/authenticate.ts";
import { standing } from "../auth/standing.ts";
import { jsonAnswer } from "../json-answer.ts";
import { OBJECT_LIMIT } from "../object-limit.ts";
import { type Refusal, refuse } from "../refusal.ts";
import { type Answer, admissionOf, type Mounted, NO_BODY, NONE, openRoute, type Route } from "../route.ts";
import { tenantBytes } from "../tenant-bytes.ts";

const ObjectParams = z.strictObject({ sha256: Sha256 });
const ObjectView = z.strictObject({ object: z.literal("object"), sha256: Sha256, bytes: z.int() });

const putRoute: Route<typeof ObjectParams, typeof NONE, typeof NO_BODY> = {
  method: "put",
  path: "/v1/objects/{sha256}",
  summary: "Store bytes under their SHA-256; storing them again changes nothing",
  params: ObjectParams,
  query: NONE,
  headers: { "Content-Length": "needed; at most 67108864", "Content-Digest": "sha-256 of the body, signed" },
  body: NO_BODY,
  answers: {
    200: { description: "They were here already", schema: ObjectView },
    201: { description: "Stored", schema: ObjectView },
  },
  refusals: ["object_mismatch", "body_too_large", "digest_missing", "digest_mismatch", "invalid_request"],
  scope: "jobs",
  standing: "asked",
};

/**
 * The body is streamed to storage, never held: its signature is checked against the hash in the path before a byte
 * is read, and storage keeps the bytes only if they have that hash.
 */
const putObject: Mounted = { route: putRoute, signed: true, respond: storeObject };

async function storeObject(
  request: Request,
  rawParams: Record<string, string>,
  env: ObjectEnv,
): Promise<Answer> {
  const params = ObjectParams.safeParse(rawParams);
  if (!params.success) return refuse("invalid_request", "the path must end in a sha256 in lower-case hex");
  const { sha256 } = params.data;
  const length = z.coerce
    .number()
    .int()
    .min(0)
    .safeParse(request.headers.get("content-length") ?? "x");
  if (!length.success) return refuse("invalid_request", "Content-Length is needed");
  if (length.data > OBJECT_LIMIT) return refuse("body_too_large", `at most ${OBJECT_LIMIT} bytes`);
  const authentic = await authenticate(
    request,
    { sha256: hexToBytes(`0x${sha256}`) },
    configOf(env),
    admissionOf(putRoute),
  );
  if (!authentic.ok) return authentic;
  const stands = await standing(env, authentic.principal);
  if (!stands.ok) return stands;
  const view = { object: "object" as const, sha256, bytes: length.data };
  const stored = await env.OBJECTS.head(sha256);
  if (stored !== null) return jsonAnswer(ObjectView, { ...view, bytes: stored.size });
  const contentType = request.headers.get("content-type") ?? "application/octet-stream";
  const problem = await keep(env.OBJECTS, sha256, request.body, length.data, contentType);
  if (problem !== null) return problem;
  return jsonAnswer(ObjectView, view, 201);
}

/** Streams the bytes into storage; `null` when they are there. */
async function keep(
  objects: R2Bucket,
  sha256: string,
  body: ReadableStream<Uint8Array> | null,
  length: number,
  contentType: string,
): Promise<Refusal | null> {
  // The fixed length holds the stream to what its header said: a longer or shorter body stores nothing.
  const { readable, writable } = new FixedLengthStream(length);
  const piped = (body ?? new Blob([]).stream()).pipeTo(writable).then(
    () => true,
    () => false,
  );
  try {
    await objects.put(sha256, readable, { sha256, httpMetadata: { contentType: contentType.slice(0, 100) } });
    return null;
  } catch (error) {
    if (!(await piped) || error instanceof TypeError)
      return refuse("invalid_request", "the body is not as long as Content-Length");
    // R2 has no error codes in its types: a failed checksum is known by its text (error 10037).
    if (error instanceof Error && /10037|checksum|sha-?256/i.test(error.message))
      return refuse("object_mismatch");
    throw error;
  }
}

const getObject = openRoute(
  {
    method: "get",
    path: "/v1/objects/{sha256}",
    summary: "An object's bytes: who knows the hash may read them",
    params: ObjectParams,
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "The bytes, as an attachment", schema: null } },
    refusals: ["object_unknown", "invalid_request"],
  },
  async ({ env, request, params }) => {
    const head = request.method === "HEAD";
    const object = head ? null : await env.OBJECTS.get(params.sha256);
    const found = head ? await env.OBJECTS.head(params.sha256) : object;
    if (found === null) return refuse("object_unknown");
    const type = found.httpMetadata?.contentType ?? "application/octet-stream";
    const response = tenantBytes(found, object?.body ?? null, type, params.sha256);
    response.headers.set("cache-control", "public, max-age=31536000, immutable");
    return response;
  },
);

export const objectRoutes: readonly Mounted[] = [putObject, getObject];
