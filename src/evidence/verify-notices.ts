/** What a verification has to say besides faults: what its verdicts do not speak of. */
import type { Note, VerifierKey } from "#tlog/note.ts";

import type { Findings } from "./verify-findings.ts";

/** Entries that are durable and that no signature covers. */
export interface UnsignedEntries {
  readonly entries: number;
  /** The earliest and the latest time that they themselves name; null when there are none, or none that can be read. */
  readonly oldestAt: string | null;
  readonly newestAt: string | null;
}

/** A node signs about once a second; entries that waited for so long did not come from one that ran as it should. */
const unsignedSpanMsMax = 60_000;

/** Plain sentences for who relies on the verdicts. */
export function noticesOf(unsigned: UnsignedEntries, signaturesIgnored: number): readonly string[] {
  const notices: string[] = [];
  const { entries, oldestAt, newestAt } = unsigned;
  if (entries > 0) {
    const subject = entries === 1 ? "1 entry is" : `${entries} entries are`;
    notices.push(
      `${subject} durable but not signed yet. Only damage would have been found in them, not a change by somebody who can ` +
        "write to the directory: they can be vouched for only by the node, which checks them with its own key when it starts.",
    );
  }
  const spanMs = oldestAt === null || newestAt === null ? 0 : Date.parse(newestAt) - Date.parse(oldestAt);
  if (spanMs > unsignedSpanMsMax) {
    notices.push(
      `The entries that are not signed span ${Math.floor(spanMs / 1000)} seconds by their own times, and a node that runs signs ` +
        "about once a second. Unless it was stopped or its machine slept in between, they were not left by it.",
    );
  }
  if (signaturesIgnored > 0) {
    const subject = signaturesIgnored === 1 ? "1 signature line" : `${signaturesIgnored} signature lines`;
    notices.push(
      `${subject} of the checkpoint ${signaturesIgnored === 1 ? "is" : "are"} by keys that were not given, and ${
        signaturesIgnored === 1 ? "was" : "were"
      } ignored, as C2SP asks: nothing is said about them.`,
    );
  }
  return notices;
}

/**
 * Looks at the signature lines of a checkpoint that was opened with `key`. Lines of other keys may be witnesses', and are
 * counted; the same line twice, or a second one of the log itself, is nothing that anybody writes.
 */
export function countIgnoredSignatures(note: Note, key: VerifierKey, findings: Findings): number {
  const seen = new Set<string>();
  let own = 0;
  let ignored = 0;
  for (const { name, idHex, signature } of note.signatures) {
    const line = `${name} ${idHex} ${Buffer.from(signature).toString("base64")}`;
    const isOwn = name === key.name && idHex === key.idHex;
    own += isOwn ? 1 : 0;
    ignored += isOwn ? 0 : 1;
    if (seen.has(line) || (isOwn && own > 1)) {
      findings.broken("checkpoint", `a signature line of ${name} stands in the checkpoint more than once`);
    }
    seen.add(line);
  }
  return ignored;
}

/** Collects what entries that nobody signed say of their time. */
export class UnsignedTimes {
  #entries = 0;
  #oldestAt: string | null = null;
  #newestAt: string | null = null;

  /** One more of them; null when its time cannot be read. */
  add(at: string | null): void {
    this.#entries += 1;
    // Times of this form sort as text does.
    if (at !== null) {
      this.#oldestAt = this.#oldestAt === null || at < this.#oldestAt ? at : this.#oldestAt;
      this.#newestAt = this.#newestAt === null || at > this.#newestAt ? at : this.#newestAt;
    }
  }

  get result(): UnsignedEntries {
    return { entries: this.#entries, oldestAt: this.#oldestAt, newestAt: this.#newestAt };
  }
}
