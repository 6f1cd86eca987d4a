import type { Blocker } from "@gpux/protocol/resources";

/** By how many offers each condition is failed. */
export type Counts = Record<Blocker, number>;

export function noCounts(): Counts {
  return {
    gpus: 0,
    gpu_model: 0,
    vram: 0,
    cpu: 0,
    memory: 0,
    region: 0,
    tier: 0,
    isolation: 0,
    features: 0,
    model: 0,
    duration: 0,
    node: 0,
    excluded: 0,
    reliability: 0,
    verified: 0,
    price: 0,
  };
}

/** Those that some offer fails. Written out, since a refusal is mostly this: a name known beforehand is found faster. */
export function blockersIn(counts: Counts): Partial<Counts> {
  const blockers: Partial<Counts> = {};
  if (counts.gpus > 0) blockers.gpus = counts.gpus;
  if (counts.gpu_model > 0) blockers.gpu_model = counts.gpu_model;
  if (counts.vram > 0) blockers.vram = counts.vram;
  if (counts.cpu > 0) blockers.cpu = counts.cpu;
  if (counts.memory > 0) blockers.memory = counts.memory;
  if (counts.region > 0) blockers.region = counts.region;
  if (counts.tier > 0) blockers.tier = counts.tier;
  if (counts.isolation > 0) blockers.isolation = counts.isolation;
  if (counts.features > 0) blockers.features = counts.features;
  if (counts.model > 0) blockers.model = counts.model;
  if (counts.duration > 0) blockers.duration = counts.duration;
  if (counts.node > 0) blockers.node = counts.node;
  if (counts.excluded > 0) blockers.excluded = counts.excluded;
  if (counts.reliability > 0) blockers.reliability = counts.reliability;
  if (counts.verified > 0) blockers.verified = counts.verified;
  if (counts.price > 0) blockers.price = counts.price;
  return blockers;
}
