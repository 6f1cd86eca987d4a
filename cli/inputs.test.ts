import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { readInputs, sendInputs, splitAssignment } from "./inputs.ts";
import { UsageError } from "./outcome.ts";
import { NEGATE } from "./testing/negate.ts";

let folder = "";
const IMAGE = new Uint8Array([137, 80, 78, 71]);
const complete = (...more: string[]) => {
  const given = new Set(more.map((text) => text.split("=")[0]));
  const rest = ["rounds=2", "a=1,2", `photo=@${join(folder, "in.png")}`, 'scene={"fov":40}'];
  return [...more, ...rest.filter((text) => !given.has(text.split("=")[0]))];
};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-inputs-"));
  await writeFile(join(folder, "in.png"), IMAGE);
  await writeFile(join(folder, "scene.json"), '{"fov": 60}');
  await writeFile(join(folder, "numbers.json"), "[1, -2.5]");
  await writeFile(join(folder, "floats.bin"), new Uint8Array(new Float32Array([1, -2.5]).buffer));
  await writeFile(join(folder, "odd.bin"), new Uint8Array(7));
  await writeFile(join(folder, "large.json"), JSON.stringify({ fov: 60, notes: "x".repeat(70_000) }));
  await writeFile(join(folder, "large.bin"), new Uint8Array(80_000));
});
afterAll(() => rm(folder, { recursive: true }));

async function sent(...assignments: string[]) {
  const stored: number[] = [];
  const put = async (bytes: Uint8Array) => {
    stored.push(bytes.length);
    return "ab".repeat(32);
  };
  const values = await sendInputs(
    await readInputs(NEGATE, complete(...assignments.map((text) => text.replace("DIR", folder)))),
    { put },
  );
  return { values, stored };
}

const floats = Buffer.from(new Float32Array([1, -2.5]).buffer).toString("base64");
const object = "cd".repeat(32);

it.each([
  ["strength=0.5", "strength", { number: 0.5 }],
  ["rounds=8", "rounds", { number: 8 }],
  ["a=1,-2.5", "a", { base64: floats }],
  ["a=[1, -2.5]", "a", { base64: floats }],
  ["a=@DIR/numbers.json", "a", { base64: floats }],
  ["a=@DIR/floats.bin", "a", { base64: floats }],
  [`a=sha256:${object}`, "a", { object }],
  ["a=@DIR/large.bin", "a", { object: "ab".repeat(32) }],
  ["photo=@DIR/in.png", "photo", { base64: Buffer.from(IMAGE).toString("base64") }],
  ['scene={"fov": 60}', "scene", { json: { fov: 60 } }],
  ["scene=@DIR/scene.json", "scene", { json: { fov: 60 } }],
  ["scene=@DIR/large.json", "scene", { object: "ab".repeat(32) }],
])("reads %s", async (assignment, name, value) => {
  expect((await sent(assignment)).values[name]).toEqual(value);
});

it.each([
  ["strength", "expected name=value"],
  ["=1", "expected name=value"],
  ["colour=1", 'has no input "colour"'],
  ["toString=1", 'has no input "toString"'],
  ["strength=fast", "no number"],
  ["strength=", "no number"],
  ["strength=1.5", "from 0 to 1"],
  ["rounds=1.5", "whole number"],
  ["a=1,x", "not JSON"],
  ['a=["1"]', "list of numbers"],
  ["a=1e39", "no f32"],
  ["a=@DIR/odd.bin", "no whole number of f32"],
  ["a=@DIR/none.bin", "cannot be read"],
  ["a=sha256:AB", "no sha256"],
  ["photo=in.png", "photo=@file.png"],
  ["scene={fov: 60}", "not JSON"],
])("refuses %s", async (assignment, why) => {
  const error = await sent(assignment).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(UsageError);
  expect(String(error)).toContain(why);
});

it("keeps the request small: what does not fit together goes to the object store, largest first", async () => {
  const list = (length: number) => Array.from({ length }, () => "1").join(",");
  const { values, stored } = await sent(
    `a=${list(5_000)}`,
    `scene=${JSON.stringify({ fov: 1, x: "y".repeat(20_000) })}`,
  );
  expect(stored).toEqual([20_000]);
  expect(values.scene).toHaveProperty("json");
});

it("names an input that is missing, and one that is given twice", async () => {
  await expect(readInputs(NEGATE, ["a=1"])).rejects.toThrow('"rounds" is missing');
  await expect(sent("rounds=1", "rounds=2")).rejects.toThrow("given twice");
});

it("splits at the first equals sign", () => {
  expect(splitAssignment("scene=a=b", "--input")).toEqual(["scene", "a=b"]);
});
