import { ECHO } from "@gpux/durable-objects/testing/echo";
import { canonicalJson } from "@gpux/protocol/canonical";
import type { JobView } from "@gpux/protocol/job";
import type { Account, Client } from "@gpux/sdk";
import type { Requests } from "./signed-requests.ts";

/** What a bad request is made from: a lease of `consumer` on which `first` has run, and somebody else. */
export interface Ground {
  readonly client: Client;
  readonly requests: Requests;
  readonly consumer: Account;
  readonly stranger: Account;
  /** Hash of the stored {@link ECHO}. */
  readonly echo: string;
  readonly first: JobView;
  /** Base units that the consumer has allowed on the lease. */
  readonly allowed: bigint;
}

/** A job that would be taken, but for the change. */
export function jobBody(ground: Pick<Ground, "echo">, change: object = {}): object {
  return { function: ground.echo, inputs: { value: { number: 1 } }, max_price: "1000", ...change };
}

export function warmPath({ first }: Pick<Ground, "first">): string {
  return `/v1/leases/${first.lease_id}/jobs`;
}

/** Puts a manifest, good or bad; its hash. */
export function store(client: Client, manifest: object = ECHO): Promise<string> {
  return client.objects.put(new TextEncoder().encode(canonicalJson(manifest)));
}
