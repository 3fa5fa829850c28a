/** What verification finds, collected while it goes. No module of the writer is imported here or beside it. */

/**
 * `integrity`: something is not as it was written. `completeness`: something is not there, or not whole.
 * The first says that the record was changed, the second that part of it is missing.
 */
export interface LedgerFault {
  readonly verdict: "integrity" | "completeness";
  /** Relative to the log's directory. */
  readonly file: string;
  /** Index of the entry concerned, where one is. */
  readonly entry: number | null;
  /** Offset in the file, where it is known. */
  readonly byte: number | null;
  /** What is wrong, in plain words. */
  readonly words: string;
}

/** Faults that are listed; past them only the count goes on. */
export const faultsListedMax = 200;

/** Where a fault is. */
export interface FaultPlace {
  readonly entry?: number | null;
  readonly byte?: number | null;
}

/** Collects faults, and which files were looked at. */
export class Findings {
  readonly #faults: LedgerFault[] = [];
  readonly #files = new Set<string>();
  readonly #counts = { integrity: 0, completeness: 0 };

  /** A file whose every byte is accounted for by what was checked. */
  cover(file: string): void {
    this.#files.add(file);
  }

  /** Something was changed. */
  broken(file: string, words: string, place: FaultPlace = {}): void {
    this.#add({ verdict: "integrity", file, entry: place.entry ?? null, byte: place.byte ?? null, words });
  }

  /** Something is missing or cut short. */
  missing(file: string, words: string, place: FaultPlace = {}): void {
    this.#add({ verdict: "completeness", file, entry: place.entry ?? null, byte: place.byte ?? null, words });
  }

  #add(fault: LedgerFault): void {
    this.#counts[fault.verdict] += 1;
    if (this.#faults.length < faultsListedMax) {
      this.#faults.push(fault);
    }
  }

  count(verdict: LedgerFault["verdict"]): number {
    return this.#counts[verdict];
  }

  get faults(): readonly LedgerFault[] {
    return this.#faults;
  }

  get files(): readonly string[] {
    return [...this.#files].toSorted();
  }
}

/** Offset of the first byte in which two byte strings differ, or the length of the shorter. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    if (a[i] !== b[i]) {
      return i;
    }
  }
  return length;
}

/** Whether `bytes` is how `whole` begins. */
export function isStartOf(bytes: Uint8Array, whole: Uint8Array): boolean {
  return bytes.length <= whole.length && firstDifference(bytes, whole) === bytes.length;
}
