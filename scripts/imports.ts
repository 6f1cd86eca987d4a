import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** An import that breaks a rule of `.dependency-cruiser.mjs`: paths are relative to the root. */
export type Violation = { rule: string; from: string; to: string; why: string };

const home = dirname(dirname(fileURLToPath(import.meta.url)));
const parts = [
  "protocol",
  "durable-objects",
  "workers",
  "contracts",
  "agent",
  "sdk",
  "cli",
  "explorer",
  "examples",
  "test",
  "bench",
  "scripts",
];

type Report = {
  modules: { source: string }[];
  summary: {
    violations: { rule: { name: string }; from: string; to: string }[];
    ruleSetUsed: { forbidden: { name: string; comment: string }[] };
  };
};

/**
 * Follows the imports of every part below `root` and judges them by the rules of this repository.
 * @throws when a file does not parse: the tool then has judged nothing.
 */
export function judgeImports(root: string): { files: string[]; rules: string[]; violations: Violation[] } {
  const program = join(home, "node_modules/dependency-cruiser/bin/dependency-cruiser.mjs");
  const config = join(home, ".dependency-cruiser.mjs");
  const present = parts.filter((part) => existsSync(join(root, part)));
  const run = spawnSync(
    process.execPath,
    [program, ...present, "--config", config, "--output-type", "json"],
    {
      cwd: root,
      encoding: "utf8",
      maxBuffer: 256 * 1024 * 1024,
    },
  );
  // The exit code counts the violations, so only an answer that is no JSON tells of a crash.
  if (!run.stdout.trimStart().startsWith("{"))
    throw new Error(run.stderr.trim() || "dependency-cruiser gave no answer");
  const report: Report = JSON.parse(run.stdout);
  const why = new Map(report.summary.ruleSetUsed.forbidden.map((rule) => [rule.name, rule.comment]));
  return {
    files: report.modules.map((module) => module.source).filter((file) => !file.includes("node_modules/")),
    rules: [...why.keys()],
    violations: report.summary.violations.map((violation) => ({
      rule: violation.rule.name,
      from: violation.from,
      to: violation.to,
      why: why.get(violation.rule.name) ?? "",
    })),
  };
}

if (import.meta.main) {
  const { files, violations } = judgeImports(home);
  for (const { rule, from, to, why } of violations) console.log(`${from} -> ${to}\n  ${rule}: ${why}`);
  console.log(`${files.length} files, ${violations.length} violations`);
  process.exitCode = violations.length === 0 ? 0 : 1;
}
