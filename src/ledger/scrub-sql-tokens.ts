/**
 * Cuts a text into tokens as PostgreSQL's scanner does (documentation, 4.1 "Lexical Structure"), for the search of
 * credentials: it never fails, and takes what is not closed as going on to the end. Pure, linear.
 */

/** A token; `start` and `end` bound its content, without quotes. */
export interface SqlToken {
  readonly kind: "word" | "quoted-word" | "literal" | "number" | "parameter" | "operator" | "comment";
  readonly start: number;
  readonly end: number;
}

const spaces = /\s+/y;
const word = /[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*/y;
const number = /\.?[0-9][0-9A-Za-z_.]*/y;
const parameter = /\$[0-9]+/y;
const dollarTag = /\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/y;
const operator = /[+*<>=~!@#%^&|`?]+|::|:=|./sy;
const minus = /->{0,2}/y;
/** Of a comment that may hold others. */
const commentMark = /\/\*|\*\//g;

function matchAt(text: string, pattern: RegExp, at: number): number {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0].length ?? 0;
}

/** The tokens of a text, white space left out. */
export function* sqlTokens(text: string): Generator<SqlToken> {
  for (let at = matchAt(text, spaces, 0); at < text.length; at += matchAt(text, spaces, at)) {
    const { token, next } = tokenAt(text, at);
    yield token;
    at = next;
  }
}

interface Cut {
  readonly token: SqlToken;
  readonly next: number;
}

function tokenAt(text: string, at: number): Cut {
  const character = text[at] ?? "";
  const next = text[at + 1] ?? "";
  switch (character) {
    case "'":
      return quoted(text, at, { quote: "'", kind: "literal", hasEscapes: false });
    case '"':
      return quoted(text, at, { quote: '"', kind: "quoted-word", hasEscapes: false });
    case "$":
      return dollar(text, at);
    case "-":
      return next === "-" ? lineComment(text, at) : plain("operator", at, matchAt(text, minus, at));
    case "/":
      return next === "*" ? blockComment(text, at) : plain("operator", at, 1);
    case "E":
    case "e":
    case "B":
    case "b":
    case "X":
    case "x":
    case "N":
    case "n":
      if (next === "'") {
        const hasEscapes = character === "E" || character === "e";
        return quoted(text, at + 1, { quote: "'", kind: "literal", hasEscapes });
      }
      break;
    case "U":
    case "u":
      if (next === "&" && (text[at + 2] === "'" || text[at + 2] === '"')) {
        return tokenAt(text, at + 2);
      }
      break;
    default:
      break;
  }
  const words = matchAt(text, word, at);
  if (words > 0) {
    return plain("word", at, words);
  }
  const digits = matchAt(text, number, at);
  return digits > 0 ? plain("number", at, digits) : plain("operator", at, Math.max(1, matchAt(text, operator, at)));
}

function plain(kind: SqlToken["kind"], at: number, length: number): Cut {
  return { token: { kind, start: at, end: at + length }, next: at + length };
}

function quoted(
  text: string,
  at: number,
  how: { readonly quote: "'" | '"'; readonly kind: SqlToken["kind"]; readonly hasEscapes: boolean },
): Cut {
  const { quote, kind, hasEscapes } = how;
  let end = at + 1;
  for (; end < text.length; end++) {
    const character = text[end];
    if (character === "\\" && hasEscapes) {
      end += 1;
    } else if (character === quote) {
      if (text[end + 1] !== quote) {
        break;
      }
      end += 1;
    }
  }
  end = Math.min(end, text.length);
  return { token: { kind, start: at + 1, end }, next: end + 1 };
}

function dollar(text: string, at: number): Cut {
  const tag = matchAt(text, dollarTag, at);
  if (tag === 0) {
    const digits = matchAt(text, parameter, at);
    return plain(digits > 0 ? "parameter" : "operator", at, Math.max(1, digits));
  }
  const close = text.indexOf(text.slice(at, at + tag), at + tag);
  const end = close < 0 ? text.length : close;
  return { token: { kind: "literal", start: at + tag, end }, next: close < 0 ? end : end + tag };
}

function lineComment(text: string, at: number): Cut {
  const end = text.indexOf("\n", at);
  return plain("comment", at, (end < 0 ? text.length : end) - at);
}

function blockComment(text: string, at: number): Cut {
  let depth = 0;
  commentMark.lastIndex = at;
  for (let mark = commentMark.exec(text); mark !== null; mark = commentMark.exec(text)) {
    depth += mark[0] === "/*" ? 1 : -1;
    if (depth === 0) {
      return plain("comment", at, mark.index + 2 - at);
    }
  }
  return plain("comment", at, text.length - at);
}
