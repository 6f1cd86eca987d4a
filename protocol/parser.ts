import { z } from "zod";
import { MAX_UINT64, Uint64 } from "./eip712.ts";
import { Address, Bytes32, HexBytes } from "./ids.ts";
import { Amount, MAX_AMOUNT } from "./money.ts";

/**
 * What a schema says, without the walk through the schema. Workers may not generate code, which is how zod is fast
 * elsewhere; so each part of a schema becomes a closure once, which takes what fits and knows nothing of errors. What
 * it does not take, and each kind of schema that it does not know, is zod's to judge: the verdict and the value are
 * always those of `safeParse` (parser.test.ts), for JSON and for what structured clones bring.
 */
export function parserOf<Schema extends z.ZodType>(
  schema: Schema,
): (value: unknown) => z.ZodSafeParseResult<z.output<Schema>> {
  let read: Read | null = null;
  return (value) => {
    // Not before it is used: an isolate that starts has better to do.
    read ??= readerOf(schema);
    const data = read(value);
    return data === MISS ? schema.safeParse(value) : { success: true, data: data as z.output<Schema> };
  };
}

/** It does not fit, or nobody here knows. */
const MISS = Symbol("miss");
type Read = (value: unknown) => unknown;
type Node = z.core.$ZodType;

const readers = new WeakMap<Node, Read>();

function readerOf(schema: Node): Read {
  const known = readers.get(schema);
  if (known !== undefined) return known;
  const made = madeFor(schema) ?? asZodDoes(schema);
  readers.set(schema, made);
  return made;
}

function asZodDoes(schema: Node): Read {
  return (value) => {
    const parsed = z.safeParse(schema, value);
    return parsed.success ? parsed.data : MISS;
  };
}

const DECIMAL = /^(?:0|[1-9][0-9]{0,26})$/;

/** Codecs and patterns of ours, whose parts would hide that they are simple. Hex of mixed case is zod's to lower. */
const OWN: ReadonlyMap<Node, Read> = new Map<Node, Read>([
  [Amount, wholeReader(MAX_AMOUNT)],
  [Uint64, wholeReader(MAX_UINT64)],
  [Address, matching(/^0x[0-9a-f]{40}$/)],
  [Bytes32, matching(/^0x[0-9a-f]{64}$/)],
  [HexBytes, matching(/^0x(?:[0-9a-f]{2})*$/)],
]);

function wholeReader(most: bigint): Read {
  return (value) => {
    if (typeof value !== "string" || !DECIMAL.test(value)) return MISS;
    const whole = BigInt(value);
    return whole <= most ? whole : MISS;
  };
}

function matching(pattern: RegExp): Read {
  return (value) => (typeof value === "string" && pattern.test(value) ? value : MISS);
}

function madeFor(schema: Node): Read | null {
  const own = OWN.get(schema);
  if (own !== undefined) return own;
  if (schema instanceof z.ZodString || schema instanceof z.ZodBase64) return textReader(schema);
  if (schema instanceof z.ZodNumber) return numberReader(schema);
  if (schema instanceof z.ZodArray) return arrayReader(schema);
  if (schema._zod.def.checks !== undefined && schema._zod.def.checks.length > 0) return null;
  if (schema instanceof z.ZodObject) return objectReader(schema);
  if (schema instanceof z.ZodRecord) return recordReader(schema);
  if (schema instanceof z.ZodDiscriminatedUnion) return taggedReader(schema);
  if (schema instanceof z.ZodUnion) return unionReader(schema.def.options);
  if (schema instanceof z.ZodLiteral) return memberReader(schema.values);
  if (schema instanceof z.ZodEnum) return memberReader(new Set(schema.options));
  if (schema instanceof z.ZodNullable) return nullableReader(readerOf(schema.def.innerType));
  if (schema instanceof z.ZodUnknown) return (value) => value;
  return null;
}

