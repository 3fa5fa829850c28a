/**
 * Requests to the control endpoint that were turned away, as entries. They are counted over a short while: whoever sends thousands
 * a second is recorded, and does not fill the disk.
 */
import type { Ledger } from "#ledger/ledger.ts";

/** One entry for each code in so long a time. */
const windowMs = 1000;

export class RefusedRequests {
  readonly #ledger: Ledger;
  readonly #counts = new Map<string, number>();
  #timer: NodeJS.Timeout | null = null;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  /** `code` is one of the few that the endpoint refuses with. */
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
      counts.map(([code, count]) => this.#ledger.record({ entry: { type: "control.refused", code, count } }, null)),
    );
  }
}
