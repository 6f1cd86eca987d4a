import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { connectAgent, isAgentPath } from "./agent-sockets.ts";
import { app, broken, requestId, responseOf } from "./app.ts";
import { connectClient, isClientUpgrade } from "./client-sockets.ts";

export { AccountObject } from "@gpux/durable-objects/account/object";
export { BookObject } from "@gpux/durable-objects/book/object";
export { LeaseObject } from "@gpux/durable-objects/lease/object";
export { NodeObject } from "@gpux/durable-objects/node/object";

/** The public Worker of GPUX. */
export default {
  async fetch(request, env, ctx): Promise<Response> {
    const isAgent = isAgentPath(new URL(request.url).pathname);
    if (!isAgent && !isClientUpgrade(request)) return app.fetch(request, env, ctx);
    const id = requestId();
    try {
      const answer = isAgent ? connectAgent(request, env) : connectClient(request, env, id);
      const response = responseOf(await answer, id);
      if (response.status !== 101) response.headers.set("x-request-id", id);
      return response;
    } catch (error) {
      return broken(error, id);
    }
  },
} satisfies ExportedHandler<ObjectEnv>;
