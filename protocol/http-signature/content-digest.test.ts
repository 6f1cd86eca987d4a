import { describe, expect, test } from "vitest";
import { contentDigest, matchesContentDigest } from "./content-digest.ts";

const body = new TextEncoder().encode('{"hello": "world"}');
// RFC 9421 appendix B.2 and RFC 9530 appendix D carry these two for the same body.
const sha512 =
  "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
const sha256 = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";

describe("content digest", () => {
  test("is RFC 9530's sha-256", async () => {
    expect(await contentDigest(body)).toBe(sha256);
  });

  test.each([
    ["sha-256", sha256],
    ["sha-512", sha512],
    ["both", `${sha256}, ${sha512}`],
    ["one beside an algorithm that we do not know", `md5=:AAAA:, ${sha256}`],
  ])("matches by %s", async (_what, field) => {
    expect(await matchesContentDigest(field, body)).toBe(true);
  });

  const wrong512 = sha512.replace("WZ", "WY");
  test.each([
    ["nothing that we know", "md5=:AAAA:"],
    ["one right and one wrong digest", `${sha256}, ${wrong512}`],
    ["a wrong digest", wrong512],
    ["a digest of the wrong length", "sha-256=:AAAA:"],
    ["a duplicate", `${sha256}, ${sha256}`],
    ["no bytes", "sha-256=::"],
    ["a bare word", "sha-256"],
    ["an empty field", ""],
    ["a field that is too long", `${sha256}${", x=:AAAA:".repeat(60)}`],
  ])("refuses %s", async (_what, field) => {
    expect(await matchesContentDigest(field, body)).toBe(false);
  });

  test("refuses a body that differs in one byte", async () => {
    expect(await matchesContentDigest(sha256, body.with(3, 0))).toBe(false);
    expect(await matchesContentDigest(sha256, new Uint8Array())).toBe(false);
  });
});
