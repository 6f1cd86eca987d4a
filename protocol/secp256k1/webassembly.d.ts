/**
 * The part of the WebAssembly JavaScript interface that library.ts uses, for programs on Node: TypeScript has it in its
 * "dom" library alone, with a browser's globals beside it. On workerd the runtime's own types say the same.
 */
declare namespace WebAssembly {
  class Module {
    constructor(bytes: Uint8Array);
  }
  class Memory {
    constructor(descriptor: { initial: number; maximum: number });
    readonly buffer: ArrayBuffer;
  }
  class Table {
    constructor(descriptor: { element: "anyfunc"; initial: number; maximum: number });
  }
  class Instance {
    constructor(
      module: Module,
      imports: Record<string, Record<string, Memory | Table | number | ((...args: number[]) => number)>>,
    );
    readonly exports: Record<string, unknown>;
  }
}
