/** FROM: everything that can stand in it, and what becomes visible to what (transformFromClauseItem in parse_clause.c). */
import type { Alias, JoinExpr, Node, RangeSubselect, RangeTableSample, RangeVar } from "libpg-query";
import { type QualifiedName, type ScopedRelation, relationKey } from "#domain/scope.ts";
import { type Catalog, type CatalogRelation, findRelation, isBuiltin, lookupPath } from "./catalog.ts";
import { findCommonTable, renamed } from "./common-tables.ts";
import { resolveOperatorByName } from "./calls.ts";
import { analyzeQuery, resolveAll } from "./grammar.ts";
import { functionItem } from "./from-function.ts";
import {
  type QueryScope,
  type RangeColumn,
  type RangeItem,
  type VisibleItem,
  childScope,
  findColumn,
  noLineage,
  sharedOrigins,
  touch,
  unite,
  useColumn,
  useShape,
} from "./namespace.ts";
import { quoted, refuse, refuseColumn, refuseRelation, refuseUnsupported } from "./refused.ts";
import { findShadowed } from "./shadowed.ts";
import { namesOf } from "./tree.ts";
import { commonType, typeOids } from "./types.ts";
import { openValue } from "./value.ts";

/** One item of FROM, and what it makes visible. */
interface FromItem {
  readonly item: RangeItem;
  readonly visible: readonly VisibleItem[];
}

/** Adds a FROM list to a level. */
export function addFromClause(nodes: readonly Node[] | undefined, scope: QueryScope): void {
  for (const node of nodes ?? []) {
    const { visible } = resolveFromItem(node, scope);
    checkNames(scope.visible, visible);
    // Until FROM is done, only what is LATERAL sees its neighbours.
    scope.visible = [...scope.visible, ...withLateralOnly(visible, true)];
  }
  scope.visible = withLateralOnly(scope.visible, false);
}

function withLateralOnly(visible: readonly VisibleItem[], lateralOnly: boolean): readonly VisibleItem[] {
  return visible.map((one) => ({ ...one, lateralOnly }));
}

function checkNames(left: readonly VisibleItem[], right: readonly VisibleItem[]): void {
  for (const { item: a } of left.filter(({ byName }) => byName)) {
    for (const { item: b } of right.filter(({ byName }) => byName)) {
      const bothTables = a.unaliased !== null && b.unaliased !== null && a.unaliased.schema !== b.unaliased.schema;
      if (a.name !== null && a.name === b.name && !bothTables) {
        refuse("name.ambiguous", `table name ${quoted(a.name)} is given more than once`, "Give each its own alias.");
      }
    }
  }
}

function shown(item: RangeItem): FromItem {
  return { item, visible: [{ item, byName: true, byColumn: true, lateralOnly: false }] };
}

function resolveFromItem(node: Node, scope: QueryScope): FromItem {
  scope.state.claim(node);
  if ("RangeVar" in node) {
    return shown(resolveRange(node.RangeVar, scope));
  }
  if ("JoinExpr" in node) {
    return resolveJoin(node.JoinExpr, scope);
  }
  if ("RangeSubselect" in node) {
    return shown(resolveSubselect(node.RangeSubselect, scope));
  }
  if ("RangeFunction" in node) {
    return shown(functionItem(node.RangeFunction, scope));
  }
  if ("RangeTableSample" in node) {
    return shown(resolveSample(node.RangeTableSample, scope));
  }
  return refuseUnsupported(
    `FROM uses ${Object.keys(node)[0] ?? "a form"}, which is not supported`,
    "Use tables, subqueries and functions.",
  );
}

function resolveRange(range: RangeVar, scope: QueryScope): RangeItem {
  const name = range.relname ?? "";
  const alias = range.alias;
  const aliases = namesOf(alias?.colnames, scope.state);
  if (range.schemaname === undefined) {
    const table = findCommonTable(scope, name);
    if (table !== null) {
      const columns = renamed(table.columns(), aliases);
      return { name: alias?.aliasname ?? name, unaliased: null, columns, uses: [], base: null };
    }
  }
  const item = relationItem(range, scope, false);
  if (aliases.length === 0) {
    return item;
  }
  // The names go by position: it matters which columns there are.
  useShape(item);
  return { ...item, columns: renamed(item.columns, aliases) };
}

