/**
 * Credentials that can be told by their form, and those that follow a telling name, in any text. Pure; every pattern is
 * tried where it can begin and reads on from there, so the time is linear in the text.
 */
import { isLineName, isSecretName, secretNameCharactersMax } from "./scrub-names.ts";
import { spanOf } from "./scrub-spans.ts";
import type { Span } from "./scrub-spans.ts";

/** Begins a word: nothing that belongs to one stands before it, or an escape such as `\n` does. */
const wordStart = String.raw`(?:(?<![A-Za-z0-9_-])|(?<=\\[nrtbf]))`;

/** Tokens of well-known makers, JWTs included. Each has one part that repeats, and nothing to go back to. */
const wellKnownTokens = new RegExp(
  `${wordStart}(?:${[
    "gh[pousr]_[A-Za-z0-9]{16,}",
    "github_pat_[A-Za-z0-9_]{16,}",
    "glpat-[A-Za-z0-9_-]{12,}",
    "xox[a-z]-[A-Za-z0-9-]{10,}",
    "sk-[A-Za-z0-9_-]{16,}",
    "[sr]k_(?:live|test)_[A-Za-z0-9]{10,}",
    "(?:AKIA|ASIA)[A-Z0-9]{16}",
    "AIza[A-Za-z0-9_-]{30,}",
    "npm_[A-Za-z0-9]{30,}",
    "hf_[A-Za-z0-9]{30,}",
    "eyJ[A-Za-z0-9_-]{5,}\\.[A-Za-z0-9_-]{3,}\\.[A-Za-z0-9_-]*",
  ].join("|")})`,
  "g",
);

/** HTTP's schemes (RFC 7617, RFC 6750). */
const schemes = /\b(bearer|basic)[ \t]{1,8}(?=([A-Za-z0-9._~+/=-]{6,}))/gi;

/** Finds what needs no name before it: tokens, HTTP credentials, passwords in URLs, private keys. */
export function formSpans(text: string): readonly Span[] {
  const spans: (Span | null)[] = [];
  for (const { 0: found, index } of text.matchAll(wellKnownTokens)) {
    spans.push(spanOf(text, index, index + found.length));
  }
  for (const { 0: scheme, 1: name, 2: value = "", index } of text.matchAll(schemes)) {
    const start = index + scheme.length;
    // "Basic education" is no credential; one that is has a capital letter, a digit or a mark inside.
    if (name?.toLowerCase() === "bearer" ? value.length >= 8 : /.[A-Z0-9+/=]/.test(value)) {
      spans.push(spanOf(text, start, start + value.length));
    }
  }
  spans.push(...urlSpans(text), ...privateKeySpans(text));
  return spans.filter((span) => span !== null);
}

