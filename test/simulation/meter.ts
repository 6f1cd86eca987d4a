import { allocationFault } from "@gpux/durable-objects/meter-lease/allocation";
import type { MeterState } from "@gpux/durable-objects/meter-lease/machine";
import type {
  AllocationRefusal,
  AllocationRequest,
  Attestation,
  AttestRefusal,
  AttestRequest,
} from "@gpux/protocol/attestation";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { Address, Bytes32, HexBytes } from "@gpux/protocol/ids";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { Actor } from "./actor.ts";
import type { Keyring } from "./keyring.ts";
import type { Machines } from "./machines.ts";
import type { Schedule } from "./schedule.ts";

interface Row {
  state: MeterState | null;
  /** The highest target that it stands by. */
  promised: bigint;
  readonly digests: Map<number, Bytes32>;
}

/** What the meter signed, for the invariants. */
export interface Attested {
  readonly lease: Bytes32;
  readonly terms: LeaseTerms;
  readonly allowance: bigint;
  readonly cumulative: bigint;
  readonly evidence: Bytes32;
  readonly isClose: boolean;
}

/** A target that it co-signed for one lease. */
export interface Promised {
  readonly lease: Bytes32;
  readonly target: bigint;
}

/** workers/meter with the objects of all leases behind it: the shell around durable-objects/meter-lease. */
export class Meter extends Actor {
  readonly #rows = new Map<Bytes32, Row>();
  readonly #machines: Machines;
  readonly #schedule: Schedule;
  readonly #hasher: TypedDataHasher;
  readonly #keyring: Keyring;
  readonly #address: Address;
  onSigned: (attested: Attested) => void = () => {};
  onPromised: (promised: Promised) => void = () => {};

  constructor(
    address: Address,
    machines: Machines,
    around: { readonly schedule: Schedule; readonly hasher: TypedDataHasher; readonly keyring: Keyring },
  ) {
    super("meter");
    this.#address = address;
    this.#machines = machines;
    this.#schedule = around.schedule;
    this.#hasher = around.hasher;
    this.#keyring = around.keyring;
  }

  open(terms: LeaseTerms, openedAt: number): { ok: true } {
    this.#step(this.#hasher.leaseTerms(terms), { t: "open", openedAt });
    return { ok: true };
  }

  attest(request: AttestRequest): Attestation | AttestRefusal {
    const { terms, usage, allowance } = request;
    const leaseId = this.#hasher.leaseTerms(terms);
    if (terms.meter !== this.#address) return { ok: false, code: "meter_mismatch" };
    if (allowance !== undefined) {
      const digest = this.#hasher.allowance({ leaseId, cumulative: allowance.cumulative });
      if (!this.#keyring.isSigned(terms.consumerSigner, digest, allowance.signature))
        return { ok: false, code: "allowance_invalid" };
    }
    const receipts = request.receipts.map((receipt) => ({ receipt, digest: this.#hasher.receipt(receipt) }));
    const attested = this.#rows.get(leaseId)?.digests ?? new Map<number, Bytes32>();
    const result = this.#step(leaseId, {
      t: "attest",
      leaseId,
      terms,
      allowance: allowance?.cumulative ?? null,
      usage,
      receipts,
      attested,
      close: request.close !== undefined,
    });
    if (!result.ok) return result;
    const sign = (digest: Bytes32) => this.#keyring.sign(this.#address, digest);
    const { cumulative, evidence } = usage;
    const isClose = request.close !== undefined;
    const signed = { lease: leaseId, terms, allowance: allowance?.cumulative ?? 0n, cumulative, evidence };
    this.onSigned({ ...signed, isClose });
    return {
      ok: true,
      leaseId,
      usageSignature: sign(this.#hasher.usage({ leaseId, cumulative, evidence })),
      ...(request.close === undefined
        ? {}
        : { closeSignature: sign(this.#hasher.close({ leaseId, cumulative, evidence, ...request.close })) }),
    };
  }

  /** CRD-2, as workers/meter has it: each lease is asked before anything is signed. */
  allocate(request: AllocationRequest): { ok: true; signature: HexBytes } | AllocationRefusal {
    const { terms, fundedTo, validBefore, signature } = request;
    const leaseIds = terms.map((each) => this.#hasher.leaseTerms(each));
    const fault = allocationFault(terms, leaseIds, this.#address, this.#schedule.now);
    if (fault !== null) return fault;
    const digest = this.#hasher.allocate({ leaseIds, fundedTo, validBefore });
    const consumer = terms[0]?.consumerSigner ?? this.#address;
    if (!this.#machines.meter.isSigned(() => this.#keyring.isSigned(consumer, digest, signature)))
      return { ok: false, code: "bad_signature", detail: consumer };
    for (const [n, lease] of leaseIds.entries()) {
      const row = this.#rows.get(lease);
      const target = fundedTo[n] ?? 0n;
      const result = this.#machines.meter.promise(row?.state ?? null, row?.promised ?? 0n, target);
      if (!result.ok) return result;
      this.#rows.set(lease, {
        state: row?.state ?? null,
        digests: row?.digests ?? new Map(),
        promised: result.promised,
      });
    }
    for (const [n, lease] of leaseIds.entries()) this.onPromised({ lease, target: fundedTo[n] ?? 0n });
    return { ok: true, signature: this.#keyring.sign(this.#address, digest) };
  }

  #step(lease: Bytes32, event: Parameters<Machines["meter"]["step"]>[1]) {
    const row = this.#rows.get(lease);
    const result = this.#machines.meter.step(row?.state ?? null, event, this.#schedule.now);
    if (!result.ok) return result;
    const digests = row?.digests ?? new Map<number, Bytes32>();
    for (const { sequence, digest } of result.added) digests.set(sequence, digest);
    this.#rows.set(lease, { state: result.next, digests, promised: row?.promised ?? 0n });
    return result;
  }
}