/** A relation by its name: granted, of the catalog, or not there as far as anybody is told. */
export function relationItem(range: RangeVar, scope: QueryScope, target: boolean): RangeItem {
  const { catalog, scope: compiled } = scope.state.context;
  const written = range.schemaname === undefined ? (range.relname ?? "") : `${range.schemaname}.${range.relname ?? ""}`;
  const relation = resolveRelationName(catalog, range.schemaname ?? null, range.relname ?? "");
  const name = range.alias?.aliasname ?? range.relname ?? "";
  const unaliased: QualifiedName | null =
    range.alias === undefined && relation !== null ? { schema: relation.schema, name: relation.name } : null;
  const scoped = relation === null ? undefined : compiled.relations.get(relationKey(relation));
  if (relation !== null && scoped !== undefined && scoped.base.schema === relation.schema) {
    return grantedItem({ range, scoped, relation, name, unaliased, target }, scope);
  }
  const shadow = relation === null ? null : findShadowed(relation.schema, relation.name);
  if (relation === null || shadow === null || target) {
    return refuseRelation(written);
  }
  const use = scope.state.useShadow(range, shadow, relation);
  const own = relation.columns.map(({ name: column, type }) => ({ column, type }));
  const columns = [...own, ...(shadow.tableoid ? [{ column: "tableoid", type: typeOids.oid }] : [])].map(
    ({ column, type }): RangeColumn => ({ name: column, type, lineage: noLineage, origins: [{ use, column }] }),
  );
  for (const column of columns) {
    use.columns.add(column);
  }
  return { name, unaliased, columns, uses: [use], base: use };
}

function resolveRelationName(catalog: Catalog, schema: string | null, name: string): CatalogRelation | null {
  for (const place of schema === null ? lookupPath(catalog) : [schema]) {
    const found = findRelation(catalog, place, name);
    if (found !== null) {
      return found;
    }
  }
  return null;
}

interface GrantedRange {
  readonly range: RangeVar;
  readonly scoped: ScopedRelation;
  readonly relation: CatalogRelation;
  readonly name: string;
  readonly unaliased: QualifiedName | null;
  readonly target: boolean;
}

function grantedItem({ range, scoped, relation, name, unaliased, target }: GrantedRange, scope: QueryScope): RangeItem {
  const { state } = scope;
  if (!target && scoped.visibleColumns.length === 0) {
    refuse(
      "grant.no-verb",
      `the grant on ${quoted(relationKey(scoped.base))} does not allow select`,
      "Ask for a grant that reads it.",
    );
  }
  const { catalog } = state.context;
  state.impure ||=
    relation.foreign || relation.rowSecurity || relation.kind === "view" || hasForeignTypes(catalog, scoped, relation);
  const use = state.useGranted(range, scoped, relation, target);
  const types = new Map(relation.columns.map((column) => [column.name, column.type]));
  // A column that was dropped since is as one that never was.
  const present = scoped.visibleColumns.filter((column) => types.has(column));
  const columns = present.map((column): RangeColumn => ({
    name: column,
    type: types.get(column) ?? null,
    lineage: state.source(scoped, column),
    origins: [{ use, column }],
  }));
  return { name, unaliased, columns, uses: [use], base: use };
}

/** Types of extensions and composite types run code of their own when a value is read: such a read is not known to be pure. */
function hasForeignTypes(catalog: Catalog, scoped: ScopedRelation, relation: CatalogRelation): boolean {
  return relation.columns.some((column) => {
    const type = catalog.types.get(column.type);
    const element = type !== undefined && type.element !== 0 ? catalog.types.get(type.element) : type;
    const isPlain = element !== undefined && (isBuiltin(element) || element.kind === "enum");
    return scoped.visibleColumns.includes(column.name) && !isPlain;
  });
}

function resolveSubselect(select: RangeSubselect, scope: QueryScope): RangeItem {
  const { alias, subquery } = select;
  if (subquery === undefined) {
    return refuseUnsupported("FROM has an empty subquery", "Write the subquery.");
  }
  const inner = childScope(scope.state, scope);
  const before = scope.lateral;
  scope.lateral = select.lateral === true;
  const result = analyzeQuery(subquery, inner);
  scope.lateral = before;
  const columns = renamed(result.columns, namesOf(alias?.colnames, scope.state));
  return { name: alias?.aliasname ?? null, unaliased: null, columns, uses: [], base: null };
}

