import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { configOf } from "@gpux/durable-objects/config";
import { Hono } from "hono";
import { cors } from "hono/cors";
import { clientSocketRoutes } from "./client-sockets.ts";
import { metrics } from "./metrics.ts";
import { openApiDocument } from "./openapi.ts";
import { problemResponse, type Refusal, refuse } from "./refusal.ts";
import type { Answer, Mounted } from "./route.ts";
import { creditRoutes } from "./routes/credit.ts";
import { factRoutes } from "./routes/facts.ts";
import { jobRoutes } from "./routes/jobs.ts";
import { leaseEventRoutes } from "./routes/lease-events.ts";
import { leaseJobRoutes } from "./routes/lease-jobs.ts";
import { leaseRoutes } from "./routes/leases.ts";
import { marketRoutes } from "./routes/market.ts";
import { objectRoutes } from "./routes/objects.ts";
import { relayRoutes } from "./routes/relay.ts";
import { sessionRoutes } from "./routes/sessions.ts";

/** Every operation of the API. */
export const routes: readonly Mounted[] = [
  ...jobRoutes,
  ...leaseJobRoutes,
  ...clientSocketRoutes,
  ...leaseRoutes,
  ...leaseEventRoutes,
  ...creditRoutes,
  ...marketRoutes,
  ...objectRoutes,
  ...relayRoutes,
  ...sessionRoutes,
  ...factRoutes,
];

const EXPOSED = [
  "gpux-lease",
  "idempotent-replayed",
  "location",
  "preference-applied",
  "repr-digest",
  "retry-after",
  "x-request-id",
] as const;

/**
 * The requests of which there are many for each of the others, by method and path: they pass the router and its
 * middleware by, whose work is a fifteenth of what such a one costs.
 */
const WARM = [
  {
    operation: "post /v1/leases/{id}/jobs",
    url: /^https?:\/\/[^/?#]+\/v1\/leases\/([^/?#]+)\/jobs(?:[?#]|$)/,
  },
  { operation: "get /v1/jobs/{id}", url: /^https?:\/\/[^/?#]+\/v1\/jobs\/([^/?#]+)(?:[?#]|$)/ },
].flatMap(({ operation, url }) => {
  const mounted = routes.find(({ route }) => `${route.method} ${route.path}` === operation);
  return mounted === undefined ? [] : [{ mounted, method: mounted.route.method.toUpperCase(), url }];
});

/** What the router would answer, to the same request; null: it is for the router. */
export async function answerWarm(request: Request, env: ObjectEnv): Promise<Response | null> {
  for (const { mounted, method, url } of WARM) {
    const id = request.method === method ? url.exec(request.url)?.[1] : undefined;
    if (id === undefined || id.includes("%")) continue;
    const name = requestId();
    let response: Response;
    try {
      response = responseOf(await mounted.respond(request, { id }, env), name);
    } catch (error) {
      response = broken(error, name);
    }
    response.headers.set("x-request-id", name);
    response.headers.set("access-control-allow-origin", "*");
    response.headers.set("access-control-expose-headers", EXPOSED.join(","));
    return response;
  }
  return null;
}

type Env = { Bindings: ObjectEnv; Variables: { requestId: string } };

const app = new Hono<Env>();

app.use(async (c, next) => {
  c.set("requestId", requestId());
  await next();
  c.res.headers.set("x-request-id", c.get("requestId"));
});
app.use(
  cors({
    origin: "*",
    allowMethods: ["GET", "HEAD", "POST", "PUT", "DELETE"],
    allowHeaders: [
      "content-type",
      "content-digest",
      "gpux-lease",
      "gpux-session",
      "idempotency-key",
      "last-event-id",
      "prefer",
      "signature",
      "signature-input",
    ],
    exposeHeaders: [...EXPOSED],
    maxAge: 86_400,
  }),
);

for (const mounted of routes) {
  const { method, path } = mounted.route;
  app.on(method.toUpperCase(), path.replace(/\{(\w+)\}/g, ":$1"), async (c) =>
    responseOf(await mounted.respond(c.req.raw, c.req.param(), c.env), c.get("requestId")),
  );
}
// Not of the API: for the operator, who has the token.
app.get("/metrics", async (c) => responseOf(await metrics(c.req.raw, c.env), c.get("requestId")));
app.get("/openapi.json", (c) => c.json(openApiDocument(routes, configOf(c.env).publicOrigin)));

const allowed = Map.groupBy(routes, ({ route }) => route.path);
for (const [path, mounted] of allowed) {
  const methods = mounted.map(({ route }) => route.method.toUpperCase());
  const allow = [...methods, ...(methods.includes("GET") ? ["HEAD"] : []), "OPTIONS"].join(", ");
  app.all(path.replace(/\{(\w+)\}/g, ":$1"), (c) =>
    problemResponse({ ...refuse("method_not_allowed"), headers: { allow } }, c.get("requestId")),
  );
}

app.notFound((c) => problemResponse(refuse("not_found"), c.get("requestId")));
app.onError((error, c) => broken(error, c.get("requestId")));

export { app };

/** `req_` and 128 random bits. */
export function requestId(): string {
  return `req_${crypto.randomUUID().replaceAll("-", "")}`;
}

export function responseOf(answer: Answer, id: string): Response {
  return isRefusal(answer) ? problemResponse(answer, id) : answer;
}

function isRefusal(answer: Answer): answer is Refusal {
  return "code" in answer;
}

/** A bug or a platform failure: the operator gets all of it, the caller the number to quote. */
export function broken(error: unknown, id: string): Response {
  const stack = error instanceof Error ? error.stack : undefined;
  console.error(JSON.stringify({ event: "request_failed", request_id: id, error: String(error), stack }));
  const response = problemResponse(refuse("internal"), id);
  response.headers.set("x-request-id", id);
  return response;
}
