import fc from "fast-check";
import { expect, it } from "vitest";
import {
  Address,
  Bytes32,
  base32,
  ClientJobId,
  HexBytes,
  JobId,
  jobIdOf,
  LeaseId,
  leaseIdOf,
  leaseOfJob,
} from "./ids.ts";

// RFC 4648 section 10, lower-cased and without padding.
it.each([
  ["", ""],
  ["f", "my"],
  ["fo", "mzxq"],
  ["foo", "mzxw6"],
  ["foob", "mzxw6yq"],
  ["fooba", "mzxw6ytb"],
  ["foobar", "mzxw6ytboi"],
])("writes %j in base32 as %j", (text, expected) => {
  expect(base32(new TextEncoder().encode(text))).toBe(expected);
});

it("shows the first 20 bytes of an on-chain lease id, and nothing of the rest", () => {
  const head = "0123456789abcdef0123456789abcdef01234567";
  const id = leaseIdOf(`0x${head}${"00".repeat(12)}`);
  expect(id).toBe("lse_aerukz4jvpg66ajdivtytk6n54asgrlh");
  expect(leaseIdOf(`0x${head}${"ff".repeat(12)}`)).toBe(id);
});

it("routes every job id back to the lease that made it", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.uint8Array({ minLength: 16, maxLength: 40 }),
      (onChain, seed) => {
        const lease = leaseIdOf(`0x${Buffer.from(onChain).toString("hex")}`);
        const job = jobIdOf(lease, seed);
        expect(LeaseId.parse(lease)).toBe(lease);
        expect(JobId.parse(job)).toBe(job);
        expect(leaseOfJob(job)).toBe(lease);
        expect(jobIdOf(lease, seed.slice(0, 16))).toBe(job);
      },
    ),
  );
});

it.each([
  [
    "LeaseId",
    LeaseId,
    [
      "lse_",
      `lse_${"a".repeat(31)}`,
      `lse_${"a".repeat(33)}`,
      `lse_${"1".repeat(32)}`,
      `LSE_${"a".repeat(32)}`,
    ],
  ],
  [
    "JobId",
    JobId,
    [
      `job_${"a".repeat(32)}`,
      `job_${"a".repeat(32)}_${"a".repeat(25)}`,
      `job_${"A".repeat(32)}_${"a".repeat(26)}`,
    ],
  ],
  ["ClientJobId", ClientJobId, ["short", "-starts-wrong", "a".repeat(65), "with space", "with/slash"]],
  ["Address", Address, [`0x${"a".repeat(39)}`, "a".repeat(40), `0X${"a".repeat(40)}`, `0x${"g".repeat(40)}`]],
  ["Bytes32", Bytes32, [`0x${"a".repeat(40)}`, `0x${"a".repeat(66)}`]],
  ["HexBytes", HexBytes, ["0xa", "a0", "0xzz", ""]],
] as const)("refuses what is no %s", (_, schema, wrong) => {
  for (const text of wrong) expect(schema.safeParse(text).success).toBe(false);
});

it("takes hex in any case and keeps it lower-case, so that keys compare as text", () => {
  expect(Address.parse(`0x${"Ab".repeat(20)}`)).toBe(`0x${"ab".repeat(20)}`);
  expect(HexBytes.parse("0x")).toBe("0x");
});
