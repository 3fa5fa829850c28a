/** What the gate finds out about a statement before anything is forwarded: the types that `analyze` returns. */
import type { DenyCode } from "#domain/decision.ts";
import type { Effect, StatementKind, TransactionAction } from "#domain/effect.ts";
import type { RelationKey } from "#domain/scope.ts";

/** A masked column behind an output, found by lineage. */
export interface OutputSource {
  readonly relation: RelationKey;
  readonly column: string;
  readonly label: string;
  readonly ruleId: string;
}

export interface OutputColumn {
  readonly name: string;
  /** Masked columns that this output is computed from, sorted; empty for an open output. */
  readonly masked: readonly OutputSource[];
}

/** Replace `length` bytes of the message's text (UTF-8) at `start`, both in bytes, by `text`. Sorted, not overlapping. */
export interface Splice {
  readonly start: number;
  readonly length: number;
  readonly text: string;
}

/** What PREPARE, EXECUTE or DEALLOCATE does with a name of the session. */
export type NamedStatement =
  | { readonly action: "prepare" | "execute" | "deallocate"; readonly name: string }
  | { readonly action: "deallocate-all" };

export interface StatementAnalysis {
  readonly kind: StatementKind;
  /** Set for PREPARE (the rest then speaks of the query that it holds), EXECUTE and DEALLOCATE. */
  readonly named: NamedStatement | null;
  readonly transaction: TransactionAction | null;
  /** Where the statement stands in the message's text, in bytes. */
  readonly start: number;
  readonly length: number;
  readonly effects: readonly Effect[];
  /** Null when the statement returns no rows, or rows whose shape PostgreSQL alone knows and that hold no table data (SHOW, EXPLAIN). */
  readonly outputs: readonly OutputColumn[] | null;
  /** True when a relation with masked columns takes part. */
  readonly touchesMasked: boolean;
  /** DESIGN.md, "Pure": it can change nothing, so it may overlap with its record. */
  readonly pure: boolean;
  readonly splices: readonly Splice[];
  /** Highest `$n`. */
  readonly parameters: number;
  /**
   * Parameters that the gate must see before Bind (`set_config($1, $2, …)`): `checkSetting` of their values says whether they may
   * be set; anything else denies.
   */
  readonly boundSettings: readonly { readonly nameParameter: number; readonly valueParameter: number }[];
}

/** Why a statement cannot pass. Decided before policy: what cannot be understood cannot be permitted. */
export interface Refusal {
  readonly refused: true;
  readonly code: DenyCode;
  readonly reason: string;
  readonly nextStep: string;
  /** Which statement of the text, from 1. */
  readonly statement: number;
  readonly statements: number;
  /** What it would have touched, as far as known. */
  readonly effects: readonly Effect[];
}

export type AnalysisResult = { readonly refused: false; readonly statements: readonly StatementAnalysis[] } | Refusal;
