import type { NodeView } from "@gpux/protocol/lease";
import type { BookEntry } from "./interfaces.ts";

/** A Book's row as the API shows a node. */
export function nodeViewOf(entry: BookEntry): NodeView {
  const { offer } = entry;
  return {
    id: entry.node,
    object: "node",
    status: entry.status,
    provider: entry.provider,
    gpus: offer.gpus,
    gpus_free: entry.free,
    cpu: offer.cpu,
    memory_gb: offer.memory_gb,
    region: offer.region,
    prices: offer.prices,
    agent_version: entry.agentVersion,
    last_seen: new Date(entry.lastSeen).toISOString(),
  };
}
