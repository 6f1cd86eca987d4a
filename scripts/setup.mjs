// Puts what the sources need into the project folder: a new enough Node into .gpux, packages into node_modules.
// Free of dependencies, for any Node >= 18.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { npm, privateFolder, root, SetupFailure, say } from "./npm.mjs";

// The sources are TypeScript that Node itself strips; npm, too, must run under this Node: under an older one it
// silently leaves out optional packages whose `engines` do not fit, and Hardhat then misses its native part.
const oldestNode = [24, 2];
const privateNode = "24.21.0";
const nodeAdvice = `Install Node ${oldestNode.join(".")} or newer (https://nodejs.org) and run the command again.`;

function isRecent(version) {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1]);
}

function privateNodeBinary() {
  const name = `node-${process.platform === "win32" ? "win" : process.platform}-${process.arch}`;
  const home = path.join(privateFolder, `node-${privateNode}`);
  return {
    name,
    home,
    binary: path.join(home, "node_modules", name, "bin", process.platform === "win32" ? "node.exe" : "node"),
  };
}

/** The Node that runs the task: this one if it is new enough, else a private copy from the npm registry. */
async function ensureNode() {
  if (isRecent(process.versions.node)) return process.execPath;
  const { name, home, binary } = privateNodeBinary();
  if (fs.existsSync(binary)) return binary;
  const supported = ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64", "win-x64"];
  if (!supported.some((platform) => name === `node-${platform}`) || isMusl()) {
    throw new SetupFailure(
      `Node ${process.versions.node} is too old, and no newer one can be fetched for this system (${name}). ${nodeAdvice}`,
    );
  }
  const unfinished = `${home}.${process.pid}`;
  fs.mkdirSync(unfinished, { recursive: true });
  try {
    fs.writeFileSync(path.join(unfinished, "package.json"), "{}\n");
    // Its package has no install script, which newer npm would refuse to run.
    await npm(
      process.execPath,
      [
        "install",
        "--prefix",
        unfinished,
        "--no-save",
        "--no-package-lock",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        `${name}@${privateNode}`,
      ],
      `fetching Node ${privateNode} (this is ${process.versions.node})`,
      unfinished,
    );
    fs.rmSync(home, { recursive: true, force: true });
    fs.renameSync(unfinished, home);
  } catch (error) {
    fs.rmSync(unfinished, { recursive: true, force: true });
    if (error instanceof SetupFailure) error.message += `\n${nodeAdvice}`;
    throw error;
  }
  const probe = spawnSync(binary, ["--version"], { encoding: "utf8" });
  if (probe.status !== 0) {
    fs.rmSync(home, { recursive: true, force: true });
    throw new SetupFailure(`The fetched Node does not run on this system. ${nodeAdvice}`);
  }
  return binary;
}

function isMusl() {
  return process.platform === "linux" && process.report?.getReport().header.glibcVersionRuntime === undefined;
}

const lockFile = path.join(root, "package-lock.json");
const modules = path.join(root, "node_modules");
const stamp = path.join(modules, ".gpux-installed");

/** What the stamp must say for node_modules to be the lock's own, for this system. */
function lockHash() {
  return `${createHash("sha256").update(fs.readFileSync(lockFile)).digest("hex")} ${process.platform}-${process.arch}`;
}

function readIfThere(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

/** Whether someone's own `npm install` has put there what the lock says: npm keeps a list of what it installed. */
function matchesLock() {
  const installed = readIfThere(path.join(modules, ".package-lock.json"));
  if (installed === undefined) return false;
  const have = JSON.parse(installed).packages;
  const want = JSON.parse(fs.readFileSync(lockFile, "utf8")).packages;
  return Object.entries(want).every(
    ([place, entry]) =>
      !place.includes("node_modules/") ||
      (have[place] ? have[place].version === entry.version : entry.optional === true),
  );
}

async function ensurePackages(node) {
  const hash = lockHash();
  if (readIfThere(stamp) === hash) return;
  if (!matchesLock()) {
    await npm(node, ["ci", "--no-audit", "--no-fund"], "installing packages", root);
  }
  fs.writeFileSync(stamp, hash);
}

/** Holds the set-up for this process: a second `npm start` or `npm test` waits, and then finds all done. */
async function alone(work) {
  try {
    fs.mkdirSync(privateFolder, { recursive: true });
  } catch (error) {
    throw new SetupFailure(
      `No permission to write below ${root} (${error.code}). Clone into a folder of your own and try again.`,
    );
  }
  const lock = path.join(privateFolder, "setup.pid");
  // Written first and linked then, so that nobody reads a lock that does not say yet whose it is.
  const own = `${lock}.${process.pid}`;
  for (let waited = false; ; ) {
    try {
      fs.writeFileSync(own, String(process.pid));
      fs.linkSync(own, lock);
      fs.rmSync(own);
      break;
    } catch (error) {
      if (error.code !== "EEXIST")
        throw new SetupFailure(`No permission to write below ${root} (${error.code}).`);
      fs.rmSync(own, { force: true });
      if (!isAlive(Number(readIfThere(lock)))) {
        fs.rmSync(lock, { force: true });
        continue;
      }
      if (!waited) say("another set-up of this folder is under way; waiting for it ...");
      waited = true;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  }
  const release = () => fs.rmSync(lock, { force: true });
  process.once("exit", release);
  try {
    return await work();
  } finally {
    process.removeListener("exit", release);
    release();
  }
}

function isAlive(pid) {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/**
 * Makes the folder ready and gives the path of the Node to run its sources with.
 * @throws SetupFailure when something is missing that only the reader can give.
 */
export async function setUp() {
  const work = async () => {
    const node = await ensureNode();
    await ensurePackages(node);
    return node;
  };
  const ready =
    readIfThere(stamp) === lockHash() &&
    (isRecent(process.versions.node) || fs.existsSync(privateNodeBinary().binary));
  // Nothing is written then: a folder that is ready may be read-only, and others may be at work in it.
  if (ready) return await work();
  const node = await alone(work);
  say("ready");
  return node;
}
