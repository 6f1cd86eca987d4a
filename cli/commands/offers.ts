import { OfferList, type OfferView } from "@gpux/protocol/market";
import { FIELD_NAMES, OPERATORS, searchParameters } from "@gpux/protocol/offer-query";
import { createMarket } from "@gpux/sdk";
import type { Command } from "commander";
import { EXIT, UsageError } from "../outcome.ts";
import { shortAddress } from "../progress.ts";
import { type CommonFlags, settingsOf, withCommonFlags } from "../session.ts";
import { printJson, say, type Terminal, table } from "../terminal.ts";

interface Flags extends CommonFlags {
  readonly order?: string;
  readonly limit?: string;
  readonly tier?: string;
}

export function addOffers(program: Command, terminal: Terminal, done: (code: number) => void): void {
  withCommonFlags(
    program
      .command("offers")
      .description("what can be bought right now, best first")
      .argument("[search...]", "conditions, such as gpu_name=RTX_4090 num_gpus>=4"),
  )
    .option(
      "-o, --order <fields>",
      "sort by these, with commas between them; - before one: the highest first",
    )
    .option("--limit <n>", "at most so many, 1 to 100")
    .option("--tier <tier>", "firm, or yieldable: cheaper, and the owner may take the GPU back")
    .addHelpText(
      "after",
      `
Fields: ${FIELD_NAMES.join(", ")}
Operators: = != > >= < <=, and "in [a,b]", "not in [a,b]" (${OPERATORS.join(", ")})

Example:
  $ gpux offers 'gpu_name=RTX_4090 num_gpus>=4 reliability>0.98' -o dph_total
  $ gpux offers verified=true`,
    )
    .action(async (words: string[], flags: Flags) => {
      const conditions = searchParameters(words.join(" "));
      if (conditions === null)
        throw new UsageError(
          "The search cannot be read",
          "Write conditions as in 'gpu_name=RTX_4090 num_gpus>=4', in quotes.",
        );
      const { order, limit, tier } = flags;
      const given = Object.entries({ order, limit, tier }).flatMap(([name, value]) =>
        value === undefined ? [] : [[name, value] as const],
      );
      // Anyone may look: no wallet is opened.
      const { offers } = createMarket({ url: (await settingsOf(terminal, flags)).url });
      const found = await offers.search({ ...conditions, ...Object.fromEntries(given) });
      if (flags.json) printJson(terminal, OfferList.encode(found));
      else if (found.data.length > 0) terminal.out.write(table([HEADER, ...found.data.map(rowOf)]));
      else say(terminal, nothing(found));
      done(EXIT.ok);
    });
}

const HEADER = [
  "NODE",
  "GPU",
  "FREE",
  "GB/GPU",
  "CPU",
  "GB",
  "REGION",
  "RELIABILITY",
  "VERIFIED",
  "ISOLATION",
  "USDC/H",
  "START",
];

function rowOf(offer: OfferView): string[] {
  const { reliability = null } = offer;
  return [
    shortAddress(offer.id),
    `${offer.num_gpus}x ${offer.gpu_name}`,
    String(offer.gpus_free),
    String(Math.floor(offer.gpu_ram / 1_000)),
    String(offer.cpu),
    String(offer.memory_gb),
    offer.region,
    reliability === null ? "-" : `${(reliability * 100).toFixed(1)} %`,
    offer.verified === true ? "yes" : "no",
    offer.isolation ?? "-",
    offer.dph_total,
    offer.start_usd ?? "-",
  ];
}

function nothing({ wait, blockers }: OfferList): string {
  const reasons = Object.entries(blockers)
    .sort(([, a], [, b]) => b - a)
    .map(([blocker, count]) => `${blocker} ${count}`)
    .join(", ");
  const hope = wait?.possible === true ? " Waiting may help: some that would fit are taken." : "";
  return reasons === ""
    ? "nothing is offered"
    : `no offer fits; offers that fail by condition: ${reasons}.${hope}`;
}
