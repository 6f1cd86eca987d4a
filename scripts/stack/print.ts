import { Receipt } from "@gpux/protocol/eip712";
import { formatAmount } from "@gpux/protocol/money";
import type { Report } from "./demo.ts";

/** The report for people: images, receipts, transactions, books. */
export function printReport(report: Report, out: (line: string) => void): void {
  out("");
  out("Images");
  for (const { path, sha256 } of report.images) out(`  ${path}\n    sha256 ${sha256}`);

  out("");
  out("Receipts (signed by the node and by the edge)");
  for (const { receipt } of report.receipts) {
    const { sequence, gpu, billedMs, price, outputHashes } = Receipt.parse(receipt);
    out(
      `  #${sequence}  ${gpu}  ${billedMs} ms  ${formatAmount(price)} USDC  output ${outputHashes[0]?.slice(2, 18) ?? "-"}…`,
    );
  }

  out("");
  out("Optimism transactions (all sent and paid by the relayer)");
  out(
    `  ${"kind".padEnd(9)} ${"gas".padStart(8)} ${"calldata".padStart(9)} ${"L1 fee (wei)".padStart(16)}  hash`,
  );
  for (const each of report.transactions)
    out(
      `  ${each.kind.padEnd(9)} ${each.gas.padStart(8)} ${`${each.calldata_bytes} B`.padStart(9)} ${each.l1_fee.padStart(16)}  ${each.hash}`,
    );

  out("");
  out("Balances (USDC)");
  out(`  ${"".padEnd(14)} ${"before".padStart(14)} ${"after".padStart(14)} ${"change".padStart(12)}`);
  const total = { before: 0n, after: 0n };
  for (const [party, text] of Object.entries(report.balances.before)) {
    const before = BigInt(text);
    const after = BigInt(report.balances.after[party] ?? "0");
    total.before += before;
    total.after += after;
    out(row(party.replace("_", " "), before, after));
  }
  out(row("sum", total.before, total.after));
}

function row(name: string, before: bigint, after: bigint): string {
  const change = after - before;
  const signed = `${change < 0n ? "-" : change > 0n ? "+" : ""}${formatAmount(change < 0n ? -change : change)}`;
  return `  ${name.padEnd(14)} ${formatAmount(before).padStart(14)} ${formatAmount(after).padStart(14)} ${signed.padStart(12)}`;
}
