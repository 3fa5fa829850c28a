/**
 * A strict reader of JSON (RFC 8259) over bytes: it looks and never makes values. What two parsers could read differently is a
 * fault: a key that occurs twice, a carriage return inside the text, a key with half of a surrogate pair.
 */
import { isUtf8 } from "node:buffer";

export type JsonKind = "object" | "array" | "string" | "number" | "boolean" | "null";

/** Where a value stands: `bytes[start]` is its first byte, `end` is one past its last. */
export interface JsonSpan {
  readonly kind: JsonKind;
  readonly start: number;
  readonly end: number;
}

export interface JsonMember extends JsonSpan {
  /** The key, its escapes resolved. */
  readonly key: string;
}

export interface JsonFault {
  readonly fault: "encoding" | "syntax" | "duplicate-key" | "ambiguous-key" | "carriage-return" | "depth";
  /** Byte offset. */
  readonly at: number;
}

const quote = 0x22;
const backslash = 0x5c;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const closeBracket = 0x5d;
const colon = 0x3a;
const comma = 0x2c;
const minus = 0x2d;
const carriageReturn = 0x0d;

/**
 * Null when `bytes` is exactly one JSON value, with white space around it or not, that every parser reads alike.
 * A carriage return may stand only at the very end (a line that ended in CR LF): a reader that takes CR for the end of a line
 * would otherwise see lines in it that were never looked at.
 */
export function findFault(bytes: Uint8Array, depthMax: number): JsonFault | null {
  if (!isUtf8(bytes)) {
    return { fault: "encoding", at: 0 };
  }
  const lineReturn = bytes.indexOf(carriageReturn);
  if (lineReturn !== -1 && lineReturn !== bytes.length - 1) {
    return { fault: "carriage-return", at: lineReturn };
  }
  return new Check(bytes, depthMax).run();
}

/** One pass over the text, with a stack of its own: nesting costs no call stack. */
class Check {
  readonly #bytes: Uint8Array;
  readonly #depthMax: number;
  /** Of each open container: the keys seen in an object, null for an array. */
  readonly #open: (Set<string> | null)[] = [];
  #at = 0;

  constructor(bytes: Uint8Array, depthMax: number) {
    this.#bytes = bytes;
    this.#depthMax = depthMax;
  }

  run(): JsonFault | null {
    for (;;) {
      const fault = this.#value();
      if (fault !== null) {
        return fault;
      }
      const next = this.#afterValue();
      if (next !== "value") {
        return next;
      }
    }
  }

  /** Reads a scalar, an empty container, or up to where a container's first value begins (and goes on into that). */
  #value(): JsonFault | null {
    for (;;) {
      this.#at = skipSpace(this.#bytes, this.#at);
      const first = this.#bytes[this.#at];
      if (first !== openBrace && first !== openBracket) {
        const end = scalarEnd(this.#bytes, this.#at);
        if (end === -1) {
          return this.#fault("syntax");
        }
        this.#at = end;
        return null;
      }
      if (this.#open.length >= this.#depthMax) {
        return this.#fault("depth");
      }
      this.#open.push(first === openBrace ? new Set() : null);
      this.#at = skipSpace(this.#bytes, this.#at + 1);
      if (this.#bytes[this.#at] === (first === openBrace ? closeBrace : closeBracket)) {
        this.#open.pop();
        this.#at += 1;
        return null;
      }
      const fault = first === openBrace ? this.#key() : null;
      if (fault !== null) {
        return fault;
      }
    }
  }

  /** Closes what ends here; `value` when another value has to follow, null when the text is whole. */
  #afterValue(): "value" | JsonFault | null {
    for (;;) {
      this.#at = skipSpace(this.#bytes, this.#at);
      const keys = this.#open.at(-1);
      if (keys === undefined) {
        return this.#at === this.#bytes.length ? null : this.#fault("syntax");
      }
      const next = this.#bytes[this.#at];
      if (next === comma) {
        this.#at = skipSpace(this.#bytes, this.#at + 1);
        return keys === null ? "value" : (this.#key() ?? "value");
      }
      if (next !== (keys === null ? closeBracket : closeBrace)) {
        return this.#fault("syntax");
      }
      this.#open.pop();
      this.#at += 1;
    }
  }

  #key(): JsonFault | null {
    const start = this.#at;
    const end = this.#bytes[start] === quote ? stringEnd(this.#bytes, start) : -1;
    if (end === -1) {
      return this.#fault("syntax");
    }
    const key = readString(this.#bytes, start, end);
    if (!key.isWellFormed()) {
      return this.#fault("ambiguous-key");
    }
    const keys = this.#open.at(-1);
    if (keys?.has(key) === true) {
      return this.#fault("duplicate-key");
    }
    keys?.add(key);
    this.#at = skipSpace(this.#bytes, end);
    if (this.#bytes[this.#at] !== colon) {
      return this.#fault("syntax");
    }
    this.#at += 1;
    return null;
  }

  #fault(fault: JsonFault["fault"]): JsonFault {
    return { fault, at: this.#at };
  }
}

/** The one value of a text without fault. */
export function rootOf(bytes: Uint8Array): JsonSpan {
  return spanAt(bytes, skipSpace(bytes, 0));
}

