import { FromNode, type ToNode } from "@gpux/protocol/frames";
import { Address, type LeaseId, leaseIdOf } from "@gpux/protocol/ids";
import type { HoldRequest } from "../../interfaces.ts";
import type { NodeEffect, NodeEvent } from "../event.ts";
import { step } from "../machine.ts";
import { type NodeState, unknownNode } from "../state.ts";

/** A node of two cards, what it and others say, and how far it has come, for tests of its machine. */

export const node = Address.parse(`0x${"aa".repeat(20)}`);
export const provider = Address.parse(`0x${"bb".repeat(20)}`);
export const other = Address.parse(`0x${"cc".repeat(20)}`);
export const lease = (n: number): LeaseId => leaseIdOf(`0x${n.toString(16).padStart(2, "0").repeat(32)}`);

export const gpu = {
  model: "RTX_4090",
  reported: "RTX 4090",
  vram_mb: 24_000,
  driver: "1",
  backend: "vulkan",
  software: false,
};
export const offer = {
  gpus: [gpu, gpu],
  cpu: 8,
  memory_gb: 32,
  region: "eu-west",
  prices: { gpu_hour: "3600", core_hour: "0", gb_hour: "0" },
  concurrency: 1,
  yieldable: { gpu_hour: "3600", core_hour: "0", gb_hour: "0" },
};

export function frame(seq: number, ack: number, body: object): FromNode {
  return FromNode.parse({ v: 1, seq, ack, ...body });
}
export const hello = (ack = 0, change: object = {}) =>
  frame(0, ack, {
    t: "hello",
    agent_version: "1.0.0",
    provider,
    offer,
    leases: [],
    draining: false,
    ...change,
  });

export function request(
  n: number,
  change: {
    gpus?: number;
    cpu?: number;
    memory_gb?: number;
    cards?: (typeof gpu)[];
    rate?: bigint;
    provider?: Address;
    expiresAt?: number;
    tier?: "firm" | "yieldable";
  } = {},
) {
  const cards = change.cards ?? Array.from({ length: change.gpus ?? 1 }, () => gpu);
  const resources = { gpus: cards.length, cpu: change.cpu ?? 0, memory_gb: change.memory_gb ?? 0 };
  const hold: HoldRequest = {
    lease: lease(n),
    expiresAt: change.expiresAt ?? 30_000,
    terms: {
      payer: other,
      consumerSigner: other,
      provider: change.provider ?? provider,
      providerSigner: node,
      meter: other,
      feeRecipient: other,
      feeBps: 0,
      upfront: 60n,
      unattended: 0n,
      ratePerHour: change.rate ?? 3_600n * BigInt(resources.gpus),
      expiry: 3_600,
      quote: `0x${"01".repeat(32)}`,
    },
    text: {
      node,
      gpus: cards,
      resources,
      prices: { gpu_hour: "3600", core_hour: "0", gb_hour: "0" },
      tier: change.tier ?? "firm",
      mode: "serverless",
      region: "eu-west",
      tick_s: 60,
      salt: `0x${"02".repeat(32)}`,
    },
  };
  return hold;
}

/** Runs events from a node never seen; refusals leave the state and are noted among the effects. */
export function run(events: readonly (readonly [NodeEvent, number])[], from: NodeState = unknownNode(node)) {
  let state = from;
  const effects: NodeEffect[] = [];
  const refusals: string[] = [];
  for (const [event, now] of events) {
    const result = step(state, event, now);
    if (!result.ok) refusals.push(result.code);
    else {
      state = result.next;
      effects.push(...result.effects);
    }
  }
  return { state, effects, refusals, sent: effects.flatMap((e) => (e.t === "send" ? [e.frame] : [])) };
}

export const connected = (connection: string): NodeEvent => ({ t: "connected", connection });
export const from = (connection: string, frame: FromNode): NodeEvent => ({ t: "frame", connection, frame });
export const online: [NodeEvent, number][] = [
  [connected("a"), 1],
  [from("a", hello()), 2],
];
export const held: [NodeEvent, number][] = [
  ...online,
  [{ t: "hold", request: request(1) }, 3],
  [from("a", frame(1, 1, { t: "held", hold: lease(1) })), 4],
];
export const opened: [NodeEvent, number][] = [
  ...held,
  [{ t: "reserve", lease: lease(1), until: 600_000 }, 5],
  [{ t: "open", lease: lease(1), terms: request(1).terms }, 6],
];
export const kinds = (frames: readonly ToNode[]) => frames.map((each) => each.t);
