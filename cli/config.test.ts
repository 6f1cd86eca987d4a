import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { configFolder, loadSettings } from "./config.ts";

let folder = "";
const environment = (more: Record<string, string> = {}) => ({ GPUX_CONFIG_DIR: folder, ...more });
const PROFILES = {
  profile: "home",
  profiles: { home: { url: "https://home.test", gpu: "RTX_4090" }, work: { url: "https://work.test" } },
};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-config-"));
  await writeFile(join(folder, "config.json"), JSON.stringify(PROFILES));
});
afterAll(() => rm(folder, { recursive: true }));

it("takes flags over the environment over the profile over defaults", async () => {
  expect((await loadSettings({}, { GPUX_CONFIG_DIR: join(folder, "none") })).url).toBe(
    "http://localhost:8787",
  );
  expect(await loadSettings({}, environment())).toMatchObject({
    url: "https://home.test",
    gpu: "RTX_4090",
    max_price: "0.05",
  });
  expect((await loadSettings({}, environment({ GPUX_PROFILE: "work" }))).url).toBe("https://work.test");
  const env = environment({ GPUX_URL: "https://env.test", GPUX_GPU: "H200_SXM" });
  expect(await loadSettings({}, env)).toMatchObject({ url: "https://env.test", gpu: "H200_SXM" });
  expect((await loadSettings({ url: "https://flag.test" }, env)).url).toBe("https://flag.test");
});

it.each([
  ["an unknown profile", { profile: "none" }, {}, 'no profile "none"'],
  ["a url that is none", { url: "edge" }, {}, "url is not valid"],
  ["a file url", {}, { GPUX_URL: "file:///etc" }, "url is not valid"],
  ["a price that is none", {}, { GPUX_MAX_PRICE: "cheap" }, "max_price is not valid"],
  ["a gpu that is none", { gpu: "rtx 4090" }, {}, "gpu is not valid"],
])("refuses %s", async (_, flags, env, why) => {
  await expect(loadSettings(flags, environment(env))).rejects.toThrow(why);
});

it.each([
  ["{", "is not JSON"],
  ['{"profiles":{"a":{"max_prise":"1"}}}', "/profiles/a"],
])("refuses a config file of %s", async (text, why) => {
  const other = await mkdtemp(join(tmpdir(), "gpux-config-"));
  await writeFile(join(other, "config.json"), text);
  await expect(loadSettings({}, { GPUX_CONFIG_DIR: other })).rejects.toThrow(why);
  await rm(other, { recursive: true });
});

it("keeps its files where the platform's rules say", () => {
  expect(configFolder({ XDG_CONFIG_HOME: "/x" })).toBe("/x/gpux");
  expect(configFolder({ GPUX_CONFIG_DIR: "/y", XDG_CONFIG_HOME: "/x" })).toBe("/y");
});
