import { listOf } from "@gpux/protocol/answers";
import { NodeView } from "@gpux/protocol/lease";
import { pages } from "./pages.ts";
import type { Transport } from "./transport.ts";

/** The market's machines. */
export interface Nodes {
  list(options?: { signal?: AbortSignal }): AsyncGenerator<NodeView>;
}

export function createNodes(transport: Transport): Nodes {
  return { list: ({ signal } = {}) => pages(transport, "/v1/nodes", listOf(NodeView), signal) };
}
