/**
 * An upper bound on how deep a statement nests, found without parsing it. The parser is recursive and runs in WebAssembly, and
 * a statement that overflows its stack leaves it damaged: such a statement must not reach it. This is a bound on work and not a
 * reading of the statement; the real grammar decides what a statement says.
 */

/** Words that put one more level around what stands before or after them. */
const nestingWords = new Set(
  "not is isnull notnull in like ilike similar between collate at over filter within escape overlaps operator any all some array row exists format returning interval explain".split(
    " ",
  ),
);

/** Words whose chains lean to the left for the length of the whole clause. */
const spineWords = new Set(["join", "union", "intersect", "except"]);

/**
 * Reserved words that begin a new operand of a flat list: as names they stand behind AS or a dot only, where an expression ends.
 * Left out are those that can also stand inside an expression that goes on (GROUP of WITHIN GROUP, ORDER).
 */
const flatteningWords = new Set("and or when then else where on from having limit offset".split(" "));

const longestWord = 12;

type CharacterClass = "word" | "operator" | "open" | "close" | "comma" | "semicolon" | "other";

const classes: readonly CharacterClass[] = Array.from({ length: 128 }, (_, code): CharacterClass => {
  const character = String.fromCharCode(code);
  if (/[A-Za-z0-9_$]/.test(character)) {
    return "word";
  }
  if ("+-*/<>=~!@#%^&|`?:".includes(character)) {
    return "operator";
  }
  if (character === "(" || character === "[") {
    return "open";
  }
  if (character === ")" || character === "]") {
    return "close";
  }
  return character === "," ? "comma" : character === ";" ? "semicolon" : "other";
});

function classAt(text: string, at: number): CharacterClass {
  const code = text.charCodeAt(at);
  return code < 128 ? (classes[code] ?? "other") : "word";
}

/** The chains that are open at one depth of brackets. */
interface Level {
  readonly opener: "bracket" | "case";
  /** Links since the last comma or AND. */
  chain: number;
  /** Joins and set operations: one tree from the first to the last. */
  spine: number;
  /** BETWEENs whose AND is still to come: it begins no new operand, since what follows belongs to the BETWEEN. */
  betweens: number;
}

function levelOf(opener: Level["opener"]): Level {
  return { opener, chain: 0, spine: 0, betweens: 0 };
}

class Depth {
  readonly #levels: Level[] = [levelOf("bracket")];
  #total = 0;
  #lastWord = "";
  deepest = 0;

  link(kind: "chain" | "spine"): void {
    const top = this.#levels.at(-1);
    if (top !== undefined) {
      top[kind]++;
    }
    this.#total++;
    this.deepest = Math.max(this.deepest, this.#total);
  }

  flatten(): void {
    const top = this.#levels.at(-1);
    if (top !== undefined) {
      this.#total -= top.chain;
      top.chain = 0;
    }
  }

  enter(opener: Level["opener"]): void {
    this.link("chain");
    this.#levels.push(levelOf(opener));
  }

  /** A bracket closes what CASE left open inside it, too. */
  leaveBracket(): void {
    while (this.#levels.length > 1 && this.#leave() !== "bracket") {
      // Taken off by the condition.
    }
  }

  /** `end` is also a name: outside CASE it closes nothing. */
  leaveCase(): void {
    if (this.#levels.at(-1)?.opener === "case") {
      this.#leave();
    }
  }

  #leave(): Level["opener"] | null {
    const top = this.#levels.pop();
    this.#total -= (top?.chain ?? 0) + (top?.spine ?? 0);
    return top?.opener ?? null;
  }

  /** Nothing reaches over the end of a statement, unless it stands in brackets (CREATE RULE). */
  endStatement(): void {
    if (this.#levels.length === 1) {
      this.#levels[0] = levelOf("bracket");
      this.#total = 0;
    } else {
      this.flatten();
    }
  }

  word(word: string): void {
    const isInside = (word === "from" && this.#lastWord === "distinct") || (word === "and" && this.#closeBetween());
    this.#lastWord = word;
    if (word === "case") {
      this.enter("case");
    } else if (word === "end") {
      this.leaveCase();
    } else if (spineWords.has(word)) {
      this.link("spine");
    } else if (nestingWords.has(word)) {
      this.link("chain");
      this.#openBetween(word);
    } else if (flatteningWords.has(word) && !isInside) {
      this.flatten();
    }
  }

  #openBetween(word: string): void {
    const top = this.#levels.at(-1);
    if (word === "between" && top !== undefined) {
      top.betweens++;
    }
  }

  #closeBetween(): boolean {
    const top = this.#levels.at(-1);
    if (top === undefined || top.betweens === 0) {
      return false;
    }
    top.betweens--;
    return true;
  }
}

