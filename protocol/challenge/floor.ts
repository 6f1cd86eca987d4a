/**
 * Peak rate of single precision by the makers' data sheets, in TFLOPS: of a model and of all that begin with its name
 * and have no entry of their own (`RTX_4090_LAPTOP_GPU`).
 */
const PEAK_TFLOPS: Readonly<Record<string, number>> = {
  GTX_1060: 4.4,
  GTX_1070: 6.5,
  GTX_1080: 8.9,
  GTX_1080_TI: 11.3,
  GTX_1650: 3,
  GTX_1660: 5,
  RTX_2060: 6.5,
  RTX_2070: 7.5,
  RTX_2080: 10.1,
  RTX_2080_TI: 13.4,
  RTX_3050: 9.1,
  RTX_3060: 12.7,
  RTX_3060_TI: 16.2,
  RTX_3070: 20.3,
  RTX_3070_TI: 21.7,
  RTX_3080: 29.8,
  RTX_3080_TI: 34.1,
  RTX_3090: 35.6,
  RTX_3090_TI: 40,
  RTX_4060: 15.1,
  RTX_4060_TI: 22.1,
  RTX_4070: 29.1,
  RTX_4070_SUPER: 35.5,
  RTX_4070_TI: 40.1,
  RTX_4080: 48.7,
  RTX_4090: 82.6,
  RTX_5060: 19.2,
  RTX_5060_TI: 23.7,
  RTX_5070: 30.9,
  RTX_5070_TI: 43.9,
  RTX_5080: 56.3,
  RTX_5090: 104.8,
  RTX_A4000: 19.2,
  RTX_A5000: 27.8,
  RTX_A6000: 38.7,
  RTX_6000_ADA: 91.1,
  TESLA_T4: 8.1,
  T4: 8.1,
  V100: 15.7,
  TESLA_V100: 15.7,
  A10: 31.2,
  A40: 37.4,
  A100: 19.5,
  L4: 30.3,
  L40: 90.5,
  L40S: 91.6,
  H100: 51.2,
  H200: 66.9,
  B200: 75,
  RX_6600: 8.9,
  RX_6700_XT: 13.2,
  RX_6800: 16.2,
  RX_6800_XT: 20.7,
  RX_6900_XT: 23,
  RX_7600: 21.7,
  RX_7800_XT: 37.3,
  RX_7900_XT: 51.5,
  RX_7900_XTX: 61.4,
  RX_9070: 36.1,
  RX_9070_XT: 48.7,
  ARC_A750: 17.2,
  ARC_A770: 19.7,
  ARC_B580: 14.6,
  M1: 2.6,
  M1_PRO: 5.2,
  M1_MAX: 10.4,
  M2: 3.6,
  M2_PRO: 6.8,
  M2_MAX: 13.6,
  M3: 3.6,
  M4: 4.3,
  // CPUs that are sold as what they are have nothing to reach; by these names alone, and not by a flag of anybody's.
  LLVMPIPE: 0,
  MICROSOFT_BASIC_RENDER_DRIVER: 0,
  SWIFTSHADER: 0,
};

/**
 * Which part of its peak a card must reach in a challenge. Low on purpose: whole numbers are multiplied at a half to a
 * quarter of the rate of single precision, WebGPU's shaders reach a quarter of that, and the way to the edge and the
 * kernel's start are in the time. It tells a card from a CPU and from one that is ten times smaller, not from its
 * neighbour (docs/matching.md).
 */
const SHARE = 1 / 50;

/** Operations per second, in 10^9; null: of this model nothing is known. */
export function floorOf(model: string): number | null {
  for (let name = model; name !== ""; name = name.slice(0, Math.max(0, name.lastIndexOf("_")))) {
    const peak = PEAK_TFLOPS[name];
    if (Object.hasOwn(PEAK_TFLOPS, name) && peak !== undefined) return peak * 1_000 * SHARE;
  }
  return null;
}
