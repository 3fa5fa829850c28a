/**
 * What the names of one level of a query mean: PostgreSQL's `ParseNamespaceItem` and the rules that look names up in them
 * (parse_relation.c). Every use of a column is written down where it came from.
 */
import type { RangeVar } from "libpg-query";
import type { QualifiedName, ScopedRelation } from "#domain/scope.ts";
import type { OutputSource } from "./analysis.ts";
import type { CatalogRelation } from "./catalog.ts";
import type { Cte } from "./common-tables.ts";
import type { ShadowedRelation } from "./shadowed.ts";
import type { StatementState } from "./statement-state.ts";
import { quoted, refuse, refuseColumn } from "./refused.ts";

/** The masked columns that a value is computed from. */
export type Lineage = ReadonlySet<OutputSource>;

export const noLineage: Lineage = new Set();

/** Everything that either is computed from. */
export function unite(a: Lineage, b: Lineage): Lineage {
  if (a === b || b.size === 0) {
    return a;
  }
  return a.size === 0 ? b : a.union(b);
}

export function uniteAll(all: Iterable<Lineage>): Lineage {
  let united = noLineage;
  for (const one of all) {
    united = unite(united, one);
  }
  return united;
}

/** One place where a statement names a granted relation, and what it uses of it. */
export interface GrantedUse {
  readonly kind: "granted";
  readonly range: RangeVar;
  readonly scoped: ScopedRelation;
  readonly relation: CatalogRelation;
  readonly columns: Set<string>;
  /** Columns of the base table that do not exist for the grant. */
  readonly hidden: ReadonlySet<string>;
  /**
   * The statement depends on which columns the relation has (a star, the whole row, a name that a hidden column would catch):
   * it must see the view, which has the granted ones only.
   */
  shape: boolean;
  /** The grant was for the whole table, and the table has columns by now that it does not know: nothing may depend on which. */
  readonly isOutgrown: boolean;
  /** The target of INSERT, UPDATE or DELETE. */
  readonly target: boolean;
}

/** One place where a statement names a catalog relation that has a shadow. */
export interface ShadowUse {
  readonly kind: "shadow";
  readonly range: RangeVar;
  readonly shadow: ShadowedRelation;
  readonly relation: CatalogRelation;
  /** Its columns as FROM shows them: two values that are among them, by identity, are of one row. */
  readonly columns: Set<RangeColumn>;
}

export type Use = GrantedUse | ShadowUse;

export interface RangeColumn {
  readonly name: string;
  /** OID; null when the gate does not know it. */
  readonly type: number | null;
  readonly lineage: Lineage;
  /** The relations that it is a plain column of, with its name there: two for a column that USING merged. */
  readonly origins: readonly { readonly use: Use; readonly column: string }[];
  /** The text of an output that is an untyped literal: in a set operation the other side decides what it is read as. */
  readonly literal?: string;
  /** True for an output that is a parameter: the same holds for it. */
  readonly isUntyped?: boolean;
}

/** Where the value of one of two columns comes from, when it is a plain column either way. */
export function sharedOrigins(a: RangeColumn, b: RangeColumn): RangeColumn["origins"] {
  return a.origins.length > 0 && b.origins.length > 0 ? [...a.origins, ...b.origins] : [];
}

/** One thing in FROM, under one name. */
export interface RangeItem {
  /** Null for a join without alias: it can only be reached through its columns. */
  readonly name: string | null;
  /** Set for a relation without alias: `schema.name.column` finds it. */
  readonly unaliased: QualifiedName | null;
  readonly columns: readonly RangeColumn[];
  /** Relations whose list of columns is this item's, wholly or in part. */
  readonly uses: readonly Use[];
  /** Set when the item is one relation and nothing else. */
  readonly base: Use | null;
}

/** How an item can be seen at one level. */
export interface VisibleItem {
  readonly item: RangeItem;
  readonly byName: boolean;
  readonly byColumn: boolean;
  readonly lateralOnly: boolean;
}

/** One level of a query. */
export interface QueryScope {
  readonly state: StatementState;
  readonly parent: QueryScope | null;
  visible: readonly VisibleItem[];
  readonly commonTables: Map<string, Cte>;
  /** The windows of WINDOW, with what they are made of. */
  readonly windows: Map<string, Lineage>;
  /** True while something is analysed that may look at the items before it in FROM. */
  lateral: boolean;
  /** Every masked column that this level or one below it used. */
  touched: Lineage;
}

export function childScope(state: StatementState, parent: QueryScope | null): QueryScope {
  return {
    state,
    parent,
    visible: [],
    commonTables: new Map(),
    windows: new Map(),
    lateral: false,
    touched: noLineage,
  };
}

