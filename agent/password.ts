import { createInterface } from "node:readline/promises";
import { Writable } from "node:stream";
import { readPasswordFile } from "./keystore.ts";

export type PasswordOutcome = { ok: true; password: string } | { ok: false; detail: string };

/** The keystore's password: a file, GPUX_AGENT_PASSWORD, or a prompt that shows nothing; never an argument. */
export async function askPassword(from: {
  readonly file: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Asked twice, for a new key. */
  readonly confirm: boolean;
}): Promise<PasswordOutcome> {
  if (from.file !== undefined) return readPasswordFile(from.file);
  const given = from.environment.GPUX_AGENT_PASSWORD;
  if (given !== undefined && given !== "") return { ok: true, password: given };
  if (!process.stdin.isTTY)
    return { ok: false, detail: "Give the password by GPUX_AGENT_PASSWORD or --password-file." };
  const password = await askHidden("Password of the node's key: ");
  if (password === "") return { ok: false, detail: "An empty password protects nothing." };
  if (from.confirm && (await askHidden("The same again: ")) !== password)
    return { ok: false, detail: "The two passwords differ." };
  return { ok: true, password };
}

async function askHidden(question: string): Promise<string> {
  process.stderr.write(question);
  // readline echoes to its output: here that is nothing.
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
  const prompt = createInterface({ input: process.stdin, output: silent, terminal: true });
  try {
    return await prompt.question("");
  } finally {
    prompt.close();
    process.stderr.write("\n");
  }
}

/** A line from the terminal; null where there is none to ask. */
export async function ask(question: string, fallback?: string): Promise<string | null> {
  if (!process.stdin.isTTY) return null;
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const hint = fallback === undefined ? "" : ` [${fallback}]`;
    const answer = (await prompt.question(`${question}${hint}: `)).trim();
    return answer === "" ? (fallback ?? null) : answer;
  } finally {
    prompt.close();
  }
}
