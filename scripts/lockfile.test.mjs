import { expect, test } from "vitest";
import { complete } from "./lockfile.mjs";

/** A lock whose one package has optional parts, of which only Linux's could be fetched. */
function lock(extra = {}) {
  return {
    packages: {
      "": { name: "house" },
      "node_modules/tool": {
        version: "2.0.0",
        optionalDependencies: {
          "@tool/linux-x64-gnu": "2.0.0",
          "@tool/darwin-arm64": "2.0.0",
          "@tool/linux-arm64-musl": "2.0.0",
          "@tool/windows-64": "2.0.0",
          fsevents: "~2.3.3",
        },
      },
      "node_modules/@tool/linux-x64-gnu": { version: "2.0.0", cpu: ["x64"], os: ["linux"], optional: true },
      ...extra,
    },
  };
}

test("adds a stub, with the system that the name tells, for each optional package that the lock lacks", () => {
  const parsed = lock();
  expect(complete(parsed)).toHaveLength(4);
  expect(parsed.packages["node_modules/@tool/darwin-arm64"]).toEqual({
    version: "2.0.0",
    cpu: ["arm64"],
    os: ["darwin"],
    optional: true,
  });
  expect(parsed.packages["node_modules/@tool/linux-arm64-musl"]).toEqual({
    version: "2.0.0",
    cpu: ["arm64"],
    libc: ["musl"],
    os: ["linux"],
    optional: true,
  });
  expect(parsed.packages["node_modules/@tool/windows-64"]).toMatchObject({ cpu: ["x64"], os: ["win32"] });
  expect(parsed.packages["node_modules/fsevents"]).toMatchObject({ version: "2.3.3", optional: true });
});

test("changes nothing in a complete lock", () => {
  const parsed = lock();
  complete(parsed);
  const before = JSON.stringify(parsed);
  expect(complete(parsed)).toEqual([]);
  expect(JSON.stringify(parsed)).toBe(before);
});

test("puts a second version below the package that pins it", () => {
  const parsed = lock({ "node_modules/@tool/darwin-arm64": { version: "1.0.0", optional: true } });
  complete(parsed);
  expect(parsed.packages["node_modules/@tool/darwin-arm64"].version).toBe("1.0.0");
  expect(parsed.packages["node_modules/tool/node_modules/@tool/darwin-arm64"].version).toBe("2.0.0");
});

test("finds what a workspace needs at the root", () => {
  const parsed = lock();
  complete(parsed);
  parsed.packages["workers/edge"] = { optionalDependencies: { "@tool/darwin-arm64": "2.0.0" } };
  expect(complete(parsed)).toEqual([]);
});

test("refuses a range of which it cannot tell a version", () => {
  const parsed = lock({ "node_modules/other": { version: "1.0.0", optionalDependencies: { part: ">=1" } } });
  expect(() => complete(parsed)).toThrow('">=1"');
});
