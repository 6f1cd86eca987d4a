import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

// The types of each Worker's bindings, written by `wrangler types` from its wrangler.toml. Run it after a change of a
// wrangler.toml or of the classes that a Worker exports; `npm test` runs it with --check.
//
// Each Worker's interface has a name of its own, so that all three live in one program. A Worker reads its own
// (`EdgeEnv`), never `Cloudflare.Env`, in which all three are merged.
const workers = [
  {
    folder: "workers/edge",
    env: "EdgeEnv",
    // The others' configurations follow, so that service bindings carry the types of their entrypoints.
    configs: ["wrangler.toml", "workers/relayer/wrangler.toml", "workers/meter/wrangler.toml"],
  },
  { folder: "workers/relayer", env: "RelayerEnv", configs: ["workers/relayer/wrangler.toml"] },
  { folder: "workers/meter", env: "MeterEnv", configs: ["workers/meter/wrangler.toml"] },
];

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const wrangler = join(root, "node_modules/wrangler/bin/wrangler.js");

/** Runs `wrangler types` for one Worker; resolves with what it had to say against it, or nothing. */
function worker(
  { folder, env, configs }: (typeof workers)[number],
  extra: string[],
): Promise<string | undefined> {
  const target = `${folder}/worker-configuration.d.ts`;
  const args = [
    ...["types", target, ...configs.flatMap((config) => ["--config", config])],
    ...["--env-interface", env, "--include-runtime=false", "--strict-vars=false", ...extra],
  ];
  const child = spawn(process.execPath, [wrangler, ...args], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      NO_COLOR: "1",
      WRANGLER_LOG: "error",
      WRANGLER_SEND_METRICS: "false",
      WRANGLER_SEND_ERROR_REPORTS: "false",
      // Wrangler keeps notes in the user's configuration folder; ours is the project's.
      XDG_CONFIG_HOME: join(root, ".gpux"),
    },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve(code === 0 ? undefined : `${target}: ${output.trim()}`));
  });
}

const extra = process.argv.slice(2);
const complaints = await Promise.all(workers.map((each) => worker(each, extra)));
for (const complaint of complaints) if (complaint !== undefined) console.error(complaint);
if (complaints.some((complaint) => complaint !== undefined)) {
  if (extra.includes("--check")) console.error("Run `node scripts/worker-types.ts`.");
  process.exitCode = 1;
}
