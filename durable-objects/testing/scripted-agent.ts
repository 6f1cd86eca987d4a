import { env, SELF } from "cloudflare:test";
import { UNITS } from "@gpux/protocol/challenge/function";
import { unitHash } from "@gpux/protocol/challenge/work";
import { ToNode } from "@gpux/protocol/frames";
import { expect, vi } from "vitest";
import { type Account, addressOf, newAccount, requestOf, signed } from "./client.ts";

const GPU = { reported: "Test GPU", vram_mb: 24_000, driver: "1", backend: "vulkan", software: false };

/** What a test's machine has and asks; every test takes a model of its own, so that it meets only its own nodes. */
export function offerOf(
  model: string,
  change: {
    gpus?: number;
    gpu_hour?: string;
    region?: string;
    features?: string[];
    start_price?: string;
  } = {},
) {
  return {
    gpus: Array.from({ length: change.gpus ?? 1 }, () => ({ ...GPU, model })),
    cpu: 8,
    memory_gb: 32,
    region: change.region ?? "eu-west",
    features: change.features ?? [],
    prices: { gpu_hour: change.gpu_hour ?? "3600000", core_hour: "0", gb_hour: "0" },
    concurrency: 1,
    ...(change.start_price === undefined ? {} : { start_price: change.start_price }),
  };
}

/**
 * The provider's side of a control socket, as a test scripts it. Frames are taken one after another; close events as
 * `closed`.
 */
export class ScriptedAgent {
  readonly account: Account;
  readonly #socket: WebSocket;
  readonly #frames: ToNode[] = [];
  #wanted: PromiseWithResolvers<ToNode> | null = null;
  #pong: PromiseWithResolvers<"pong"> | null = null;
  /** Highest seq of ours, and of the edge's that this side has dealt with. */
  #sent: number;
  received: number;
  readonly closed: Promise<{ code: number; reason: string }>;

  private constructor(socket: WebSocket, account: Account, sent: number, received: number) {
    this.#socket = socket;
    this.account = account;
    this.#sent = sent;
    this.received = received;
    this.closed = new Promise((resolve) => {
      socket.addEventListener("close", ({ code, reason }) => resolve({ code, reason }));
    });
    socket.addEventListener("message", ({ data }) => {
      if (data === "pong") return this.#pong?.resolve("pong");
      const frame = ToNode.parse(JSON.parse(String(data)));
      if (this.#wanted === null) this.#frames.push(frame);
      else this.#wanted.resolve(frame);
      this.#wanted = null;
    });
    socket.accept();
  }

  /** Dials; `before` is the same agent's connection that this one follows, whose counters it goes on with. */
  static async dial(account: Account = newAccount(), before?: ScriptedAgent): Promise<ScriptedAgent> {
    const request = await signed(
      account,
      requestOf("/v1/agent/connect", { headers: { upgrade: "websocket" } }),
    );
    const response = await SELF.fetch(request);
    if (response.webSocket === null)
      throw new Error(`no socket: ${response.status} ${await response.text()}`);
    return new ScriptedAgent(response.webSocket, account, before?.sentSoFar ?? 0, before?.received ?? 0);
  }

  /** Dials and says hello; resolves after the welcome. */
  static async join(offer: object, account?: Account, before?: ScriptedAgent): Promise<ScriptedAgent> {
    const agent = await ScriptedAgent.dial(account ?? before?.account, before);
    agent.hello(offer);
    await agent.next("welcome");
    return agent;
  }

  /** Joins; resolves when its offer stands in the book of its own model, which is told after the welcome. */
  static async listed(offer: ReturnType<typeof offerOf>): Promise<ScriptedAgent> {
    const agent = await ScriptedAgent.join(offer);
    const book = env.BOOK.getByName(`${offer.gpus[0]?.model}/any/0`);
    await vi.waitFor(
      async () => expect(await book.get(addressOf(agent.account))).toMatchObject({ status: "online" }),
      { timeout: 60_000 },
    );
    return agent;
  }

  get sentSoFar(): number {
    return this.#sent;
  }

  /** Answers challenges as a device does, one after another, until there is a verdict. */
  async prove(spoil: (hashes: Uint8Array) => void = () => {}): Promise<Extract<ToNode, { t: "verdict" }>> {
    for (;;) {
      const frame = this.#frames.shift() ?? (await this.#coming());
      this.received = Math.max(this.received, frame.seq);
      if (frame.t === "verdict") return frame;
      if (frame.t !== "challenge") continue;
      const { seed_a: seedA = 0, seed_b: seedB = 0, depth = 0, dispatches = 0 } = frame.inputs;
      const hashes = new Uint16Array(UNITS);
      for (let unit = 0; unit < UNITS; unit += 1)
        hashes[unit] = unitHash({ seedA, seedB, depth: depth * dispatches }, unit);
      const bytes = new Uint8Array(hashes.buffer);
      spoil(bytes);
      const output = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
      this.tell({ t: "proof", challenge: frame.challenge, output });
    }
  }

  hello(offer: object, change: object = {}): void {
    this.say({
      t: "hello",
      agent_version: "1.0.0",
      provider: this.account.address,
      offer,
      leases: [],
      draining: false,
      ...change,
    });
  }

  /** A frame that is never replayed. */
  say(body: object): void {
    this.raw(JSON.stringify({ v: 1, seq: 0, ack: this.received, ...body }));
  }

  tell(body: object): void {
    this.#sent += 1;
    this.raw(JSON.stringify({ v: 1, seq: this.#sent, ack: this.received, ...body }));
  }

  raw(text: string): void {
    this.#socket.send(text);
  }

  /** Resolves when the heartbeat is answered. */
  ping(): Promise<"pong"> {
    this.#pong = Promise.withResolvers();
    this.#socket.send("ping");
    return this.#pong.promise;
  }

  close(code?: number): void {
    this.#socket.close(code);
  }

  /** The next frame, which must be of this kind; acknowledgements in between are passed over. */
  async next<T extends ToNode["t"]>(t: T): Promise<Extract<ToNode, { t: T }>> {
    for (;;) {
      const frame = this.#frames.shift() ?? (await this.#coming());
      this.received = Math.max(this.received, frame.seq);
      if (isA(frame, t)) return frame;
      if (frame.t !== "ack") throw new Error(`expected ${t}, got ${JSON.stringify(frame, bigintText)}`);
    }
  }

  /** Confirms the next hold. */
  async confirm(): Promise<Extract<ToNode, { t: "hold" }>> {
    const hold = await this.next("hold");
    this.tell({ t: "held", hold: hold.hold });
    return hold;
  }

  #coming(): Promise<ToNode> {
    this.#wanted = Promise.withResolvers();
    return this.#wanted.promise;
  }
}

function isA<T extends ToNode["t"]>(frame: ToNode, t: T): frame is Extract<ToNode, { t: T }> {
  return frame.t === t;
}

function bigintText(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}
