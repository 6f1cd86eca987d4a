import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ScriptedEdge } from "@gpux/sdk/testing/scripted-edge";
import { afterEach, beforeEach, expect, it } from "vitest";
import { main } from "./program.ts";
import { startEdge } from "./testing/edge-server.ts";
import { createScreen } from "./testing/screen.ts";
import { createWallet } from "./wallet.ts";

const KEY = `0x${"c0".repeat(32)}` as const;
let folder = "";
let url = "";
let edge: ScriptedEdge;
let stop: () => Promise<void>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-session-"));
  ({ url, edge, stop } = await startEdge());
});
afterEach(async () => {
  await stop();
  await rm(folder, { recursive: true });
});

async function gpux(args: readonly string[], environment: Record<string, string> = {}) {
  const screen = createScreen({ GPUX_URL: url, GPUX_CONFIG_DIR: folder, ...environment });
  const code = await main(args, screen.terminal);
  return { code, out: screen.out(), err: screen.err() };
}
const byKey = (...args: string[]) => gpux(args, { GPUX_PRIVATE_KEY: KEY });
const file = () => join(folder, "session.json");
const signedBySession = () => edge.seen.at(-1)?.headers.has("gpux-session");

it("opens a session for the wallet, keeps it for its owner alone, and signs with it from then on", async () => {
  const { code, out, err } = await byKey("session", "open", "--hours", "2", "--cap", "0.50");
  expect(code).toBe(0);
  const [session] = edge.sessions.opened;
  expect(session).toMatchObject({ id: out.trim(), scopes: ["read", "jobs"], cap: 500_000n });
  expect(Date.parse(session?.expires_at ?? "") - Date.now()).toBeGreaterThan(7_100_000);
  expect(err).toContain("gpux session close");
  expect((await stat(file())).mode & 0o777).toBe(0o600);
  expect((await byKey("leases", "list")).code).toBe(0);
  expect(signedBySession()).toBe(true);
});

it("asks no password for what the session may do", async () => {
  const wallet = join(folder, "wallet.json");
  await createWallet(wallet, "correct horse", KEY, 1_024);
  expect((await gpux(["session", "open"], { GPUX_PASSWORD: "correct horse" })).code).toBe(0);
  // Without GPUX_PASSWORD the screen has nobody to ask.
  expect((await gpux(["leases", "list"])).code).toBe(0);
  expect((await gpux(["session", "close"])).code).toBe(3);
  expect((await gpux(["session", "close"], { GPUX_PASSWORD: "correct horse" })).code).toBe(0);
  expect((await gpux(["leases", "list"])).code).toBe(3);
});

it("lists sessions and closes them", async () => {
  await byKey("session", "open");
  const listed = await byKey("session", "list");
  expect(listed.out).toMatch(/SESSION +SCOPES/);
  expect(listed.out).toContain(edge.sessions.opened[0]?.id);
  const { code, out } = await byKey("session", "close", "--json");
  expect([code, JSON.parse(out)]).toMatchObject([0, { id: edge.sessions.opened[0]?.id }]);
  expect(edge.sessions.revoked.size).toBe(1);
  await expect(readFile(file())).rejects.toThrow();
  expect(await byKey("session", "close")).toMatchObject({ code: 2 });
});

it("says that a session was revoked, and is the wallet's again after that", async () => {
  await byKey("session", "open");
  edge.sessions.revoked.add(edge.sessions.opened[0]?.id ?? "");
  const told = await byKey("leases", "list");
  expect(told.code).toBe(3);
  expect(told.err).toContain("session_revoked");
  expect((await byKey("leases", "list")).code).toBe(0);
  expect(signedBySession()).toBe(false);
});

it("passes over a session of another edge, of another wallet, that is over, or that is no session", async () => {
  await byKey("session", "open");
  const kept = JSON.parse(await readFile(file(), "utf8"));
  for (const other of [
    { ...kept, url: "https://elsewhere.test" },
    { ...kept, address: `0x${"ab".repeat(20)}` },
    { ...kept, expires_at: "2020-01-01T00:00:00Z" },
    { ...kept, id: "no id" },
  ]) {
    await writeFile(file(), JSON.stringify(other));
    expect((await byKey("leases", "list")).code).toBe(0);
    expect(signedBySession()).toBe(false);
  }
});

it.each([
  ["--hours", "0"],
  ["--hours", "169"],
  ["--cap", "much"],
  ["--scope", "everything"],
])("refuses %s %s before it asks the edge", async (flag, value) => {
  expect((await byKey("session", "open", flag, value)).code).toBe(2);
  expect(edge.seen).toEqual([]);
});
