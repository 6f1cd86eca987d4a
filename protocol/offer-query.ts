import { z } from "zod";
import { Address } from "./ids.ts";
import { Amount, parseAmount } from "./money.ts";
import {
  type Blocker,
  Demand,
  Feature,
  GpuModel,
  ISOLATIONS,
  Isolation,
  isolationRank,
  ModelName,
  Region,
  Tier,
} from "./resources.ts";

/**
 * The search of `GET /v1/offers`: `field=value` and `field[operator]=value`, with the operators and, where there is
 * the same thing, the field names of Vast.ai. Every comparison is between whole numbers or between texts.
 */

export const OPERATORS = ["eq", "neq", "gt", "gte", "lt", "lte", "in", "notin"] as const;
export type Operator = (typeof OPERATORS)[number];
export type Value = bigint | string;

interface Field {
  /** Why an offer that fails a condition on it does not fit. */
  readonly blocker: Blocker;
  readonly about: string;
  /** `amount`: what to lease rather than what the machine has. Texts are not ordered. */
  readonly kind: "text" | "number" | "amount";
  /** Null for what is no value of this field. */
  parse(text: string): Value | null;
}

const whole = (text: string) => (/^(0|[1-9][0-9]{0,8})$/.test(text) ? BigInt(text) : null);
const share = (text: string) => {
  const basisPoints = parseAmount(text, 4);
  return basisPoints !== null && basisPoints <= 10_000n ? basisPoints : null;
};
const usd = (text: string) => parseAmount(text);
const textOf = (schema: z.ZodType<string>) => (text: string) => schema.safeParse(text).data ?? null;
const model = (text: string) => textOf(GpuModel)(text.trim().replaceAll(" ", "_").toUpperCase());
const yesOrNo = (text: string) => (text === "true" || text === "false" ? text : null);
const rank = (text: string) => {
  const isolation = Isolation.safeParse(text);
  return isolation.success ? BigInt(isolationRank(isolation.data)) : null;
};

/** What can be asked and sorted by. */
export const FIELDS = {
  gpu_name: { kind: "text", blocker: "gpu_model", parse: model, about: "such as RTX_4090" },
  num_gpus: { kind: "amount", blocker: "gpus", parse: whole, about: "GPUs to lease" },
  gpu_ram: { kind: "number", blocker: "vram", parse: whole, about: "MB of each GPU" },
  cpu_cores: { kind: "amount", blocker: "cpu", parse: whole, about: "cores to lease" },
  cpu_ram: { kind: "amount", blocker: "memory", parse: whole, about: "MB of memory to lease" },
  geolocation: { kind: "text", blocker: "region", parse: textOf(Region), about: "a region such as eu-west" },
  reliability: { kind: "number", blocker: "reliability", parse: share, about: "0 to 1, at most 4 decimals" },
  dph_total: { kind: "number", blocker: "price", parse: usd, about: "USD per hour for all that is leased" },
  start_usd: { kind: "number", blocker: "price", parse: usd, about: "USD for the start of a lease, once" },
  min_bid: { kind: "number", blocker: "tier", parse: usd, about: "the same in the yieldable tier" },
  duration: { kind: "number", blocker: "duration", parse: whole, about: "seconds that a lease may last" },
  isolation: { kind: "number", blocker: "isolation", parse: rank, about: ISOLATIONS.join(" < ") },
  verified: { kind: "text", blocker: "verified", parse: yesOrNo, about: "true or false" },
  machine_id: { kind: "text", blocker: "node", parse: textOf(Address), about: "a node's address" },
  host_id: { kind: "text", blocker: "excluded", parse: textOf(Address), about: "a payout address" },
} as const satisfies Record<string, Field>;
export type FieldName = keyof typeof FIELDS;
export const FIELD_NAMES = Object.keys(FIELDS).filter((name): name is FieldName => name in FIELDS);

export interface Condition {
  readonly field: FieldName;
  readonly operator: Operator;
  /** One, but for `in` and `notin`. */
  readonly values: readonly Value[];
}

export interface OrderTerm {
  readonly field: FieldName | "score";
  readonly descending: boolean;
}

