import { Problem } from "@gpux/protocol/answers";
import { CreditView } from "@gpux/protocol/credit";
import { ERRORS } from "@gpux/protocol/errors";
import { IntentView } from "@gpux/protocol/intent-view";
import { JobEvent, JobView } from "@gpux/protocol/job";
import { IndicativeQuote, LeaseView, NodeView, Quote } from "@gpux/protocol/lease";
import { Order } from "@gpux/protocol/order";
import { SessionView } from "@gpux/protocol/session";
import { z } from "zod";
import type { Mounted } from "./route.ts";

/** Schemas that several operations answer with, by the name that the document gives them. */
const NAMED = {
  IntentView,
  JobView,
  JobEvent,
  LeaseView,
  NodeView,
  Quote,
  IndicativeQuote,
  Order,
  SessionView,
  CreditView,
  Problem,
};

const registry = z.registry<{ id: string }>();
for (const [id, schema] of Object.entries(NAMED)) registry.add(schema, { id });

/** Schemas that contain themselves (any JSON value), by their text: a document of many schemas has no `$defs`. */
type Recursive = Map<string, string>;

/** The wire form: codecs appear as the strings that travel. */
function jsonSchema(schema: z.ZodType, recursive: Recursive): unknown {
  const name = registry.get(schema)?.id;
  if (name !== undefined) return { $ref: `#/components/schemas/${name}` };
  const { $schema, $defs = {}, ...rest } = z.toJSONSchema(schema, { io: "input", reused: "inline" });
  let text = JSON.stringify(rest);
  for (const [local, definition] of Object.entries($defs)) {
    const content = JSON.stringify(definition);
    const global = recursive.get(content) ?? `Recursive${recursive.size + 1}`;
    recursive.set(content, global);
    text = text.replaceAll(`"#/$defs/${local}"`, `"#/components/schemas/${global}"`);
  }
  return JSON.parse(text);
}

/** Each under its name, its references to itself by that name. */
function recursiveSchemas(recursive: Recursive): Record<string, unknown> {
  return Object.fromEntries(
    Array.from(recursive, ([content, name]) => [
      name,
      JSON.parse(content.replaceAll(/"#\/\$defs\/\w+"/g, `"#/components/schemas/${name}"`)),
    ]),
  );
}

function parameters(schema: z.ZodType, where: "path" | "query"): unknown[] {
  const { properties = {}, required = [] } = z.toJSONSchema(schema, { io: "input" });
  return Object.entries(properties).map(([name, property]) => ({
    name,
    in: where,
    required: where === "path" || required.includes(name),
    schema: property,
  }));
}

function operation({ route, signed }: Mounted, recursive: Recursive): unknown {
  const refusals = [
    ...new Set([
      ...route.refusals,
      ...(signed ? SIGNATURE_REFUSALS : []),
      ...(route.contracts ? ["chain_unavailable" as const] : []),
      ...(signed && route.scope !== undefined ? SESSION_REFUSALS : []),
      "internal" as const,
    ]),
  ];
  const byStatus = Map.groupBy(refusals, (code) => ERRORS[code].status);
  const headers = Object.entries(route.headers ?? {}).map(([name, description]) => ({
    name,
    in: "header",
    required: false,
    description,
    schema: { type: "string" },
  }));
  return {
    summary: route.summary,
    security: signed ? [{ erc8128: [] }, ...(route.scope === undefined ? [] : [{ session: [] }])] : [],
    ...(route.scope === undefined ? {} : { "x-gpux-scope": route.scope }),
    parameters: [...parameters(route.params, "path"), ...parameters(route.query, "query"), ...headers],
    ...(route.body instanceof z.ZodUndefined
      ? {}
      : {
          requestBody: {
            required: true,
            content: { "application/json": { schema: jsonSchema(route.body, recursive) } },
          },
        }),
    responses: {
      ...Object.fromEntries(
        Object.entries(route.answers).map(([status, { description, schema }]) => [
          status,
          {
            description,
            ...(schema === null
              ? {}
              : { content: { "application/json": { schema: jsonSchema(schema, recursive) } } }),
          },
        ]),
      ),
      ...Object.fromEntries(
        Array.from(byStatus, ([status, codes]) => [
          status,
          {
            description: codes.map((code) => `\`${code}\`: ${ERRORS[code].title}`).join("; "),
            content: { "application/problem+json": { schema: jsonSchema(Problem, recursive) } },
          },
        ]),
      ),
    },
  };
}

const SIGNATURE_REFUSALS = [
  "signature_missing",
  "signature_malformed",
  "signature_expired",
  "signature_not_yet_valid",
  "signature_wrong_audience",
  "signature_wrong_chain",
  "signature_component_missing",
  "signature_invalid",
  "digest_missing",
  "digest_mismatch",
] as const;

const SESSION_REFUSALS = ["session_invalid", "session_expired", "session_revoked", "scope_missing"] as const;

/** OpenAPI 3.1, generated from the schemas that validate the requests. */
export function openApiDocument(routes: readonly Mounted[], origin: string) {
  const paths: Record<string, Record<string, unknown>> = {};
  const recursive: Recursive = new Map();
  for (const mounted of routes) {
    const { path, method } = mounted.route;
    paths[path] = { ...paths[path], [method]: operation(mounted, recursive) };
  }
  const { schemas } = z.toJSONSchema(registry, {
    io: "input",
    uri: (id) => `#/components/schemas/${id}`,
  });
  return {
    openapi: "3.1.0",
    info: {
      title: "GPUX",
      version: "1",
      description:
        "The open GPU marketplace: signed jobs in, results out, providers paid from escrow on Optimism.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: origin }],
    paths,
    components: {
      schemas: { ...schemas, ...recursiveSchemas(recursive) },
      securitySchemes: {
        erc8128: {
          type: "apiKey",
          in: "header",
          name: "Signature",
          description:
            "ERC-8128: HTTP message signature (RFC 9421) by an Ethereum account, with Signature-Input.",
        },
        session: {
          type: "apiKey",
          in: "header",
          name: "gpux-session",
          description:
            "The token of POST /v1/sessions, covered by an HTTP message signature (RFC 9421) of the session's key whose keyid is the session's id.",
        },
      },
    },
  };
}
