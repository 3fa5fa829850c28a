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

/** Reserved words that begin a new operand of a flat list. */
const flatteningWords = new Set("and or when then else where on from group order having limit offset".split(" "));

const longestWord = 12;

type CharacterClass = "word" | "operator" | "open" | "close" | "flat" | "other";

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
  return character === "," || character === ";" ? "flat" : "other";
});

function classAt(text: string, at: number): CharacterClass {
  const code = text.charCodeAt(at);
  return code < 128 ? (classes[code] ?? "other") : "word";
}

/** The chains that are open at one depth of brackets. */
interface Level {
  /** Links since the last comma or AND. */
  chain: number;
  /** Joins and set operations: one tree from the first to the last. */
  spine: number;
}

class Depth {
  readonly #levels: Level[] = [{ chain: 0, spine: 0 }];
  #total = 0;
  deepest = 0;

  link(kind: keyof Level): void {
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

  enter(): void {
    this.link("chain");
    this.#levels.push({ chain: 0, spine: 0 });
  }

  leave(): void {
    if (this.#levels.length > 1) {
      const top = this.#levels.pop();
      this.#total -= (top?.chain ?? 0) + (top?.spine ?? 0);
    }
  }

  word(word: string): void {
    if (word === "case") {
      this.enter();
    } else if (word === "end") {
      this.leave();
    } else if (spineWords.has(word)) {
      this.link("spine");
    } else if (nestingWords.has(word)) {
      this.link("chain");
    } else if (flatteningWords.has(word)) {
      this.flatten();
    }
  }
}

/** Length of the deepest chain of brackets, operators and keywords that each may nest one level. */
export function estimateNesting(text: string): number {
  const depth = new Depth();
  let afterDot = false;
  let at = 0;
  while (at < text.length) {
    const skipped = skipQuoted(text, at, false);
    if (skipped > at) {
      // A comment between a dot and a name leaves the name behind the dot.
      at = skipped;
      continue;
    }
    const kind = classAt(text, at);
    if (kind === "word") {
      const end = endOfWord(text, at);
      const word = end - at > longestWord ? "" : text.slice(at, end).toLowerCase();
      if (!afterDot) {
        depth.word(word);
      }
      afterDot = false;
      at = word === "e" ? Math.max(end, skipQuoted(text, end, true)) : end;
      continue;
    }
    if (kind === "open") {
      depth.enter();
    } else if (kind === "close") {
      depth.leave();
    } else if (kind === "flat") {
      depth.flatten();
    } else if (kind === "operator") {
      depth.link("chain");
    }
    const character = text[at] ?? "";
    afterDot = character === "." || (afterDot && /\s/.test(character));
    at++;
  }
  return depth.deepest;
}

function endOfWord(text: string, start: number): number {
  let end = start + 1;
  while (end < text.length && classAt(text, end) === "word") {
    end++;
  }
  return end;
}

/**
 * Where a string, quoted name, dollar-quoted string or comment that starts at `at` ends; `at` itself when none does.
 * `escapes`: a backslash inside a string escapes (the string follows an E).
 */
function skipQuoted(text: string, at: number, escapes: boolean): number {
  switch (text[at]) {
    case "'":
      return skipDelimited(text, at, "'", escapes);
    case '"':
      return skipDelimited(text, at, '"', false);
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

function skipDelimited(text: string, start: number, delimiter: string, escapes: boolean): number {
  for (let i = start + 1; i < text.length; i++) {
    if (escapes && text[i] === "\\") {
      i++;
    } else if (text[i] === delimiter) {
      return i + 1;
    }
  }
  return text.length;
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