/** An offer's values; null: it has none, and meets no condition but `neq` and `notin`. */
export type Facts = Readonly<Record<FieldName, Value | null>>;

export function holds({ operator, values }: Condition, fact: Value | null): boolean {
  if (operator === "neq" || operator === "notin") return fact === null || !values.includes(fact);
  if (fact === null) return false;
  if (operator === "eq" || operator === "in") return values.includes(fact);
  const [value] = values;
  if (value === undefined) return false;
  if (operator === "gt") return fact > value;
  if (operator === "gte") return fact >= value;
  return operator === "lt" ? fact < value : fact <= value;
}

/** What a query asks. `demand` has all that a quote could be asked with; `where` the rest. */
export interface OfferSearch {
  readonly demand: Demand;
  readonly where: readonly Condition[];
  /** Empty: best first (docs/matching.md). */
  readonly order: readonly OrderTerm[];
  readonly limit: number;
}

const operatorsOf = (kind: Field["kind"]) =>
  OPERATORS.filter((operator) => kind !== "text" || ["eq", "neq", "in", "notin"].includes(operator));

/** `num_gpus[gte]` is `num_gpus` and `gte`; without an operator it is `eq`. */
const PARAMETERS: ReadonlyMap<string, { field: FieldName; operator: Operator }> = new Map(
  FIELD_NAMES.flatMap((field) =>
    operatorsOf(FIELDS[field].kind).map((operator) => [
      operator === "eq" ? field : `${field}[${operator}]`,
      { field, operator },
    ]),
  ),
);

const MOST_VALUES = 64;

function conditionSchema(field: FieldName, operator: Operator) {
  const { about, parse } = FIELDS[field];
  const many = operator === "in" || operator === "notin";
  const valid = (text: string) => {
    const values = many ? text.split(",") : [text];
    return values.length <= MOST_VALUES && values.every((value) => parse(value) !== null);
  };
  const error = many ? `up to ${MOST_VALUES} values with commas between them, each ${about}` : about;
  return z.string().refine(valid, error).describe(error).optional();
}

const sortable = ["score", ...FIELD_NAMES];
const Order = z
  .string()
  .refine(
    (text) => text.split(",").every((term) => sortable.includes(term.replace(/^-/, ""))),
    `fields with commas between them, - before a field for the highest first; fields are ${sortable.join(", ")}`,
  );
const count = (least: number, most: number) => z.coerce.number().int().min(least).max(most);

const ALLOWED_HELP = `fields are ${FIELD_NAMES.join(", ")}; operators, as in num_gpus[gte]=4, are ${OPERATORS.join(", ")} (for texts eq, neq, in, notin); further parameters are tier, model, features, order, limit`;

/**
 * The query parameters of `GET /v1/offers`. Our own names (`gpus`, `gpu_model`, ...) mean what they mean in a demand.
 */
export const OfferQuery = z
  .object({
    gpus: count(1, 64).optional(),
    cpu: count(0, 1_024).optional(),
    memory_gb: count(0, 65_536).optional(),
    gpu_model: GpuModel.optional(),
    min_vram_mb: count(0, 4_194_304).optional(),
    region: Region.optional(),
    max_rate_per_hour: Amount.optional(),
    tier: Tier.optional(),
    model: ModelName.optional(),
    features: z
      .string()
      .refine((text) => {
        const features = text.split(",");
        return features.length <= 16 && features.every((each) => Feature.safeParse(each).success);
      }, "up to 16 features with commas between them, such as webgpu,shader-f16")
      .optional(),
    order: Order.optional(),
    limit: count(1, 100).default(20),
    ...Object.fromEntries(
      Array.from(PARAMETERS, ([name, { field, operator }]) => [name, conditionSchema(field, operator)]),
    ),
  })
  .catchall(z.string().refine(() => false, `unknown; ${ALLOWED_HELP}`));

export type OfferSearchOutcome =
  | { readonly ok: true; readonly search: OfferSearch }
  | { readonly ok: false; readonly parameter: string; readonly detail: string };

