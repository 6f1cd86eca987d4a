import { fieldType, member, SCALAR_LAYOUT, structLayout } from "@gpux/protocol/manifest-quantity";
import type { FunctionInput, JsonField } from "@gpux/protocol/manifest-schema";
import { writeScalar } from "./scalar.ts";

type JsonSpec = Extract<FunctionInput, { kind: "json" }>;
type JsonList = JsonSpec["lists"][string];
export type Scalar = number | readonly number[];

/** Values by path (`camera.fov`), and each list packed as an array of WGSL structs with its length in items. */
export type JsonBinding = {
  ok: true;
  scalars: Map<string, Scalar>;
  lists: Map<string, { bytes: Uint8Array; length: number }>;
};
type JsonRefusal = { ok: false; detail: string };

/** Holds a document against the manifest's paths: nothing missing, nothing unknown, each value in its range. */
export function bindJson(spec: JsonSpec, document: unknown): JsonBinding | JsonRefusal {
  const scalars = new Map<string, Scalar>();
  const lists: JsonBinding["lists"] = new Map();
  const found = new Map<string, unknown>();
  const stray = collect(spec, document, "", found);
  if (stray !== undefined) return { ok: false, detail: stray };

  for (const [path, field] of Object.entries(spec.fields)) {
    const value = readField(field, found.get(path));
    if (value === undefined) return { ok: false, detail: complaint(path, field, found.get(path)) };
    scalars.set(path, value);
  }
  for (const [path, list] of Object.entries(spec.lists)) {
    const packed = packList(list, path, found.get(path) ?? []);
    if (!packed.ok) return packed;
    lists.set(path, packed);
  }
  return { ok: true, scalars, lists };
}

/** Gathers the values at declared paths; answers what is wrong with the first thing that is not on one. */
function collect(
  spec: JsonSpec,
  node: unknown,
  prefix: string,
  found: Map<string, unknown>,
): string | undefined {
  if (typeof node !== "object" || node === null || Array.isArray(node)) {
    return `${prefix === "" ? "the document" : prefix} must be an object`;
  }
  for (const [key, value] of Object.entries(node)) {
    const path = prefix === "" ? key : `${prefix}.${key}`;
    if (key.includes(".")) return `"${shown(path)}" is not a field of this input`;
    if (member(spec.fields, path) || member(spec.lists, path)) {
      found.set(path, value);
      continue;
    }
    const inner = [...Object.keys(spec.fields), ...Object.keys(spec.lists)].some((known) =>
      known.startsWith(`${path}.`),
    );
    const stray = inner ? collect(spec, value, path, found) : `"${shown(path)}" is not a field of this input`;
    if (stray !== undefined) return stray;
  }
  return undefined;
}

function packList(list: JsonList, path: string, value: unknown) {
  if (!Array.isArray(value)) return { ok: false as const, detail: `${path} must be a list` };
  if (value.length > list.maxLength) {
    return {
      ok: false as const,
      detail: `${path} has ${value.length} items, at most ${list.maxLength} are taken`,
    };
  }
  const { offsets, size } = structLayout(list.item.map(({ field }) => fieldType(field)));
  const bytes = new Uint8Array(size * Math.max(value.length, 1));
  const view = new DataView(bytes.buffer);
  for (const [index, item] of value.entries()) {
    const at = `${path}[${index}]`;
    if (typeof item !== "object" || item === null || Array.isArray(item)) {
      return { ok: false as const, detail: `${at} must be an object` };
    }
    const given = new Map<string, unknown>(Object.entries(item));
    for (const [place, { name, field }] of list.item.entries()) {
      const scalar = readField(field, given.get(name));
      if (scalar === undefined)
        return { ok: false as const, detail: complaint(`${at}.${name}`, field, given.get(name)) };
      writeScalar(view, index * size + (offsets[place] ?? 0), fieldType(field), scalar);
      given.delete(name);
    }
    for (const name of given.keys()) {
      return { ok: false as const, detail: `"${at}.${shown(name)}" is not a field of this input` };
    }
  }
  return { ok: true as const, bytes, length: value.length };
}

/** The value in the form that a buffer takes, or undefined where the document's is not one. */
function readField(field: JsonField, value: unknown): Scalar | undefined {
  const given = value === undefined ? field.default : value;
  if (field.type === "enum") {
    const place = typeof given === "string" ? field.values.indexOf(given) : -1;
    return place < 0 ? undefined : place;
  }
  const { components } = SCALAR_LAYOUT[field.type];
  const numbers: unknown[] = Array.isArray(given) ? given : [given];
  if (Array.isArray(given) !== components > 1 || numbers.length !== components) return undefined;
  const whole = field.type === "u32" || field.type === "i32";
  const checked = numbers.filter(
    (number): number is number =>
      typeof number === "number" &&
      number >= field.min &&
      number <= field.max &&
      (!whole || Number.isInteger(number)),
  );
  if (checked.length !== components) return undefined;
  return components === 1 ? checked[0] : checked;
}

function complaint(path: string, field: JsonField, value: unknown): string {
  if (value === undefined) return `${path} is missing`;
  if (field.type === "enum") return `${path} must be one of ${field.values.join(", ")}`;
  const { components } = SCALAR_LAYOUT[field.type];
  const what = field.type === "u32" || field.type === "i32" ? "whole number" : "number";
  const noun = components === 1 ? `a ${what}` : `${components} ${what}s, each`;
  return `${path} must be ${noun} from ${field.min} to ${field.max}`;
}

/** A stranger's key in a message: short. */
function shown(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}
