import { WorkerEntrypoint } from "cloudflare:workers";
import { allocationFault, foreignTerms } from "@gpux/durable-objects/meter-lease/allocation";
import type { MeterLeaseObject } from "@gpux/durable-objects/meter-lease/object";
import {
  type AllocationRefusal,
  AllocationRequest,
  type Attestation,
  type AttestRefusal,
  AttestRequest,
  type MeterInfo,
  type MeterRpc,
  OpenRequest,
} from "@gpux/protocol/attestation";
import { consumerOf } from "@gpux/protocol/consumer-signature";
import { Address, Bytes32, type HexBytes } from "@gpux/protocol/ids";
import { keyAccount } from "@gpux/protocol/key-account";
import { parserOf } from "@gpux/protocol/parser";
import { placeOf } from "@gpux/protocol/place";
import { createHasher, type TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { z } from "zod";

export { MeterLeaseObject } from "@gpux/durable-objects/meter-lease/object";

const parseAttestRequest = parserOf(AttestRequest);

interface MeterEnv {
  readonly CHAIN_ID: string;
  readonly ESCROW: string;
  readonly METER_KEY: string;
  readonly METER_LEASE: DurableObjectNamespace<MeterLeaseObject>;
}

interface Self {
  readonly place: ReturnType<typeof placeOf>;
  readonly hasher: TypedDataHasher;
  readonly address: Address;
  readonly account: ReturnType<typeof keyAccount>;
}

/**
 * By isolate: an entrypoint is made anew for every call, and the encoder's type hashes with the key's address were
 * about a tenth of what a warm job costs in workerd (docs/benchmarks.md).
 */
const selves = new WeakMap<MeterEnv, Self>();

function selfOf(env: MeterEnv): Self {
  const known = selves.get(env);
  if (known !== undefined) return known;
  const place = placeOf(env);
  const account = keyAccount(Bytes32.parse(env.METER_KEY));
  const self = { place, hasher: createHasher(place), address: Address.parse(account.address), account };
  selves.set(env, self);
  return self;
}

/**
 * The marketplace's witness: signs what leases have used, never backwards, never above the terms. The one Worker that
 * holds the meter key; reached by service binding alone, so that whoever breaks the edge can ask but not take it.
 */
export class Meter extends WorkerEntrypoint<MeterEnv> implements MeterRpc {
  readonly #self = selfOf(this.env);

  async info(): Promise<MeterInfo> {
    return { address: this.#self.address, ...this.#self.place };
  }

  async open(request: z.input<typeof OpenRequest>): Promise<{ ok: true; leaseId: Bytes32 } | AttestRefusal> {
    const parsed = OpenRequest.safeParse(request);
    if (!parsed.success) return invalid(parsed.error);
    const refusal = foreignTerms(parsed.data.terms, this.#self.address);
    if (refusal !== null) return refusal;
    const leaseId = this.#self.hasher.leaseTerms(parsed.data.terms);
    await this.env.METER_LEASE.getByName(leaseId).open(parsed.data.openedAt);
    return { ok: true, leaseId };
  }

  async attest(request: z.input<typeof AttestRequest>): Promise<Attestation | AttestRefusal> {
    const parsed = parseAttestRequest(request);
    if (!parsed.success) return invalid(parsed.error);
    const refusal = foreignTerms(parsed.data.terms, this.#self.address);
    if (refusal !== null) return refusal;
    const leaseId = this.#self.hasher.leaseTerms(parsed.data.terms);
    const answer = await this.env.METER_LEASE.getByName(leaseId).attest(leaseId, parsed.data);
    // An RPC's answer carries a disposer. Handed on, it would keep the calling lease from hibernating until called.
    return structuredClone(answer);
  }

  /** CRD-2. Each lease's own object is asked, one after another, before anything is signed. */
  async allocate(
    request: z.input<typeof AllocationRequest>,
  ): Promise<{ ok: true; signature: HexBytes } | AllocationRefusal> {
    const parsed = AllocationRequest.safeParse(request);
    if (!parsed.success) return noAllocation("intent_invalid", z.prettifyError(parsed.error).slice(0, 500));
    const { terms, fundedTo, validBefore, signature } = parsed.data;
    const { hasher, account, address } = this.#self;
    const leaseIds = terms.map((each) => hasher.leaseTerms(each));
    const fault = allocationFault(terms, leaseIds, address, Date.now());
    if (fault !== null) return fault;
    const [first] = terms;
    const hash = hasher.allocate({ leaseIds, fundedTo, validBefore });
    if ((await consumerOf(hash, signature)) !== first?.consumerSigner)
      return noAllocation("bad_signature", `it is not ${first?.consumerSigner}'s over these targets`);
    for (const [n, leaseId] of leaseIds.entries()) {
      const promised = await this.env.METER_LEASE.getByName(leaseId).promise(fundedTo[n] ?? 0n);
      if (!promised.ok) return structuredClone(promised);
    }
    return { ok: true, signature: await account.sign({ hash }) };
  }

  override async fetch(request: Request): Promise<Response> {
    const healthy = new URL(request.url).pathname === "/healthz";
    return healthy ? new Response("ok\n") : new Response("not found\n", { status: 404 });
  }
}

function noAllocation(code: AllocationRefusal["code"], detail: string): AllocationRefusal {
  return { ok: false, code, detail };
}

function invalid(error: z.ZodError): AttestRefusal {
  return { ok: false, code: "request_invalid", detail: z.prettifyError(error).slice(0, 500) };
}

export default Meter;
