import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { printable, UsageError, WalletError } from "./outcome.ts";

export interface Writer {
  write(text: string): void;
}

/** Where a command reads and writes: data to `out`, talk to `err`. */
export interface Terminal {
  readonly out: Writer & { bytes(bytes: Uint8Array): void };
  readonly err: Writer & { readonly live: boolean; readonly color: boolean };
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Asks without showing what is typed. Throws {@link WalletError} where nobody can be asked. */
  askSecret(question: string): Promise<string>;
  /** Whether the person says yes. Throws {@link UsageError} where nobody can be asked. */
  confirm(question: string): Promise<boolean>;
  /** All of standard input, as text. */
  readInput(): Promise<string>;
  /** Ctrl-C; returns how to stop listening. While somebody listens the process does not end by itself. */
  onInterrupt(handler: () => void): () => void;
}

export function processTerminal(): Terminal {
  const { stdin, stdout, stderr, env } = process;
  const live = stderr.isTTY === true && env.TERM !== "dumb";
  return {
    out: { write: (text) => void stdout.write(text), bytes: (bytes) => void stdout.write(bytes) },
    // https://no-color.org: any value but the empty one.
    err: { write: (text) => void stderr.write(text), live, color: live && !env.NO_COLOR },
    environment: env,
    askSecret(question) {
      if (!stdin.isTTY || !stderr.isTTY) {
        throw new WalletError(
          "The wallet needs a password",
          "Set GPUX_PASSWORD, or name a file with --password-file.",
        );
      }
      stderr.write(question);
      // readline echoes to its output, so that is one that swallows.
      const output = new Writable({ write: (_chunk, _encoding, done) => done() });
      const silent = createInterface({ input: stdin, output, terminal: true, historySize: 0 });
      return new Promise((resolve, reject) => {
        silent.once("SIGINT", () => {
          silent.close();
          stderr.write("\n");
          reject(new WalletError("No password was given", "Nothing was done."));
        });
        silent.question("", (answer) => {
          silent.close();
          stderr.write("\n");
          resolve(answer);
        });
      });
    },
    async confirm(question) {
      if (!stdin.isTTY || !stderr.isTTY)
        throw new UsageError(
          "Nobody can be asked whether to send it",
          "Say --yes, or look at it with --print.",
        );
      const prompt = createInterface({ input: stdin, output: stderr });
      const answer = await new Promise<string>((resolve) => {
        // Ctrl-C and Ctrl-D are no.
        prompt.once("close", () => resolve(""));
        prompt.question(`${printable(question)} [y/N] `, resolve);
      });
      prompt.close();
      return /^y(es)?$/i.test(answer.trim());
    },
    async readInput() {
      const chunks: Uint8Array[] = [];
      for await (const chunk of stdin) chunks.push(new Uint8Array(Buffer.from(chunk)));
      return Buffer.concat(chunks).toString("utf8");
    },
    onInterrupt(handler) {
      process.on("SIGINT", handler);
      return () => void process.off("SIGINT", handler);
    },
  };
}

const CODES = { dim: "2", red: "31", green: "32", yellow: "33" } as const;

export function paint(terminal: Terminal, color: keyof typeof CODES, text: string): string {
  return terminal.err.color ? `\x1b[${CODES[color]}m${text}\x1b[0m` : text;
}

/** A line of talk; what others wrote is made harmless here. */
export function say(terminal: Terminal, text: string): void {
  terminal.err.write(`${printable(text)}\n`);
}

export function printJson(terminal: Terminal, value: unknown): void {
  terminal.out.write(`${JSON.stringify(value)}\n`);
}

/** Columns as wide as their widest cell; numbers of columns may differ by row. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  return lines.map((line) => `${printable(line)}\n`).join("");
}
