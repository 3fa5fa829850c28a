/**
 * The real grammar in WebAssembly, in an instance that is replaced when it breaks. A statement that overflows the parser's stack
 * leaves the instance with a stack pointer that never comes back and with memory in an unknown state: the next statement, which
 * may be another session's, must not meet it.
 */
import { readFile } from "node:fs/promises";
import type { ParseResult } from "libpg-query";
import createModule, { type GrammarExports } from "libpg-query/wasm/libpg-query.js";
import { InvariantError } from "#domain/errors.ts";

/** Past this an instance is replaced: its memory only grows, and what one large statement took would be kept for ever. */
const memoryBytesMax = 256 * 1024 * 1024;

/** What the parser made of a text. `broken`: it could not take it in, and a new instance stands in its place. */
export type ParseOutcome =
  | { readonly kind: "parsed"; readonly statements: NonNullable<ParseResult["stmts"]> }
  /** `position` counts characters from 1. */
  | { readonly kind: "error"; readonly message: string; readonly position: number }
  | { readonly kind: "broken" };

/** The grammar, loaded. It has one owner, the analyzer, and no state from one text to the next. */
export class GrammarModule {
  readonly #code: WebAssembly.Module;
  /** The memory of an instance that has started and has parsed nothing. */
  readonly #fresh: MemoryImage;
  /** Null once it broke, until the next text. */
  #instance: GrammarExports | null;
  #replacements = 0;

  private constructor(code: WebAssembly.Module, instance: GrammarExports) {
    this.#code = code;
    this.#instance = instance;
    this.#fresh = imageOf(instance.HEAPU8);
  }

  /** Compiles the grammar and starts it. */
  static async load(): Promise<GrammarModule> {
    const place = import.meta.resolve("libpg-query/wasm/libpg-query.wasm");
    const code = await WebAssembly.compile(await readFile(new URL(place)));
    const instance = await createModule({ instantiateWasm: instantiate(code) });
    return new GrammarModule(code, instance);
  }

  /** How often an instance was replaced. */
  get replacements(): number {
    return this.#replacements;
  }

  /** Parses a text that is not empty and has no zero byte. */
  parse(text: string): ParseOutcome {
    const instance = this.#instance ?? this.#replace();
    // Taken back only when the parser came to an end.
    this.#instance = null;
    try {
      const outcome = parseWith(instance, text);
      if (outcome.kind !== "broken" && instance.HEAPU8.byteLength <= memoryBytesMax) {
        this.#instance = instance;
      }
      return outcome;
    } catch (error) {
      // A stack overflow, a trap, or an abort for want of memory: nothing of this instance is to be trusted.
      if (error instanceof RangeError || error instanceof WebAssembly.RuntimeError) {
        return { kind: "broken" };
      }
      throw error;
    }
  }

  /**
   * A new instance at once, without waiting: the module's own start is asynchronous, so it is stopped before it runs, and the new
   * memory is given what the start left in that of the first instance.
   */
  #replace(): GrammarExports {
    this.#replacements++;
    const target: Partial<GrammarExports> & Parameters<typeof createModule>[0] = {
      instantiateWasm: instantiate(this.#code),
      preRun: () => {
        throw new Error("the start was run before");
      },
    };
    createModule(target).catch(() => {
      // It always ends here. Whether there is an instance is asked of `target`.
    });
    if (!isComplete(target) || target.HEAPU8.byteLength !== this.#fresh.memoryBytes) {
      throw new InvariantError("the parser does not start as it did before");
    }
    target.HEAPU8.set(this.#fresh.content, this.#fresh.start);
    return target;
  }
}

/** What is not zero of a memory: a small part of it, since most is room for the stack and the heap. */
interface MemoryImage {
  readonly memoryBytes: number;
  readonly start: number;
  readonly content: Uint8Array;
}

const blockBytes = 64 * 1024;

function imageOf(memory: Uint8Array): MemoryImage {
  const zero = Buffer.alloc(blockBytes);
  const used: number[] = [];
  for (let start = 0; start < memory.byteLength; start += blockBytes) {
    if (zero.compare(memory, start, start + blockBytes) !== 0) {
      used.push(start);
    }
  }
  const start = used.at(0) ?? 0;
  return { memoryBytes: memory.byteLength, start, content: memory.slice(start, (used.at(-1) ?? 0) + blockBytes) };
}

function instantiate(code: WebAssembly.Module): Parameters<typeof createModule>[0]["instantiateWasm"] {
  return (imports, receive) => {
    receive(new WebAssembly.Instance(code, imports));
  };
}

const exportNames: readonly (keyof GrammarExports)[] = [
  "HEAPU8",
  "getValue",
  "UTF8ToString",
  "stringToUTF8",
  "lengthBytesUTF8",
  "_malloc",
  "_free",
  "_wasm_parse_query_raw",
  "_wasm_free_parse_result",
];

function isComplete(target: Partial<GrammarExports>): target is GrammarExports {
  return exportNames.every((name) => target[name] !== undefined);
}

/** Reads `PgQueryParseResult` (pg_query.h): the tree as JSON, what was printed, and the error. */
function parseWith(instance: GrammarExports, text: string): ParseOutcome {
  const bytes = instance.lengthBytesUTF8(text) + 1;
  const source = instance._malloc(bytes);
  instance.stringToUTF8(text, source, bytes);
  const result = instance._wasm_parse_query_raw(source);
  if (source === 0 || result === 0) {
    return { kind: "broken" };
  }
  const tree = instance.getValue(result, "i32");
  const error = instance.getValue(result + 8, "i32");
  const outcome = error === 0 ? readTree(instance, tree) : readError(instance, error);
  instance._free(source);
  instance._wasm_free_parse_result(result);
  return outcome;
}

function readTree(instance: GrammarExports, tree: number): ParseOutcome {
  if (tree === 0) {
    return { kind: "broken" };
  }
  const parsed: unknown = JSON.parse(instance.UTF8ToString(tree));
  return isParseResult(parsed) ? { kind: "parsed", statements: parsed.stmts ?? [] } : { kind: "broken" };
}

/** The library's own types describe its JSON; every field that is used is checked against an allow-list (shapes.ts). */
function isParseResult(value: unknown): value is ParseResult {
  return typeof value === "object" && value !== null && (!("stmts" in value) || Array.isArray(value.stmts));
}

/** Reads `PgQueryError`: message, function, file, line, and the position that PostgreSQL would report. */
function readError(instance: GrammarExports, error: number): ParseOutcome {
  const message = instance.getValue(error, "i32");
  const position = instance.getValue(error + 16, "i32");
  return {
    kind: "error",
    message: message === 0 ? "syntax error" : instance.UTF8ToString(message),
    position: Math.max(position, 1),
  };
}
