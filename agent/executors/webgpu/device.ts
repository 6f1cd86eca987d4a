import { create, globals } from "webgpu";
import type { ExecutorDescription } from "../executor.ts";

declare global {
  var gpuxWebGpu: { gpu: GPU; adapter: GPUAdapter; device: GPUDevice } | undefined;
}

export type OpenedDevice = { device: GPUDevice; description: ExecutorDescription };

/**
 * Opens the machine's best adapter with the default limits, which every adapter has: what runs here runs anywhere.
 * Answers undefined where there is no adapter that Dawn can use.
 */
export async function openDevice(): Promise<OpenedDevice | undefined> {
  // GPUBufferUsage and its like are globals in a browser; code and types expect them there.
  Object.assign(globalThis, globals);
  const gpu = create([]);
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return undefined;
  const device = await adapter.requestDevice();
  // Dawn's node binding crashes the process when gpu or adapter is garbage-collected under a living device.
  globalThis.gpuxWebGpu = { gpu, adapter, device };
  const { info, limits } = adapter;
  return {
    device,
    description: {
      adapter: info.description || info.device || "unnamed adapter",
      vendor: info.vendor,
      architecture: info.architecture,
      backend: { linux: "vulkan", darwin: "metal", win32: "d3d12" }[String(process.platform)] ?? "",
      software:
        info.isFallbackAdapter ||
        /swiftshader|llvmpipe|lavapipe|warp/i.test(`${info.architecture} ${info.device} ${info.description}`),
      maxBufferBytes: limits.maxBufferSize,
      maxBindingBytes: limits.maxStorageBufferBindingSize,
      // Of the device and not of the adapter: a feature that the device was not opened with is there for no job.
      features: ["webgpu", ...device.features],
    },
  };
}
