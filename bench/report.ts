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

/** More columns than these are read by nobody. */
const MOST_COLUMNS = 5;
/** In a metric's name, between what is counted and the one of several processes that it is of. */
const OF = " of ";

/**
 * The report for people, as Markdown: a line per metric and a column per variant, or where there are many variants a
 * table per metric.
 */
export function markdown(report: Report): string {
  const variants = [...new Set(report.rows.map((row) => row.variant))];
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
  const figures = variants.length > MOST_COLUMNS ? byMetric(report.rows) : byVariant(report.rows, variants);
  const notes = report.notes.map((note) => `- ${note}`).join("\n");
  return `${figures}\n\n${table(goals)}\n\n${notes}\n`;
}

const table = (rows: readonly (readonly string[])[]) =>
  rows.map((row) => `| ${row.join(" | ")} |`).join("\n");

function byVariant(rows: readonly Row[], variants: readonly string[]): string {
  const metrics = [...new Set(rows.map((row) => row.metric))];
  const cell = (metric: string, variant: string) => {
    const own = rows.filter((row) => row.metric === metric && row.variant === variant);
    const ratios = own.flatMap(({ ratio, ratio_to }) =>
      ratio === null || ratio_to === null ? [] : [`${round(ratio)} x ${ratio_to}`],
    );
    const [first] = own;
    if (first === undefined) return "";
    return ratios.length === 0 ? round(first.value) : `${round(first.value)} (${ratios.join(", ")})`;
  };
  return table([
    ["metric", ...variants],
    ["---", ...variants.map(() => "---")],
    ...metrics.map((metric) => [metric, ...variants.map((variant) => cell(metric, variant))]),
  ]);
}

/** A table per metric, with a line per variant and a column per base; those of single processes in one at the end. */
function byMetric(rows: readonly Row[]): string {
  const metrics = [...new Set(rows.map((row) => row.metric))];
  const tables = metrics
    .filter((metric) => !metric.includes(OF))
    .map((metric) => {
      const own = rows.filter((row) => row.metric === metric);
      const bases = [...new Set(own.flatMap(({ ratio_to }) => ratio_to ?? []))];
      const lines = [...Map.groupBy(own, ({ variant }) => variant)].map(([variant, figures]) => [
        variant,
        ...figures.slice(0, 1).map(({ value }) => round(value)),
        ...bases.map((base) => {
          const ratio = figures.find(({ ratio_to }) => ratio_to === base)?.ratio ?? null;
          return ratio === null ? "" : round(ratio);
        }),
      ]);
      return table([
        [metric, "", ...bases.map((base) => `x ${base}`)],
        ["---", "---", ...bases.map(() => "---")],
        ...lines,
      ]);
    });
  const parts = new Map<string, string>();
  for (const { variant, metric, value } of rows)
    if (metric.includes(OF)) parts.set(`${variant} | ${metric}`, round(value));
  if (parts.size === 0) return tables.join("\n\n");
  const lines = [...parts].map(([part, value]) => [part, value]);
  return [...tables, table([["variant", "metric", "value"], ["---", "---", "---"], ...lines])].join("\n\n");
}

/** Three significant digits are more than these figures hold; whole numbers stay whole. */
function round(value: number): string {
  if (Number.isInteger(value) || Math.abs(value) >= 1_000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(3)));
}
