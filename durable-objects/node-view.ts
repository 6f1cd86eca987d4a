import { verifiedGpus } from "@gpux/protocol/challenge/verdict";
import type { NodeView } from "@gpux/protocol/lease";
import type { BookEntry } from "./interfaces.ts";
import { standingOf } from "./presence.ts";

/** A Book's row as the API shows a node. `now` in milliseconds. */
export function nodeViewOf(entry: BookEntry, now: number): NodeView {
  const { challenge, offer, presence, status } = entry;
  const { reliability, observedMs, score } = standingOf(presence, status !== "offline", now);
  return {
    id: entry.node,
    object: "node",
    status,
    provider: entry.provider,
    gpus: offer.gpus,
    gpus_free: entry.free,
    cpu: offer.cpu,
    memory_gb: offer.memory_gb,
    region: offer.region,
    prices: offer.prices,
    start_price: offer.start_price,
    yieldable: offer.yieldable,
    gpus_per_lease: offer.gpus_per_lease,
    duration_s: offer.duration_s,
    features: offer.features,
    isolation: offer.isolation,
    models: offer.models,
    reliability: observedMs === 0 ? null : reliability / 10_000,
    observed_s: Math.floor(observedMs / 1_000),
    score: score / 10_000,
    verified: verifiedGpus(challenge, now) > 0,
    challenge: challenge && {
      result: challenge.result,
      gops: challenge.gops,
      at: new Date(challenge.at).toISOString(),
    },
    agent_version: entry.agentVersion,
    last_seen: new Date(entry.lastSeen).toISOString(),
  };
}
