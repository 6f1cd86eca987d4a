import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";

const scripts = dirname(fileURLToPath(import.meta.url));
const lock = JSON.stringify({ packages: {} });
let root: string;

/** A task that tells what it was given and which signals arrive, and ends at the first. */
const task = `
  let seen = 0;
  process.on("SIGINT", () => { seen += 1; setTimeout(() => { console.log("SIGINT", seen); process.exit(7); }, 300); });
  process.on("SIGTERM", () => { console.log("SIGTERM"); process.exit(9); });
  console.log(JSON.stringify(process.argv.slice(2)), "ready");
  if (process.argv[2] === "end") process.exit(5);
  setInterval(() => {}, 1000);
`;

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "gpux-bootstrap-"));
  mkdirSync(join(root, "scripts"));
  mkdirSync(join(root, "node_modules"));
  for (const file of ["bootstrap.mjs", "npm.mjs", "setup.mjs"]) {
    copyFileSync(join(scripts, file), join(root, "scripts", file));
  }
  writeFileSync(join(root, "package.json"), JSON.stringify({ type: "module" }));
  writeFileSync(join(root, "package-lock.json"), lock);
  writeFileSync(
    join(root, "node_modules/.gpux-installed"),
    `${createHash("sha256").update(lock).digest("hex")} ${process.platform}-${process.arch}`,
  );
  writeFileSync(join(root, "scripts/start.ts"), task);
});

afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Follows a child until it has ended and all its output is read. */
function follow(child: ChildProcess) {
  let output = "";
  let wake = () => {};
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk;
      wake();
    });
  }
  const end = new Promise<number | null>((resolve) => child.on("close", resolve));
  return {
    child,
    async said(text: string) {
      while (!output.includes(text)) {
        await Promise.race([
          new Promise<void>((resolve) => {
            wake = resolve;
          }),
          end.then(() => expect(output).toContain(text)),
        ]);
      }
    },
    async ended() {
      const code = await end;
      return { code, output };
    },
  };
}

function bootstrap(args: string[], env: Record<string, string> = {}) {
  return follow(
    spawn(process.execPath, ["scripts/bootstrap.mjs", ...args], {
      cwd: root,
      env: { ...process.env, ...env },
    }),
  );
}

test("passes the arguments on and the exit code back", async () => {
  const { code, output } = await bootstrap(["start", "end", "--report", "a b.json"]).ended();
  expect(output).toContain('["end","--report","a b.json"]');
  expect(code).toBe(5);
});

test("hands the same Ctrl-C from the terminal and from npm to the task once", async () => {
  const run = bootstrap(["start"]);
  await run.said("ready");
  run.child.kill("SIGINT");
  run.child.kill("SIGINT");
  const { code, output } = await run.ended();
  expect(output).toContain("SIGINT 1\n");
  expect(code).toBe(7);
});

test("ends the task when npm is killed in a way that it cannot pass on", async () => {
  // The shell stands for npm's; a `trap` keeps it from giving its process to its only command.
  const shell = spawn("sh", ["-c", 'trap : USR1; "$0" scripts/bootstrap.mjs start', process.execPath], {
    cwd: root,
    env: { ...process.env, npm_lifecycle_event: "start" },
  });
  const run = follow(shell);
  await run.said("ready");
  shell.kill("SIGKILL");
  // The pipes close, and with them the run ends, only when the task has gone.
  const { output } = await run.ended();
  expect(output).toContain("SIGTERM");
});

test("answers an unknown task with its usage and no stack", async () => {
  const { code, output } = await bootstrap(["dance"]).ended();
  expect(output).toBe(
    "gpux: Usage: node scripts/bootstrap.mjs start|test|test:long|bench|load|deploy|example:seed [arguments]\n",
  );
  expect(code).toBe(1);
});

test("says what to do where npm is missing", async () => {
  const { code, output } = await bootstrap(["start"], { PATH: root, npm_execpath: "" }).ended();
  expect(output).toBe(
    "gpux: npm is not on the PATH, and it is needed to install the packages. Install npm and try again.\n",
  );
  expect(code).toBe(1);
});
