import { UsageError, WalletError } from "../outcome.ts";
import type { Terminal } from "../terminal.ts";

/** A terminal that writes everything down; nobody sits at it. */
export function createScreen(environment: Record<string, string> = {}, live = false, input = "") {
  let out = "";
  let err = "";
  const terminal: Terminal = {
    out: {
      write: (text) => {
        out += text;
      },
      bytes: (bytes) => {
        out += new TextDecoder().decode(bytes);
      },
    },
    err: {
      live,
      color: false,
      write: (text) => {
        err += text;
      },
    },
    environment,
    askSecret: () => Promise.reject(new WalletError("Nobody can be asked", "Set GPUX_PASSWORD.")),
    confirm: () => Promise.reject(new UsageError("Nobody can be asked", "Say --yes.")),
    readInput: () => Promise.resolve(input),
    onInterrupt: () => () => {},
  };
  return { terminal, out: () => out, err: () => err };
}
