import { bullmq, durableBullmq } from "./bullmq.ts";
import { cold } from "./cold.ts";
import type { Contender } from "./contender.ts";
import { direct } from "./direct.ts";
import { jetstream } from "./jetstream.ts";
import { nats, rawNats } from "./nats.ts";
import { routed } from "./routed.ts";
import { sessionSocket } from "./session-socket.ts";
import { sshTunnel } from "./ssh-tunnel.ts";
import { warm, warmHmac, warmOutput, warmSession } from "./warm.ts";
import { warmAsync } from "./warm-async.ts";
import { warmBatch } from "./warm-batch.ts";
import { websocketTunnel } from "./websocket-tunnel.ts";

/** All that can be measured, what GPUX is held against first. */
export const CONTENDERS: readonly Contender[] = [
  direct,
  nats,
  rawNats,
  jetstream,
  bullmq,
  durableBullmq,
  sshTunnel,
  websocketTunnel,
  warm,
  warmOutput,
  warmSession,
  warmHmac,
  warmAsync,
  warmBatch,
  sessionSocket,
  routed,
  cold,
];
