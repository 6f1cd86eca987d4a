import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { isAgentOutput, putAgentOutput } from "./agent-outputs.ts";
import { connectAgent, isAgentPath } from "./agent-sockets.ts";
import { answerWarm, app, broken, requestId, responseOf } from "./app.ts";
import { connectClient, isClientUpgrade } from "./client-sockets.ts";
import type { Answer } from "./route.ts";

export { AccountObject } from "@gpux/durable-objects/account/object";
export { BookObject } from "@gpux/durable-objects/book/object";
export { LeaseObject } from "@gpux/durable-objects/lease/object";
export { NodeObject } from "@gpux/durable-objects/node/object";

function outsideOfRouter(request: Request, env: ObjectEnv, id: string): Promise<Answer> {
  if (isClientUpgrade(request)) return connectClient(request, env, id);
  return isAgentOutput(request) ? putAgentOutput(request, env) : connectAgent(request, env);
}

/** The public Worker of GPUX. */
export default {
  async fetch(request, env, ctx): Promise<Response> {
    const warm = await answerWarm(request, env);
    if (warm !== null) return warm;
    if (!isAgentPath(new URL(request.url).pathname) && !isClientUpgrade(request))
      return app.fetch(request, env, ctx);
    const id = requestId();
    try {
      const response = responseOf(await outsideOfRouter(request, env, id), id);
      if (response.status !== 101) response.headers.set("x-request-id", id);
      return response;
    } catch (error) {
      return broken(error, id);
    }
  },
} satisfies ExportedHandler<ObjectEnv>;
