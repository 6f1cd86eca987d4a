import { describe, expect, test } from "vitest";
import {
  MAX_SIGNATURE,
  MAX_SIGNATURE_INPUT,
  parseSignature,
  serializeSignatureInput,
  writeSignature,
} from "./signature-fields.ts";

const input = 'eth=("@method" "@path");created=1;expires=2;nonce="n";keyid="k"';
const signature = "eth=:AQID:";
const parse = (signatureInput: string, text = signature) =>
  parseSignature(new Headers({ "signature-input": signatureInput, signature: text }));

describe("signature fields", () => {
  test("are read into components, parameters and bytes", () => {
    expect(parse(input)).toEqual({
      ok: true,
      value: {
        label: "eth",
        components: ["@method", "@path"],
        parameters: { created: 1, expires: 2, nonce: "n", keyid: "k" },
        input: '("@method" "@path");created=1;expires=2;nonce="n";keyid="k"',
        signature: Uint8Array.of(1, 2, 3),
      },
    });
  });

  test("are written as they are read", () => {
    const text = serializeSignatureInput(["@method", "@path"], {
      created: 1,
      expires: 2,
      nonce: "n",
      keyid: "k",
    });
    expect(writeSignature("eth", text, Uint8Array.of(1, 2, 3))).toEqual({ signatureInput: input, signature });
  });

  test("keep the order of parameters and drop the spaces that RFC 8941 allows", () => {
    const parsed = parse('eth=( "@path"  "@method" ); keyid="k";created=1');
    expect(parsed.ok && parsed.value.input).toBe('("@path" "@method");keyid="k";created=1');
  });

  test.each([
    ["both are absent", {}],
    ["only the input is there", { "signature-input": input }],
    ["only the signature is there", { signature }],
  ])("are missing when %s", (_what, headers) => {
    expect(parseSignature(new Headers(headers))).toEqual({ ok: false, code: "signature_missing" });
  });

  test.each([
    ["a second label", `${input}, b=("@method")`, signature],
    ["a second signature", input, `${signature}, b=:AQID:`],
    ["two of each", `${input}, b=("@method")`, `${signature}, b=:AQID:`],
    ["a duplicate label", `${input}, ${input}`, signature],
    ["a duplicate signature", input, `${signature}, ${signature}`],
    ["labels that differ", input, "other=:AQID:"],
    ["a duplicate component", 'eth=("@path" "@path");created=1', signature],
    ["a duplicate parameter", 'eth=("@path");created=1;created=1', signature],
    ["no component", "eth=();created=1", signature],
    ["an unknown derived component", 'eth=("@status");created=1', signature],
    ["a component with a parameter", 'eth=("@query-param";name="a");created=1', signature],
    ["a header in upper case", 'eth=("Date");created=1', signature],
    ["an unknown parameter", 'eth=("@path");created=1;extra=1', signature],
    ["a created that is text", 'eth=("@path");created="1"', signature],
    ["a negative created", 'eth=("@path");created=-1', signature],
    ["a nonce that is a number", 'eth=("@path");nonce=1', signature],
    [
      "more components than anyone needs",
      `eth=(${Array.from({ length: 17 }, (_, i) => `"h${i}"`).join(" ")})`,
      signature,
    ],
    ["an input that is too long", `eth=("@path");nonce="${"n".repeat(MAX_SIGNATURE_INPUT)}"`, signature],
    ["a signature that is too long", input, `eth=:${"AAAA".repeat(MAX_SIGNATURE / 4)}:`],
    ["a signature that is no base64", input, "eth=:A:"],
  ])("refuse %s", (_what, signatureInput, text) => {
    expect(parse(signatureInput, text)).toEqual({ ok: false, code: "signature_malformed" });
  });
});