/** What each check asks for; null when one of them is none of these. */
function checksOf<Value>(
  schema: Node,
  known: (check: z.core.$ZodChecks["_zod"]["def"]) => ((value: Value) => boolean) | null,
): ((value: Value) => boolean) | null {
  const tests: ((value: Value) => boolean)[] = [];
  for (const check of schema._zod.def.checks ?? []) {
    const test = known((check as z.core.$ZodChecks)._zod.def);
    if (test === null) return null;
    tests.push(test);
  }
  const [first] = tests;
  if (first === undefined) return () => true;
  return tests.length === 1 ? first : (value) => tests.every((test) => test(value));
}

const BASE64 = /^(?:[0-9a-zA-Z+/]{4})*(?:[0-9a-zA-Z+/]{2}==|[0-9a-zA-Z+/]{3}=)?$/;

function textReader(schema: z.ZodString | z.ZodBase64): Read | null {
  // Formats of their own beside a pattern: only base64's is simple.
  const isBase64 = schema instanceof z.ZodBase64;
  if (!isBase64 && "format" in schema.def) return null;
  if (schema.def.coerce === true) return null;
  const fits = checksOf<string>(schema, (check) => {
    switch (check.check) {
      case "max_length":
        return (text) => text.length <= check.maximum;
      case "min_length":
        return (text) => text.length >= check.minimum;
      case "string_format": {
        const { format, pattern } = check;
        if (format === "base64") return (text) => BASE64.test(text);
        if (format !== "regex" || pattern === undefined || pattern.global || pattern.sticky) return null;
        return (text) => pattern.test(text);
      }
      default:
        return null;
    }
  });
  if (fits === null) return null;
  return (value) =>
    typeof value === "string" && (!isBase64 || BASE64.test(value)) && fits(value) ? value : MISS;
}

function numberReader(schema: z.ZodNumber): Read | null {
  const format = "format" in schema.def ? schema.def.format : null;
  const isInt = format === "safeint";
  if ((format !== null && !isInt) || schema.def.coerce === true) return null;
  const fits = checksOf<number>(schema, (check) => {
    switch (check.check) {
      case "greater_than": {
        const { value: least, inclusive } = check;
        if (typeof least !== "number") return null;
        return (number) => (inclusive ? number >= least : number > least);
      }
      case "less_than": {
        const { value: most, inclusive } = check;
        if (typeof most !== "number") return null;
        return (number) => (inclusive ? number <= most : number < most);
      }
      case "number_format":
        return check.format === "safeint" ? Number.isSafeInteger : null;
      default:
        return null;
    }
  });
  if (fits === null) return null;
  const is = isInt ? Number.isSafeInteger : Number.isFinite;
  return (value) => (typeof value === "number" && is(value) && fits(value) ? value : MISS);
}

function arrayReader(schema: z.ZodArray): Read | null {
  const fits = checksOf<readonly unknown[]>(schema, (check) => {
    switch (check.check) {
      case "max_length":
        return (list) => list.length <= check.maximum;
      case "min_length":
        return (list) => list.length >= check.minimum;
      default:
        return null;
    }
  });
  if (fits === null) return null;
  const read = readerOf(schema.def.element);
  return (value) => {
    if (!Array.isArray(value) || !fits(value)) return MISS;
    const list: unknown[] = [];
    // By index: a hole is undefined, as zod sees it.
    for (let i = 0; i < value.length; i += 1) {
      const item = read(value[i]);
      if (item === MISS) return MISS;
      list.push(item);
    }
    return list;
  };
}

interface Field {
  readonly key: string;
  readonly read: Read;
  /** What stands for one that is not there; null: it must be. */
  readonly absent: (() => unknown) | null;
}

/** The value of a field that is left out of the result. */
const NOTHING = Symbol("nothing");

function fieldOf(key: string, schema: Node): Field {
  if (schema instanceof z.ZodOptional)
    return { key, read: readerOf(schema.def.innerType), absent: () => NOTHING };
  if (schema instanceof z.ZodDefault) {
    // A getter, which answers a copy each time.
    const { def } = schema;
    return { key, read: readerOf(def.innerType), absent: () => def.defaultValue };
  }
  if (schema instanceof z.ZodPrefault) {
    const { def } = schema;
    const read = readerOf(def.innerType);
    return { key, read, absent: () => read(def.defaultValue) };
  }
  return { key, read: readerOf(schema), absent: null };
}

