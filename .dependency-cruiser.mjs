// The arrows of the house (docs/architecture.md): who may import whom. Run by `npm test -- --only imports`;
// scripts/imports.test.ts plants a violation of each rule and sees it found.
//
// The parser is swc, since TypeScript 7 has no API to parse with. It sees no `import("x").T` in type positions (write
// `import type`), and it stops with "Unknown statement type" at a `using` declaration.

// Tests, and what only they use (kept in a folder `testing` beside them): they may use what ships nowhere.
const besides = "\\.test\\.tsx?$|/testing/";
const offTree = ["node_modules/", "^cloudflare:"]; // packages and runtime modules have rules of their own

/** `part` may import its own files and those under `others`, and nothing else of this repository. */
const arrow = (part, others, comment) => ({
  name: `${part.replace("/", "-")}-arrows`,
  comment,
  severity: "error",
  from: { path: `^${part}/` },
  to: { pathNot: [`^${part}/`, "^(test|examples)/", ...others, ...offTree], dependencyTypesNot: ["core"] },
});

/** Files under `path` that ship may use only these packages, and modules of Node only where `node` says so. */
const packages = (part, from, allowed, { node, comment }) => ({
  name: `${part}-packages`,
  comment,
  severity: "error",
  from: { path: from, pathNot: [besides, "^protocol/vectors/"] },
  to: {
    ...(node ? { dependencyTypesNot: ["core"] } : {}),
    // A path with a folder is a file of ours; what is left is a package or a module of the runtime.
    pathNot: [
      "^(protocol|durable-objects|workers|sdk|agent|cli|contracts|examples|test|bench|scripts)/(?!.*node_modules)",
      "^\\.(?!.*node_modules)",
      "^cloudflare:",
      ...allowed.map((name) => `node_modules/${name}/`),
    ],
  },
});