function resolveSample(sample: RangeTableSample, scope: QueryScope): RangeItem {
  const { relation, method, args, repeatable } = sample;
  const names = namesOf(method, scope.state);
  if (
    !["system", "bernoulli"].includes(names.at(-1) ?? "") ||
    (names.length === 2 && names[0] !== "pg_catalog") ||
    names.length > 2
  ) {
    refuseUnsupported("a sampling method of the database is used", "Use TABLESAMPLE SYSTEM or BERNOULLI.");
  }
  if (relation === undefined || !("RangeVar" in relation)) {
    return refuseUnsupported("TABLESAMPLE has an unknown form", "Sample a table.");
  }
  scope.state.claim(relation);
  const item = resolveRange(relation.RangeVar, scope);
  if (item.base?.kind !== "granted" || !item.base.scoped.wholeOpen) {
    // A sample says where rows lie; and a view cannot be sampled.
    refuseUnsupported("TABLESAMPLE works on tables that the grant shows whole", "Use ORDER BY random() LIMIT ….");
  }
  resolveAll(args, scope);
  resolveAll([repeatable], scope);
  return item;
}

function resolveJoin(join: JoinExpr, scope: QueryScope): FromItem {
  const { larg, rarg } = join;
  if (larg === undefined || rarg === undefined) {
    return refuseUnsupported("a join lacks a side", "Write both sides.");
  }
  const left = resolveFromItem(larg, scope);
  const before = scope.visible;
  scope.visible = [...before, ...withLateralOnly(left.visible, true)];
  const right = resolveFromItem(rarg, scope);
  scope.visible = before;
  checkNames(left.visible, right.visible);
  const names = joinNames(join, left.item, right.item, scope);
  const both = [...left.visible, ...right.visible];
  if (join.quals !== undefined) {
    // ON sees the two sides and what is outside this query, not what else stands in FROM.
    scope.visible = withLateralOnly(both, false);
    resolveAll([join.quals], scope);
    scope.visible = before;
  }
  return joined(join, { left: left.item, right: right.item, names, both }, scope);
}

function joinNames(join: JoinExpr, left: RangeItem, right: RangeItem, scope: QueryScope): readonly string[] {
  if (join.isNatural !== true) {
    return namesOf(join.usingClause, scope.state);
  }
  useShape(left);
  useShape(right);
  const rights = new Set(right.columns.map((column) => column.name));
  return left.columns.map((column) => column.name).filter((name) => rights.has(name));
}

interface JoinSides {
  readonly left: RangeItem;
  readonly right: RangeItem;
  /** The columns that USING or NATURAL merges. */
  readonly names: readonly string[];
  readonly both: readonly VisibleItem[];
}

function joined(join: JoinExpr, { left, right, names, both }: JoinSides, scope: QueryScope): FromItem {
  const merged = names.map((name): RangeColumn => {
    const one = findColumn(left, name) ?? refuseColumn(name, left.name);
    const other = findColumn(right, name) ?? refuseColumn(name, right.name);
    useColumn(scope, one);
    useColumn(scope, other);
    resolveOperatorByName(["="], openValue(one.type), openValue(other.type), scope);
    const lineage = unite(one.lineage, other.lineage);
    touch(scope, lineage);
    return {
      name,
      type: commonType([one.type, other.type], scope.state.context.catalog),
      lineage,
      // In an outer join it can be the value of either side.
      origins: sharedOrigins(one, other),
    };
  });
  const isMerged = (column: RangeColumn): boolean => names.includes(column.name);
  const columns = [
    ...merged,
    ...left.columns.filter((column) => !isMerged(column)),
    ...right.columns.filter((column) => !isMerged(column)),
  ];
  const uses = [...left.uses, ...right.uses];
  const usingItem = joinUsingItem(join.join_using_alias, merged, scope);
  if (join.alias !== undefined) {
    const aliases = namesOf(join.alias.colnames, scope.state);
    const item: RangeItem = {
      name: join.alias.aliasname ?? null,
      unaliased: null,
      columns: renamed(columns, aliases),
      uses,
      base: null,
    };
    if (aliases.length > 0) {
      useShape(item);
    }
    // An aliased join hides what is inside it.
    return { item, visible: [...shown(item).visible, ...usingItem] };
  }
  const item: RangeItem = { name: null, unaliased: null, columns, uses, base: null };
  const inside = both.map((one) => ({ ...one, byColumn: false }));
  return { item, visible: [...inside, { item, byName: false, byColumn: true, lateralOnly: false }, ...usingItem] };
}

function joinUsingItem(
  alias: Alias | undefined,
  columns: readonly RangeColumn[],
  scope: QueryScope,
): readonly VisibleItem[] {
  if (alias === undefined) {
    return [];
  }
  namesOf(alias.colnames, scope.state);
  const item: RangeItem = { name: alias.aliasname ?? null, unaliased: null, columns, uses: [], base: null };
  return [{ item, byName: true, byColumn: false, lateralOnly: false }];
}
