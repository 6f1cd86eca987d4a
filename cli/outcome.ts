import { GpuxError } from "@gpux/sdk";

/** What the shell sees (research of A4, docs/cli.md): scripts branch on these, so they never change meaning. */
export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  auth: 3,
  payment: 4,
  job: 5,
  timeout: 124,
  /** 128 + SIGINT. */
  interrupted: 130,
} as const;

/** A command line, a file or a setting that cannot be used: the caller's to mend, nothing was sent. */
export class UsageError extends Error {
  readonly hint: string | null;
  constructor(message: string, hint: string | null = null) {
    super(message);
    this.name = "UsageError";
    this.hint = hint;
  }
}

/** No key to sign with, or none that opens. */
export class WalletError extends Error {
  readonly hint: string;
  constructor(message: string, hint: string) {
    super(message);
    this.name = "WalletError";
    this.hint = hint;
  }
}

/** The escrow or the way to it refuses a call of `gpux rescue`; whatever was signed stays good. */
export class ChainError extends Error {
  readonly code: string;
  readonly hint: string;
  readonly exit: number;
  constructor(code: string, message: string, hint: string, exit: number = EXIT.failure) {
    super(message);
    this.name = "ChainError";
    this.code = code;
    this.hint = hint;
    this.exit = exit;
  }
}

const PAYMENT_CODES: ReadonlySet<string> = new Set([
  "spend_limit",
  "quote_mismatch",
  "price_below_offers",
  "funding_invalid",
  "allowance_invalid",
]);

export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return EXIT.usage;
  if (error instanceof WalletError) return EXIT.auth;
  if (error instanceof ChainError) return error.exit;
  if (!(error instanceof GpuxError)) return EXIT.failure;
  if (error.code === "timed_out") return EXIT.timeout;
  if (error.code === "aborted") return EXIT.interrupted;
  if (error.code === "request_invalid") return EXIT.usage;
  if (error.status === 401 || error.status === 403) return EXIT.auth;
  if (error.status === 402 || PAYMENT_CODES.has(error.code)) return EXIT.payment;
  return EXIT.failure;
}

/** Title, detail, hint, code and request id; never a stack. A bug shows its message, and the stack with GPUX_DEBUG=1. */
export function explain(error: unknown, debug: boolean): string {
  const lines: string[] = [];
  if (error instanceof GpuxError) {
    lines.push(`error: ${error.title}`);
    if (error.detail !== null) lines.push(`  ${error.detail}`);
    if (error.hint !== null) lines.push(`  hint: ${error.hint}`);
    lines.push(`  code: ${error.code}${error.requestId === null ? "" : `  request: ${error.requestId}`}`);
  } else if (error instanceof UsageError || error instanceof WalletError) {
    lines.push(`error: ${error.message}`);
    if (error.hint !== null) lines.push(`  hint: ${error.hint}`);
  } else if (error instanceof ChainError) {
    lines.push(`error: ${error.message}`, `  hint: ${error.hint}`, `  code: ${error.code}`);
  } else {
    lines.push(`error: ${error instanceof Error ? error.message : String(error)}`);
    lines.push("  hint: This is a bug of gpux; GPUX_DEBUG=1 shows where.");
  }
  if (debug && error instanceof Error && error.stack !== undefined) lines.push(error.stack);
  return `${lines.map(printable).join("\n")}\n`;
}

/**
 * Text that others wrote (notes of a job, an edge's details) with its control characters taken out: they could move the
 * cursor, change the title or forge lines. Line feeds and tabs stay.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    character === "\n" || character === "\t" ? character : "\ufffd",
  );
}

/** The same as JSON, for `--json`. */
export function failureJson(error: unknown): Record<string, unknown> {
  if (error instanceof GpuxError) {
    const { code, title, detail, hint, status, requestId, retryable, fault } = error;
    return { error: { code, title, detail, hint, status, request_id: requestId, retryable, fault } };
  }
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof UsageError) return { error: { code: "usage", title: message, hint: error.hint } };
  if (error instanceof WalletError) return { error: { code: "wallet", title: message, hint: error.hint } };
  if (error instanceof ChainError) return { error: { code: error.code, title: message, hint: error.hint } };
  return { error: { code: "bug", title: message } };
}
