import { encode } from "fast-png";
import { encode as encodeJpeg } from "jpeg-js";
import { describe, expect, it } from "vitest";
import { decodeImage, encodePng } from "./images.ts";

const BOUNDS = { maxWidth: 64, maxHeight: 64 };

function pixels(bytes: Uint8Array): number[] {
  const decoded = decodeImage(bytes, BOUNDS);
  if (!decoded.ok) throw new Error(decoded.detail);
  return [...decoded.image.data];
}

describe("decodeImage", () => {
  const RGBA = Uint8Array.of(255, 0, 0, 255, 0, 128, 255, 7, 1, 2, 3, 255, 9, 9, 9, 0);

  it("gives back what encodePng was given, opaque or not", () => {
    expect(pixels(encodePng({ width: 2, height: 2, data: RGBA }))).toEqual([...RGBA]);
    const opaque = RGBA.map((value, index) => (index % 4 === 3 ? 255 : value));
    expect(pixels(encodePng({ width: 2, height: 2, data: opaque }))).toEqual([...opaque]);
  });

  it.each([
    ["grey", { channels: 1, depth: 8, data: Uint8Array.of(0, 200) }, [0, 0, 0, 255, 200, 200, 200, 255]],
    ["grey with alpha", { channels: 2, depth: 8, data: Uint8Array.of(5, 6, 7, 8) }, [5, 5, 5, 6, 7, 7, 7, 8]],
    ["RGB", { channels: 3, depth: 8, data: Uint8Array.of(1, 2, 3, 4, 5, 6) }, [1, 2, 3, 255, 4, 5, 6, 255]],
    [
      "16 bits",
      { channels: 1, depth: 16, data: Uint16Array.of(0, 65_535) },
      [0, 0, 0, 255, 255, 255, 255, 255],
    ],
  ] as const)("reads a PNG in %s", (_what, image, expected) => {
    expect(pixels(encode({ width: 2, height: 1, ...image }))).toEqual(expected);
  });

  it("reads an interlaced PNG", () => {
    const interlaced = encode({ width: 2, height: 2, data: RGBA, channels: 4 }, { interlace: "Adam7" });
    expect(pixels(interlaced)).toEqual([...RGBA]);
  });

  it("reads a palette of one bit", () => {
    const palette = [
      [10, 20, 30],
      [40, 50, 60],
    ];
    const image = {
      width: 3,
      height: 2,
      channels: 1,
      depth: 1,
      palette,
      data: Uint8Array.of(0b01000000, 0b10100000),
    } as const;
    const [a, b] = [
      [10, 20, 30, 255],
      [40, 50, 60, 255],
    ];
    expect(pixels(encode({ ...image, palette }))).toEqual([a, b, a, b, a, b].flat());
  });

  it("reads a JPEG", () => {
    const data = new Uint8Array(4 * 64).fill(180);
    const jpeg = new Uint8Array(encodeJpeg({ width: 8, height: 8, data }, 95).data);
    expect(
      pixels(jpeg)
        .filter((_, index) => index % 4 !== 3)
        .every((value) => Math.abs(value - 180) < 3),
    ).toBe(true);
  });

  it("refuses a JPEG that is cut off or too large, by its header", () => {
    const data = new Uint8Array(4 * 80 * 80);
    const jpeg = new Uint8Array(encodeJpeg({ width: 80, height: 80, data }, 50).data);
    expect(decodeImage(jpeg, BOUNDS)).toMatchObject({ ok: false, detail: expect.stringContaining("80x80") });
    expect(decodeImage(jpeg.slice(0, 300), { maxWidth: 100, maxHeight: 100 })).toMatchObject({ ok: false });
  });
});
