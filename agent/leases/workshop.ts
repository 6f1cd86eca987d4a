import type { House } from "../control/admission.ts";
import type { Executor, FunctionJob } from "../executors/executor.ts";
import type { Credentials } from "../link/credentials.ts";
import type { Log } from "../log.ts";
import type { StatePaths } from "../state-dir.ts";
import type { Chain } from "./chain.ts";
import type { Exposure } from "./exposure.ts";
import type { Preparation } from "./job.ts";
import type { Objects } from "./objects.ts";
import type { Slots } from "./slots.ts";

/** What all leases of a node share. */
export interface Workshop {
  readonly house: House;
  readonly credentials: Credentials;
  readonly paths: StatePaths;
  readonly chain: Chain;
  readonly objects: Objects;
  readonly prepare: Preparation;
  readonly executor: Executor<FunctionJob>;
  readonly slots: Slots;
  readonly exposure: Exposure;
  /** How results and receipts name the GPU. */
  readonly gpu: string;
  readonly log: Log;
}
