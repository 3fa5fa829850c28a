/** Reading names that people write: dotted names with optional quotes, durations, and words nearly right. Pure. */

/**
 * Splits `schema.table` or `schema.table.column`. A part is lower-case as written, or anything between double quotes
 * (`""` stands for one), as in PostgreSQL; unlike there, an unquoted capital is refused instead of silently folded.
 * @returns null when the text does not have exactly `parts` parts.
 */
export function splitDottedName(text: string, parts: number): readonly string[] | null {
  const found: string[] = [];
  const part = /(?:([a-z_\u0080-\uffff][a-z0-9_$\u0080-\uffff]*)|"((?:[^"]|"")+)")(\.|$)/y;
  for (;;) {
    const match = part.exec(text);
    if (match === null) {
      return null;
    }
    const name = match[1] ?? match[2]?.replaceAll('""', '"') ?? "";
    if (Buffer.byteLength(name) > nameBytesMax || name.includes("\0")) {
      return null;
    }
    found.push(name);
    if (match[3] !== ".") {
      return part.lastIndex === text.length && found.length === parts ? found : null;
    }
  }
}

/** PostgreSQL's NAMEDATALEN - 1; a longer name would be cut there, and mean another table. */
const nameBytesMax = 63;

const unitsMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Reads `45s`, `30m`, `8h` or `7d` as milliseconds; null when it is none of these or zero. */
export function parseDurationMs(text: string): number | null {
  const match = /^([1-9][0-9]{0,6})([smhd])$/.exec(text);
  const unitMs = unitsMs[match?.[2] ?? ""];
  return match === null || unitMs === undefined ? null : Number(match[1]) * unitMs;
}

/** The known word that was probably meant: at most two slips away (one for short words), or null. */
export function suggestWord(word: string, known: readonly string[]): string | null {
  const slipsMax = word.length <= 4 ? 1 : 2;
  let best: { readonly word: string; readonly slips: number } | null = null;
  for (const candidate of known) {
    const slips = countSlips(word.toLowerCase().slice(0, wordCharactersMax), candidate.toLowerCase());
    if (slips <= slipsMax && (best === null || slips < best.slips)) {
      best = { word: candidate, slips };
    }
  }
  return best?.word ?? null;
}

/** Longer words are not slips of ours, and comparing is quadratic. */
const wordCharactersMax = 64;

/** Insertions, deletions, replacements and swaps of neighbours between two words (optimal string alignment). */
function countSlips(a: string, b: string): number {
  let before: readonly number[] = [];
  let previous: readonly number[] = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let slips = Math.min(
        (previous[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (previous[column - 1] ?? 0) + (same ? 0 : 1),
      );
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        slips = Math.min(slips, (before[column - 2] ?? 0) + 1);
      }
      current.push(slips);
    }
    before = previous;
    previous = current;
  }
  return previous[b.length] ?? 0;
}
