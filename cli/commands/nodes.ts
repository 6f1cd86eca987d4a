import { NodeView } from "@gpux/protocol/lease";
import { formatAmount } from "@gpux/protocol/money";
import { createMarket } from "@gpux/sdk";
import type { Command } from "commander";
import { EXIT } from "../outcome.ts";
import { shortAddress } from "../progress.ts";
import { type CommonFlags, settingsOf, withCommonFlags } from "../session.ts";
import { printJson, type Terminal, table } from "../terminal.ts";

export function addNodes(program: Command, terminal: Terminal, done: (code: number) => void): void {
  withCommonFlags(program.command("nodes").description("the machines on offer, with what they have and ask"))
    .option("--gpu <model>", "only those with this model")
    .addHelpText("after", "\nExample:\n  $ gpux nodes --gpu RTX_4090")
    .action(async (flags: CommonFlags & { gpu?: string }) => {
      // Anyone may look: no wallet is opened.
      const { nodes: market } = createMarket({ url: (await settingsOf(terminal, flags)).url });
      const nodes: NodeView[] = [];
      for await (const node of market.list()) {
        if (flags.gpu === undefined || node.gpus.some((gpu) => gpu.model === flags.gpu)) nodes.push(node);
      }
      if (flags.json)
        printJson(
          terminal,
          nodes.map((node) => NodeView.encode(node)),
        );
      else terminal.out.write(nodes.length === 0 ? "no nodes\n" : table([HEADER, ...nodes.map(rowOf)]));
      done(EXIT.ok);
    });
}

const HEADER = ["NODE", "STATUS", "GPU", "FREE", "CPU", "GB", "REGION", "VERIFIED", "USDC/GPU-H"];

function rowOf(node: NodeView): string[] {
  const models = new Map<string, number>();
  for (const { model } of node.gpus) models.set(model, (models.get(model) ?? 0) + 1);
  const gpus = [...models].map(([model, count]) => (count === 1 ? model : `${count}x ${model}`)).join(", ");
  const { cpu, memory_gb, region, prices, gpus_free } = node;
  const counts = [gpus_free, cpu, memory_gb].map(String);
  const verified = node.verified === true ? "yes" : "no";
  return [
    ...[shortAddress(node.id), node.status, gpus, ...counts],
    ...[region, verified, formatAmount(prices.gpu_hour)],
  ];
}
