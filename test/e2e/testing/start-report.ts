import { readFile } from "node:fs/promises";
import { Receipt } from "@gpux/protocol/eip712";
import { Bytes32 } from "@gpux/protocol/ids";
import { Amount } from "@gpux/protocol/money";
import { z } from "zod";

/** `--report`, as the issue that asked for it words it; whatever else is in it is an error. */
const Decimal = z.string().regex(/^(0|[1-9][0-9]*)$/);
const Sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const Hash = z.templateLiteral(["0x", z.string().regex(/[0-9a-f]+/)]);
const Books = z.strictObject({
  consumer: Decimal,
  provider: Decimal,
  fee_recipient: Decimal,
  escrow: Decimal,
});
export const Report = z.strictObject({
  images: z.array(z.strictObject({ path: z.string(), sha256: Sha256 })),
  receipts: z.array(
    z.strictObject({
      receipt: Receipt,
      usage: z.strictObject({ cumulative: Amount, evidence: Bytes32, size: z.int() }),
      proof: z.array(Bytes32),
      provider_signature: Hash,
      edge_signature: Hash,
    }),
  ),
  transactions: z.array(
    z.strictObject({
      hash: Hash,
      kind: z.string(),
      gas: Decimal,
      calldata_bytes: z.int().min(4),
      l1_fee: Decimal,
    }),
  ),
  balances: z.strictObject({ before: Books, after: Books }),
  timeline: z.array(
    z.strictObject({ step: z.string(), at_ms: z.int(), ms: z.int(), note: z.string().optional() }),
  ),
});
export type Report = z.output<typeof Report>;

export async function readReport(file: string): Promise<Report> {
  return Report.parse(JSON.parse(await readFile(file, "utf8")));
}