/** Length of the deepest chain of brackets, operators and keywords that each may nest one level. */
export function estimateNesting(text: string): number {
  const depth = new Depth();
  let afterDot = false;
  let at = 0;
  while (at < text.length) {
    const skipped = skipQuoted(text, at);
    if (skipped > at) {
      // A comment between a dot and a name leaves the name behind the dot.
      afterDot &&= isCommentStart(text, at);
      at = skipped;
      continue;
    }
    const number = endOfNumber(text, at);
    if (number > at) {
      afterDot = false;
      at = number;
      continue;
    }
    const kind = classAt(text, at);
    if (kind === "word") {
      const end = endOfWord(text, at);
      if (!afterDot) {
        depth.word(end - at > longestWord ? "" : text.slice(at, end).toLowerCase());
      }
      const isEscapePrefix = end === at + 1 && /[eE]/.test(text[at] ?? "") && text[end] === "'";
      afterDot = false;
      at = isEscapePrefix ? skipEscapeString(text, end) : end;
      continue;
    }
    countCharacter(kind, depth);
    const character = text[at] ?? "";
    afterDot = character === "." || (afterDot && /\s/.test(character));
    at++;
  }
  return depth.deepest;
}

function countCharacter(kind: CharacterClass, depth: Depth): void {
  switch (kind) {
    case "open":
      depth.enter("bracket");
      break;
    case "close":
      depth.leaveBracket();
      break;
    case "comma":
      depth.flatten();
      break;
    case "semicolon":
      depth.endStatement();
      break;
    case "operator":
      depth.link("chain");
      break;
    case "word":
    case "other":
      break;
    default:
      kind satisfies never;
  }
}

/** As the scanner reads them (scan.l): `1.` takes its dot with it, and a name can follow at once. */
const numberPattern =
  /0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*(?:\.(?!\.)[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)?/y;
const parameterPattern = /\$\d+/y;

/** Where a number or a parameter that starts at `at` ends; `at` itself when there is none. */
function endOfNumber(text: string, at: number): number {
  const pattern = text[at] === "$" ? parameterPattern : numberPattern;
  pattern.lastIndex = at;
  return at + (pattern.exec(text)?.[0].length ?? 0);
}

function endOfWord(text: string, start: number): number {
  let end = start + 1;
  while (end < text.length && classAt(text, end) === "word") {
    end++;
  }
  return end;
}

function isCommentStart(text: string, at: number): boolean {
  return text.startsWith("--", at) || text.startsWith("/*", at);
}

/** Where a string, quoted name, dollar-quoted string or comment that starts at `at` ends; `at` itself when none does. */
function skipQuoted(text: string, at: number): number {
  switch (text[at]) {
    case "'":
    case '"':
      return skipDelimited(text, at, text[at] ?? "");
    case "-":
      return text[at + 1] === "-" ? skipLine(text, at) : at;
    case "/":
      return text[at + 1] === "*" ? skipComment(text, at) : at;
    case "$":
      return skipDollarQuoted(text, at);
    default:
      return at;
  }
}

function skipLine(text: string, start: number): number {
  let end = start;
  while (end < text.length && text[end] !== "\n" && text[end] !== "\r") {
    end++;
  }
  return end;
}

const dollarTag = /\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/y;

function skipDollarQuoted(text: string, start: number): number {
  dollarTag.lastIndex = start;
  const tag = dollarTag.exec(text)?.[0];
  if (tag === undefined) {
    return start;
  }
  const end = text.indexOf(tag, start + tag.length);
  return end < 0 ? text.length : end + tag.length;
}

/** A doubled delimiter ends one and starts the next, which comes to the same. */
function skipDelimited(text: string, start: number, delimiter: string): number {
  const end = text.indexOf(delimiter, start + 1);
  return end < 0 ? text.length : end + 1;
}

/** The end of `e'…'` whose first quote is at `start`: backslashes escape, quotes are doubled, and it goes on in the next line. */
function skipEscapeString(text: string, start: number): number {
  let i = start + 1;
  while (i < text.length) {
    if (text[i] === "\\") {
      i += 2;
    } else if (text[i] !== "'") {
      i++;
    } else if (text[i + 1] === "'") {
      i += 2;
    } else {
      const next = continuedAt(text, i + 1);
      if (next === null) {
        return i + 1;
      }
      i = next;
    }
  }
  return text.length;
}

/** Where a string goes on whose last quote ends at `at`: behind white space and line comments with a line break; null if it ends. */
function continuedAt(text: string, at: number): number | null {
  let i = at;
  let hasBreak = false;
  for (;;) {
    if (text.startsWith("--", i)) {
      i = skipLine(text, i);
    } else if (/[ \t\f\v\n\r]/.test(text[i] ?? "")) {
      hasBreak ||= text[i] === "\n" || text[i] === "\r";
      i++;
    } else {
      return hasBreak && text[i] === "'" ? i + 1 : null;
    }
  }
}

/** PostgreSQL's block comments nest. */
function skipComment(text: string, start: number): number {
  let depth = 0;
  let i = start;
  while (i < text.length) {
    if (text.startsWith("/*", i)) {
      depth++;
      i += 2;
    } else if (text.startsWith("*/", i)) {
      depth--;
      i += 2;
      if (depth === 0) {
        return i;
      }
    } else {
      i++;
    }
  }
  return text.length;
}
