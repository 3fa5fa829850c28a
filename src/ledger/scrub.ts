/**
 * Takes credentials out of texts before they are encrypted and committed to: the ledger keeps what was asked, and for
 * long; a password in it would be a copy in a place that was not meant for one. Pure; linear in the text.
 *
 * It finds what is written as a credential is. A text that hides one on purpose keeps it: whoever wrote it knew it already.
 */
import type { PayloadFields } from "#domain/outcome.ts";

import { jsonSpans, looksLikeJson } from "./scrub-json.ts";
import { replaceSpans, shifted } from "./scrub-spans.ts";
import type { Scrubbed, Span } from "./scrub-spans.ts";
import { searchSql } from "./scrub-sql.ts";
import type { SqlToken } from "./scrub-sql-tokens.ts";
import { assignmentSpans, formSpans } from "./scrub-text.ts";

/**
 * Nothing is found in a text that this does not match. Nearly every text is of that kind, and this is all that they cost.
 * An alternation of plain words: nothing in it repeats.
 */
const mayHoldCredential =
  /pass(?:word|wd|phrase|code)|pwd|secret|token|(?:api|private|access|signing|encryption).{0,3}key|credential|cookie|authorization|identified|bearer|\bbasic\b|:\/\/|-----begin|gh[pousr]_|github_pat_|glpat-|xox[a-z]-|\b[sr]k[-_]|akia|asia|aiza|npm_|hf_|eyj|\\u00/i;

/** Texts within texts: a call's arguments with a statement with a literal with JSON in it. */
const nestingMax = 4;

/** Replaces the credentials in a text, and counts them. Without any it is the same text. */
export function scrubText(text: string): Scrubbed {
  return replaced(text, 0);
}

function replaced(text: string, depth: number): Scrubbed {
  const spans = spansOf(text, depth);
  return spans.length === 0 ? { text, count: 0 } : replaceSpans(text, spans);
}

function spansOf(text: string, depth: number): readonly Span[] {
  if (!mayHoldCredential.test(text)) {
    return [];
  }
  if (depth >= nestingMax) {
    return [...formSpans(text), ...assignmentSpans(text, "all")];
  }
  const inner = (part: string): readonly Span[] => spansOf(part, depth + 1);
  if (looksLikeJson(text)) {
    const found = jsonSpans(text, { spans: inner, replaced: (part) => replaced(part, depth + 1) });
    if (found !== null) {
      return found;
    }
  }
  const sql = searchSql(text);
  return [
    ...sql.spans,
    ...formSpans(text),
    ...assignmentSpans(text, sql.isStatement ? "colon" : "all"),
    ...sql.inner.flatMap((token) => innerSpans(text, token, depth)),
  ];
}

/** The spans of a literal or comment, which is a text of its own. */
function innerSpans(text: string, { start, end }: SqlToken, depth: number): readonly Span[] {
  const raw = text.slice(start, end);
  if (!mayHoldCredential.test(raw)) {
    return [];
  }
  // In a literal every quote is doubled; without that, a statement in it reads as one.
  const single = text[start - 1] === "'" ? raw.replaceAll("''", "'") : raw;
  if (single.length === raw.length || single.replaceAll("'", "''") !== raw) {
    return shifted(spansOf(raw, depth + 1), start);
  }
  const { text: clean, count } = replaced(single, depth + 1);
  return count === 0 ? [] : [{ start, end, by: clean.replaceAll("'", "''"), count }];
}

/** The fields of a payload without their credentials, and how many there were in each; null when there were none. */
export function scrubFields(fields: PayloadFields): {
  readonly fields: PayloadFields;
  readonly scrubbed: { readonly [field: string]: number } | null;
} {
  const clean: { [field: string]: string } = {};
  const scrubbed: { [field: string]: number } = {};
  let count = 0;
  for (const [name, value] of Object.entries(fields)) {
    const found = scrubText(value);
    clean[name] = found.text;
    if (found.count > 0) {
      scrubbed[name] = found.count;
      count += found.count;
    }
  }
  return count === 0 ? { fields, scrubbed: null } : { fields: clean, scrubbed };
}
