import { DurableObject } from "cloudflare:workers";
import type {
  AllocationRefusal,
  Attestation,
  AttestRefusal,
  AttestRequest,
} from "@gpux/protocol/attestation";
import { consumerOf } from "@gpux/protocol/consumer-signature";
import { type Address, Bytes32 } from "@gpux/protocol/ids";
import type { SignedAllowance } from "@gpux/protocol/job";
import { keyAccount } from "@gpux/protocol/key-account";
import { placeOf } from "@gpux/protocol/place";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import { promise, step } from "./machine.ts";
import { openStore } from "./store.ts";

export interface MeterLeaseEnv {
  readonly CHAIN_ID: string;
  readonly ESCROW: string;
  readonly METER_KEY: string;
}

/**
 * The meter of one lease; the object's name is the on-chain lease id. Only the entrypoint in workers/meter calls it,
 * with parsed requests whose terms hash to that name.
 */
export class MeterLeaseObject extends DurableObject<MeterLeaseEnv> {
  readonly #store = openStore(this.ctx.storage.sql);
  readonly #hasher = createHasher(placeOf(this.env));
  /** The last allowance that was found to be the consumer's; the object is one lease's, and so are its terms. */
  #known: SignedAllowance | null = null;
  readonly #account = keyAccount(Bytes32.parse(this.env.METER_KEY));

  /** Starts the clock; the first call counts. */
  open(openedAt: number): void {
    const result = step(this.#store.read(), { t: "open", openedAt }, Date.now());
    if (result.ok) this.#store.write(result.next, result.added);
  }

  /** Whether the lease may have `target` from credit. Durable when it answers: the meter signs after that. */
  async promise(target: bigint): Promise<{ ok: true } | AllocationRefusal> {
    const before = this.#store.promised();
    const result = promise(this.#store.read(), before, target);
    if (!result.ok) return result;
    if (result.promised !== before) this.#store.writePromised(result.promised);
    await this.ctx.storage.sync();
    return { ok: true };
  }

  /**
   * Signs, or says why not. The rise is durable before it is signed: after a crash in between, the meter knows of
   * more than it gave out, never of less, and the repeated request gets the same signatures (RFC 6979).
   */
  async attest(leaseId: Bytes32, request: AttestRequest): Promise<Attestation | AttestRefusal> {
    const allowance = request.allowance ?? null;
    if (allowance !== null && !(await this.#isConsumers(leaseId, request.terms.consumerSigner, allowance)))
      return { ok: false, code: "allowance_invalid" };
    const receipts = request.receipts.map((receipt) => ({ receipt, digest: this.#hasher.receipt(receipt) }));
    const result = step(
      this.#store.read(),
      {
        t: "attest",
        leaseId,
        terms: request.terms,
        allowance: allowance?.cumulative ?? null,
        usage: request.usage,
        receipts,
        attested: this.#store.digests(request.receipts.map((receipt) => receipt.sequence)),
        close: request.close !== undefined,
      },
      Date.now(),
    );
    if (!result.ok) return result;
    this.#store.write(result.next, result.added);
    await this.ctx.storage.sync();

    const sign = (hash: Bytes32) => this.#account.sign({ hash });
    const usage = { leaseId, ...request.usage };
    return {
      ok: true,
      leaseId,
      usageSignature: await sign(this.#hasher.usage(usage)),
      ...(request.close === undefined
        ? {}
        : { closeSignature: await sign(this.#hasher.close({ ...usage, ...request.close })) }),
    };
  }

  /** A lease shows the same allowance with every job that it pays for; its signature is recovered once. */
  async #isConsumers(leaseId: Bytes32, consumer: Address, allowance: SignedAllowance): Promise<boolean> {
    const { cumulative, signature } = allowance;
    if (this.#known?.cumulative === cumulative && this.#known.signature === signature) return true;
    const digest = this.#hasher.allowance({ leaseId, cumulative });
    if ((await consumerOf(digest, signature)) !== consumer) return false;
    this.#known = allowance;
    return true;
  }
}
