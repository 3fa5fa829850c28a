/** What the gate knows of an expression's value. */
import type { Lineage, RangeColumn, RangeItem } from "./namespace.ts";
import { noLineage, uniteAll } from "./namespace.ts";

export interface Value {
  /** The masked columns that it is computed from. */
  readonly lineage: Lineage;
  /** OID; null when the gate does not know it. */
  readonly type: number | null;
  /** The text of an untyped literal: PostgreSQL decides its type by what stands around it. Null for anything else. */
  readonly constant: string | null;
  /** A literal or a parameter: PostgreSQL decides its type by what stands around it. */
  readonly isUntyped: boolean;
  /** Set when the value is a plain column. */
  readonly column: RangeColumn | null;
  /** Set when it is the whole row of something in FROM. */
  readonly row: RangeItem | null;
  /** The parts of ROW(…). */
  readonly elements: readonly Value[] | null;
  /** A `reg…` value whose name or number has been checked. */
  readonly checked: boolean;
  /** The name of the session's own role, database or schema, as PostgreSQL gives it. */
  readonly isOwnName: boolean;
  /** Set for a parameter. */
  readonly parameter: number | null;
}

const blank: Value = {
  lineage: noLineage,
  type: null,
  constant: null,
  isUntyped: false,
  column: null,
  row: null,
  elements: null,
  checked: false,
  isOwnName: false,
  parameter: null,
};

/** A value computed from nothing masked. */
export function openValue(type: number | null, more: Partial<Value> = {}): Value {
  return { ...blank, type, ...more };
}

/** A value computed from others. */
export function computed(type: number | null, from: Iterable<Value>): Value {
  return { ...blank, type, lineage: uniteAll([...from].map((value) => value.lineage)) };
}
