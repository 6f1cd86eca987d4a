/** A value as it travels: amounts and other whole numbers beyond 2^53 are decimal strings. */
export type Wire<Value> = Value extends bigint
  ? string
  : Value extends string | number | boolean | null | undefined
    ? Value
    : Value extends readonly (infer Item)[]
      ? Wire<Item>[]
      : { [Key in keyof Value]: Wire<Value[Key]> };

/**
 * What `z.encode` would come to with a schema whose only codecs are those of whole numbers, in a fraction of the time.
 * Without a check: whoever gets it parses it.
 */
export function wireOf<Value>(value: Value): Wire<Value> {
  return encoded(value) as Wire<Value>;
}

function encoded(value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(encoded);
  const result: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(value)) result[key] = encoded(field);
  return result;
}

/** The JSON of {@link wireOf}, in one go. */
export function wireText(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? each.toString() : each));
}
