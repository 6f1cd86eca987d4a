/**
 * The part of RFC 8941 (Structured Fields) that HTTP signatures and content digests use: dictionaries of inner
 * lists of strings, and dictionaries of byte sequences. Stricter than the RFC on purpose: a duplicate key is a
 * refusal, where the RFC lets the last one win, for two readers that disagree on a duplicate are an attack.
 * Every parser returns `null` for what it refuses, and is linear in the text.
 */

export type BareItem = string | number | boolean;
export type Parameters = ReadonlyMap<string, BareItem>;
export type Item = { readonly value: string; readonly parameters: Parameters };
export type InnerList = { readonly items: readonly Item[]; readonly parameters: Parameters };

const KEY = /[a-z*][a-z0-9_\-.*]*/y;
const QUOTED = /"(?:[ !#-[\]-~]|\\["\\])*"/y;
// Not before a point: that would be a decimal, which no parameter of ours is.
const INTEGER = /-?[0-9]{1,15}(?![0-9.])/y;
const BOOLEAN = /\?[01]/y;
const BASE64 = /:[A-Za-z0-9+/]*={0,2}:/y;
const SPACES = / */y;
const SEPARATOR = /[ \t]*,[ \t]*/y;

type Scanner = {
  /** The text that `pattern` (sticky) matches here, or null; moves past it. */
  take(pattern: RegExp): string | null;
  /** Whether this one character stands here; moves past it. */
  eat(character: string): boolean;
  done(): boolean;
};

function scannerOf(text: string): Scanner {
  let at = 0;
  return {
    take(pattern) {
      pattern.lastIndex = at;
      const found = pattern.exec(text)?.[0] ?? null;
      if (found !== null) at += found.length;
      return found;
    },
    eat(character) {
      if (text[at] !== character) return false;
      at += 1;
      return true;
    },
    done: () => at === text.length,
  };
}

function takeString(scanner: Scanner): string | null {
  const quoted = scanner.take(QUOTED);
  return quoted === null ? null : quoted.slice(1, -1).replace(/\\(.)/g, "$1");
}

function takeBareItem(scanner: Scanner): BareItem | null {
  const text = takeString(scanner);
  if (text !== null) return text;
  const boolean = scanner.take(BOOLEAN);
  if (boolean !== null) return boolean === "?1";
  const integer = scanner.take(INTEGER);
  return integer === null ? null : Number(integer);
}

function takeParameters(scanner: Scanner): Parameters | null {
  const parameters = new Map<string, BareItem>();
  while (scanner.eat(";")) {
    scanner.take(SPACES);
    const key = scanner.take(KEY);
    if (key === null || parameters.has(key)) return null;
    const value = scanner.eat("=") ? takeBareItem(scanner) : true;
    if (value === null) return null;
    parameters.set(key, value);
  }
  return parameters;
}

function takeInnerList(scanner: Scanner): InnerList | null {
  if (!scanner.eat("(")) return null;
  const items: Item[] = [];
  for (;;) {
    const gap = scanner.take(SPACES);
    if (scanner.eat(")")) break;
    if (items.length > 0 && gap === "") return null;
    const value = takeString(scanner);
    const parameters = value === null ? null : takeParameters(scanner);
    if (value === null || parameters === null) return null;
    items.push({ value, parameters });
  }
  const parameters = takeParameters(scanner);
  return parameters === null ? null : { items, parameters };
}

function takeBytes(scanner: Scanner): Uint8Array | null {
  const encoded = scanner.take(BASE64);
  return encoded === null ? null : decodeBase64(encoded.slice(1, -1));
}

function dictionary<Value>(
  text: string,
  take: (scanner: Scanner) => Value | null,
): Map<string, Value> | null {
  const scanner = scannerOf(text);
  scanner.take(SPACES);
  const members = new Map<string, Value>();
  do {
    const key = scanner.take(KEY);
    if (key === null || members.has(key) || !scanner.eat("=")) return null;
    const value = take(scanner);
    if (value === null) return null;
    members.set(key, value);
  } while (scanner.take(SEPARATOR) !== null);
  scanner.take(SPACES);
  return scanner.done() ? members : null;
}

/** `sig=("@method" "@path");created=1`: at least one member, no duplicates. */
export function parseInnerLists(text: string): Map<string, InnerList> | null {
  return dictionary(text, takeInnerList);
}

/** `sig=:YWJj:`: at least one member, no duplicates, canonical base64, no parameters. */
export function parseByteSequences(text: string): Map<string, Uint8Array> | null {
  return dictionary(text, takeBytes);
}

/** `null` unless canonical: one byte string has one spelling, so padding bits cannot hide a second signature. */
export function decodeBase64(encoded: string): Uint8Array | null {
  if (encoded.length % 4 !== 0) return null;
  const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  return encodeBase64(bytes) === encoded ? bytes : null;
}

export function encodeBase64(bytes: Uint8Array): string {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** RFC 8941 section 4.1.6. Throws on a character that no sf-string can carry: check hostile text before. */
export function serializeString(value: string): string {
  if (!/^[ -~]*$/.test(value)) throw new TypeError("a structured field string is printable ASCII");
  return `"${value.replace(/[\\"]/g, "\\$&")}"`;
}

export function serializeBytes(bytes: Uint8Array): string {
  return `:${encodeBase64(bytes)}:`;
}

function serializeBareItem(value: BareItem): string {
  if (typeof value === "string") return serializeString(value);
  return typeof value === "number" ? value.toString() : `?${value ? 1 : 0}`;
}

/** The canonical text of an inner list of plain strings, as it stands in a signature base. */
export function serializeInnerList(items: readonly string[], parameters: Parameters): string {
  const tail = [...parameters].map(([key, value]) =>
    value === true ? `;${key}` : `;${key}=${serializeBareItem(value)}`,
  );
  return `(${items.map(serializeString).join(" ")})${tail.join("")}`;
}
