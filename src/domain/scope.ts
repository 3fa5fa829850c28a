import type { MaskOperator } from "./resource.ts";

/** `"schema"."name"`, unquoted parts. */
export interface QualifiedName {
  readonly schema: string;
  readonly name: string;
}

/** The key of a relation in maps and in Cedar: `schema.name`, exact case, both parts as stored in the catalog. */
export type RelationKey = string;

export function relationKey(name: QualifiedName): RelationKey {
  return `${name.schema}.${name.name}`;
}

/** A column that the grant covers but whose value exists only masked. */
export interface MaskedColumn {
  readonly column: string;
  readonly label: string;
  readonly ruleId: string;
  readonly operator: MaskOperator;
}

/**
 * One granted relation as the database of the grant shows it (MASKING.md, L1).
 * A statement that touches open columns only runs on the base table; anything else is spliced onto `view`.
 */
export interface ScopedRelation {
  readonly base: QualifiedName;
  /** Granted for reading and not masked, in the base table's order. */
  readonly openColumns: readonly string[];
  /** Granted for reading, visible only as masked. */
  readonly maskedColumns: readonly MaskedColumn[];
  /** Every granted readable column in the base table's order: what `*` means through the gateway. */
  readonly visibleColumns: readonly string[];
  /** True when every column of the base table is open: nothing is ever rewritten. */
  readonly wholeOpen: boolean;
  /** Present unless `wholeOpen` (or nothing may be read). */
  readonly view: QualifiedName | null;
  readonly write: ScopedWrite | null;
}

export interface ScopedWrite {
  readonly insertColumns: readonly string[];
  readonly updateColumns: readonly string[];
  readonly delete: boolean;
  /** Where writes go: null means the base table itself (no masked column on it). */
  readonly view: QualifiedName | null;
}

/** A scope compiled against one catalog snapshot: what the scope role has, and what statements are rewritten to. */
export interface CompiledScope {
  /** Hex SHA-256 over the canonical scope; equal scopes share one scope role. */
  readonly hash: string;
  /** The NOLOGIN role that carries the rights. */
  readonly role: string;
  readonly relations: ReadonlyMap<RelationKey, ScopedRelation>;
  /** Schema that holds the filtered catalogs of this database, by the catalog relation's own name. */
  readonly shadowSchema: string;
}
