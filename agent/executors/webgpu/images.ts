import { inflateSync } from "node:zlib";
import { convertIndexedToRgb, type DecodedPng, decode as decodePng, encode } from "fast-png";
import { decode as decodeJpeg } from "jpeg-js";

export type Rgba8 = { width: number; height: number; data: Uint8Array };
export type ImageRefusal = { ok: false; detail: string };
type Decoded = { ok: true; image: Rgba8 } | ImageRefusal;
type Bounds = { maxWidth: number; maxHeight: number };

const refuse = (detail: string): ImageRefusal => ({ ok: false, detail });

/**
 * Decodes a PNG or JPEG from a stranger to RGBA, 8 bits a channel. Its dimensions are read from the header and held
 * against `bounds` before anything is decompressed. An EXIF orientation is not applied: pixels come as stored.
 */
export function decodeImage(bytes: Uint8Array, bounds: Bounds): Decoded {
  if (PNG_SIGNATURE.every((byte, index) => bytes[index] === byte)) return decodePngSafely(bytes, bounds);
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return decodeJpegSafely(bytes, bounds);
  return refuse("neither a PNG nor a JPEG");
}

/** Deterministic for the same pixels. */
export function encodePng({ width, height, data }: Rgba8): Uint8Array {
  const opaque = data.every((value, index) => index % 4 !== 3 || value === 255);
  if (!opaque) return encode({ width, height, data, channels: 4 }, { zlib: { level: 6 } });
  const rgb = new Uint8Array(width * height * 3);
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    rgb.set(data.subarray(4 * pixel, 4 * pixel + 3), 3 * pixel);
  }
  return encode({ width, height, data: rgb, channels: 3 }, { zlib: { level: 6 } });
}

function outside({ maxWidth, maxHeight }: Bounds, width: number, height: number): ImageRefusal | undefined {
  if (width < 1 || height < 1) return refuse("the image has no pixels");
  if (width <= maxWidth && height <= maxHeight) return undefined;
  return refuse(`the image is ${width}x${height}, at most ${maxWidth}x${maxHeight} is taken`);
}

const PNG_SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** Text, profiles and animation are left out: the decoder would inflate them without any bound. */
const PNG_CHUNKS = new Set(["IHDR", "PLTE", "tRNS", "IDAT", "IEND"]);
/** Channels by colour type (PNG third edition, table 8). */
const PNG_CHANNELS: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };

function decodePngSafely(bytes: Uint8Array, bounds: Bounds): Decoded {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kept: Buffer[] = [file.subarray(0, 8)];
  const compressed: Buffer[] = [];
  let ended = false;
  for (let at = 8; !ended; ) {
    if (at + 12 > file.length) return refuse("the PNG is cut off");
    const length = file.readUInt32BE(at);
    const type = file.toString("latin1", at + 4, at + 8);
    if (at + 12 + length > file.length) return refuse("the PNG is cut off");
    if ((at === 8) !== (type === "IHDR")) return refuse("the PNG has no header");
    const chunk = file.subarray(at, at + 12 + length);
    if (PNG_CHUNKS.has(type)) kept.push(chunk);
    if (type === "IDAT") compressed.push(chunk.subarray(8, 8 + length));
    ended = type === "IEND";
    at += 12 + length;
  }
  const header = kept[1];
  if (!header || header.length < 25) return refuse("the PNG has no header");
  const width = header.readUInt32BE(8);
  const height = header.readUInt32BE(12);
  const beyond = outside(bounds, width, height);
  if (beyond) return beyond;
  const channels = PNG_CHANNELS[header[17] ?? -1];
  if (channels === undefined) return refuse("the PNG has no known colour type");
  const rowBytes = Math.ceil((width * channels * (header[16] ?? 0)) / 8) + 1;
  // A few kilobytes can inflate to gigabytes; the header says how much there may be (Adam7 pads seven small images).
  const interlaced = header[20] === 1;
  try {
    const raw = inflateSync(Buffer.concat(compressed), {
      maxOutputLength: interlaced ? 2 * rowBytes * height + 64 : rowBytes * height,
    });
    if (!interlaced && raw.length < rowBytes * height) return refuse("the PNG has too few pixels");
    return { ok: true, image: pngToRgba(decodePng(Buffer.concat(kept), { checkCrc: true })) };
  } catch {
    return refuse("the PNG is damaged");
  }
}

function pngToRgba(png: DecodedPng): Rgba8 {
  const { width, height } = png;
  const channels = png.palette ? (png.palette[0]?.length ?? 3) : png.channels;
  const samples = png.palette ? convertIndexedToRgb(png) : png.data;
  const data = new Uint8Array(4 * width * height);
  // Below 8 bits a row starts on a byte (PNG third edition, 7.2); the decoder leaves those packed.
  const depth = png.palette ? 8 : png.depth;
  const rowBytes = Math.ceil((width * depth) / 8);
  const most = 2 ** depth - 1;
  const stored = (x: number, y: number, channel: number): number => {
    if (depth >= 8) return samples[(y * width + x) * channels + channel] ?? 0;
    const byte = samples[y * rowBytes + Math.floor((x * depth) / 8)] ?? 0;
    return (byte >> (8 - depth - ((x * depth) % 8))) & most;
  };
  const key = png.palette ? undefined : png.transparency;
  const colours = channels < 3 ? 1 : 3;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = 4 * (y * width + x);
      let keyed = key !== undefined && key.length >= colours;
      for (let channel = 0; channel < 3; channel += 1) {
        const value = stored(x, y, colours === 1 ? 0 : channel);
        if (keyed && value !== key?.[colours === 1 ? 0 : channel]) keyed = false;
        data[at + channel] = Math.round((value * 255) / most);
      }
      const alpha = channels % 2 === 0 ? Math.round((stored(x, y, channels - 1) * 255) / most) : 255;
      data[at + 3] = keyed ? 0 : alpha;
    }
  }
  return { width, height, data };
}

function decodeJpegSafely(bytes: Uint8Array, bounds: Bounds): Decoded {
  const size = jpegSize(bytes);
  if (!size) return refuse("the JPEG has no frame header");
  const beyond = outside(bounds, size.width, size.height);
  if (beyond) return beyond;
  try {
    const { width, height, data } = decodeJpeg(bytes, {
      useTArray: true,
      formatAsRGBA: true,
      tolerantDecoding: false,
      // Both are refusals by the decoder; a second frame header with other dimensions ends here.
      maxResolutionInMP: (size.width * size.height) / 1e6 + 0.01,
      maxMemoryUsageInMB: 512,
    });
    if (width !== size.width || height !== size.height) return refuse("the JPEG is damaged");
    return { ok: true, image: { width, height, data } };
  } catch {
    return refuse("the JPEG is damaged, or of a kind that is not supported");
  }
}

/** Walks the marker segments to the first start-of-frame (ITU-T T.81, B.1 and B.2.2). */
function jpegSize(bytes: Uint8Array): { width: number; height: number } | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 2; at + 9 <= bytes.length && view.getUint8(at) === 0xff; ) {
    const marker = view.getUint8(at + 1);
    if (marker === 0xff) {
      at += 1;
      continue;
    }
    // C4, C8 and CC in the range of frame headers are tables and a reserved code.
    if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc) {
      return { height: view.getUint16(at + 5), width: view.getUint16(at + 7) };
    }
    at += 2 + view.getUint16(at + 2);
  }
  return undefined;
}
