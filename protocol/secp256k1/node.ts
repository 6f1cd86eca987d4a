import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { curveOf } from "./library.ts";

const path = createRequire(import.meta.url).resolve(
  "@bitauth/libauth/build/lib/bin/secp256k1/secp256k1.wasm",
);

/** Node (the agent, the command line, scripts): the binary is read and compiled once per process. */
export const curve = curveOf(new WebAssembly.Module(readFileSync(path)));