/** The members of an object of a text without fault, in order. */
export function membersOf(bytes: Uint8Array, object: JsonSpan): readonly JsonMember[] {
  const members: JsonMember[] = [];
  let at = skipSpace(bytes, object.start + 1);
  while (bytes[at] === quote) {
    const keyEnd = stringEnd(bytes, at);
    const key = readString(bytes, at, keyEnd);
    const value = spanAt(bytes, skipSpace(bytes, skipSpace(bytes, keyEnd) + 1));
    members.push({ key, ...value });
    at = skipSpace(bytes, value.end);
    at = bytes[at] === comma ? skipSpace(bytes, at + 1) : at;
  }
  return members;
}

/** The elements of an array of a text without fault, in order. */
export function elementsOf(bytes: Uint8Array, array: JsonSpan): readonly JsonSpan[] {
  const elements: JsonSpan[] = [];
  let at = skipSpace(bytes, array.start + 1);
  while (at < array.end - 1) {
    const value = spanAt(bytes, at);
    elements.push(value);
    at = skipSpace(bytes, value.end);
    at = bytes[at] === comma ? skipSpace(bytes, at + 1) : at;
  }
  return elements;
}

/** The text of a value as it was sent. */
export function textOf(bytes: Uint8Array, span: JsonSpan): string {
  return decode(bytes, span.start, span.end);
}

/** The value of a string of a text without fault, its escapes resolved. */
export function stringOf(bytes: Uint8Array, span: JsonSpan): string {
  return readString(bytes, span.start, span.end);
}

function spanAt(bytes: Uint8Array, start: number): JsonSpan {
  const first = bytes[start];
  if (first === openBrace || first === openBracket) {
    return { kind: first === openBrace ? "object" : "array", start, end: containerEnd(bytes, start) };
  }
  const kind: JsonKind =
    first === quote ? "string" : first === minus || isDigit(first) ? "number" : first === 0x6e ? "null" : "boolean";
  return { kind, start, end: scalarEnd(bytes, start) };
}

/** Of a container in a text without fault: only the brackets outside of strings count. */
function containerEnd(bytes: Uint8Array, start: number): number {
  let depth = 0;
  let at = start;
  for (;;) {
    const byte = bytes[at];
    if (byte === quote) {
      at = stringEnd(bytes, at);
      continue;
    }
    at += 1;
    if (byte === openBrace || byte === openBracket) {
      depth += 1;
    } else if (byte === closeBrace || byte === closeBracket) {
      depth -= 1;
      if (depth === 0) {
        return at;
      }
    }
  }
}

/** One past a string, number or literal name that begins at `start`; -1 when none does. */
function scalarEnd(bytes: Uint8Array, start: number): number {
  const first = bytes[start];
  if (first === quote) {
    return stringEnd(bytes, start);
  }
  if (first === minus || isDigit(first)) {
    return numberEnd(bytes, start);
  }
  for (const name of ["true", "false", "null"]) {
    if (matches(bytes, start, name)) {
      return start + name.length;
    }
  }
  return -1;
}

function stringEnd(bytes: Uint8Array, start: number): number {
  let at = start + 1;
  for (;;) {
    const byte = bytes[at];
    if (byte === quote) {
      return at + 1;
    }
    if (byte === undefined || byte < 0x20) {
      return -1;
    }
    if (byte !== backslash) {
      at += 1;
      continue;
    }
    const escaped = bytes[at + 1];
    if (escaped === 0x75) {
      for (let digit = at + 2; digit < at + 6; digit += 1) {
        if (!isHexDigit(bytes[digit])) {
          return -1;
        }
      }
      at += 6;
    } else if (escaped !== undefined && simpleEscapes.includes(escaped)) {
      at += 2;
    } else {
      return -1;
    }
  }
}

/** `"`, `\`, `/`, b, f, n, r, t */
const simpleEscapes: readonly number[] = [0x22, 0x5c, 0x2f, 0x62, 0x66, 0x6e, 0x72, 0x74];

function numberEnd(bytes: Uint8Array, start: number): number {
  let at = bytes[start] === minus ? start + 1 : start;
  if (bytes[at] === 0x30) {
    at += 1;
  } else {
    const end = digitsEnd(bytes, at);
    if (end === at) {
      return -1;
    }
    at = end;
  }
  if (bytes[at] === 0x2e) {
    const end = digitsEnd(bytes, at + 1);
    if (end === at + 1) {
      return -1;
    }
    at = end;
  }
  if (bytes[at] === 0x65 || bytes[at] === 0x45) {
    const sign = bytes[at + 1];
    const digits = sign === 0x2b || sign === minus ? at + 2 : at + 1;
    const end = digitsEnd(bytes, digits);
    if (end === digits) {
      return -1;
    }
    at = end;
  }
  return at;
}

function digitsEnd(bytes: Uint8Array, start: number): number {
  let at = start;
  while (isDigit(bytes[at])) {
    at += 1;
  }
  return at;
}

function skipSpace(bytes: Uint8Array, start: number): number {
  let at = start;
  for (;;) {
    const byte = bytes[at];
    if (byte !== 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== carriageReturn) {
      return at;
    }
    at += 1;
  }
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}

function isHexDigit(byte: number | undefined): boolean {
  return isDigit(byte) || (byte !== undefined && (byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x66);
}

function matches(bytes: Uint8Array, start: number, name: string): boolean {
  for (let i = 0; i < name.length; i += 1) {
    if (bytes[start + i] !== name.charCodeAt(i)) {
      return false;
    }
  }
  return true;
}

function readString(bytes: Uint8Array, start: number, end: number): string {
  const text = decode(bytes, start, end);
  if (!text.includes("\\")) {
    return text.slice(1, -1);
  }
  const value: unknown = JSON.parse(text);
  return typeof value === "string" ? value : "";
}

function decode(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("utf8");
}
