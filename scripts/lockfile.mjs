// Completes package-lock.json for systems other than the one that wrote it: `node scripts/lockfile.mjs [--check]`.
//
// npm leaves a platform's optional package (a native part of Biome, esbuild, workerd, EDR, ...) out of the lock when it
// cannot fetch it, and `npm ci` then refuses the lock everywhere: "Missing: @biomejs/cli-darwin-arm64 from lock file".
// A stub entry, whose version the parent pins and whose system the name tells, satisfies npm 11 and 12. Run it after
// every change of dependencies.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./npm.mjs";

const systems = {
  android: "android",
  darwin: "darwin",
  freebsd: "freebsd",
  linux: "linux",
  netbsd: "netbsd",
  openbsd: "openbsd",
  openharmony: "openharmony",
  sunos: "sunos",
  aix: "aix",
  win32: "win32",
  windows: "win32",
  win: "win32",
  wasm32: undefined,
};
const processors = {
  arm: "arm",
  arm64: "arm64",
  ia32: "ia32",
  loong64: "loong64",
  mips64el: "mips64el",
  ppc64: "ppc64",
  ppc64le: "ppc64",
  riscv64: "riscv64",
  s390x: "s390x",
  x64: "x64",
  64: "x64",
  wasm32: "wasm32",
};
const libraries = { gnu: "glibc", glibc: "glibc", musl: "musl" };

/** What a package's name says about the systems it is for, such as `@rolldown/binding-linux-x64-musl`. */
function systemOf(name) {
  const words = name.replace(/^@[^/]*\//, "").split(/[-_]/);
  const found = (table) => words.map((word) => table[word]).filter((value) => value !== undefined);
  return {
    ...(found(processors).length > 0 ? { cpu: found(processors).slice(-1) } : {}),
    ...(found(libraries).length > 0 ? { libc: found(libraries).slice(-1) } : {}),
    ...(found(systems).length > 0 ? { os: found(systems).slice(0, 1) } : {}),
  };
}

/** Where the package at `place` finds `name`, by Node's way up the folders; undefined when the lock lacks it. */
function resolve(packages, place, name) {
  for (let folder = place; ; ) {
    const candidate = `${folder === "" ? "" : `${folder}/`}node_modules/${name}`;
    if (packages[candidate] !== undefined) return candidate;
    if (folder === "") return undefined;
    const above = folder.lastIndexOf("/node_modules/");
    folder =
      above >= 0
        ? folder.slice(0, above)
        : folder.startsWith("node_modules/")
          ? ""
          : path.posix.dirname(folder).replace(/^\.$/, "");
  }
}

/** The version that a range certainly admits without asking a registry: the one it starts from. */
function startOf(range) {
  const exact = /^[\^~=]?(\d+\.\d+\.\d+(?:-[\w.-]+)?)$/.exec(range);
  if (exact === null) throw new Error(`no version can be told from the range "${range}"`);
  return exact[1];
}

/**
 * Adds the missing stubs to a parsed package-lock.json, in place.
 * @returns the places that were added, as in `node_modules/@biomejs/cli-darwin-arm64`.
 */
export function complete(lock) {
  const added = [];
  for (const [place, entry] of Object.entries(lock.packages)) {
    for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
      const found = resolve(lock.packages, place, name);
      const pinned = /^\d+\.\d+\.\d+$/.test(range);
      if (found !== undefined && (!pinned || lock.packages[found].version === range)) continue;
      const version = startOf(range);
      const target = found === undefined ? `node_modules/${name}` : `${place}/node_modules/${name}`;
      lock.packages[target] = { version, ...systemOf(name), optional: true };
      added.push(target);
    }
  }
  const [own, ...others] = Object.entries(lock.packages);
  lock.packages = Object.fromEntries([own, ...others.sort(([a], [b]) => a.localeCompare(b, "en"))]);
  return added;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const file = path.join(root, "package-lock.json");
  const lock = JSON.parse(fs.readFileSync(file, "utf8"));
  const added = complete(lock);
  if (added.length === 0) {
    console.log("package-lock.json is complete for every system");
  } else if (process.argv.includes("--check")) {
    console.error(
      `package-lock.json lacks other systems' packages; run \`node scripts/lockfile.mjs\`:\n${added.join("\n")}`,
    );
    process.exitCode = 1;
  } else {
    fs.writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
    console.log(`added ${added.length}:\n${added.join("\n")}`);
  }
}
