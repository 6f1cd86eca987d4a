/** A WebAssembly file that is imported is a compiled module, and no instance. */
declare module "*.wasm" {
  const module: WebAssembly.Module;
  export default module;
}
