/** SELECT, VALUES and set operations (analyze.c): names in their order of resolution, and what each output is computed from. */
import type { Node, SelectStmt } from "libpg-query";
import { analyzeCommonTables } from "./common-tables.ts";
import { resolveSortItem, resolveWindow, sortOf } from "./expression-calls.ts";
import { unified } from "./expression-forms.ts";
import { resolveExpanded } from "./expression-names.ts";
import { addFromClause } from "./from.ts";
import { type QueryResult, analyzeSelect, resolveAll, resolveExpression } from "./grammar.ts";
import { checkLocking } from "./locking.ts";
import {
  type QueryScope,
  type RangeColumn,
  childScope,
  lookUpColumn,
  sharedOrigins,
  touch,
  unite,
} from "./namespace.ts";
import { refuse, refuseUnsupported } from "./refused.ts";
import { type TargetColumn, resolveTargets } from "./targets.ts";
import { itemsOf } from "./tree.ts";
import { typeOids } from "./types.ts";
import { type Value, computed, openValue } from "./value.ts";

/** `Grammar.query`. */
export function query(node: Node, scope: QueryScope): QueryResult {
  scope.state.claim(node);
  return "SelectStmt" in node
    ? select(node.SelectStmt, scope)
    : refuseUnsupported("a subquery is not a SELECT", "Use SELECT or VALUES here.");
}

/** `Grammar.select`: one SELECT with everything around it. */
export function select(statement: SelectStmt, scope: QueryScope): QueryResult {
  if (statement.withClause !== undefined) {
    analyzeCommonTables(statement.withClause, scope);
  }
  const isSetOperation = statement.op !== undefined && statement.op !== "SETOP_NONE";
  const columns = isSetOperation
    ? analyzeSetOperation(statement, scope)
    : statement.valuesLists !== undefined
      ? analyzeValues(statement, scope)
      : analyzePlainSelect(statement, scope);
  for (const value of resolveAll([statement.limitOffset, statement.limitCount], scope)) {
    touch(scope, value.lineage);
  }
  checkLocking(statement.lockingClause, scope);
  return { columns, touched: scope.touched };
}

function analyzePlainSelect(statement: SelectStmt, scope: QueryScope): readonly RangeColumn[] {
  addFromClause(statement.fromClause, scope);
  addWindows(statement.windowClause, scope);
  const targets = resolveTargets(statement.targetList, scope);
  resolveAll([statement.whereClause, statement.havingClause], scope);
  for (const node of statement.sortClause ?? []) {
    resolveOutputName(sortOf(node, scope), targets, scope);
  }
  for (const node of statement.groupClause ?? []) {
    resolveGrouping(node, targets, scope);
  }
  for (const node of statement.distinctClause ?? []) {
    // A plain DISTINCT is a list of one empty node.
    if (Object.keys(node).length > 0) {
      resolveOutputName({ node }, targets, scope);
    }
  }
  return targets;
}

/** WINDOW names no outputs, so that it can be resolved before them, who are computed from it. */
function addWindows(nodes: readonly Node[] | undefined, scope: QueryScope): void {
  for (const node of nodes ?? []) {
    scope.state.claim(node);
    if (!("WindowDef" in node)) {
      refuseUnsupported("WINDOW has an unknown form", "Write the window inside OVER.");
    }
    const { lineage } = computed(null, resolveWindow(node.WindowDef, scope));
    scope.windows.set(node.WindowDef.name ?? "", lineage);
  }
}

/** The SQL92 rule of ORDER BY and DISTINCT ON: a bare name or a number means an output first. */
function resolveOutputName(
  sort: Parameters<typeof resolveSortItem>[0],
  targets: readonly TargetColumn[],
  scope: QueryScope,
): void {
  const { node } = sort;
  if (node !== undefined && isOutputReference(node, targets, scope)) {
    if (sort.useOp !== undefined) {
      refuseUnsupported("ORDER BY … USING sorts an output", "Use ASC or DESC.");
    }
    return;
  }
  resolveSortItem(sort, scope);
}

