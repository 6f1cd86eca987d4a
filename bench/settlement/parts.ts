import type { Address } from "@gpux/protocol/ids";
import type { Hex } from "viem";
import { z } from "zod";
import type { Sent } from "./ledger.ts";

/** Where the gas of a transaction went; `refund` is negative. The sum is the receipt's gas. */
export const PARTS = [
  "transaction",
  "calldata",
  /** Multicall3 or the forwarder: its code, its own slots and events, and its calls. */
  "relaying",
  "slots",
  "events",
  /** Recovery of signers by the escrow and the forwarder; the token's own counts as the token's. */
  "signatures",
  /** What is left of the escrow: ABI decoding, hashing, checks. */
  "code",
  "token",
  "refund",
] as const;
export type Part = (typeof PARTS)[number];
export type Parts = Readonly<Record<Part, number>>;

/** Who runs at the first call depth of a transaction, at the second, and so on. */
export type Layers = readonly ("relaying" | "escrow" | "token")[];

const Trace = z.object({
  result: z.object({
    structLogs: z
      .array(
        z.object({
          op: z.string(),
          gas: z.number(),
          gasCost: z.number(),
          depth: z.int().min(1),
          refund: z.number(),
        }),
      )
      .min(1),
  }),
});
type Step = z.infer<typeof Trace>["result"]["structLogs"][number];

/** Without stacks a trace is a tenth; viem takes no answers of more than 10 MiB. */
async function traceOf(url: string, hash: Hex): Promise<readonly Step[]> {
  const options = { disableStorage: true, disableMemory: true, disableStack: true };
  const body = JSON.stringify({
    jsonrpc: "2.0",
    id: 1,
    method: "debug_traceTransaction",
    params: [hash, options],
  });
  const answer = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
  return Trace.parse(await answer.json()).result.structLogs;
}

/**
 * Takes a transaction apart by its trace. The node must still have it. Throws when the parts do not add up to the
 * receipt's gas: then this file misreads the trace.
 */
export async function partsOf(url: string, sent: Sent, layersAt: (to: Address) => Layers): Promise<Parts> {
  const parts: Record<Part, number> = {
    transaction: 21_000,
    calldata: calldataGas(sent.data),
    relaying: 0,
    slots: 0,
    events: 0,
    signatures: 0,
    code: 0,
    token: 0,
    refund: 0,
  };
  const layers = layersAt(sent.to);
  const steps = await traceOf(url, sent.hash);
  for (const [at, step] of steps.entries()) {
    const layer = layers[step.depth - 1];
    if (layer === undefined) throw new Error(`${sent.hash} calls deeper than it should`);
    const { gas, isPrecompile } = ownGas(steps, at, step);
    parts[partAt(layer, step.op, isPrecompile)] += gas;
  }
  const used = Object.values(parts).reduce((sum, gas) => sum + gas, 0);
  // EIP-3529: no more than a fifth comes back.
  parts.refund = -Math.min(steps.at(-1)?.refund ?? 0, Math.floor(used / 5));
  if (used + parts.refund !== sent.gas) {
    throw new Error(`the parts of ${sent.hash} are ${used + parts.refund} gas, its receipt says ${sent.gas}`);
  }
  return parts;
}

function partAt(layer: Layers[number], op: string, isPrecompile: boolean): Part {
  if (layer === "token") return "token";
  if (isPrecompile) return "signatures";
  if (layer === "relaying") return "relaying";
  // A call of the escrow is one of the token's, and costs what calling costs.
  if (op.endsWith("CALL")) return "token";
  if (op.startsWith("LOG")) return "events";
  return /^[ST](LOAD|STORE)$/.test(op) ? "slots" : "code";
}

/** What a step costs without the steps inside the call that it makes. A call with none inside is of a precompile. */
function ownGas(steps: readonly Step[], at: number, step: Step): { gas: number; isPrecompile: boolean } {
  const inside = steps[at + 1];
  if (!step.op.endsWith("CALL") || inside === undefined) return { gas: step.gasCost, isPrecompile: false };
  let last = at;
  while ((steps[last + 1]?.depth ?? 0) > step.depth) last += 1;
  const after = steps[last + 1];
  const end = steps[last];
  if (after === undefined || end === undefined) throw new Error("a call does not return");
  const total = step.gas - after.gas;
  if (last === at) return { gas: total, isPrecompile: true };
  return { gas: total - (inside.gas - (end.gas - end.gasCost)), isPrecompile: false };
}

/** EIP-2028; the floor of EIP-7623 is far below what these transactions run. */
function calldataGas(data: Hex): number {
  return Buffer.from(data.slice(2), "hex").reduce((sum, byte) => sum + (byte === 0 ? 4 : 16), 0);
}
