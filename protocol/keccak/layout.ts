/** Where things lie in the memory of keccak.wasm: the state from 0 on, then the constants, then whole blocks of input. */

export const LANES = 25;
/** Of 1,088 bits, that Keccak-256 takes in at a time. */
export const RATE_LANES = 17;
export const RATE_BYTES = 8 * RATE_LANES;
export const ROUND_CONSTANTS_AT = 256;
export const INPUT_AT = 512;
/** As many blocks as the rest of the one page holds. */
export const BLOCKS_AT_ONCE = Math.floor((65_536 - INPUT_AT) / RATE_BYTES);
