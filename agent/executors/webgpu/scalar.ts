import type { ScalarType } from "@gpux/protocol/manifest-schema";

/** Writes a WGSL scalar or vector, little-endian as every WebGPU buffer is. */
export function writeScalar(
  view: DataView,
  offset: number,
  type: ScalarType,
  value: number | readonly number[],
): void {
  const components = typeof value === "number" ? [value] : value;
  for (const [index, component] of components.entries()) {
    const at = offset + 4 * index;
    if (type === "u32") view.setUint32(at, component, true);
    else if (type === "i32") view.setInt32(at, component, true);
    else view.setFloat32(at, component, true);
  }
}
