/**
 * The text that `z.encode` would come to with the schemas of state.ts and of the frames, whose one codec is the amount,
 * in a fraction of the time: something of it is written at every step. Reading goes through the schemas.
 */
export function documentOf(value: object): string {
  return JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? each.toString() : each));
}
