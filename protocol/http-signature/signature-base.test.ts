import { describe, expect, test } from "vitest";
import { signatureBase } from "./signature-base.ts";
import { parseSignature } from "./signature-fields.ts";

/** RFC 9421 appendix B.2: the request that its test cases sign. */
const head = {
  method: "POST",
  url: "https://example.com/foo?param=Value&Pet=dog",
  headers: new Headers({
    date: "Tue, 20 Apr 2021 02:07:55 GMT",
    "content-type": "application/json",
    "content-digest":
      "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
    "content-length": "18",
  }),
};

function signed(input: string, signature: string) {
  const parsed = parseSignature(new Headers({ "signature-input": input, signature }));
  if (!parsed.ok) throw new Error(parsed.code);
  const base = signatureBase(head, parsed.value.components, parsed.value.input);
  return { base, signature: new Uint8Array(parsed.value.signature) };
}

describe("RFC 9421 test cases", () => {
  test("B.2.5, HMAC-SHA256", async () => {
    const { base, signature } = signed(
      'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
      "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
    );
    expect(base).toBe(
      [
        '"date": Tue, 20 Apr 2021 02:07:55 GMT',
        '"@authority": example.com',
        '"content-type": application/json',
        '"@signature-params": ("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
      ].join("\n"),
    );
    const secret = Buffer.from(
      "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==",
      "base64",
    );
    const key = await crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, [
      "verify",
    ]);
    expect(await crypto.subtle.verify("HMAC", key, signature, new TextEncoder().encode(base ?? ""))).toBe(
      true,
    );
  });

  test("B.2.6, Ed25519", async () => {
    const { base, signature } = signed(
      'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"',
      "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
    );
    const jwk = { kty: "OKP", crv: "Ed25519", x: "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs" };
    const key = await crypto.subtle.importKey("jwk", jwk, "Ed25519", false, ["verify"]);
    expect(await crypto.subtle.verify("Ed25519", key, signature, new TextEncoder().encode(base ?? ""))).toBe(
      true,
    );
  });
});

describe("components", () => {
  const value = (name: string, change: Partial<typeof head> = {}) =>
    signatureBase({ ...head, ...change }, [name], "()")?.split("\n")[0];

  test.each([
    ["@method", "POST"],
    ["@authority", "example.com"],
    ["@path", "/foo"],
    ["@query", "?param=Value&Pet=dog"],
    ["@scheme", "https"],
    ["@target-uri", "https://example.com/foo?param=Value&Pet=dog"],
    ["content-length", "18"],
  ])("%s", (name, text) => {
    expect(value(name)).toBe(`"${name}": ${text}`);
  });

  test("the authority is lower case, without the scheme's own port", () => {
    expect(value("@authority", { url: "https://EXAMPLE.com:443/" })).toBe('"@authority": example.com');
    expect(value("@authority", { url: "http://Example.com:8787/" })).toBe('"@authority": example.com:8787');
  });

  test("an absent query is a lone question mark, an empty path a slash", () => {
    expect(value("@query", { url: "https://example.com" })).toBe('"@query": ?');
    expect(value("@path", { url: "https://example.com" })).toBe('"@path": /');
  });

  test("a header is trimmed, its lines joined", () => {
    const headers = new Headers([
      ["x-a", "  one "],
      ["x-a", "two"],
    ]);
    expect(value("x-a", { headers })).toBe('"x-a": one, two');
  });

  test("an absent header or one with bytes beyond ASCII has no base", () => {
    expect(value("x-absent")).toBeUndefined();
    expect(value("x-a", { headers: new Headers({ "x-a": "\u00e9" }) })).toBeUndefined();
  });
});
