import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { z } from "zod";

const require = createRequire(import.meta.url);
const here = fileURLToPath(new URL(".", import.meta.url));

const Solc = z.object({ compile: z.custom<(input: string, callbacks: { import: typeof load }) => string>() });
const solc = Solc.parse(require("solc"));
const Compiled = z.object({
  errors: z.array(z.object({ severity: z.string(), formattedMessage: z.string() })).optional(),
  contracts: z
    .record(
      z.string(),
      z.record(z.string(), z.object({ evm: z.object({ bytecode: z.object({ object: z.string() }) }) })),
    )
    .optional(),
});

/** Ours lie under src/, all others in packages. */
function load(path: string): { contents: string } {
  const file = path.startsWith("src/") ? `${here}${path}` : require.resolve(path);
  return { contents: readFileSync(file, "utf8") };
}

/**
 * Creation code of one contract. `content` absent: as `file` stands under src/ or in a package. Throws with the
 * compiler's words when it does not compile.
 */
export function creationCode(
  { file, contract, content }: { file: string; contract: string; content?: string },
  settings: Readonly<Record<string, unknown>>,
): `0x${string}` {
  const input = {
    language: "Solidity",
    sources: { [file]: { content: content ?? load(file).contents } },
    settings: { ...settings, outputSelection: { [file]: { [contract]: ["evm.bytecode.object"] } } },
  };
  const output = Compiled.parse(JSON.parse(solc.compile(JSON.stringify(input), { import: load })));
  const code = output.contracts?.[file]?.[contract]?.evm.bytecode.object;
  if (code !== undefined && code !== "") return `0x${code}`;
  const errors = output.errors?.filter((error) => error.severity === "error") ?? [];
  throw new Error(errors.map((error) => error.formattedMessage).join("\n"));
}
