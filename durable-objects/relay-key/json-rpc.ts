import { z } from "zod";

/**
 * Ethereum JSON-RPC whose answers are taken for hostile: every call has a time-out and a size limit, every answer a
 * schema. A node that fails, lies about its chain or talks nonsense is a {@link NodeFault}; the caller keeps its
 * state and tries again later, for that is never a verdict on a transaction.
 */

/** The node did not answer, or not sensibly. Says nothing about any transaction. */
export class NodeFault extends Error {
  override readonly name = "NodeFault";
  /** It took all the time that it had: asking again at once would take as much. */
  readonly timedOut: boolean;

  constructor(message: string, timedOut = false) {
    super(message);
    this.timedOut = timedOut;
  }
}

/** The node understood and refused (a JSON-RPC error object). */
export interface NodeRefusal {
  readonly code: number;
  readonly message: string;
  /** What the contract reverted with, where it did. */
  readonly data: `0x${string}` | null;
}

export type NodeAnswer<T> = { readonly ok: true; readonly value: T } | ({ readonly ok: false } & NodeRefusal);

const ANSWER_LIMIT = 1_000_000;

export const HexData = z.templateLiteral(["0x", z.string().regex(/^(?:[0-9a-fA-F]{2})*$/)]);
/** JSON-RPC numbers are hex without leading zeros; 256 bits at most. */
export const Quantity = z
  .string()
  .regex(/^0x[0-9a-fA-F]{1,64}$/)
  .transform((hex) => BigInt(hex));
/** Block numbers, times and nonces, which fit a JS number. */
export const Count = Quantity.refine((value) => value <= BigInt(Number.MAX_SAFE_INTEGER)).transform(Number);

// Geth puts revert data into `error.data`, Hardhat into `error.data.data`.
const RevertData = z.union([HexData, z.looseObject({ data: HexData }).transform((nested) => nested.data)]);
const Answer = z.looseObject({
  result: z.unknown().optional(),
  error: z
    .looseObject({ code: z.number(), message: z.string(), data: RevertData.nullish().catch(null) })
    .optional(),
});

async function readLimited(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > ANSWER_LIMIT) throw new NodeFault(`answer longer than ${ANSWER_LIMIT} characters`);
  }
  return text;
}

