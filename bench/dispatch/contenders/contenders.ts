import { BULK_CONTENDERS } from "./bulk.ts";
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

/** All ways to get a small job done, what GPUX is held against first. */
const JOB_CONTENDERS: readonly Contender[] = [
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

/** All that can be measured: with small jobs, and with outputs of 64 MiB. */
export const CONTENDERS = { jobs: JOB_CONTENDERS, bulk: BULK_CONTENDERS } as const;
