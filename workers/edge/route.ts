import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { configOf, type EdgeConfig } from "@gpux/durable-objects/config";
import type { Principal } from "@gpux/durable-objects/interfaces";
import type { ErrorCode } from "@gpux/protocol/errors";
import { invalidRequest } from "@gpux/protocol/invalid-request";
import { parserOf } from "@gpux/protocol/parser";
import type { SessionScope } from "@gpux/protocol/session";
import { z } from "zod";
import { type Admission, authenticate } from "./auth/authenticate.ts";
import { standing } from "./auth/standing.ts";
import { readLimited } from "./limited-body.ts";
import { type Refusal, refuse } from "./refusal.ts";

/** Of any JSON body. Larger inputs go to /v1/objects first. */
export const BODY_LIMIT = 48 * 1024;

/** Of an operation that takes no body; one that comes is read within the limit, for its digest, and ignored. */
export const NO_BODY = z.undefined();
/** Of an operation without parameters of a kind. */
export const NONE = z.strictObject({});

export type Method = "get" | "put" | "post" | "delete";

/** One operation: what `/openapi.json` says of it and what validates its requests are the same schemas. */
export interface Route<Params extends z.ZodType, Query extends z.ZodType, Body extends z.ZodType> {
  readonly method: Method;
  /** With parameters as OpenAPI writes them: `/v1/jobs/{id}`. */
  readonly path: string;
  readonly summary: string;
  readonly params: Params;
  readonly query: Query;
  /** Of the JSON body, or {@link NO_BODY}. */
  readonly body: Body;
  /** Header fields that the operation looks at, with what they do. */
  readonly headers?: Readonly<Record<string, string>>;
  /** By status: the JSON schema, or `null` for an answer that is not JSON. */
  readonly answers: Readonly<
    Record<number, { readonly description: string; readonly schema: z.ZodType | null }>
  >;
  readonly refusals: readonly ErrorCode[];
  /** What a session needs to come here; absent: the wallet itself must sign. */
  readonly scope?: SessionScope | "any";
  /**
   * Who finds a revoked session out: the object that the handler asks as the session (absent), or this edge, which asks
   * the Account before the handler.
   */
  readonly standing?: "asked";
  /** Smart wallets may sign for this (ERC-1271); elsewhere they come by a session. */
  readonly contracts?: true;
}

/** What a handler gets: everything validated, nothing raw but `request`'s headers. */
export interface Call<Params, Query, Body> {
  readonly env: ObjectEnv;
  readonly config: EdgeConfig;
  readonly request: Request;
  readonly params: Params;
  readonly query: Query;
  readonly body: Body;
}

export type Answer = Response | Refusal;

/** A route that can be served and described without knowing its types. */
export interface Mounted {
  readonly route: Route<z.ZodType, z.ZodType, z.ZodType>;
  readonly signed: boolean;
  respond(request: Request, params: Record<string, string>, env: ObjectEnv): Promise<Answer>;
}

/** A route that anyone may call. */
export function openRoute<Params extends z.ZodType, Query extends z.ZodType, Body extends z.ZodType>(
  route: Route<Params, Query, Body>,
  handle: (call: Call<z.output<Params>, z.output<Query>, z.output<Body>>) => Promise<Answer>,
): Mounted {
  const parsers = parsersOf(route);
  return {
    route,
    signed: false,
    async respond(request, params, env) {
      const read = await readBody(route, request);
      if (!read.ok) return read;
      const parsed = parse(parsers, request, params, read.bytes);
      return parsed.ok ? handle({ env, config: configOf(env), request, ...parsed.value }) : parsed;
    },
  };
}

/** A route that needs a signature; the principal's rights are for the object to judge. */
export function signedRoute<Params extends z.ZodType, Query extends z.ZodType, Body extends z.ZodType>(
  route: Route<Params, Query, Body>,
  handle: (
    call: Call<z.output<Params>, z.output<Query>, z.output<Body>>,
    principal: Principal,
  ) => Promise<Answer>,
): Mounted {
  const parsers = parsersOf(route);
  return {
    route,
    signed: true,
    async respond(request, params, env) {
      const config = configOf(env);
      const read = await readBody(route, request);
      if (!read.ok) return read;
      const authentic = await authenticate(request, { bytes: read.bytes }, config, admissionOf(route));
      if (!authentic.ok) return authentic;
      const { principal } = authentic;
      const parsed = parse(parsers, request, params, read.bytes);
      if (!parsed.ok) return parsed;
      if (route.standing === "asked") {
        const stands = await standing(env, principal);
        if (!stands.ok) return stands;
      }
      return handle({ env, config, request, ...parsed.value }, principal);
    },
  };
}

/** Who may come to a route, for {@link authenticate}. */
export function admissionOf({ scope, contracts }: Pick<AnyRoute, "scope" | "contracts">): Admission {
  return { scope: scope ?? null, contracts: contracts === true };
}

type AnyRoute = Route<z.ZodType, z.ZodType, z.ZodType>;

async function readBody(
  route: AnyRoute,
  request: Request,
): Promise<{ readonly ok: true; readonly bytes: Uint8Array } | Refusal> {
  const type = request.headers.get("content-type");
  if (!(route.body instanceof z.ZodUndefined) && type !== null && !/^application\/json\s*(;|$)/i.test(type))
    return refuse("unsupported_media_type");
  const bytes = await readLimited(request.body, BODY_LIMIT);
  return bytes === null ? refuse("body_too_large", `at most ${BODY_LIMIT} bytes`) : { ok: true, bytes };
}

/** Made once for a route: what is read of each request to it. */
function parsersOf<Params extends z.ZodType, Query extends z.ZodType, Body extends z.ZodType>({
  params,
  query,
  body,
}: Route<Params, Query, Body>) {
  const hasBody = !(body instanceof z.ZodUndefined);
  return { params: parserOf(params), query: parserOf(query), body: parserOf(body), hasBody };
}

function parse<Params extends z.ZodType, Query extends z.ZodType, Body extends z.ZodType>(
  parsers: ReturnType<typeof parsersOf<Params, Query, Body>>,
  request: Request,
  rawParams: Record<string, string>,
  bytes: Uint8Array,
):
  | {
      readonly ok: true;
      readonly value: { params: z.output<Params>; query: z.output<Query>; body: z.output<Body> };
    }
  | Refusal {
  const params = parsers.params(rawParams);
  if (!params.success) return invalid("path", params.error);
  const query = parsers.query(Object.fromEntries(new URL(request.url).searchParams));
  if (!query.success) return invalid("query", query.error);
  const json = parsers.hasBody ? parseJson(bytes) : { ok: true as const, value: undefined };
  if (!json.ok) return refuse("invalid_json");
  const body = parsers.body(json.value);
  if (!body.success) return invalid("", body.error);
  return { ok: true, value: { params: params.data, query: query.data, body: body.data } };
}

function parseJson(
  bytes: Uint8Array,
): { readonly ok: true; readonly value: unknown } | { readonly ok: false } {
  try {
    return {
      ok: true,
      value: JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes)),
    };
  } catch {
    return { ok: false };
  }
}

function invalid(where: string, error: z.core.$ZodError): Refusal {
  const { detail, errors } = invalidRequest(where, error);
  return refuse("invalid_request", detail, { errors });
}