async function post(
  url: string,
  method: string,
  params: readonly unknown[],
  timeoutMs: number,
): Promise<z.output<typeof Answer>> {
  // Not AbortSignal.timeout: its timer runs on after the answer and keeps the object from being evicted.
  const cut = new AbortController();
  const timer = setTimeout(() => cut.abort(), timeoutMs);
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
      signal: cut.signal,
    });
    // Some nodes answer refusals with status 400 and a proper body; without one the status is all there is.
    const answer = Answer.safeParse(parseJson(await readLimited(response)));
    if (!answer.success) throw new NodeFault(`${method}: HTTP ${response.status}, not a JSON-RPC answer`);
    return answer.data;
  } catch (error) {
    if (cut.signal.aborted) throw new NodeFault(`${method}: no answer within ${timeoutMs} ms`, true);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** @throws NodeFault when no endpoint gives an answer that fits `schema`, or a refusal. */
export type Ask = <T>(
  method: string,
  params: readonly unknown[],
  schema: z.ZodType<T>,
) => Promise<NodeAnswer<T>>;

export interface JsonRpc {
  /** Of the first endpoint, in their order, that answers sensibly. */
  readonly ask: Ask;
  /** Of at most two, each by itself; those that fail are left out. Empty when all did. */
  readonly askSeveral: <T>(
    method: string,
    params: readonly unknown[],
    schema: z.ZodType<T>,
  ) => Promise<readonly T[]>;
  /** Faults of each endpoint since this object woke, and whether it is resting; urls may hold secrets, so no names. */
  readonly endpoints: () => readonly { readonly faults: number; readonly resting: boolean }[];
}

/** What is about the node and not about the question: limits, a pruned or lagging state, an internal error. */
function isNodeTrouble({ code, message, data }: NodeRefusal): boolean {
  // A contract chooses the words of its revert: it must not be able to put a node to rest.
  if (code === 3 || data !== null || /revert/i.test(message)) return false;
  if (code === -32005 || code === 429 || code === -32016) return true;
  return /rate.?limit|limit exceeded|too many requests|header not found|missing trie|timed? ?out|unavailable|capacity/i.test(
    message,
  );
}

const REST_MS = 2_000;
const REST_MAX_MS = 60_000;

class Endpoint {
  readonly url: string;
  readonly #chainId: number;
  readonly #timeoutMs: number;
  #proven = false;
  #streak = 0;
  faults = 0;
  restsUntil = 0;

  constructor(url: string, chainId: number, timeoutMs: number) {
    this.url = url;
    this.#chainId = chainId;
    this.#timeoutMs = timeoutMs;
  }

  #recover(): void {
    this.#streak = 0;
    this.restsUntil = 0;
  }

  async ask<T>(method: string, params: readonly unknown[], schema: z.ZodType<T>): Promise<NodeAnswer<T>> {
    try {
      if (!this.#proven) {
        const claimed = Count.safeParse((await post(this.url, "eth_chainId", [], this.#timeoutMs)).result);
        if (claimed.data !== this.#chainId) throw new NodeFault(`endpoint is not on chain ${this.#chainId}`);
        this.#proven = true;
      }
      const answer = await post(this.url, method, params, this.#timeoutMs);
      if (answer.error !== undefined) {
        const { code, message, data } = answer.error;
        const refusal = { code, message: message.slice(0, 500), data: data ?? null };
        if (isNodeTrouble(refusal)) throw new NodeFault(`${method}: ${refusal.message}`);
        this.#recover();
        return { ok: false, ...refusal };
      }
      const value = schema.safeParse(answer.result);
      if (!value.success) throw new NodeFault(`${method}: the result does not fit its schema`);
      this.#recover();
      return { ok: true, value: value.data };
    } catch (error) {
      this.faults += 1;
      this.#streak += 1;
      // One fault may be about one question; who keeps failing is asked last for a while.
      if (this.#streak > 2)
        this.restsUntil = Date.now() + Math.min(REST_MAX_MS, REST_MS * 2 ** (this.#streak - 3));
      throw error instanceof NodeFault ? error : new NodeFault(`${method}: ${String(error)}`);
    }
  }
}

/**
 * A duty asks up to ten questions, and begins anew when one fails: at one fault in ten questions most of its runs would
 * be for nothing, and its pauses grow. So a question that failed quickly is asked again, unless the node rests.
 */
const AGAIN_MS = [150, 400];

async function persistently<T>(run: () => Promise<T>, hopeless: () => boolean): Promise<T> {
  for (const pause of AGAIN_MS) {
    try {
      return await run();
    } catch (error) {
      if (!(error instanceof NodeFault) || error.timedOut || hopeless()) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
  return await run();
}

/** Each endpoint proves once that it is on the right chain. One that keeps failing rests, unless all do. */
export function connect(urls: readonly string[], chainId: number, timeoutMs: number): JsonRpc {
  const all = urls.map((url) => new Endpoint(url, chainId, timeoutMs));
  const rests = (endpoint: Endpoint) => endpoint.restsUntil > Date.now();
  const inOrder = () => all.toSorted((a, b) => Number(rests(a)) - Number(rests(b)));
  const askInTurn: Ask = async (method, params, schema) => {
    let fault = new NodeFault("no endpoint is configured");
    for (const endpoint of inOrder()) {
      try {
        return await endpoint.ask(method, params, schema);
      } catch (error) {
        if (!(error instanceof NodeFault)) throw error;
        fault = error;
      }
    }
    throw fault;
  };
  return {
    ask: (method, params, schema) =>
      persistently(
        () => askInTurn(method, params, schema),
        () => all.every(rests),
      ),
    async askSeveral<T>(method: string, params: readonly unknown[], schema: z.ZodType<T>) {
      const asked = inOrder()
        .slice(0, 2)
        .map((endpoint) =>
          persistently(
            () => endpoint.ask(method, params, schema),
            () => rests(endpoint),
          ),
        );
      const answers = await Promise.allSettled(asked);
      return answers.flatMap((each) =>
        each.status === "fulfilled" && each.value.ok ? [each.value.value] : [],
      );
    },
    endpoints: () => all.map((endpoint) => ({ faults: endpoint.faults, resting: rests(endpoint) })),
  };
}
