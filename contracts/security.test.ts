import { readdir, readFile } from "node:fs/promises";
import { expect, test } from "vitest";

const folder = new URL("test/", import.meta.url);

async function testsByFile(): Promise<Map<string, ReadonlySet<string>>> {
  const files = (await readdir(folder)).filter((name) => name.endsWith(".t.sol"));
  return new Map(
    await Promise.all(
      files.map(async (name) => {
        const source = await readFile(new URL(name, folder), "utf8");
        const names = [...source.matchAll(/function ((?:test|invariant)\w*)\(/g)].map(
          ([, found]) => found ?? "",
        );
        return [name, new Set(names)] as const;
      }),
    ),
  );
}

test("every test that docs/security.md names exists in the file it names", async () => {
  const byFile = await testsByFile();
  const text = await readFile(new URL("../docs/security.md", import.meta.url), "utf8");
  const missing: string[] = [];
  let named = 0;
  // A test belongs to the file named last before it in its paragraph or row; those of one section, to its heading's.
  for (const line of text.split("\n")) {
    let file: string | undefined = line.includes("test_gone_") ? "Disappearance.t.sol" : undefined;
    for (const [, word = ""] of line.matchAll(/`([\w.]+)`/g)) {
      if (word.endsWith(".t.sol")) file = word;
      if (!/^(?:test|testFuzz|invariant)_/.test(word)) continue;
      named += 1;
      const found =
        file === undefined
          ? [...byFile.values()].some((names) => names.has(word))
          : byFile.get(file)?.has(word);
      if (found !== true) missing.push(`${file ?? "any file"}: ${word}`);
    }
  }
  expect(missing).toEqual([]);
  expect(named).toBeGreaterThan(100);
});

test("each attack that touches the contract has a test that names it, and docs/security.md lists it", async () => {
  const all = [...(await testsByFile()).values()].flatMap((names) => [...names]);
  const text = await readFile(new URL("../docs/security.md", import.meta.url), "utf8");
  // The others are of the agent, the meter, the relayer and the SDK.
  for (const attack of [...Array.from({ length: 34 }, (_, i) => i + 1), 39]) {
    const mark = `attack${String(attack).padStart(2, "0")}_`;
    const tests = all.filter((name) => name.includes(mark));
    expect(tests, mark).not.toEqual([]);
    for (const name of tests) expect(text, name).toContain(`\`${name}\``);
  }
});

test("each attack beyond the contract has its row, and every test that a row names exists", async () => {
  const root = new URL("../", import.meta.url);
  const rows = (await readFile(new URL("docs/security.md", root), "utf8")).split("\n");
  for (const attack of [35, 36, 37, 38, 40]) {
    const row = rows.find((line) => line.startsWith(`| ${attack} |`)) ?? "";
    const places = [...row.matchAll(/`([\w/-]+\.test\.ts)`((?:,? "[^"]+")+)/g)];
    expect(places, `attack ${attack}`).not.toEqual([]);
    for (const [, path = "", titles = ""] of places) {
      const source = await readFile(new URL(path, root), "utf8");
      for (const [, title = ""] of titles.matchAll(/"([^"]+)"/g))
        expect(source, path).toContain(`"${title}"`);
    }
  }
});
