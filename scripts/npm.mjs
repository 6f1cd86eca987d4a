// Runs npm's command line under the Node of our choice. Free of dependencies, for any Node >= 18.

import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** What the set-up puts outside node_modules: git ignores it, and deleting it is always safe. */
export const privateFolder = path.join(root, ".gpux");

/** The child that a signal to us is meant for: npm while setting up, then the task. */
export const foreground = { child: undefined };

/** A failure that the reader can act on: shown as its message, never with a stack. */
export class SetupFailure extends Error {}

const began = Date.now();
/** One line of progress, on stderr, with the seconds since the start. */
export function say(text) {
  process.stderr.write(`[gpux ${((Date.now() - began) / 1000).toFixed(1)} s] ${text}\n`);
}

/** Path of npm's own JavaScript, to be run by the Node of our choice. */
export function findNpm() {
  const running = process.env.npm_execpath;
  if (running && /npm-cli\.c?js$/.test(running) && fs.existsSync(running)) return running;
  for (const folder of (process.env.PATH || "").split(path.delimiter)) {
    for (const candidate of [
      path.join(folder, "npm"),
      path.join(folder, "node_modules", "npm", "bin", "npm-cli.js"), // beside node.exe on Windows
    ]) {
      try {
        const file = fs.realpathSync(candidate);
        if (/npm-cli\.c?js$/.test(file)) return file;
      } catch {
        // not here
      }
    }
  }
  throw new SetupFailure(
    "npm is not on the PATH, and it is needed to install the packages. Install npm and try again.",
  );
}

function isWritable(folder) {
  try {
    fs.mkdirSync(folder, { recursive: true });
    fs.accessSync(folder, fs.constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** npm's surroundings: the caller's settings, with a cache that can be written. */
function npmEnvironment() {
  const env = { ...process.env };
  // The global npmrc follows the path of the running Node, so that under the private Node a `cafile` or proxy set
  // there would be lost.
  const globalConfig = path.join(path.dirname(path.dirname(process.execPath)), "etc", "npmrc");
  if (!env.npm_config_globalconfig && fs.existsSync(globalConfig)) env.npm_config_globalconfig = globalConfig;
  const cache = env.npm_config_cache || path.join(os.homedir(), ".npm");
  if (!isWritable(cache)) env.npm_config_cache = path.join(privateFolder, "npm-cache");
  env.npm_config_update_notifier = "false";
  return env;
}

const npmFailures = [
  [
    /EUSAGE|in sync/,
    "package-lock.json and package.json disagree. Run `npm install`, then `node scripts/lockfile.mjs`.",
  ],
  [
    /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ERR_SOCKET_TIMEOUT|network/i,
    "The npm registry does not answer. Check the network, the proxy and `npm config get registry`, and try again.",
  ],
  [
    /SELF_SIGNED|UNABLE_TO_VERIFY|UNABLE_TO_GET_ISSUER|CERT_/,
    "The registry's certificate is not trusted. Set `npm config set cafile <file>` to your network's authority.",
  ],
  [/ENOSPC/, "The disk is full: about 1.2 GB is needed."],
  [
    /EACCES|EPERM|EROFS/,
    `No permission to write below ${root}. Clone into a folder of your own and try again.`,
  ],
  [/E404|ETARGET/, "The npm registry lacks a package of that version. Check `npm config get registry`."],
];

/**
 * Runs npm to its end, with a line every few seconds.
 * @throws SetupFailure that says what went wrong and what to do.
 */
export function npm(node, args, doing, cwd) {
  return new Promise((resolve, reject) => {
    say(`${doing} ...`);
    const child = spawn(node, [findNpm(), ...args], {
      cwd,
      env: npmEnvironment(),
      stdio: ["ignore", "pipe", "pipe"],
    });
    foreground.child = child;
    const ticker = setInterval(() => say(`${doing} ...`), 5000);
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk) => {
        output = (output + chunk).slice(-20000);
      });
    }
    child.on("error", (cause) => {
      clearInterval(ticker);
      reject(new SetupFailure(`npm could not be started (${cause.code}): ${node}`));
    });
    child.on("close", (code, signal) => {
      clearInterval(ticker);
      foreground.child = undefined;
      if (code === 0) {
        resolve();
        return;
      }
      if (signal !== null) {
        reject(new SetupFailure(`${doing} was interrupted; the next run takes it up again.`));
        return;
      }
      const errors = output.split("\n").filter((line) => /^npm (err|error)/i.test(line));
      const reason = npmFailures.find(([pattern]) => pattern.test(errors.join("\n")));
      const excerpt = errors
        .filter((line) => !/complete log|debug-\d/.test(line))
        .slice(0, 8)
        .join("\n");
      reject(
        new SetupFailure(`${doing} failed.\n${excerpt}\n${reason ? reason[1] : "See npm's message above."}`),
      );
    });
  });
}
