import { CreditOffer } from "@gpux/protocol/credit";
import { JobView, RoutedJobRequest } from "@gpux/protocol/job";
import { Quote } from "@gpux/protocol/lease";
import type { Account, Consumer } from "./account.ts";
import type { AllowanceOptions, Allowances } from "./allowances.ts";
import { GpuxError } from "./error.ts";
import type { PayFrom } from "./fundings.ts";
import type { DemandInput } from "./lease-settings.ts";
import type { Leases, Quotes } from "./leases.ts";
import type { Timing } from "./timing.ts";
import { type Call, checked, jsonBody, type Transport } from "./transport.ts";
import type { WarmLease, WarmLeases } from "./warm-leases.ts";

type RequestInput = (typeof RoutedJobRequest)["_zod"]["input"];

/** A job request as on the wire (protocol/job.ts); amounts may be bigint, allowances are the client's to sign. */
export type JobInput = Omit<RequestInput, "max_price" | "allowance" | "demand" | "funding"> & {
  /** Base units: the most that this job may cost. In a dedicated lease, whose time is paid for, 0 is enough. */
  readonly max_price: bigint | string;
  readonly demand?: DemandInput;
};

export interface CreateOptions extends AllowanceOptions {
  /** Seconds (1 to 60) that the answer may be held back until the job has ended. */
  readonly wait?: number;
  /** Made here when left out. Bring your own to survive a crash of this process. */
  readonly idempotencyKey?: string;
  /** A job id of the caller's own making (`PUT /v1/jobs/{id}`). */
  readonly clientId?: string;
  readonly signal?: AbortSignal | undefined;
}

/** Leave to open leases with the payer's money, within limits in base units. */
export interface AutoOpen {
  /** By default its credit (`Client.credit`) where that suffices, so that no wallet is asked, and else its wallet. */
  readonly payFrom?: PayFrom;
  /** The most to put into one lease's escrow. */
  readonly maxAmount: bigint;
  /** The most that a lease may cost per hour. */
  readonly maxRatePerHour?: bigint;
}

export interface DispatchSettings {
  readonly url: string;
  readonly transport: Transport;
  /** Stands in the terms as `consumerSigner`. */
  readonly account: Consumer;
  readonly leases: Leases;
  readonly warm: WarmLeases;
  readonly allowances: Allowances;
  readonly timing: Timing;
  readonly payer: Account;
  /** The address that signs requests. */
  readonly by: string;
  readonly quotes: Quotes;
  readonly autoOpen: AutoOpen | null;
}

/** Whether the edge found as much in the payer's credit as is to be put in. */
function hasCredit(refusal: GpuxError, amount: bigint): boolean {
  const offer = CreditOffer.safeParse(refusal.problem?.credit);
  return offer.success && offer.data.balance >= amount;
}

/** What is sent, with bigint amounts as the wire's strings; `checked` says whether it fits. */
function wireForm(input: JobInput): JobInput {
  return JSON.parse(new TextDecoder().decode(jsonBody(input)));
}

/** Each 402 is answered once or twice in an honest dance; an edge that keeps asking is not answered for ever. */
export const MAX_ROUNDS = 6;

export interface RetryOptions extends AllowanceOptions {
  /** Another key is another retry of the same job; without any there is one. */
  readonly idempotencyKey?: string;
  readonly signal?: AbortSignal | undefined;
}

function asking(maxPrice: bigint, { allowAhead }: AllowanceOptions) {
  return allowAhead === undefined ? { maxPrice } : { maxPrice, allowAhead };
}

/** One job on its way: what is asked, under which key, and the lease it will go to. */
interface Sending {
  readonly request: RoutedJobRequest;
  readonly wire: JobInput;
  readonly key: string;
  readonly options: CreateOptions;
  /** The lease was in the cache: it takes the job in one hop. */
  warm: boolean;
  lease: WarmLease | null;
}

