/** Names as they stand in SQL text: how they are written, and how they are read back out of a message's bytes. */

/** Quotes an identifier, always. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** One part of a dotted name, with the bytes that it takes. */
export interface NamePart {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

const quote = 0x22;
const dot = 0x2e;
const slash = 0x2f;
const star = 0x2a;
const dash = 0x2d;
const newline = 0x0a;
const carriageReturn = 0x0d;

/**
 * Reads a dotted name of exactly `parts` parts at byte `start`: plain or `"quoted"` identifiers with white space and comments
 * around the dots. Null when there is anything else (U&"…", a keyword trick): then nothing is spliced.
 */
export function readDottedName(bytes: Uint8Array, start: number, parts: number): readonly NamePart[] | null {
  const found: NamePart[] = [];
  let at = start;
  for (let i = 0; i < parts; i++) {
    if (i > 0) {
      at = skipBlank(bytes, at);
      if (bytes[at] !== dot) {
        return null;
      }
      at = skipBlank(bytes, at + 1);
    }
    const part = bytes[at] === quote ? readQuoted(bytes, at) : readPlain(bytes, at);
    if (part === null) {
      return null;
    }
    found.push(part);
    at = part.end;
  }
  return found;
}

function readQuoted(bytes: Uint8Array, start: number): NamePart | null {
  for (let i = start + 1; i < bytes.length; i++) {
    if (bytes[i] !== quote) {
      continue;
    }
    if (bytes[i + 1] === quote) {
      i++;
      continue;
    }
    const name = decode(bytes.subarray(start + 1, i)).replaceAll('""', '"');
    return { name, start, end: i + 1 };
  }
  return null;
}

function readPlain(bytes: Uint8Array, start: number): NamePart | null {
  const first = bytes[start];
  if (first === undefined || !isIdentifierStart(first)) {
    return null;
  }
  let end = start + 1;
  while (end < bytes.length && isIdentifierPart(bytes[end] ?? 0)) {
    end++;
  }
  // `U&"…"` starts like a plain name; what it says is decoded by rules of its own.
  if (bytes[end] === 0x26 && bytes[end + 1] === quote && end === start + 1 && (first | 0x20) === 0x75) {
    return null;
  }
  return { name: foldCase(decode(bytes.subarray(start, end))), start, end };
}

/** PostgreSQL folds ASCII letters only in a multi-byte encoding. */
function foldCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase());
}

function isIdentifierStart(byte: number): boolean {
  return (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x61 && byte <= 0x7a) || byte === 0x5f || byte >= 0x80;
}

function isIdentifierPart(byte: number): boolean {
  return isIdentifierStart(byte) || (byte >= 0x30 && byte <= 0x39) || byte === 0x24;
}

/** The first byte at or after `at` that is neither white space nor part of a comment. */
function skipBlank(bytes: Uint8Array, at: number): number {
  let i = at;
  for (;;) {
    const byte = bytes[i];
    if (byte === 0x20 || (byte !== undefined && byte >= 0x09 && byte <= 0x0d)) {
      i++;
    } else if (byte === dash && bytes[i + 1] === dash) {
      while (i < bytes.length && bytes[i] !== newline && bytes[i] !== carriageReturn) {
        i++;
      }
    } else if (byte === slash && bytes[i + 1] === star) {
      i = skipBlockComment(bytes, i);
    } else {
      return i;
    }
  }
}

/** PostgreSQL's block comments nest. */
function skipBlockComment(bytes: Uint8Array, at: number): number {
  let depth = 0;
  let i = at;
  while (i < bytes.length) {
    if (bytes[i] === slash && bytes[i + 1] === star) {
      depth++;
      i += 2;
    } else if (bytes[i] === star && bytes[i + 1] === slash) {
      depth--;
      i += 2;
      if (depth === 0) {
        return i;
      }
    } else {
      i++;
    }
  }
  return i;
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