/** What a parsed query asks for. Refuses amounts that no lease can have, such as `num_gpus[gt]=64`. */
export function offerSearch(query: z.output<typeof OfferQuery>): OfferSearchOutcome {
  const conditions: Condition[] = [];
  for (const [name, { field, operator }] of PARAMETERS) {
    const text = query[name];
    if (typeof text !== "string") continue;
    const values = operator === "in" || operator === "notin" ? text.split(",") : [text];
    conditions.push({ field, operator, values: values.flatMap((value) => FIELDS[field].parse(value) ?? []) });
  }
  const gpus = least("num_gpus", conditions, query.gpus ?? 1, query.gpus ?? 64, 1n);
  const cpu = least("cpu_cores", conditions, query.cpu ?? 0, query.cpu ?? 1_024, 1n);
  // A lease has whole gigabytes.
  const memory = least("cpu_ram", conditions, query.memory_gb ?? 0, query.memory_gb ?? 65_536, 1_000n);
  for (const [parameter, amount] of [
    ["num_gpus", gpus],
    ["cpu_cores", cpu],
    ["cpu_ram", memory],
  ] as const) {
    if (amount === null) return { ok: false, parameter, detail: "no lease can have such an amount" };
  }
  const exact = (field: FieldName) => {
    const condition = conditions.find((each) => each.field === field && each.operator === "eq");
    const value = condition?.values[0];
    return typeof value === "string" ? value : undefined;
  };
  const demand = Demand.parse({
    resources: { gpus, cpu, memory_gb: memory },
    ...(query.tier === undefined ? {} : { tier: query.tier }),
    gpu_model: query.gpu_model ?? exact("gpu_name"),
    region: query.region ?? exact("geolocation"),
    node: exact("machine_id"),
    min_vram_mb: query.min_vram_mb,
    model: query.model,
    features: query.features?.split(","),
    max_rate_per_hour: query.max_rate_per_hour?.toString(),
  });
  return {
    ok: true,
    search: {
      demand,
      where: conditions.filter(({ field }) => FIELDS[field].kind !== "amount"),
      order: (query.order?.split(",") ?? []).map(orderTerm),
      limit: query.limit,
    },
  };
}

function orderTerm(text: string): OrderTerm {
  const name = text.replace(/^-/, "");
  const field = FIELD_NAMES.find((each) => each === name) ?? "score";
  return { field, descending: text.startsWith("-") };
}

/** The smallest amount, from `from` to `to`, that meets every condition on the field; null when none does. */
function least(
  field: FieldName,
  conditions: readonly Condition[],
  from: number,
  to: number,
  unit: bigint,
): number | null {
  const own = conditions.filter((condition) => condition.field === field);
  for (let amount = from; amount <= to; amount += 1) {
    const value = BigInt(amount) * unit;
    if (own.every((condition) => holds(condition, value))) return amount;
  }
  return null;
}

const SYMBOLS: Readonly<Record<string, Operator>> = {
  "=": "eq",
  "==": "eq",
  "!=": "neq",
  ">": "gt",
  ">=": "gte",
  "<": "lt",
  "<=": "lte",
};

/**
 * From a search as command lines have it (`gpu_name=RTX_4090 num_gpus>=4 reliability>0.98`, `gpu_name in [A100,H100]`)
 * to query parameters. Null for what is none; whether fields and values are right is for {@link OfferQuery} to say.
 */
export function searchParameters(text: string): Record<string, string> | null {
  const term =
    /\s*([a-z_]+)\s*(?:(==|!=|>=|<=|=|>|<)\s*("[^"]*"|[^\s"]+)|(in|notin|not in)\s*\[([^\]]*)\])(?=\s|$)/y;
  const parameters: Record<string, string> = {};
  const query = text.trim();
  while (term.lastIndex < query.length) {
    const match = term.exec(query);
    if (match === null) return null;
    const [, name = "", symbol, value = "", membership, list = ""] = match;
    const operator = symbol === undefined ? membership?.replace(" ", "") : SYMBOLS[symbol];
    const parameter = operator === "eq" ? name : `${name}[${operator}]`;
    const values = list.split(",").map((each) => each.trim());
    parameters[parameter] = symbol === undefined ? values.join(",") : value.replace(/^"|"$/g, "");
  }
  return parameters;
}
