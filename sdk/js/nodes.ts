import { listOf } from "@gpux/protocol/answers";
import { NodeView } from "@gpux/protocol/lease";
import { createIntents, type Intents } from "./intents.ts";
import { pages } from "./pages.ts";
import { SYSTEM_TIMING } from "./timing.ts";
import { createTransport, type Transport } from "./transport.ts";

/** The market's machines, which anyone may look at. */
export interface Nodes {
  list(options?: { signal?: AbortSignal }): AsyncGenerator<NodeView>;
}

export function createNodes(transport: Transport): Nodes {
  return {
    list: ({ signal } = {}) => pages(transport, "/v1/nodes", listOf(NodeView), { signed: false, signal }),
  };
}

/** What an edge does for everyone: no account, nothing is signed here. */
export function createMarket(options: { url: string; fetch?: typeof fetch; maxRetries?: number }): {
  readonly nodes: Nodes;
  readonly intents: Intents;
} {
  const transport = createTransport({
    url: options.url,
    fetch: options.fetch ?? ((request, init) => fetch(request, init)),
    maxRetries: options.maxRetries ?? 2,
    timing: SYSTEM_TIMING,
    sign: () => Promise.reject(new Error("a route of the open market was to be signed")),
    recover: () => null,
  });
  return { nodes: createNodes(transport), intents: createIntents(transport, SYSTEM_TIMING) };
}
