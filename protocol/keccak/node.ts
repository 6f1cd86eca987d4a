import { readFileSync } from "node:fs";
import { keccakOf } from "./sponge.ts";

/** Node (the agent, the command line, scripts). */
export const keccak = keccakOf(
  new WebAssembly.Module(readFileSync(new URL("./keccak.wasm", import.meta.url))),
);
