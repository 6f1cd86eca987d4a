import { readFileSync, writeFileSync } from "node:fs";
import { INPUT_AT, LANES, RATE_LANES, ROUND_CONSTANTS_AT } from "./layout.ts";

/**
 * Writes keccak.wasm: Keccak-f[1600] over blocks (FIPS 202 section 3), straight from the specification, since 64-bit
 * lanes are what JavaScript lacks. `node protocol/keccak/generate.ts`, with `--check` only compares.
 *
 * One function, `absorb(blocks)`: takes the state from the start of the memory, xors in and permutes so many blocks, and
 * puts it back.
 */

const ROUNDS = 24;

/** Unsigned LEB128 (WebAssembly core specification, section 5.2.2). */
function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) | 128, ...unsigned(Math.floor(value / 128))];
}

/** Signed LEB128, of what is not negative. */
function signed(value: number): number[] {
  return value < 64 ? [value] : [(value % 128) | 128, ...signed(Math.floor(value / 128))];
}

const vector = (items: readonly (readonly number[])[]) => [...unsigned(items.length), ...items.flat()];
const section = (id: number, bytes: readonly number[]) => [id, ...unsigned(bytes.length), ...bytes];
const name = (text: string) => [...unsigned(text.length), ...Buffer.from(text)];

const I32 = 0x7f;
const I64 = 0x7e;
const VOID = 0x40;
const END = 0x0b;
const XOR = 0x85;
const AND = 0x83;
const ROTATE_LEFT = 0x89;
const ADD32 = 0x6a;
const SUBTRACT32 = 0x6b;
const LESS32 = 0x49;

const get = (local: number) => [0x20, ...unsigned(local)];
const set = (local: number) => [0x21, ...unsigned(local)];
const tee = (local: number) => [0x22, ...unsigned(local)];
const constant32 = (value: number) => [0x41, ...signed(value)];
const constant64 = (value: number) => [0x42, ...signed(value)];
/** Aligned to 8 bytes. */
const load = (offset: number) => [0x29, 3, ...unsigned(offset)];
const store = (offset: number) => [0x37, 3, ...unsigned(offset)];
/** Again while what `body` leaves is not zero. */
const loop = (body: readonly number[]) => [0x03, VOID, ...body, 0x0d, 0, END];

// Locals: the parameter, two more of 32 bits, then lanes.
const BLOCKS = 0;
const FROM = 1;
const ROUND = 2;
const A = 3;
const B = A + LANES;
const C = B + LANES;
const D = C + 5;

const lane = (x: number, y: number) => (x % 5) + 5 * (y % 5);
const five = [0, 1, 2, 3, 4];
const cells = five.flatMap((y) => five.map((x) => ({ x, y, at: lane(x, y) })));
const lanes = cells.map(({ at }) => at);

/** Section 3.2.2: how far each lane is rotated. */
function rotations(): number[] {
  const by = new Array<number>(LANES).fill(0);
  for (let t = 0, x = 1, y = 0; t < 24; t += 1) {
    by[lane(x, y)] = (((t + 1) * (t + 2)) / 2) % 64;
    [x, y] = [y, (2 * x + 3 * y) % 5];
  }
  return by;
}

/** Section 3.2.5, with the bits of the shift register in order of its steps. */
function roundConstants(): bigint[] {
  let register = 1;
  const bit = () => {
    const out = register & 1;
    register = register & 0x80 ? (register << 1) ^ 0x171 : register << 1;
    return out;
  };
  return Array.from({ length: ROUNDS }, () => {
    let constant = 0n;
    for (let j = 0; j < 7; j += 1) if (bit() === 1) constant |= 1n << BigInt(2 ** j - 1);
    return constant;
  });
}

const theta = [
  ...five.flatMap((x) => [
    ...get(A + lane(x, 0)),
    ...five.slice(1).flatMap((y) => [...get(A + lane(x, y)), XOR]),
    ...set(C + x),
  ]),
  ...five.flatMap((x) => [
    ...get(C + ((x + 4) % 5)),
    ...get(C + ((x + 1) % 5)),
    ...constant64(1),
    ROTATE_LEFT,
    XOR,
    ...set(D),
    ...five.flatMap((y) => [...get(A + lane(x, y)), ...get(D), XOR, ...set(A + lane(x, y))]),
  ]),
];
const turned = rotations();
const rhoAndPi = cells.flatMap(({ x, y, at }) => [
  ...get(A + at),
  ...constant64(turned[at] ?? 0),
  ROTATE_LEFT,
  ...set(B + lane(y, 2 * x + 3 * y)),
]);
const chi = cells.flatMap(({ x, y, at }) => [
  ...get(B + at),
  ...get(B + lane(x + 1, y)),
  // All ones: -1.
  ...[0x42, 0x7f, XOR],
  ...get(B + lane(x + 2, y)),
  ...[AND, XOR],
  ...set(A + at),
]);
const iota = [...get(A), ...get(ROUND), ...load(ROUND_CONSTANTS_AT), XOR, ...set(A)];
const rounds = [
  ...[...constant32(0), ...set(ROUND)],
  ...loop([
    ...[...theta, ...rhoAndPi, ...chi, ...iota],
    ...[...get(ROUND), ...constant32(8), ADD32, ...tee(ROUND), ...constant32(8 * ROUNDS), LESS32],
  ]),
];
const absorb = [
  ...lanes.flatMap((at) => [...constant32(0), ...load(8 * at), ...set(A + at)]),
  ...[...constant32(INPUT_AT), ...set(FROM)],
  ...loop([
    ...lanes
      .slice(0, RATE_LANES)
      .flatMap((at) => [...get(A + at), ...get(FROM), ...load(8 * at), XOR, ...set(A + at)]),
    ...rounds,
    ...[...get(FROM), ...constant32(8 * RATE_LANES), ADD32, ...set(FROM)],
    ...[...get(BLOCKS), ...constant32(1), SUBTRACT32, ...tee(BLOCKS)],
  ]),
  ...lanes.flatMap((at) => [...constant32(0), ...get(A + at), ...store(8 * at)]),
  END,
];

const locals = vector([
  [...unsigned(ROUND), I32],
  [...unsigned(D + 1 - A), I64],
]);
const constants = Buffer.alloc(8 * ROUNDS);
for (const [round, value] of roundConstants().entries()) constants.writeBigUInt64LE(value, 8 * round);
const code = [...locals, ...absorb];

const binary = Buffer.from([
  ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  ...section(1, vector([[0x60, ...vector([[I32]]), ...vector([])]])),
  ...section(3, vector([[0]])),
  // One page, and no more.
  ...section(5, vector([[1, 1, 1]])),
  ...section(
    7,
    vector([
      [...name("memory"), 2, 0],
      [...name("absorb"), 0, 0],
    ]),
  ),
  ...section(10, vector([[...unsigned(code.length), ...code]])),
  ...section(
    11,
    vector([[0, ...constant32(ROUND_CONSTANTS_AT), END, ...vector([...constants].map((byte) => [byte]))]]),
  ),
]);

const file = new URL("./keccak.wasm", import.meta.url);
if (!process.argv.includes("--check")) writeFileSync(file, binary);
else if (!readFileSync(file).equals(binary)) {
  console.error(
    "protocol/keccak/keccak.wasm is not what generate.ts writes: node protocol/keccak/generate.ts",
  );
  process.exitCode = 1;
}
