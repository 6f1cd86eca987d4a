import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeBase64,
  encodeBase64,
  parseByteSequences,
  parseInnerLists,
  serializeInnerList,
  serializeString,
} from "./structured-fields.ts";

describe("inner lists", () => {
  test("are read with items, parameters and their order", () => {
    const parsed = parseInnerLists(
      '  sig1=( "@method"  "a\\"b\\\\" );created=1; nonce="x";flag;off=?0 ,\tb=()  ',
    );
    const first = parsed?.get("sig1");
    expect([...(parsed?.keys() ?? [])]).toEqual(["sig1", "b"]);
    expect(first?.items.map((item) => item.value)).toEqual(["@method", 'a"b\\']);
    expect([...(first?.parameters ?? [])]).toEqual([
      ["created", 1],
      ["nonce", "x"],
      ["flag", true],
      ["off", false],
    ]);
  });

  test("items keep their own parameters", () => {
    const item = parseInnerLists('s=("a";sf;key="k")')?.get("s")?.items[0];
    expect([...(item?.parameters ?? [])]).toEqual([
      ["sf", true],
      ["key", "k"],
    ]);
  });

  test.each([
    "",
    "sig",
    "sig=",
    'sig="a"',
    'sig=("a"',
    'sig=("a""b")',
    "sig=(a)",
    'sig=("a"),',
    ',sig=("a")',
    'sig=("a") x',
    'Sig=("a")',
    'sig=("a");created=1.5',
    'sig=("a");created=1234567890123456',
    'sig=("a");created=',
    'sig=("a");created=-',
    'sig=("a");a=1;a=1',
    'sig=("a"), sig=("b")',
    'sig=("\\a")',
    'sig=("\u00e9")',
    'sig=("a\n")',
    'sig = ("a")',
    'sig=("a");n=?2',
    'sig=("a");n=:AA==:',
  ])("refuses %j", (text) => {
    expect(parseInnerLists(text)).toBeNull();
  });

  test("what is written reads back the same", () => {
    const printable = fc.string({
      unit: fc.integer({ min: 32, max: 126 }).map((code) => String.fromCharCode(code)),
    });
    fc.assert(
      fc.property(fc.array(printable), printable, fc.maxSafeNat(), (items, nonce, created) => {
        const parameters = new Map<string, string | number>([
          ["nonce", nonce],
          ["created", created % 1e15],
        ]);
        const parsed = parseInnerLists(`s=${serializeInnerList(items, parameters)}`)?.get("s");
        expect(parsed?.items.map((item) => item.value)).toEqual(items);
        expect([...(parsed?.parameters ?? [])]).toEqual([...parameters]);
      }),
    );
  });

  test("never throws on hostile text", () => {
    const hostile = fc.string({ unit: fc.constantFrom(...'sig=("@a\\);, \t:?0.-1é\n') });
    fc.assert(
      fc.property(hostile, (text) => {
        parseInnerLists(text);
        parseByteSequences(text);
      }),
      { numRuns: 2000 },
    );
  });

  test("a string with control characters is never written", () => {
    expect(() => serializeString("a\nb")).toThrow(TypeError);
  });
});

describe("byte sequences", () => {
  test("are read", () => {
    expect(parseByteSequences("a=:AQI=:, b=::")).toEqual(
      new Map([
        ["a", Uint8Array.of(1, 2)],
        ["b", new Uint8Array()],
      ]),
    );
  });

  test.each([
    "a=:AQI:",
    "a=:AQJ=:",
    "a=AQI=",
    "a=:AQ=I:",
    "a=:AQI=:;x=1",
    "a=:AQI=:, a=:AQI=:",
    "a=:A_I=:",
    "a=:====:",
  ])("refuses %j", (text) => {
    expect(parseByteSequences(text)).toBeNull();
  });

  test("base64 has one spelling for each byte string", () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        expect(encodeBase64(bytes)).toBe(Buffer.from(bytes).toString("base64"));
        expect(decodeBase64(encodeBase64(bytes))).toEqual(bytes);
      }),
    );
    expect(decodeBase64("AQJ=")).toBeNull();
  });
});
