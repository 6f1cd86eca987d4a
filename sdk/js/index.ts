/** @gpux/sdk: jobs on other people's GPUs, signed by your own key. */
export type { Account } from "./account.ts";
export type { AllowanceOptions } from "./allowances.ts";
export { type Client, type ClientOptions, createClient } from "./client.ts";
export type { Credit } from "./credit.ts";
export { type ClientErrorCode, GpuxError, type GpuxErrorCode } from "./error.ts";
export type { PayFrom } from "./fundings.ts";
export type { IntentDoneView, IntentInput, Intents } from "./intents.ts";
export type { BatchInput, BatchOptions } from "./job-batch.ts";
export type { AutoOpen, CreateOptions, JobInput } from "./job-dispatch.ts";
export type { Jobs, RunOptions } from "./jobs.ts";
export type { LeaseSession, LeaseSessionOptions, SessionRunOptions } from "./lease-session.ts";
export type { DemandInput } from "./lease-settings.ts";
export type { AutoTopUpInput, Leases, OpenOptions, QuoteInput, Quotes } from "./leases.ts";
export { createMarket, type Nodes, type OfferSearchInput, type Offers } from "./nodes.ts";
export type { Objects } from "./objects.ts";
export type { OrderInput } from "./orders.ts";
export { checkQuote, type Expected, type QuoteCheck } from "./quote-check.ts";
export {
  type ReceiptCheck,
  type ReceiptContext,
  type ReceiptRefusal,
  verifyKept,
  verifyReceipt,
  verifyTick,
} from "./receipt.ts";
export type { KeptSession, Session, SessionOptions, Sessions } from "./session.ts";
export {
  newExportableSessionKey,
  newP256Key,
  newSessionKey,
  readSessionKey,
  type SessionKeyPair,
} from "./session-key.ts";
export type { ClientSocket, Dial } from "./socket-link.ts";
export type { Timing } from "./timing.ts";
