/** Masked values of one statement, response or result, counted; never a value. */
export interface Redaction {
  readonly label: string;
  readonly ruleId: string;
  /** `schema.table.column`. */
  readonly source: string;
  /** Output ordinal, from 1. */
  readonly output: number;
  readonly cells: number;
  /** The layer that decided: `view` (the database computed the mask) or `wire` (the gateway did). */
  readonly layer: "view" | "wire";
}

/**
 * What became of a forwarded command.
 * `may-have-run`: the connection to the resource ended before it answered.
 */
export interface Outcome {
  readonly status: "ok" | "error" | "suspended" | "skipped" | "cancelled" | "may-have-run";
  /** Rows sent towards the client. */
  readonly rows: number;
  /** Bytes of the rows as released. */
  readonly bytes: number;
  /** PostgreSQL's command tag, such as `UPDATE 3`; null when there was none. */
  readonly tag: string | null;
  /** SQLSTATE of an error; null otherwise. */
  readonly sqlState: string | null;
  /** From forwarding to completion, whole microseconds. */
  readonly durationUs: number;
  readonly redactions: readonly Redaction[];
}

/** Texts that go into an entry's encrypted payload; the entry holds a commitment to each by the same name. */
export interface PayloadFields {
  readonly [name: string]: string;
}
