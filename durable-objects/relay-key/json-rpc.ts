import { z } from "zod";

/**
 * Ethereum JSON-RPC whose answers are taken for hostile: every call has a time-out and a size limit, every answer a
 * schema. A node that fails, lies about its chain or talks nonsense is a {@link NodeFault}; the caller keeps its
 * state and tries again later, for that is never a verdict on a transaction.
 */

/** The node did not answer, or not sensibly. Says nothing about any transaction. */
export class NodeFault extends Error {
  override readonly name = "NodeFault";
}

/** The node understood and refused (a JSON-RPC error object). */
export interface NodeRefusal {
  readonly code: number;
  readonly message: string;
  /** What the contract reverted with, where it did. */
  readonly data: `0x${string}` | null;
}

export type NodeAnswer<T> = { readonly ok: true; readonly value: T } | ({ readonly ok: false } & NodeRefusal);

const TIMEOUT_MS = 5_000;
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

async function ask(
  url: string,
  method: string,
  params: readonly unknown[],
): Promise<z.output<typeof Answer>> {
  // Not AbortSignal.timeout: its timer runs on after the answer and keeps the object from being evicted.
  const cut = new AbortController();
  const timer = setTimeout(() => cut.abort(), TIMEOUT_MS);
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
export type JsonRpc = <T>(
  method: string,
  params: readonly unknown[],
  schema: z.ZodType<T>,
) => Promise<NodeAnswer<T>>;

/** Asks the endpoints in their order until one answers; each proves once that it is on the right chain. */
export function connect(urls: readonly string[], chainId: number): JsonRpc {
  const proven = new Set<string>();
  return async (method, params, schema) => {
    let fault = new NodeFault("no endpoint is configured");
    for (const url of urls) {
      try {
        if (!proven.has(url)) {
          const claimed = Count.safeParse((await ask(url, "eth_chainId", [])).result);
          if (claimed.data !== chainId) throw new NodeFault(`endpoint is not on chain ${chainId}`);
          proven.add(url);
        }
        const answer = await ask(url, method, params);
        if (answer.error !== undefined) {
          const { code, message, data } = answer.error;
          return { ok: false, code, message: message.slice(0, 500), data: data ?? null };
        }
        const value = schema.safeParse(answer.result);
        if (!value.success) throw new NodeFault(`${method}: the result does not fit its schema`);
        return { ok: true, value: value.data };
      } catch (error) {
        fault = error instanceof NodeFault ? error : new NodeFault(`${method}: ${String(error)}`);
      }
    }
    throw fault;
  };
}
