/** Parts of a text that are to be replaced. Pure. */

/** What stands in place of a credential: always the same, so that its length says nothing either. */
export const scrubbedText = "[scrubbed]";

/** `text.slice(start, end)` is replaced by `by`. */
export interface Span {
  readonly start: number;
  readonly end: number;
  readonly by: string;
  /** Credentials in it. */
  readonly count: number;
}

/** One credential; null when there is nothing between the bounds, or it was replaced before. */
export function spanOf(text: string, start: number, end: number): Span | null {
  return end <= start || text.slice(start, end) === scrubbedText ? null : { start, end, by: scrubbedText, count: 1 };
}

/** The same spans in a text that begins `offset` earlier. */
export function shifted(spans: readonly Span[], offset: number): readonly Span[] {
  return spans.map((span) => ({ ...span, start: span.start + offset, end: span.end + offset }));
}

/** A text after its spans were replaced. */
export interface Scrubbed {
  readonly text: string;
  readonly count: number;
}

/** Replaces spans. Of those that overlap, the one that begins first and is longest stands for all, and covers all. */
export function replaceSpans(text: string, spans: readonly Span[]): Scrubbed {
  const sorted = spans.toSorted((a, b) => a.start - b.start || b.end - a.end);
  const pieces: string[] = [];
  let count = 0;
  let from = 0;
  for (let i = 0; i < sorted.length;) {
    const first = sorted[i];
    if (first === undefined) {
      break;
    }
    let { end } = first;
    for (i += 1; (sorted[i]?.start ?? Infinity) < end; i++) {
      end = Math.max(end, sorted[i]?.end ?? end);
    }
    pieces.push(text.slice(from, first.start), end === first.end ? first.by : scrubbedText);
    count += first.count;
    from = end;
  }
  pieces.push(text.slice(from));
  return { text: pieces.join(""), count };
}