export function createJobDispatch(settings: DispatchSettings) {
  const { transport, warm, leases, autoOpen, allowances } = settings;
  const { allow, known, raised } = allowances;

  async function create(input: JobInput, options: CreateOptions = {}): Promise<JobView> {
    const sending = prepare(input, options);
    // The edge quotes for the account's own key: that quote would only hold the GPU which one for another is to have.
    const isOwn = settings.account.address === settings.by;
    if (!isOwn && autoOpen !== null && sending.lease === null && sending.request.lease === undefined)
      sending.lease = await openQuoted(sending, autoOpen, null);
    for (let round = 1; ; round += 1) {
      try {
        return await send(sending);
      } catch (error) {
        if (sending.lease !== null) warm.unbook(sending.lease, sending.key);
        if (!(error instanceof GpuxError) || round >= MAX_ROUNDS) throw error;
        await answer(sending, error);
      }
    }
  }

  /** A retry that was asked for before needs no allowance, so none is signed until the edge says that one is needed. */
  async function retry(before: JobView, options: RetryOptions = {}): Promise<JobView> {
    const { idempotencyKey, signal } = options;
    const headers = {
      "content-type": "application/json",
      ...(idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey }),
    };
    const path = `/v1/jobs/${before.id}/retry`;
    const maxPrice = before.max_price;
    const booked = crypto.randomUUID();
    let place = warm.get(before.lease_id);
    let isShort = false;
    for (let round = 1; ; round += 1) {
      try {
        if (place !== undefined) warm.book(place, booked, maxPrice);
        const allowance =
          place !== undefined && isShort ? await allow(place, asking(maxPrice, options)) : undefined;
        const body = jsonBody({ allowance });
        const job = await transport.json({ method: "POST", path, headers, body, signal }, JobView);
        if (place !== undefined) warm.started(place, booked, job);
        return job;
      } catch (error) {
        if (place !== undefined) warm.unbook(place, booked);
        if (!(error instanceof GpuxError) || error.code !== "allowance_required" || round >= MAX_ROUNDS)
          throw error;
        isShort = true;
        place = await raised(error, { lease: before.lease_id, maxPrice, signal });
      }
    }
  }

  function prepare(input: JobInput, options: CreateOptions): Sending {
    const rate = autoOpen?.maxRatePerHour;
    const demand = rate === undefined ? input.demand : { max_rate_per_hour: rate, ...input.demand };
    const payer = settings.payer.address === settings.by ? {} : { payer: settings.payer.address };
    const wire = wireForm({ ...payer, ...input, ...(demand === undefined ? {} : { demand }) });
    const request = checked(RoutedJobRequest, wire);
    const key = options.idempotencyKey ?? crypto.randomUUID();
    const { queue_s, start_s, execution_s } = request.timeouts;
    const untilS = settings.timing.now() / 1_000 + Math.min(queue_s, start_s) + execution_s;
    // A client-made id resolves in the account, so such a job always goes through it.
    const routed = options.clientId !== undefined;
    const named = request.lease === undefined ? undefined : warm.get(request.lease);
    const lease = request.lease === undefined ? warm.find(request.demand, request.max_price, untilS) : named;
    return { request, wire, key, options, warm: !routed && lease !== undefined, lease: lease ?? null };
  }

  async function send(sending: Sending): Promise<JobView> {
    const { lease, key, request, options } = sending;
    let allowance: Awaited<ReturnType<typeof allow>>;
    if (lease !== null) {
      warm.book(lease, key, request.max_price);
      allowance = await allow(lease, asking(request.max_price, options));
    }
    const job = await transport.json(callOf(sending, allowance), JobView);
    const place = lease?.id === job.lease_id ? lease : undefined;
    if (place !== undefined) warm.started(place, key, job);
    else if (lease !== null) warm.unbook(lease, key);
    return job;
  }

  /** Prepares the next round, or throws what the caller has to decide. */
  async function answer(sending: Sending, refusal: GpuxError): Promise<void> {
    switch (refusal.code) {
      case "payment_required":
        if (autoOpen === null || sending.request.lease !== undefined) throw refusal;
        sending.lease = await openQuoted(sending, autoOpen, refusal);
        sending.warm = false;
        return;
      case "allowance_required":
        sending.lease = await raised(refusal, {
          lease: sending.request.lease,
          maxPrice: sending.request.max_price,
          signal: sending.options.signal,
        });
        return;
      case "lease_closed":
      case "lease_unknown":
      case "lease_underfunded":
        // Only what this client chose itself may be chosen again.
        if (sending.lease === null || sending.request.lease !== undefined) throw refusal;
        warm.forget(sending.lease.id);
        sending.lease = null;
        sending.warm = false;
        return;
      default:
        throw refusal;
    }
  }

  async function openQuoted(
    sending: Sending,
    limits: AutoOpen,
    refusal: GpuxError | null,
  ): Promise<WarmLease> {
    const { request, options } = sending;
    const quote = await quoteFor(sending, refusal);
    let funding = quote.amount;
    if (funding > limits.maxAmount) funding = limits.maxAmount;
    if (funding < request.max_price) funding = request.max_price;
    if (funding > limits.maxAmount) {
      throw new GpuxError({
        code: "spend_limit",
        title: "Opening a lease for this job would take more than you set",
        hint: "Raise autoOpen.maxAmount, or lower max_price.",
        detail: `max_price is ${request.max_price}, the limit is ${limits.maxAmount}`,
        fault: "tenant",
      });
    }
    await leases.open(quote, {
      amount: funding,
      demand: sending.wire.demand ?? {},
      ...(limits.maxRatePerHour === undefined ? {} : { maxRatePerHour: limits.maxRatePerHour }),
      payFrom: limits.payFrom ?? (refusal !== null && hasCredit(refusal, funding) ? "credit" : "wallet"),
      signal: options.signal,
    });
    return known(quote.lease_id, options.signal);
  }

  /** The edge quotes for the payer that was named; an older one knows of none but the principal. */
  function quoteFor({ wire, options }: Sending, refusal: GpuxError | null): Promise<Quote> | Quote {
    const quote = Quote.safeParse(refusal?.problem?.quote);
    if (quote.success && quote.data.terms.payer === settings.payer.address.toLowerCase()) return quote.data;
    return settings.quotes.create({ demand: wire.demand ?? {} }, { signal: options.signal });
  }

  function callOf({ wire, warm: oneHop, lease, key, options }: Sending, allowance: unknown): Call {
    const { demand, lease: named, payer, ...job } = wire;
    const headers = {
      "content-type": "application/json",
      "idempotency-key": key,
      ...(options.wait === undefined ? {} : { prefer: `wait=${options.wait}` }),
    };
    const { signal, clientId } = options;
    if (oneHop && lease !== null) {
      const body = jsonBody({ ...job, allowance });
      return { method: "POST", path: `/v1/leases/${lease.id}/jobs`, headers, body, signal };
    }
    const chosen = lease?.id ?? named;
    const body = jsonBody({ ...job, demand, lease: chosen, payer, allowance });
    return clientId === undefined
      ? { method: "POST", path: "/v1/jobs", headers, body, signal }
      : { method: "PUT", path: `/v1/jobs/${clientId}`, headers, body, signal };
  }

  return { create, retry };
}
