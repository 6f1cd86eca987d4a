import type { MeterRpc } from "@gpux/protocol/attestation";
import type { RelayerRpc } from "@gpux/protocol/intent";
import type { AccountRpc, BookRpc, LeaseRpc, NodeRpc } from "./interfaces.ts";

/**
 * A namespace of Durable Objects as its callers see it: the RPC interface and `fetch` for socket upgrades. Narrower
 * than `DurableObjectNamespace<Class>`, so that no object (and no route) needs another object's class, and RPC
 * answers keep the types of interfaces.ts instead of workerd's mapped ones.
 */
export interface Namespace<Rpc> {
  getByName(name: string): Rpc & { fetch(request: Request): Promise<Response> };
}

/** What every Durable Object of the edge Worker finds in its `env`. The strings are read through config.ts. */
export interface ObjectEnv {
  readonly LEASE: Namespace<LeaseRpc>;
  readonly NODE: Namespace<NodeRpc>;
  readonly BOOK: Namespace<BookRpc>;
  readonly ACCOUNT: Namespace<AccountRpc>;
  readonly RELAYER: RelayerRpc;
  readonly METER: MeterRpc;
  readonly OBJECTS: R2Bucket;
  readonly CHAIN_ID: string;
  readonly ESCROW: string;
  readonly TOKEN: string;
  readonly TOKEN_NAME: string;
  readonly TOKEN_VERSION: string;
  readonly METER_ADDRESS: string;
  readonly FEE_RECIPIENT: string;
  readonly FEE_BPS: string;
  readonly RPC_URL: string;
  readonly PUBLIC_ORIGIN: string;
  readonly SESSION_KEYS: string;
  readonly METRICS_TOKEN?: string;
  readonly BOOK_SHARDS?: string;
  readonly CHALLENGE_AFTER_S?: string;
}
