/** Credentials in JSON, found in its text so that everything else of it stays as it was, byte for byte. Pure. */
import { isSecretName } from "./scrub-names.ts";
import { scrubbedText, shifted, spanOf } from "./scrub-spans.ts";
import type { Scrubbed, Span } from "./scrub-spans.ts";

/** What is done with a string that is no secret by its name. */
export interface NestedScrub {
  readonly spans: (text: string) => readonly Span[];
  readonly replaced: (text: string) => Scrubbed;
}

const quote = 0x22;
const backslash = 0x5c;
const space = /\s*/y;

/** Whether a text may be JSON that holds more than a word. */
export function looksLikeJson(text: string): boolean {
  return /^\s*[[{"]/.test(text);
}

/** The spans of a JSON text; null when it is none. */
export function jsonSpans(text: string, nested: NestedScrub): readonly Span[] | null {
  try {
    JSON.parse(text);
  } catch {
    // It only looks like JSON; the caller takes it for any other text.
    return null;
  }
  const spans: (Span | null)[] = [];
  for (let at = text.indexOf('"'); at >= 0;) {
    const end = stringEnd(text, at);
    const afterString = skipSpace(text, end + 1);
    let next = end + 1;
    // In JSON only a member's name is followed by a colon.
    if (text[afterString] === ":" && isSecretName(contentOf(text, at, end))) {
      const value = skipSpace(text, afterString + 1);
      next = valueEnd(text, value);
      spans.push(secretSpan(text, value, next));
    } else {
      spans.push(...stringSpans(text, at, end, nested));
    }
    at = text.indexOf('"', next);
  }
  return spans.filter((span) => span !== null);
}

function skipSpace(text: string, at: number): number {
  space.lastIndex = at;
  return at + (space.exec(text)?.[0].length ?? 0);
}

/** Where the string that opens at `start` has its closing quote. */
function stringEnd(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && text.charCodeAt(at) !== quote) {
    at += text.charCodeAt(at) === backslash ? 2 : 1;
  }
  return at;
}

function contentOf(text: string, start: number, end: number): string {
  const raw = text.slice(start + 1, end);
  return raw.includes("\\") ? String(JSON.parse(`"${raw}"`)) : raw;
}

/** Where the value that begins at `start` ends. */
function valueEnd(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    const character = text[at] ?? "";
    if (character === '"') {
      at = stringEnd(text, at);
    } else if (character === "{" || character === "[") {
      depth += 1;
    } else if (character === "}" || character === "]") {
      depth -= 1;
    }
    if (depth < 0 || (depth === 0 && character === ",")) {
      return at;
    }
    if (depth === 0 && (character === '"' || character === "}" || character === "]")) {
      return at + 1;
    }
  }
  return text.length;
}

/** A secret's value: all of it, whatever it is. Nothing, and yes or no, are none. */
function secretSpan(text: string, start: number, end: number): Span | null {
  if (text[start] === '"') {
    return spanOf(text, start + 1, end - 1);
  }
  const value = text.slice(start, end).trimEnd();
  return /^(?:null|true|false)$/.test(value)
    ? null
    : { start, end: start + value.length, by: `"${scrubbedText}"`, count: 1 };
}

function stringSpans(text: string, start: number, end: number, nested: NestedScrub): readonly Span[] {
  const raw = text.slice(start + 1, end);
  if (!raw.includes("\\")) {
    return shifted(nested.spans(raw), start + 1);
  }
  // An escape can hide what is looked for; only a string in which something was found is written anew.
  const { text: replaced, count } = nested.replaced(contentOf(text, start, end));
  return count === 0 ? [] : [{ start: start + 1, end, by: JSON.stringify(replaced).slice(1, -1), count }];
}
