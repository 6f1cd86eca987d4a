// Makes a bare clone runnable, then runs a task: `node scripts/bootstrap.mjs start|test|test:long|bench|load|deploy|example:seed [args]`.
//
// Runs on any Node >= 18 with no dependency. What the task needs is put into the project folder only (scripts/setup.mjs).
// Where all is there already it costs a few hundredths of a second.

import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { findNpm, foreground, root, SetupFailure } from "./npm.mjs";
import { setUp } from "./setup.mjs";

const tasks = {
  start: "scripts/start.ts",
  test: "scripts/check.ts",
  "test:long": "contracts/long.ts",
  bench: "bench/run.ts",
  load: "bench/crowd/run.ts",
  deploy: "scripts/deploy.ts",
  "example:seed": "scripts/seed/seed.ts",
};

/**
 * Calls `gone` once npm, or the shell that it put between, has died. Nobody passes a SIGKILL on, but every system
 * gives the children of the dead a new parent at once, which also holds while the dead is still a zombie.
 */
function watchNpm(gone) {
  if (process.env.npm_lifecycle_event === undefined || process.platform === "win32") return;
  const read = (file) => {
    try {
      return fs.readFileSync(file, "utf8");
    } catch {
      return ""; // it is gone, or this system has no /proc
    }
  };
  const shell = process.ppid;
  const isShell = /^(ba|da|z|k)?sh$/.test(read(`/proc/${shell}/comm`).trim());
  const parentOf = (pid) => /\) \S (\d+)/.exec(read(`/proc/${pid}/stat`))?.[1];
  const npmProcess = isShell ? parentOf(shell) : undefined;
  setInterval(() => {
    if (process.ppid !== shell || (isShell && parentOf(shell) !== npmProcess)) gone();
  }, 500).unref();
}

function runTask(node, script, args) {
  const folder = path.dirname(node);
  const pathName = Object.keys(process.env).find((name) => name.toUpperCase() === "PATH") || "PATH";
  const env = {
    ...process.env,
    [pathName]: `${folder}${path.delimiter}${process.env[pathName] || ""}`,
    NODE: node,
    npm_node_execpath: node,
    npm_execpath: findNpm(),
  };
  // In a process group of its own the task gets each signal from here, once; in ours, Ctrl-C would reach it from the
  // terminal, from npm and from us.
  const child = spawn(node, [path.join(root, script), ...args], {
    cwd: root,
    env,
    stdio: "inherit",
    detached: process.platform !== "win32",
  });
  foreground.child = child;
  return new Promise((resolve, reject) => {
    child.on("error", (cause) =>
      reject(new SetupFailure(`Node could not be started (${cause.code}): ${node}`)),
    );
    child.on("exit", (code, signal) => resolve(signal ? 128 + (os.constants.signals[signal] || 0) : code));
  });
}

const lastSeen = new Map();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    // The terminal and npm both deliver the same Ctrl-C.
    const now = Date.now();
    const again = now - (lastSeen.get(signal) || 0) < 500;
    lastSeen.set(signal, now);
    if (again) return;
    if (foreground.child === undefined) process.exit(128 + os.constants.signals[signal]);
    foreground.child.kill(signal === "SIGHUP" ? "SIGTERM" : signal);
  });
}

async function main() {
  const [task = "", ...args] = process.argv.slice(2);
  const script = Object.hasOwn(tasks, task) ? tasks[task] : undefined;
  if (script === undefined)
    throw new SetupFailure(`Usage: node scripts/bootstrap.mjs ${Object.keys(tasks).join("|")} [arguments]`);
  watchNpm(() => (foreground.child === undefined ? process.exit(143) : foreground.child.kill("SIGTERM")));
  const node = await setUp();
  return await runTask(node, script, args);
}

main().then(
  (code) => process.exit(code === null ? 1 : code),
  (error) => {
    process.stderr.write(`gpux: ${error instanceof SetupFailure ? error.message : String(error)}\n`);
    process.exit(1);
  },
);
