/**
 * What anybody can cause without a credential, as entries. It is counted over a short while: whoever sends thousands a second is
 * recorded, and does not fill the disk.
 */
import type { EntryDraft } from "#ledger/entry.ts";
import type { Ledger } from "#ledger/ledger.ts";

/** One entry for each code in so long a time. */
const windowMs = 1000;

export class CountedEntries {
  readonly #ledger: Ledger;
  readonly #counts = new Map<string, number>();
  #timer: NodeJS.Timeout | null = null;

  readonly #entry: (code: string, count: number) => EntryDraft;

  /** `entry` words what happened `count` times. */
  constructor(ledger: Ledger, entry: (code: string, count: number) => EntryDraft) {
    this.#ledger = ledger;
    this.#entry = entry;
  }

  /** `code` is one of a few: each has an entry of its own. */
  add(code: string): void {
    this.#counts.set(code, (this.#counts.get(code) ?? 0) + 1);
    this.#timer ??= setTimeout(() => {
      void this.flush();
    }, windowMs);
  }

  /** Records what has been counted. A ledger that cannot write stops the node by itself. */
  async flush(): Promise<void> {
    if (this.#timer !== null) {
      clearTimeout(this.#timer);
      this.#timer = null;
    }
    const counts = [...this.#counts];
    this.#counts.clear();
    await Promise.allSettled(
      counts.map(([code, count]) => this.#ledger.record({ entry: this.#entry(code, count) }, null)),
    );
  }
}