/** Writes a use of masked columns down at this level and all around it. */
export function touch(scope: QueryScope, lineage: Lineage): void {
  if (lineage.size === 0) {
    return;
  }
  for (let level: QueryScope | null = scope; level !== null; level = level.parent) {
    level.touched = unite(level.touched, lineage);
  }
}

/** Writes down that a column's value is used. */
export function useColumn(scope: QueryScope, column: RangeColumn): void {
  for (const origin of column.origins) {
    if (origin.use.kind === "granted") {
      origin.use.columns.add(origin.column);
    }
  }
  scope.state.noteType(column.type);
  touch(scope, column.lineage);
}

/** Writes down that all columns of an item are used and that it matters which they are. */
export function useWhole(scope: QueryScope, item: RangeItem): Lineage {
  useShape(item);
  for (const column of item.columns) {
    useColumn(scope, column);
  }
  return uniteAll(item.columns.map((column) => column.lineage));
}

/** It matters which columns an item has, though not what is in them. */
export function useShape(item: RangeItem): void {
  for (const use of item.uses) {
    if (use.kind === "granted") {
      use.shape = true;
    }
  }
}

/** System columns of every table; a view has none. */
const systemColumns = new Map([
  ["tableoid", 26],
  ["ctid", 27],
  ["xmin", 28],
  ["cmin", 29],
  ["xmax", 28],
  ["cmax", 29],
]);

/** The column of this name in one item; null when it has none. */
export function findColumn(item: RangeItem, name: string): RangeColumn | null {
  const found = item.columns.filter((column) => column.name === name);
  if (found.length > 1) {
    refuseAmbiguous("column", name);
  }
  const base = item.base;
  const type = systemColumns.get(name);
  if (found[0] === undefined && base !== null && type !== undefined && hasSystemColumn(base)) {
    // Not an origin in a granted relation: the grant's columns do not count it.
    return { name, type, lineage: noLineage, origins: [] };
  }
  return found[0] ?? null;
}

/** Where rows lie and when they were written is layout: it is told of wholly open tables only. */
function hasSystemColumn(use: Use): boolean {
  return use.kind === "granted" && use.scoped.wholeOpen && use.relation.kind !== "view" && !use.target;
}

/**
 * What an unqualified name means: a column of the innermost level that has one; null when no level has.
 * @throws StatementRefused `name.ambiguous`
 */
export function lookUpColumn(scope: QueryScope, name: string): RangeColumn | null {
  for (let level: QueryScope | null = scope; level !== null; level = level.parent) {
    let found: RangeColumn | null = null;
    for (const { item, byColumn, lateralOnly } of level.visible) {
      if (!byColumn || (lateralOnly && !level.lateral)) {
        continue;
      }
      hideFrom(item, name);
      const column = findColumn(item, name);
      if (column !== null && found !== null) {
        refuseAmbiguous("column", name);
      }
      found = column ?? found;
    }
    if (found !== null) {
      return found;
    }
  }
  return null;
}

/** A column that the grant does not know would catch this name in the base table: the statement must see the view instead. */
function hideFrom(item: RangeItem, name: string): void {
  for (const use of item.uses) {
    if (use.kind === "granted" && (use.hidden.has(name) || (systemColumns.has(name) && !use.scoped.wholeOpen))) {
      use.shape = true;
    }
  }
}

/**
 * What `name.…` or a bare `name` means as a relation; null when nothing has that name.
 * @throws StatementRefused `name.ambiguous`
 */
export function lookUpItem(scope: QueryScope, schema: string | null, name: string): RangeItem | null {
  for (let level: QueryScope | null = scope; level !== null; level = level.parent) {
    const found = level.visible.filter(
      ({ item, byName, lateralOnly }) =>
        byName &&
        (!lateralOnly || level.lateral) &&
        (schema === null
          ? item.name === name
          : item.unaliased !== null && item.unaliased.schema === schema && item.unaliased.name === name),
    );
    if (found.length > 1) {
      refuseAmbiguous("relation", name);
    }
    if (found[0] !== undefined) {
      return found[0].item;
    }
  }
  return null;
}

/** A column of an item that a statement names outright. */
export function columnOf(item: RangeItem, name: string): RangeColumn {
  return findColumn(item, name) ?? refuseColumn(name, item.name);
}

function refuseAmbiguous(what: string, name: string): never {
  refuse(
    "name.ambiguous",
    `${what} reference ${quoted(name)} is ambiguous`,
    "Qualify the name with its table's alias.",
  );
}
