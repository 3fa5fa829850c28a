/** The WebAssembly build inside `libpg-query`, below its wrapper, which keeps one instance for ever: the package has no types for it. */
declare module "libpg-query/wasm/libpg-query.js" {
  export interface GrammarExports {
    HEAPU8: Uint8Array;
    getValue(pointer: number, type: "i32"): number;
    UTF8ToString(pointer: number): string;
    stringToUTF8(text: string, pointer: number, bytesMax: number): void;
    lengthBytesUTF8(text: string): number;
    _malloc(bytes: number): number;
    _free(pointer: number): void;
    _wasm_parse_query_raw(text: number): number;
    _wasm_free_parse_result(result: number): void;
  }

  export interface GrammarHooks {
    /** Gives the instance in place of the file: all exports are on the object that was passed in once `receive` returns. */
    instantiateWasm(imports: WebAssembly.Imports, receive: (instance: WebAssembly.Instance) => void): void;
    preRun?(): void;
    print?(text: string): void;
    printErr?(text: string): void;
  }

  export default function createModule(hooks: Partial<GrammarExports> & GrammarHooks): Promise<GrammarExports>;
}

/** The part of the WebAssembly interface that the parser uses: the standard library without a browser's types has none of it. */
declare namespace WebAssembly {
  type Imports = Record<string, Record<string, unknown>>;
  interface Module {
    readonly [Symbol.toStringTag]: string;
  }
  class Instance {
    constructor(module: Module, imports: Imports);
    readonly exports: Record<string, unknown>;
  }
  class RuntimeError extends Error {}
  function compile(bytes: Uint8Array): Promise<Module>;
}
