import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { judgeImports } from "./imports.ts";

const home = dirname(dirname(fileURLToPath(import.meta.url)));

/** A small house: what each file says, and which rules it breaks (none means that the arrow is allowed). */
const house: [file: string, source: string, ...broken: string[]][] = [
  [
    "protocol/money.ts",
    `import { z } from "zod"; import { keccak256 } from "viem"; export { z, keccak256 };`,
  ],
  ["protocol/money.test.ts", `import { test } from "vitest"; import "node:fs"; import "./money.ts"; test;`],
  ["protocol/testing/clock.ts", `import { vi } from "vitest"; vi;`],
  ["protocol/setup.test.ts", `import "../test/setup/devnet.ts"; import "./testing/clock.ts";`],
  ["test/setup/devnet.ts", `export const url = "";`],
  ["protocol/clock.ts", `import "./testing/clock.ts";`, "no-tests-in-product"],
  ["agent/setup.ts", `import "../test/setup/devnet.ts";`, "no-tests-in-product"],
  ["agent/pathtrace.test.ts", `import "../examples/functions/scene.ts";`],
  ["examples/functions/scene.ts", `export const scene = 1;`],
  ["agent/scene.ts", `import "../examples/functions/scene.ts";`, "no-examples-in-product"],
  ["workers/edge/market.ts", `import "@gpux/durable-objects/books";`],
  ["durable-objects/books.ts", `export const books = 1;`],
  ["protocol/up.ts", `import "@gpux/sdk/job";`, "protocol-arrows"],
  [
    "protocol/hono.ts",
    `import type { Hono } from "hono"; export type { Hono };`,
    "protocol-packages",
    "declared",
  ],
  ["protocol/files.ts", `import "node:fs";`, "protocol-packages"],
  [
    "protocol/secp256k1/node.ts",
    `import "node:fs"; import { Hono } from "hono"; export const curve = Hono;`,
    "protocol-secp256k1-packages",
    "declared",
  ],
  ["protocol/digest.ts", `import "./secp256k1/node.ts";`, "protocol-secp256k1-by-condition"],
  ["protocol/lost.ts", `export * from "./nowhere.ts";`, "resolvable", "protocol-arrows"],
  ["protocol/tested.ts", `import { test } from "vitest"; test;`, "protocol-packages", "no-tools-in-product"],
  ["protocol/hen.ts", `import { egg } from "./egg.ts"; export const hen = () => egg;`],
  ["protocol/egg.ts", `import { hen } from "./hen.ts"; export const egg = () => hen;`, "no-cycles"],

  ["durable-objects/interfaces.ts", `export type { z } from "@gpux/protocol/money";`],
  ["durable-objects/migrations.ts", `import "./lease/store.ts";`, "object-shared-is-below"],
  ["durable-objects/lease/machine.ts", `import "@gpux/protocol/money"; import "./job.ts";`],
  ["durable-objects/lease/job.ts", `export const job = 1;`],
  ["durable-objects/lease/store.ts", `export const store = 1;`],
  [
    "durable-objects/lease/object.ts",
    `import { DurableObject } from "cloudflare:workers"; import "./machine.ts"; import "./store.ts"; import "../interfaces.ts"; export class LeaseObject extends DurableObject {}`,
  ],
  [
    "durable-objects/node/object.ts",
    `import type { LeaseObject } from "../lease/object.ts";`,
    "object-apart",
  ],
  [
    "durable-objects/node/machine.ts",
    `import "../interfaces.ts"; import "zod"; import "viem";`,
    "pure-machine",
  ],
  ["durable-objects/book/machine.ts", `import "./row.ts";`, "pure-machine-through-siblings"],
  ["durable-objects/book/row.ts", `import "cloudflare:workers";`],
  ["durable-objects/account/store.ts", `import "node:crypto";`, "durable-objects-packages"],
  ["durable-objects/account/object.ts", `import "@gpux/edge/route";`, "durable-objects-arrows"],

  [
    "workers/edge/index.ts",
    `export { LeaseObject } from "@gpux/durable-objects/lease/object"; import "./route.ts";`,
  ],
  ["workers/edge/route.ts", `import type { LeaseObject } from "@gpux/durable-objects/lease/object";`],
  ["workers/edge/lease.ts", `import "@gpux/durable-objects/lease/job";`, "worker-exports-objects"],
  ["workers/meter/index.ts", `import "../edge/route.ts";`, "worker-apart"],
  ["workers/relayer/index.ts", `import "@gpux/contracts/devnet";`, "workers-arrows"],

  ["sdk/js/job.ts", `import "@gpux/protocol/money"; import "viem";`],
  ["sdk/js/wire.ts", `import "zod";`, "sdk-core-packages", "no-tools-in-product"],
  ["sdk/js/agent.ts", `import "@gpux/agent/link";`, "sdk-arrows"],
  ["agent/link.ts", `import "node:net"; import "ws"; import "@gpux/protocol/money";`],
  ["agent/price.ts", `import "@gpux/sdk/job";`, "agent-arrows"],
  ["cli/run.ts", `import "@gpux/sdk/job";`],
  ["cli/node.ts", `import "@gpux/agent/link";`, "cli-arrows"],
  ["explorer/node.tsx", `export const node = <p />; import "../agent/link.ts";`, "explorer-arrows"],
  ["contracts/devnet.ts", `import "@gpux/protocol/money"; import "node:net";`],
  ["contracts/pay.ts", `import "@gpux/sdk/job";`, "contracts-arrows"],
  ["examples/functions/pathtrace.test.ts", `import "../../agent/link.ts"; import "vitest";`],
  ["examples/functions/edge.ts", `import "../../workers/edge/route.ts";`, "examples-arrows"],
  [
    "test/e2e/job.test.ts",
    `import "@gpux/contracts/devnet"; import "@gpux/agent/link"; import "@gpux/sdk/job";`,
  ],
  ["scripts/start.ts", `import "../contracts/devnet.ts"; import "../workers/edge/route.ts";`],
];

let root: string;
let judgement: ReturnType<typeof judgeImports>;

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "gpux-imports-"));
  const copy = (file: string) => {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), readFileSync(join(home, file)));
  };
  copy("package.json");
  const { workspaces } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
  for (const folder of workspaces) copy(`${folder}/package.json`);
  // Packages come from this repository; the workspaces' own links lead into the planted house.
  const modules = join(root, "node_modules");
  mkdirSync(join(modules, "@gpux"), { recursive: true });
  for (const name of readdirSync(join(home, "node_modules"))) {
    if (name !== "@gpux") symlinkSync(join(home, "node_modules", name), join(modules, name));
  }
  for (const folder of workspaces) {
    const { name } = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8"));
    symlinkSync(join(root, folder), join(modules, name));
  }
  for (const [file, source] of house) {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), source);
  }
  judgement = judgeImports(root);
});

afterAll(() => rmSync(root, { recursive: true, force: true }));

test.each(house)("%s", (file, _source, ...broken) => {
  const rules = new Set(judgement.violations.filter(({ from }) => from === file).map(({ rule }) => rule));
  expect([...rules].sort()).toEqual([...broken].sort());
});

test("every rule is seen to be broken once", () => {
  const planted = new Set(house.flatMap(([, , ...broken]) => broken));
  expect([...planted].sort()).toEqual([...judgement.rules].sort());
});