export default {
  forbidden: [
    {
      name: "no-cycles",
      comment: "Two files that import each other are one file, or hide a third.",
      severity: "error",
      from: {},
      to: { circular: true },
    },
    {
      name: "resolvable",
      comment: "An import that this tool cannot follow is an import it cannot judge.",
      severity: "error",
      from: {},
      to: { couldNotResolve: true, pathNot: "^cloudflare:" },
    },
    {
      name: "declared",
      comment: "A package stands in the package.json of the part that imports it, or it is there by luck.",
      severity: "error",
      from: {},
      to: { dependencyTypes: ["npm-no-pkg", "npm-unknown"] },
    },
    {
      name: "no-tools-in-product",
      comment: "Development packages are not installed where the product runs.",
      severity: "error",
      from: {
        path: "^(protocol|durable-objects|workers|sdk|agent|cli)/",
        pathNot: [besides, "^protocol/vectors/"],
      },
      to: {
        dependencyTypes: ["npm-dev"],
        dependencyTypesNot: ["npm"], // the part itself has it, the root merely too
        pathNot: ["node_modules/@types/", "node_modules/@cloudflare/workers-types/"],
      },
    },

    {
      name: "no-tests-in-product",
      comment: "Only tests, benches and scripts import what is for tests.",
      severity: "error",
      from: {
        path: "^(protocol|durable-objects|workers|contracts|sdk|agent|cli|examples)/",
        pathNot: besides,
      },
      to: { path: ["^test/", besides] },
    },

    {
      name: "no-examples-in-product",
      comment: "Examples show the product; it does not lean on them. Tests may run them.",
      severity: "error",
      from: { path: "^(protocol|durable-objects|workers|contracts|sdk|agent|cli)/", pathNot: besides },
      to: { path: "^examples/" },
    },

    arrow("protocol", [], "Every part agrees on the protocol; it knows none of them."),
    arrow("durable-objects", ["^protocol/"], "Objects speak the protocol; Workers come to them."),
    arrow("agent", ["^protocol/"], "The agent runs on a provider's machine, with the protocol alone."),
    arrow("sdk", ["^protocol/"], "An SDK user installs the SDK and the protocol."),
    arrow("cli", ["^protocol/", "^sdk/"], "The command line is a user of the SDK."),
    arrow("explorer", ["^protocol/", "^sdk/"], "The explorer is a user of the SDK."),
    arrow("contracts", ["^protocol/"], "Contracts stand alone; only tests, scripts and benches import them."),
    arrow("examples", ["^protocol/", "^sdk/", "^agent/"], "Examples use what users and providers have."),
    arrow(
      "workers",
      ["^protocol/", "^durable-objects/"],
      "Workers serve the protocol and export the objects.",
    ),

    {
      name: "pure-machine",
      comment:
        "A machine decides from state, event and now: it imports the protocol and its own pure siblings.",
      severity: "error",
      from: { path: "^durable-objects/([^/]+)/machine[^/]*\\.ts$", pathNot: besides },
      to: {
        pathNot: ["^protocol/", "^durable-objects/$1/", "^durable-objects/[^/]+\\.ts$", "node_modules/zod/"],
      },
    },
    {
      name: "pure-machine-through-siblings",
      comment: "Nor may it reach a store, a shell, the runtime or a Worker through any of them.",
      severity: "error",
      from: { path: "^durable-objects/[^/]+/machine[^/]*\\.ts$", pathNot: besides },
      to: {
        reachable: true,
        path: ["^durable-objects/[^/]+/(object|store)\\.ts$", "^cloudflare:", "^workers/"],
      },
    },
    {
      name: "object-apart",
      comment: "Objects call each other by RPC, on the types of durable-objects/interfaces.ts, never inside.",
      severity: "error",
      from: { path: "^durable-objects/([^/]+)/" },
      to: {
        path: "^durable-objects/[^/]+/",
        pathNot: ["^durable-objects/$1/", "^durable-objects/testing/", "node_modules/"],
      },
    },
    {
      name: "object-shared-is-below",
      comment: "What all objects share knows none of them.",
      severity: "error",
      from: { path: "^durable-objects/[^/]+\\.ts$" },
      to: { path: "^durable-objects/[^/]+/", pathNot: "node_modules/" },
    },
    {
      name: "worker-apart",
      comment: "One Worker per trust domain: they meet over service bindings only.",
      severity: "error",
      from: { path: "^workers/([^/]+)/" },
      to: { path: "^workers/", pathNot: ["^workers/$1/", "node_modules/"] },
    },
    {
      name: "worker-exports-objects",
      comment:
        "A Worker's index.ts exports the classes; the rest of it knows their RPC types and what they share with it.",
      severity: "error",
      from: { path: "^workers/", pathNot: ["^workers/[^/]+/index\\.ts$", besides] },
      to: {
        path: "^durable-objects/",
        pathNot: ["^durable-objects/[^/]+\\.ts$", "node_modules/"],
        dependencyTypesNot: ["type-only"],
      },
    },

    packages("protocol", "^protocol/(?!(secp256k1|keccak)/(node|workerd|generate)\\.ts$)", ["zod", "viem"], {
      node: false,
      comment: "The protocol runs on Node, workerd and browsers alike.",
    }),
    packages("protocol-secp256k1", "^protocol/secp256k1/(node|workerd)\\.ts$", ["viem", "@bitauth/libauth"], {
      node: true,
      comment:
        "Two files fetch the compiled libsecp256k1, each as its runtime does it; nothing else of the package is used.",
    }),
    packages("protocol-keccak", "^protocol/keccak/(node|workerd|generate)\\.ts$", [], {
      node: true,
      comment: "Two files fetch the compiled Keccak, each as its runtime does it, and one writes it.",
    }),
    {
      name: "protocol-binary-by-condition",
      comment:
        "package.json chooses the runtime's file (#secp256k1, #keccak): who names one would load it where it cannot run.",
      severity: "error",
      from: { path: "^(protocol|durable-objects|workers|sdk|agent|cli)/", pathNot: besides },
      to: { path: "^protocol/(secp256k1|keccak)/(node|workerd)\\.ts$" },
    },
    packages("sdk-core", "^sdk/js/", ["viem"], {
      node: false,
      comment: "The SDK's core asks nothing of those who install it but the protocol and viem.",
    }),
    packages("durable-objects", "^durable-objects/", ["zod", "viem"], {
      node: false,
      comment: "Objects run on workerd without Node's modules.",
    }),
  ],
  options: {
    parser: "swc",
    doNotFollow: { path: "node_modules/" },
    exclude: { path: "worker-configuration\\.d\\.ts$" },
    combinedDependencies: true,
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "default"],
      extensions: [".ts", ".mjs", ".js", ".json", ".d.ts"],
    },
  },
};