function isOutputReference(node: Node, targets: readonly TargetColumn[], scope: QueryScope): boolean {
  if ("A_Const" in node && node.A_Const.ival !== undefined) {
    scope.state.claim(node);
    return true;
  }
  const name = bareName(node);
  if (name === null || !targets.some((target) => target.name === name)) {
    return false;
  }
  claimBareName(node, scope);
  return true;
}

/** GROUP BY looks at the input first, and for an output of that name after. */
function resolveGrouping(node: Node, targets: readonly TargetColumn[], scope: QueryScope): void {
  if ("GroupingSet" in node) {
    scope.state.claim(node);
    for (const item of node.GroupingSet.content ?? []) {
      resolveGrouping(item, targets, scope);
    }
    return;
  }
  if ("RowExpr" in node && node.RowExpr.row_format === "COERCE_IMPLICIT_CAST") {
    scope.state.claim(node);
    for (const item of node.RowExpr.args ?? []) {
      resolveGrouping(item, targets, scope);
    }
    return;
  }
  const name = bareName(node);
  if (name !== null && lookUpColumn({ ...scope, parent: null }, name) !== null) {
    resolveExpression(node, scope);
  } else if (!isOutputReference(node, targets, scope)) {
    resolveExpression(node, scope);
  }
}

function bareName(node: Node): string | null {
  if (!("ColumnRef" in node) || node.ColumnRef.fields?.length !== 1) {
    return null;
  }
  const [field] = node.ColumnRef.fields;
  return field !== undefined && "String" in field ? (field.String.sval ?? "") : null;
}

function claimBareName(node: Node, scope: QueryScope): void {
  scope.state.claim(node);
  if ("ColumnRef" in node) {
    for (const field of node.ColumnRef.fields ?? []) {
      scope.state.claim(field);
    }
  }
}

/** Rows of VALUES: columns are named `column1`, …. */
function analyzeValues(statement: SelectStmt, scope: QueryScope): readonly RangeColumn[] {
  const rows = (statement.valuesLists ?? []).map((row) => resolveExpanded(itemsOf(row, scope.state), scope));
  const width = rows[0]?.length ?? 0;
  if (rows.some((row) => row.length !== width)) {
    refuse("statement.syntax", "VALUES lists must all be the same length", "Give every row as many values.");
  }
  const columns = Array.from({ length: width }, (_, i): TargetColumn => {
    const value = unified(
      rows.map((row) => row[i] ?? openValue(null)),
      scope,
    );
    return { name: `column${i + 1}`, type: value.type, lineage: value.lineage, origins: [] };
  });
  for (const node of statement.sortClause ?? []) {
    resolveOutputName(sortOf(node, scope), columns, scope);
  }
  return columns;
}

function analyzeSetOperation(statement: SelectStmt, scope: QueryScope): readonly RangeColumn[] {
  const arms = [statement.larg, statement.rarg].map((arm) => {
    if (arm === undefined) {
      return refuseUnsupported("a set operation lacks a side", "Write both sides.");
    }
    return analyzeSelect(arm, childScope(scope.state, scope)).columns;
  });
  const [left = [], right = []] = arms;
  if (left.length !== right.length) {
    refuse(
      "statement.syntax",
      "each side of a set operation must have the same number of columns",
      "Select as many columns.",
    );
  }
  const columns = left.map((column, i): RangeColumn => {
    const other = right[i] ?? column;
    const asValue = (one: RangeColumn): Value =>
      one.literal === undefined
        ? openValue(one.type, { lineage: one.lineage, isUntyped: one.isUntyped === true })
        : openValue(typeOids.unknown, { constant: one.literal, isUntyped: true });
    const { type } = unified([asValue(column), asValue(other)], scope);
    return {
      name: column.name,
      type,
      lineage: unite(column.lineage, other.lineage),
      origins: sharedOrigins(column, other),
    };
  });
  for (const node of statement.sortClause ?? []) {
    const sort = sortOf(node, scope);
    if (sort.node === undefined || !isOutputReference(sort.node, columns, scope)) {
      refuse(
        "name.unknown-column",
        "ORDER BY of a set operation may only name its outputs",
        "Sort by an output's name or number.",
      );
    }
  }
  return columns;
}
