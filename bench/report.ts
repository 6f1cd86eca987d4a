import { z } from "zod";

/**
 * One figure of one variant. `ratio` is value over the value of `ratio_to`, paired within each round and then the
 * median over rounds, so that a neighbour's load falls on both; it is not the quotient of the two values shown.
 */
export const Row = z.strictObject({
  variant: z.string().min(1),
  /** Its unit stands in its name: `c1 p50_us`, `c16 jobs_per_s`. */
  metric: z.string().min(1),
  value: z.number(),
  ratio_to: z.string().nullable(),
  ratio: z.number().nullable(),
});
export type Row = z.infer<typeof Row>;

/** A goal is information, never a failed run. `met` is null when what it needs was not measured. */
export const Goal = z.strictObject({
  goal: z.string().min(1),
  target: z.number(),
  measured: z.number().nullable(),
  met: z.boolean().nullable(),
});
export type Goal = z.infer<typeof Goal>;

/** What `npm run bench NAME -- --json` prints. */
export const Report = z.strictObject({
  bench: z.string(),
  rounds: z.int().min(1),
  seconds: z.number(),
  rows: z.array(Row),
  goals: z.array(Goal),
  /** What a reader has to know to read the figures: what was left out, and what else ran here. */
  notes: z.array(z.string()),
});
export type Report = z.infer<typeof Report>;

/** The report for people, as Markdown: a line per metric, a column per variant. */
export function markdown(report: Report): string {
  const variants = [...new Set(report.rows.map((row) => row.variant))];
  const metrics = [...new Set(report.rows.map((row) => row.metric))];
  const cell = (metric: string, variant: string) => {
    const rows = report.rows.filter((row) => row.metric === metric && row.variant === variant);
    const ratios = rows.flatMap(({ ratio, ratio_to }) =>
      ratio === null || ratio_to === null ? [] : [`${round(ratio)} x ${ratio_to}`],
    );
    const [first] = rows;
    if (first === undefined) return "";
    return ratios.length === 0 ? round(first.value) : `${round(first.value)} (${ratios.join(", ")})`;
  };
  const lines = [
    ["metric", ...variants],
    ["---", ...variants.map(() => "---")],
    ...metrics.map((metric) => [metric, ...variants.map((variant) => cell(metric, variant))]),
  ];
  const goals = [
    ["goal", "target", "measured", "met"],
    ["---", "---", "---", "---"],
    ...report.goals.map(({ goal, target, measured, met }) => [
      goal,
      String(target),
      measured === null ? "not measured" : round(measured),
      met === null ? "not measured" : met ? "yes" : "no",
    ]),
  ];
  const table = (rows: string[][]) => rows.map((row) => `| ${row.join(" | ")} |`).join("\n");
  const notes = report.notes.map((note) => `- ${note}`).join("\n");
  return `${table(lines)}\n\n${table(goals)}\n\n${notes}\n`;
}

/** Three significant digits are more than these figures hold; whole numbers stay whole. */
function round(value: number): string {
  if (Number.isInteger(value) || Math.abs(value) >= 1_000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(3)));
}
