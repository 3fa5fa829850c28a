import type { AllowPure } from "#domain/decision.ts";
import type { Draft } from "./entry.ts";
import type { Enqueued, Recorded } from "./recorded.ts";

/** Where the log stands. */
export interface LedgerStatus {
  /** The log's origin line (C2SP tlog-checkpoint). */
  readonly origin: string;
  /** Entries that are durable. */
  readonly size: number;
  /** Entries that the newest signed checkpoint covers. */
  readonly checkpointSize: number;
  readonly rootHex: string;
  /** Verifier key of the checkpoint signature (C2SP signed-note vkey). */
  readonly verifierKey: string;
  readonly state: "open" | "failed" | "closed";
  /** Set when `failed`: why nothing passes. */
  readonly failure: string | null;
}

/** The port through which everything is written down. Implemented in `append.ts`. */
export interface Ledger {
  /**
   * Makes an entry durable. Resolves when the batch that holds it is on stable storage.
   * @throws SallyportError `ledger.unavailable` (whose: gateway) when it cannot be written; the ledger is then failed for good.
   */
  record<S>(draft: Draft, subject: S): Promise<Recorded<S>>;
  /**
   * Puts the entry of a pure read into the current batch and returns at once.
   * @throws SallyportError `ledger.unavailable` when the ledger has failed.
   */
  enqueue<S extends AllowPure>(draft: Draft, subject: S): Enqueued<S>;
  /** Makes the data key of a session or run durable; needed before the first payload that names it. */
  openDataKey(key: string): Promise<void>;
  /** Writes the newest checkpoint over everything durable. */
  checkpoint(): Promise<LedgerStatus>;
  status(): LedgerStatus;
  /** Resolves, once, with the reason, when the ledger fails: the node must stop letting anything through. */
  readonly failed: Promise<Error>;
  /** Writes what is queued, a last checkpoint, and closes. */
  close(): Promise<void>;
}
