import { env } from "cloudflare:workers";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import { ToLease } from "@gpux/protocol/frames";
import { Address, type JobId, jobIdOf } from "@gpux/protocol/ids";
import { JobRequest } from "@gpux/protocol/job";
import type { QuoteText } from "@gpux/protocol/lease";
import { MAX_AMOUNT } from "@gpux/protocol/money";
import { privateKeyToAccount } from "viem/accounts";
import { expect } from "vitest";
import { hasherOf } from "../billing.ts";
import { CONSUMER_KEY, done, holdOf, NODE_KEY, PLACE, termsOf } from "./fixtures.ts";
import { type Neighbours, upgradeBy } from "./neighbours.ts";

/** The parties of every lease here; the agent is the test. */
export const consumer = privateKeyToAccount(CONSUMER_KEY);
export const node = privateKeyToAccount(NODE_KEY);
export const NODE = Address.parse(node.address);
export const CONSUMER = Address.parse(consumer.address);
export const hasher = hasherOf(PLACE);

export const request = JobRequest.parse({ function: "f".repeat(64), inputs: {}, max_price: "100000" });

export interface Quoted {
  readonly expiresAt?: number;
  readonly terms?: Partial<LeaseTerms>;
  readonly text?: Partial<QuoteText>;
}

/** A quoted lease that no other test has. */
export async function quoted({ expiresAt = Date.now() + 600_000, terms: change, text }: Quoted = {}) {
  const terms = termsOf({
    consumerSigner: CONSUMER,
    providerSigner: NODE,
    meter: Address.parse(env.METER_ADDRESS),
    upfront: MAX_AMOUNT,
    unattended: 10_000_000n,
    expiry: Math.floor(Date.now() / 1_000) + 3_600,
    quote: `0x${crypto.randomUUID().replaceAll("-", "").padEnd(64, "0")}`,
    ...change,
  });
  const usual = holdOf(terms);
  const hold = { ...usual, text: { ...usual.text, ...text }, expiresAt };
  const stub = env.LEASE.getByName(hold.lease);
  expect(await stub.quote({ ...hold, amount: 0n })).toEqual({ ok: true });
  const hash = hasher.leaseTerms(terms);
  const job = (n: number): JobId => jobIdOf(hold.lease, new Uint8Array(16).fill(n));
  return { stub, terms, hash, job, hold, lease: hold.lease };
}

/** As {@link quoted}, with 10 USDC in it. */
export async function active(neighbours: Neighbours, change: Quoted = {}) {
  const made = await quoted(change);
  const leases = [{ leaseId: made.hash, funded: "10000000", openedAt: Math.floor(Date.now() / 1_000) }];
  neighbours.relayed.set("fund", done("fund", { kind: "fund", leases }));
  const answer = await made.stub.fund({
    amount: 10_000_000n,
    salt: `0x${"01".repeat(32)}`,
    valid_after: 0,
    valid_before: Math.floor(Date.now() / 1_000) + 600,
    signature: "0x00",
  });
  expect(answer).toMatchObject({ ok: true, lease: { status: "active" } });
  await neighbours.quiet();
  return made;
}

export type Stub = Awaited<ReturnType<typeof quoted>>["stub"];

/** One end of a socket: what came, in order, and how it closed. */
export class Line {
  readonly #socket: WebSocket;
  readonly #came: string[] = [];
  #wanted: ((text: string) => void) | null = null;
  readonly closed: Promise<number>;

  constructor(socket: WebSocket | null) {
    if (socket === null) throw new Error("no socket was given");
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      socket.addEventListener("close", ({ code }) => resolve(code));
    });
    socket.addEventListener("message", ({ data }) => {
      const want = this.#wanted;
      this.#wanted = null;
      if (want === null) this.#came.push(String(data));
      else want(String(data));
    });
    socket.accept();
  }

  static async dial(stub: Stub): Promise<Line> {
    return new Line((await stub.fetch(upgradeBy(NODE))).webSocket);
  }

  async next(): Promise<string> {
    return this.#came.shift() ?? (await new Promise<string>((resolve) => (this.#wanted = resolve)));
  }

  async frame<T extends ToLease["t"]>(t: T): Promise<Extract<ToLease, { t: T }>> {
    for (;;) {
      const frame = ToLease.parse(JSON.parse(await this.next()));
      if (is(frame, t)) return frame;
    }
  }

  say(frame: object): void {
    this.#socket.send(JSON.stringify({ v: 1, ack: 0, ...frame }));
  }

  send(text: string | Uint8Array<ArrayBuffer>): void {
    this.#socket.send(text);
  }

  hello(): void {
    this.say({ t: "hello", seq: 0, attempts: [], last_seq: 0 });
  }
}

function is<T extends ToLease["t"]>(frame: ToLease, t: T): frame is Extract<ToLease, { t: T }> {
  return frame.t === t;
}
