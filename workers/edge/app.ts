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
    exposeHeaders: [
      "gpux-lease",
      "idempotent-replayed",
      "location",
      "preference-applied",
      "retry-after",
      "x-request-id",
    ],
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