const urlEnd = /[\s'"`<>\\]|$/g;
const authorityEnd = /[/?#]|$/g;

function indexOfPattern(text: string, pattern: RegExp, from: number): number {
  pattern.lastIndex = from;
  return pattern.exec(text)?.index ?? text.length;
}

/** The password in `scheme://user:password@host` (RFC 3986 section 3.2.1). */
function urlSpans(text: string): readonly (Span | null)[] {
  const spans: (Span | null)[] = [];
  for (let at = text.indexOf("://"); at >= 0;) {
    const start = at + 3;
    at = text.indexOf("://", start);
    const rest = text.slice(start, at < 0 ? text.length : at);
    const url = rest.slice(0, indexOfPattern(rest, urlEnd, 0));
    const authority = url.slice(0, indexOfPattern(url, authorityEnd, 0));
    const afterUser = url.indexOf(":") + 1;
    // A password with a `/` in it breaks the form; what comes after a colon and is no port is still one.
    const isWhole = authority.includes("@") || /^[0-9]*$/.test(authority.slice(afterUser));
    const host = (isWhole ? authority : url).lastIndexOf("@");
    if (afterUser > 0 && afterUser < host) {
      spans.push(spanOf(text, start + afterUser, start + host));
    }
  }
  return spans;
}

const privateKeyStart = /-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----/g;
const privateKeyEnd = /-----END [A-Z ]{0,40}PRIVATE KEY-----/g;

/** A private key in PEM (RFC 7468); one without an end goes to the end of the text. */
function privateKeySpans(text: string): readonly (Span | null)[] {
  const spans: (Span | null)[] = [];
  for (let from = 0; ;) {
    privateKeyStart.lastIndex = from;
    const start = privateKeyStart.exec(text);
    if (start === null) {
      return spans;
    }
    privateKeyEnd.lastIndex = start.index;
    const end = privateKeyEnd.exec(text);
    from = end === null ? text.length : end.index + end[0].length;
    spans.push(spanOf(text, start.index, from));
  }
}

/** Parts of names that a credential can stand behind. */
const nameStems = /pass(?:word|wd|phrase|code)|pwd|secret|token|key|credential|cookie|authorization/gi;
const nameCharacter = /[A-Za-z0-9_-]/;
const closeOfName = /[\\"'`]{0,4}/y;
const colon = /\s{0,16}:(?!:)[ \t]{0,16}/y;
const colonOrEquals = /\s{0,16}(?::=|=>|={1,3}|:(?!:))[ \t]{0,16}/y;
const openQuote = /\\{0,7}(?:''|['"`])/y;
const quotedNext = /\s{1,16}(?=[Ee]?'(?:'|[^']))/y;
const bareValue = /[^\s'"`&;,)}\]>]+/y;
const restOfLine = /[^\r\n'"`]+/y;
/** A value that is somewhere else, or is none. */
const placeholder =
  /(?:\[scrubbed\]|\$\d{1,5}|\$\{[^}\s]{0,64}\}?|\?|%s|null|true|false|:\w{1,64})(?![^\s'"`&;,)}\]>])/iy;

function matchAt(text: string, pattern: RegExp, at: number): string | null {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? null;
}

/**
 * Finds values that are assigned to a secret name: `password=…`, `"api_key": "…"`, `Authorization: …`, `PASSWORD '…'`.
 * In SQL outside its literals an `=` compares columns, so there only what `colon` separates is found.
 */
export function assignmentSpans(text: string, separators: "all" | "colon"): readonly Span[] {
  const spans: (Span | null)[] = [];
  nameStems.lastIndex = 0;
  for (let stem = nameStems.exec(text); stem !== null; stem = nameStems.exec(text)) {
    const start = nameStart(text, stem.index);
    let end = stem.index + stem[0].length;
    while (end - start <= secretNameCharactersMax && nameCharacter.test(text[end] ?? "")) {
      end += 1;
    }
    const name = text.slice(start, end);
    const span = isSecretName(name) ? valueSpan(text, end, { separators, isLine: isLineName(name) }) : null;
    spans.push(span);
    // What was found is not searched again, so that no text is read more than a few times.
    const next = Math.max(end, span?.end ?? end);
    nameStems.lastIndex = next;
  }
  return spans.filter((span) => span !== null);
}

function nameStart(text: string, from: number): number {
  let start = from;
  while (from - start < secretNameCharactersMax && nameCharacter.test(text[start - 1] ?? "")) {
    start -= 1;
  }
  return start;
}

function valueSpan(
  text: string,
  nameEnd: number,
  how: { readonly separators: "all" | "colon"; readonly isLine: boolean },
): Span | null {
  const close = matchAt(text, closeOfName, nameEnd) ?? "";
  const afterName = nameEnd + close.length;
  const separator = matchAt(text, how.separators === "all" ? colonOrEquals : colon, afterName);
  const gap = separator ?? (how.separators === "all" && close === "" ? matchAt(text, quotedNext, afterName) : null);
  if (gap === null) {
    return null;
  }
  const at = afterName + gap.length;
  const open = matchAt(text, openQuote, at);
  if (open !== null) {
    const from = at + open.length;
    return spanOf(text, from, quotedEnd(text, from, open));
  }
  if (matchAt(text, placeholder, at) !== null) {
    return null;
  }
  return spanOf(text, at, at + (matchAt(text, how.isLine ? restOfLine : bareValue, at)?.length ?? 0));
}

/** Where a quoted value ends: at the quote that opened it, written the same way; at the end of the text when it does not. */
function quotedEnd(text: string, from: number, open: string): number {
  for (let at = text.indexOf(open, from); at >= 0; at = text.indexOf(open, at)) {
    if (open === "'" && text[at + 1] === "'") {
      at += 2;
    } else if (open.length === 1 && text[at - 1] === "\\") {
      at += 1;
    } else {
      return at;
    }
  }
  // Two quotes alone are an empty value.
  return open === "''" ? from : text.length;
}
