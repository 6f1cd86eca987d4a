import { listOf } from "@gpux/protocol/answers";
import { JobBatch, JobView } from "@gpux/protocol/job";
import { GpuxError } from "./error.ts";
import { type CreateOptions, type DispatchSettings, type JobInput, MAX_ROUNDS } from "./job-dispatch.ts";
import { checked, jsonBody } from "./transport.ts";

/** A job of a batch: the lease is the batch's. */
export type BatchInput = Omit<JobInput, "lease" | "demand">;

export type BatchOptions = Omit<CreateOptions, "clientId">;

/**
 * Sends 1 to 64 jobs to a lease in one request, under one allowance for the sum of their prices: the lease takes all of
 * them or none, and then throws what the edge refused, whose `problem.errors` point at the job.
 */
export function createJobBatch(settings: DispatchSettings) {
  const { transport, warm, allowances } = settings;
  const { allow, known, raised } = allowances;

  return async (
    lease: string,
    inputs: readonly BatchInput[],
    { wait, idempotencyKey, signal, allowAhead }: BatchOptions = {},
  ): Promise<JobView[]> => {
    const wire: BatchInput[] = JSON.parse(new TextDecoder().decode(jsonBody(inputs)));
    const requests = checked(JobBatch, wire);
    const key = idempotencyKey ?? crypto.randomUUID();
    const names = requests.map((_, index) => `${key} ${index}`);
    const maxPrice = requests.reduce((sum, { max_price }) => sum + max_price, 0n);
    const answer = listOf(JobView).refine(
      ({ data }) => data.length === requests.length,
      "as many as were sent",
    );
    const headers = {
      "content-type": "application/json",
      "idempotency-key": key,
      ...(wait === undefined ? {} : { prefer: `wait=${wait}` }),
    };
    for (let round = 1; ; round += 1) {
      const place = await known(lease, signal);
      for (const [index, { max_price }] of requests.entries())
        warm.book(place, names[index] ?? key, max_price);
      try {
        const allowance = await allow(place, {
          maxPrice: dearest(requests),
          ...(allowAhead === undefined ? {} : { allowAhead }),
        });
        // One of them brings it for all.
        const body = jsonBody(wire.map((each, index) => (index === 0 ? { ...each, allowance } : each)));
        const path = `/v1/leases/${place.id}/jobs`;
        const { data } = await transport.json({ method: "POST", path, headers, body, signal }, answer);
        for (const [index, job] of data.entries()) warm.started(place, names[index] ?? key, job);
        return data;
      } catch (error) {
        for (const name of names) warm.unbook(place, name);
        const isShort = error instanceof GpuxError && error.code === "allowance_required";
        if (!isShort || round >= MAX_ROUNDS) throw error;
        await raised(error, { lease: place.id, maxPrice, signal });
      }
    }
  };
}

/** The `max_price` of the dearest of them. */
export function dearest(requests: readonly { readonly max_price: bigint }[]): bigint {
  let most = 0n;
  for (const { max_price } of requests) if (max_price > most) most = max_price;
  return most;
}