/** A plain one, whose keys are all its own. */
function isRecord(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function objectReader(schema: z.ZodObject): Read | null {
  const { catchall, shape } = schema.def;
  const isStrict = catchall instanceof z.ZodNever;
  if (catchall !== undefined && !isStrict) return null;
  const fields = Object.entries(shape).map(([key, each]) => fieldOf(key, each));
  const known = new Set(fields.map(({ key }) => key));
  // Of these zod drops a declared `__proto__`, and builds its result by assignment.
  if (known.has("__proto__")) return null;
  return (value) => {
    if (!isRecord(value)) return MISS;
    if (isStrict) for (const key in value) if (!known.has(key)) return MISS;
    const result: Record<string, unknown> = {};
    for (const { key, read, absent } of fields) {
      const raw = value[key];
      let field: unknown;
      if (raw === undefined) {
        if (absent === null || Object.hasOwn(value, key)) return MISS;
        field = absent();
        if (field === NOTHING) continue;
      } else field = read(raw);
      if (field === MISS) return MISS;
      result[key] = field;
    }
    return result;
  };
}

function recordReader(schema: z.ZodRecord): Read | null {
  if (!(schema.def.keyType instanceof z.ZodString)) return null;
  const readKey = readerOf(schema.def.keyType);
  const read = readerOf(schema.def.valueType);
  return (value) => {
    if (!isRecord(value)) return MISS;
    const result: Record<string, unknown> = {};
    for (const [key, raw] of Object.entries(value)) {
      if (key === "__proto__" || raw === undefined || readKey(key) !== key) return MISS;
      const item = read(raw);
      if (item === MISS) return MISS;
      result[key] = item;
    }
    return result;
  };
}

function taggedReader(schema: z.ZodDiscriminatedUnion): Read | null {
  const { discriminator, options } = schema.def;
  const byTag = new Map<unknown, Read>();
  for (const option of options) {
    const tag = option instanceof z.ZodObject ? option.def.shape[discriminator] : undefined;
    if (!(tag instanceof z.ZodLiteral)) return null;
    for (const value of tag.values) byTag.set(value, readerOf(option));
  }
  return (value) => {
    const read = isRecord(value) ? byTag.get(value[discriminator]) : undefined;
    return read === undefined ? MISS : read(value);
  };
}

/**
 * Zod's answer is that of the first which takes it. What we do not take zod may, so no earlier option may be one that
 * could take what a later one does.
 */
function unionReader(options: readonly Node[]): Read | null {
  for (const [i, later] of options.entries())
    if (options.slice(0, i).some((earlier) => !refuses(earlier, later))) return null;
  const reads = options.map(readerOf);
  return (value) => {
    for (const read of reads) {
      const result = read(value);
      if (result !== MISS) return result;
    }
    return MISS;
  };
}

/** Whether `earlier` takes nothing of what `later` does: it knows a field not that the other needs, or one is a list. */
function refuses(earlier: Node, later: Node): boolean {
  if (earlier instanceof z.ZodArray) return later instanceof z.ZodObject;
  if (!(earlier instanceof z.ZodObject) || !(earlier.def.catchall instanceof z.ZodNever)) return false;
  if (later instanceof z.ZodArray) return true;
  if (!(later instanceof z.ZodObject)) return false;
  const known = earlier.def.shape;
  return Object.entries(later.def.shape).some(
    ([key, each]) => fieldOf(key, each).absent === null && !Object.hasOwn(known, key),
  );
}

function memberReader(members: ReadonlySet<unknown>): Read {
  return (value) => (members.has(value) ? value : MISS);
}

function nullableReader(read: Read): Read {
  return (value) => (value === null ? null : read(value));
}
