import { readFile } from "node:fs/promises";
import { LeaseTerms } from "@gpux/protocol/eip712";
import { Intent } from "@gpux/protocol/intent";
import { KeptIntent } from "@gpux/protocol/kept";
import type { Place } from "@gpux/protocol/place";
import { z } from "zod";
import { UsageError } from "../outcome.ts";
import type { Terminal } from "../terminal.ts";

/** A document that a person holds: an intent to land, or only the terms of a lease. */
export interface Paper {
  /** What it was signed for, where it says so. */
  readonly place: Place | null;
  readonly intent: Intent | null;
  readonly terms: readonly LeaseTerms[];
}

/** A lease view or a quote, whose terms are all that is used. */
const WithTerms = z.looseObject({ terms: LeaseTerms });

/** A file of one JSON document, an array of them, or one a line; `-` is standard input. Never empty. */
export async function readPapers(terminal: Terminal, path: string): Promise<Paper[]> {
  const name = path === "-" ? "standard input" : path;
  const text = path === "-" ? await terminal.readInput() : await readFile(path, "utf8").catch(() => null);
  if (text === null)
    throw new UsageError(`There is no file ${path}`, "Name a lease (lse_..., 0x...), a file, or - .");
  return papersIn(text, name);
}

export function papersIn(text: string, name: string): Paper[] {
  const documents = documentsIn(text);
  if (documents === null)
    throw new UsageError(`${name} is not JSON`, "One document, an array, or one a line.");
  if (documents.length === 0) throw new UsageError(`${name} is empty`, "Nothing was sent.");
  return documents.map((document, i) =>
    paperOf(document, documents.length === 1 ? name : `${name}, ${i + 1}`),
  );
}

function documentsIn(text: string): unknown[] | null {
  const whole = parseJson(text);
  if (whole !== undefined) return Array.isArray(whole) ? whole : [whole];
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  const parsed = lines.map(parseJson);
  return parsed.includes(undefined) ? null : parsed;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function paperOf(document: unknown, name: string): Paper {
  if (typeof document !== "object" || document === null) throw new UsageError(`${name} is no JSON object`);
  if ("intent" in document) {
    const { chain_id: chainId, escrow, intent } = checked(KeptIntent, document, name);
    return { place: { chainId, escrow }, intent, terms: termsOf(intent) };
  }
  if ("kind" in document) {
    const intent = checked(Intent, document, name);
    return { place: null, intent, terms: termsOf(intent) };
  }
  const terms =
    "terms" in document ? checked(WithTerms, document, name).terms : checked(LeaseTerms, document, name);
  return { place: null, intent: null, terms: [terms] };
}

function checked<Schema extends z.ZodType>(schema: Schema, value: unknown, name: string): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new UsageError(`${name} at /${issue?.path.join("/")}: ${issue?.message}`, "See docs/cli.md, rescue.");
}

function termsOf(intent: Intent): readonly LeaseTerms[] {
  if (!("terms" in intent)) return [];
  return Array.isArray(intent.terms) ? intent.terms : [intent.terms];
}
