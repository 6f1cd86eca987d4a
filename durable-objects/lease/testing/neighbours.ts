import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { MeterRpc } from "@gpux/protocol/attestation";
import type { Address } from "@gpux/protocol/ids";
import type { Intent, IntentAnswer, IntentKind, RelayerRpc } from "@gpux/protocol/intent";
import { beforeAll, beforeEach } from "vitest";
import { z } from "zod";
import type { NodeRpc, Outcome } from "../../interfaces.ts";

/** The data socket's upgrade as the edge hands it on once it has verified the signature. */
export function upgradeBy(signer: Address): Request {
  const headers = {
    upgrade: "websocket",
    "x-gpux-principal": signer,
    "x-gpux-nonce": crypto.randomUUID(),
    "x-gpux-expires": String(Math.floor(Date.now() / 1_000) + 60),
  };
  return new Request("https://lease/agent", { headers });
}

/**
 * The relayer and the node that a lease under test calls, scripted where the services are bound: the edge's test
 * project has no chain to land anything on. The meter stays the real one, watched for when it has answered.
 */
export class Neighbours {
  /** What the relayer answers by kind of intent; everything else is pending. */
  readonly relayed = new Map<IntentKind, IntentAnswer>();
  /** The last intent of each kind that the relayer was given. */
  readonly submitted = new Map<IntentKind, z.input<typeof Intent>>();
  readonly meter: MeterRpc;
  readonly asked: string[] = [];
  /** What a node answers to a lease that wants its GPUs again. */
  roused: Outcome = { ok: true };
  /** While set, the node has not answered whether it reserves. */
  reserving = false;
  /** While set, the relayer is not there at all. */
  broken = false;
  #underway = 0;

  private constructor(meter: MeterRpc) {
    this.meter = meter;
  }

  /** Moves in beside the leases of this test file. Their `env` is one object for all lives of all of them. */
  static async meet(): Promise<Neighbours> {
    return runInDurableObject(env.LEASE.getByName("neighbours"), (lease) => {
      const bindings = z.record(z.string(), z.unknown()).parse(Reflect.get(lease, "env"));
      const real = z.custom<MeterRpc>((found) => found !== undefined).parse(bindings.METER);
      const neighbours = new Neighbours(real);
      Object.assign(Reflect.get(lease, "env"), {
        RELAYER: neighbours.#relayer(),
        NODE: neighbours.#nodes(),
        METER: neighbours.#watched(real),
      });
      return neighbours;
    });
  }

  /**
   * Resolves when nothing that a lease asked for is under way. It counts instead of awaiting the answers: a promise of
   * the lease's would resume the test in the lease's I/O context, where the test's own stubs may not be used.
   */
  async quiet(): Promise<void> {
    // Not vi.waitUntil: each of its looks would move a faked clock on.
    while (this.#underway > 0) await scheduler.wait(1);
  }

  async #noted<T>(what: string, work: () => Promise<T>): Promise<T> {
    this.asked.push(what);
    this.#underway += 1;
    try {
      return await work();
    } finally {
      this.#underway -= 1;
    }
  }

  #relayer(): Pick<RelayerRpc, "submit" | "hold"> {
    return {
      hold: ({ cumulative }) =>
        this.#noted(`hold:${cumulative}`, async () => ({ status: "pending", key: "settle:x", txHash: null })),
      submit: (intent) =>
        this.#noted(`relay:${intent.kind}`, async () => {
          if (this.broken) throw new Error("the relayer is away");
          const { kind } = intent;
          this.submitted.set(kind, intent);
          return this.relayed.get(kind) ?? { status: "pending", key: `${kind}:x`, txHash: null };
        }),
    };
  }

  #nodes(): {
    getByName(name: string): Pick<NodeRpc, "reserve" | "open" | "rest" | "rouse" | "dial" | "release">;
  } {
    return {
      getByName: () => ({
        reserve: () =>
          this.#noted("node:reserve", async () => {
            // Another's promise would resume the lease in the test's I/O context.
            while (this.reserving) await scheduler.wait(1);
            return { ok: true };
          }),
        open: () => this.#noted("node:open", async () => ({ ok: true })),
        rest: () => this.#noted("node:rest", async () => undefined),
        rouse: () => this.#noted("node:rouse", async () => this.roused),
        dial: () => this.#noted("node:dial", async () => undefined),
        release: () => this.#noted("node:release", async () => undefined),
      }),
    };
  }

  #watched(meter: MeterRpc): Pick<MeterRpc, "open" | "attest" | "allocate"> {
    return {
      open: (request) => this.#noted("meter:open", () => meter.open(request)),
      attest: (request) => this.#noted("meter:attest", () => meter.attest(request)),
      allocate: (request) => this.#noted("meter:allocate", () => meter.allocate(request)),
    };
  }
}

/** Those of a test file that has called {@link meetNeighbours}. */
export let neighbours: Neighbours;

/** They are there before the file's tests, and before each of them they have nothing to say. */
export function meetNeighbours(): void {
  beforeAll(async () => {
    neighbours = await Neighbours.meet();
  });
  beforeEach(() => {
    neighbours.relayed.clear();
    neighbours.broken = false;
  });
}
