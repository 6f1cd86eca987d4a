import { bytesToHex, hexToBytes } from "viem/utils";
import type { Bytes32 } from "../ids.ts";
import type { Curve } from "./curve.ts";

/**
 * libsecp256k1, the C library of Bitcoin Core, compiled to WebAssembly (the binary of @bitauth/libauth; ADR 12). Only
 * the binary is theirs: their loader carries it as base64, which workerd does not compile. What the binary imports is
 * Emscripten's of 2018, a fixed memory with the stack first and the heap behind it.
 */

const PAGE_BYTES = 65_536;
/** Fixed in the binary. Untouched pages cost nothing. */
const MEMORY_BYTES = 16_777_216;
const STACK_BYTES = 5_242_880;
/** Static data lies from 1024 on; the word behind it holds where the heap ends. */
const HEAP_END_AT = 1_024 + 67_696 + 16;
const STACK_AT = (HEAP_END_AT + 4 + 15) & -16;
const TABLE_SIZE = 6;

/** secp256k1.h: SECP256K1_CONTEXT_SIGN | SECP256K1_CONTEXT_VERIFY, and SECP256K1_EC_UNCOMPRESSED. */
const SIGN_AND_VERIFY = 0x301;
const UNCOMPRESSED = 2;

const FUNCTIONS = {
  malloc: "_malloc",
  createContext: "_secp256k1_context_create",
  randomize: "_secp256k1_context_randomize",
  parse: "_secp256k1_ecdsa_recoverable_signature_parse_compact",
  serialize: "_secp256k1_ecdsa_recoverable_signature_serialize_compact",
  recover: "_secp256k1_ecdsa_recover",
  serializeKey: "_secp256k1_ec_pubkey_serialize",
  sign: "_secp256k1_ecdsa_sign_recoverable",
} as const;
type Library = Record<keyof typeof FUNCTIONS, (...args: number[]) => number>;

interface Loaded {
  readonly library: Library;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly words: Uint32Array<ArrayBuffer>;
  readonly context: number;
  /** Where arguments and results lie: one call at a time, since none of them waits. */
  readonly at: Readonly<
    Record<"digest" | "signature" | "parsed" | "key" | "secret" | "out" | "length", number>
  >;
}

/** One library per isolate or process. It starts with the first call: workerd has no randomness at module scope. */
export function curveOf(module: WebAssembly.Module): Curve {
  let loaded: Loaded | null = null;
  const ready = () => {
    loaded ??= load(module);
    return loaded;
  };

  return {
    async recover(digest, { r, s, yParity }) {
      const { library, bytes, words, context, at } = ready();
      bytes.set(hexToBytes(digest, { size: 32 }), at.digest);
      bytes.set(hexToBytes(r, { size: 32 }), at.signature);
      bytes.set(hexToBytes(s, { size: 32 }), at.signature + 32);
      if (library.parse(context, at.parsed, at.signature, yParity) !== 1) return null;
      if (library.recover(context, at.key, at.parsed, at.digest) !== 1) return null;
      words[at.length >> 2] = 65;
      library.serializeKey(context, at.out, at.length, at.key, UNCOMPRESSED);
      return bytesToHex(bytes.subarray(at.out, at.out + 65));
    },

    async sign(digest, key) {
      const { library, bytes, words, context, at } = ready();
      bytes.set(hexToBytes(digest, { size: 32 }), at.digest);
      bytes.set(hexToBytes(key, { size: 32 }), at.secret);
      const signed = library.sign(context, at.parsed, at.digest, at.secret);
      bytes.fill(0, at.secret, at.secret + 32);
      if (signed !== 1) throw new RangeError("not a private key: zero, or not below the curve's order");
      library.serialize(context, at.signature, at.length, at.parsed);
      const word = (from: number): Bytes32 => bytesToHex(bytes.subarray(from, from + 32));
      // The library's s is low, so its recovery id is the parity but for the 2^-127 of signatures with r + n.
      const yParity = words[at.length >> 2] === 1 ? 1 : 0;
      return { r: word(at.signature), s: word(at.signature + 32), yParity };
    },
  };
}

function load(module: WebAssembly.Module): Loaded {
  const memory = new WebAssembly.Memory({
    initial: MEMORY_BYTES / PAGE_BYTES,
    maximum: MEMORY_BYTES / PAGE_BYTES,
  });
  const bytes = new Uint8Array(memory.buffer);
  const words = new Uint32Array(memory.buffer);
  words[HEAP_END_AT >> 2] = STACK_AT + STACK_BYTES;
  const broken = () => {
    throw new Error("libsecp256k1 stopped: it was called in a way that it does not allow");
  };
  const { exports } = new WebAssembly.Instance(module, {
    env: {
      memory,
      table: new WebAssembly.Table({ element: "anyfunc", initial: TABLE_SIZE, maximum: TABLE_SIZE }),
      tableBase: 0,
      DYNAMICTOP_PTR: HEAP_END_AT,
      STACKTOP: STACK_AT,
      abort: broken,
      _abort: broken,
      enlargeMemory: broken,
      abortOnCannotGrowMemory: broken,
      getTotalMemory: () => MEMORY_BYTES,
      ___setErrNo: () => 0,
      _emscripten_memcpy_big(to: number, from: number, count: number) {
        bytes.copyWithin(to, from, from + count);
        return to;
      },
    },
  });
  const of = (name: keyof typeof FUNCTIONS) => {
    const found = exports[FUNCTIONS[name]];
    if (typeof found !== "function") throw new Error(`the binary has no ${FUNCTIONS[name]}`);
    return (...args: number[]): number => Number(found(...args));
  };
  const library: Library = {
    malloc: of("malloc"),
    createContext: of("createContext"),
    randomize: of("randomize"),
    parse: of("parse"),
    serialize: of("serialize"),
    recover: of("recover"),
    serializeKey: of("serializeKey"),
    sign: of("sign"),
  };

  const context = library.createContext(SIGN_AND_VERIFY);
  const room = library.malloc(448);
  const at = {
    digest: room,
    signature: room + 32,
    parsed: room + 96,
    key: room + 176,
    secret: room + 240,
    out: room + 272,
    length: room + 352,
  };
  // Blinds the multiplications that see a secret key, against reading them by their timing.
  crypto.getRandomValues(bytes.subarray(at.secret, at.secret + 32));
  library.randomize(context, at.secret);
  bytes.fill(0, at.secret, at.secret + 32);
  return { library, bytes, words, context, at };
}
