import { env } from "cloudflare:workers";
import { ToLease } from "@gpux/protocol/frames";
import type { LeaseId } from "@gpux/protocol/ids";
import type { QuoteText } from "@gpux/protocol/lease";
import { type Account, addressOf, newAccount } from "../../testing/client.ts";
import { type Neighbours, upgradeBy } from "./neighbours.ts";
import { active, NODE, type Quoted, quoted } from "./open-lease.ts";

export const OUTPUT = {
  name: "out",
  content_type: "application/octet-stream",
  bytes: 4,
  sha256: "a".repeat(64),
};

/** The provider's end of the data socket: it does as the test says. */
export class DataLine {
  readonly #socket: WebSocket;
  readonly #runs: Run[] = [];
  #wanted: ((run: Run) => void) | null = null;
  readonly #welcome = Promise.withResolvers<Welcome>();
  #seq = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => {
      const frame = ToLease.parse(JSON.parse(String(data)));
      if (frame.t === "welcome") this.#welcome.resolve(frame);
      const runs = frame.t === "run" ? [frame] : frame.t === "runs" ? frame.runs : [];
      for (const run of runs) {
        const want = this.#wanted;
        this.#wanted = null;
        if (want === null) this.#runs.push(run);
        else want(run);
      }
    });
    socket.accept();
  }

  /** Goes on with the numbers of `before`, which it follows; `attempts` are what it says that it has at hand. */
  static async dial(
    lease: LeaseId,
    attempts: readonly Pick<Run, "job" | "attempt">[] = [],
    before?: DataLine,
    able: { readonly prefetches?: true } = {},
  ): Promise<DataLine> {
    const { webSocket } = await env.LEASE.getByName(lease).fetch(upgradeBy(NODE));
    if (webSocket === null || webSocket === undefined) throw new Error("no data socket");
    const agent = new DataLine(webSocket);
    agent.#seq = before === undefined ? 0 : before.#seq;
    const own = attempts.map(({ job, attempt }) => ({ job, attempt }));
    agent.#say({ t: "hello", seq: 0, attempts: own, last_seq: 0, ...able });
    return agent;
  }

  /** What the edge answered to the hello. */
  welcome(): Promise<Welcome> {
    return this.#welcome.promise;
  }

  async run(): Promise<Run> {
    return this.#runs.shift() ?? (await new Promise<Run>((resolve) => (this.#wanted = resolve)));
  }

  started({ job, attempt }: Run): void {
    this.#tell({ t: "started", job, attempt });
  }

  succeeded({ job, attempt }: Pick<Run, "job" | "attempt">, output: object = OUTPUT, ms = 0): void {
    this.#tell({ t: "result", job, attempt, ms, gpu: "SWIFTSHADER", outputs: [output] });
  }

  failed({ job, attempt }: Run): void {
    this.#tell({ t: "failed", job, attempt, ms: 0, gpu: "SWIFTSHADER", code: "input_invalid", detail: "no" });
  }

  /** It is about to stop. */
  drains(deadline_s: number): void {
    this.#tell({ t: "drain", deadline_s });
  }

  #tell(frame: object): void {
    this.#seq += 1;
    this.#say({ ...frame, seq: this.#seq });
  }

  #say(frame: object): void {
    this.#socket.send(JSON.stringify({ v: 1, ack: 0, ...frame }));
  }
}
type Welcome = Extract<ToLease, { t: "welcome" }>;
export type Run = Extract<ToLease, { t: "runs" }>["runs"][number];

interface Sold {
  /** What it may spend without an allowance. */
  readonly unattended?: bigint;
  readonly wallet?: Account;
  readonly text?: Partial<QuoteText>;
}

/** A lease of a wallet that nobody else has, unless one is given. */
export async function quotedTo({ wallet = newAccount(), ...change }: Sold = {}) {
  return { wallet, ...(await quoted(soldTo(wallet, change))) };
}

/** As {@link quotedTo}, with 10 USDC in it. */
export async function funded(neighbours: Neighbours, { wallet = newAccount(), ...change }: Sold = {}) {
  return { wallet, ...(await active(neighbours, soldTo(wallet, change))) };
}

function soldTo(wallet: Account, { unattended = 10_000_000n, text = {} }: Sold): Quoted {
  const owner = addressOf(wallet);
  return { text, terms: { payer: owner, consumerSigner: owner, unattended } };
}
