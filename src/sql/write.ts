/** INSERT, UPDATE and DELETE: the grant's verbs and columns, and no masked value read on the way (MASKING.md, L4). */
import type {
  DeleteStmt,
  InsertStmt,
  Node,
  OnConflictClause,
  RangeVar,
  ReturningClause,
  UpdateStmt,
} from "libpg-query";
import { type ScopedWrite, relationKey } from "#domain/scope.ts";
import { analyzeCommonTables } from "./common-tables.ts";
import { type QueryResult, analyzeQuery, resolveAll, resolveExpression } from "./grammar.ts";
import { addFromClause, relationItem } from "./from.ts";
import {
  type GrantedUse,
  type QueryScope,
  type RangeColumn,
  type RangeItem,
  childScope,
  columnOf,
  touch,
  useColumn,
} from "./namespace.ts";
import { quoted, refuse, refuseRelation, refuseUnsupported } from "./refused.ts";
import { resolveTargets } from "./targets.ts";
import { mayReadNames } from "./name-reading.ts";

/** `Grammar.commonQuery`. */
export function commonQuery(node: Node, scope: QueryScope): QueryResult {
  if ("SelectStmt" in node) {
    return analyzeQuery(node, scope);
  }
  // The scope of the query itself, in the scope of the statement, and nothing around it.
  if (scope.parent === null || scope.parent.parent !== null) {
    return refuseUnsupported(
      "a query that writes stands inside another",
      "Put it in WITH at the top of the statement.",
    );
  }
  scope.state.claim(node);
  return { columns: analyzeWrite(node, scope) ?? [], touched: scope.touched };
}

type Verb = "insert" | "update" | "delete";

/** The relation that is written, with the right to do so. */
interface Target {
  readonly item: RangeItem;
  readonly use: GrantedUse;
  readonly write: ScopedWrite;
}

/**
 * Analyses a statement that writes. What it returns by RETURNING; null when it returns nothing.
 * @throws StatementRefused `grant.no-verb`, `grant.no-column`, `grant.masked-read-in-write` and all that a query throws
 */
export function analyzeWrite(node: Node, scope: QueryScope): readonly RangeColumn[] | null {
  scope.state.impure = true;
  const columns =
    "InsertStmt" in node
      ? analyzeInsert(node.InsertStmt, scope)
      : "UpdateStmt" in node
        ? analyzeUpdate(node.UpdateStmt, scope)
        : "DeleteStmt" in node
          ? analyzeDelete(node.DeleteStmt, scope)
          : refuseUnsupported("the statement writes in an unknown way", "Use INSERT, UPDATE or DELETE.");
  const [read] = scope.touched;
  if (read !== undefined) {
    refuse(
      "grant.masked-read-in-write",
      `a statement that writes may not read the masked column ${quoted(`${read.relation}.${read.column}`)}`,
      "Use literals or parameters, and name other columns in WHERE and RETURNING.",
    );
  }
  return columns;
}

function resolveTarget(range: RangeVar | undefined, verb: Verb, scope: QueryScope): Target {
  if (range === undefined) {
    return refuseUnsupported("the statement names no table", "Name the table.");
  }
  if (range.alias?.colnames !== undefined) {
    refuseUnsupported("the target of a write has column aliases", "Use the columns' own names.");
  }
  const item = relationItem(range, scope, true);
  const use = item.base;
  if (use?.kind !== "granted") {
    return refuseRelation(range.relname ?? "");
  }
  const { write } = use.scoped;
  if (write === null || !hasVerb(write, verb)) {
    return refuse(
      "grant.no-verb",
      `the grant on ${quoted(relationKey(use.scoped.base))} does not allow ${verb}`,
      "Ask for a grant that allows it.",
    );
  }
  checkSideEffects(use);
  const known = scope.state.writes.get(range);
  if (known === undefined) {
    scope.state.writes.set(range, { verb, relation: relationKey(use.scoped.base), columns: new Set() });
  }
  return { item, use, write };
}

function hasVerb(write: ScopedWrite, verb: Verb): boolean {
  switch (verb) {
    case "insert":
      return write.insertColumns.length > 0;
    case "update":
      return write.updateColumns.length > 0;
    case "delete":
      return write.delete;
    default:
      return verb satisfies never;
  }
}

/**
 * Rules change what a statement does, and are refused everywhere. A user's trigger runs code that sees the whole row: where a
 * column is masked it could copy the real value to a place without a label, so there it is refused too. A foreign key's own
 * triggers only compare, and are let through.
 */
function checkSideEffects(use: GrantedUse): void {
  const name = quoted(relationKey(use.scoped.base));
  if (use.relation.hasRules) {
    refuseUnsupported(
      `table ${name} has rules, which change what a write does`,
      "Ask the owner to replace the rules by triggers.",
    );
  }
  if (use.relation.hasTriggers && use.scoped.maskedColumns.length > 0) {
    refuseUnsupported(
      `table ${name} has masked columns and triggers, which see the real values`,
      "Write to another table.",
    );
  }
}

/** Adds columns to the write's effect. */
function writeColumns(target: Target, verb: "insert" | "update", names: readonly string[], scope: QueryScope): void {
  const allowed = verb === "insert" ? target.write.insertColumns : target.write.updateColumns;
  const { use } = target;
  const { catalog } = scope.state.context;
  for (const name of names) {
    if (!allowed.includes(name)) {
      refuse(
        "grant.no-column",
        `the grant does not allow ${verb} of column ${quoted(name)} of ${quoted(relationKey(use.scoped.base))}`,
        `It allows ${allowed.map(quoted).join(", ")}.`,
      );
    }
    const column = use.relation.columns.find((candidate) => candidate.name === name);
    const isMasked = use.scoped.maskedColumns.some((masked) => masked.column === name);
    if (isMasked && column?.unique === true) {
      refuse(
        "grant.masked-read-in-write",
        `writing the unique masked column ${quoted(name)} would tell which values exist`,
        "Ask the owner to write it.",
      );
    }
    if (mayReadNames(catalog, column?.type ?? null)) {
      refuseUnsupported(`column ${quoted(name)} has a type that reads names`, "Ask the owner to write it.");
    }
    scope.state.writes.get(use.range)?.columns.add(name);
  }
}

function targetNames(nodes: readonly Node[] | undefined, scope: QueryScope): readonly string[] {
  return (nodes ?? []).map((node) => {
    scope.state.claim(node);
    return "ResTarget" in node && node.ResTarget.indirection === undefined && node.ResTarget.val === undefined
      ? (node.ResTarget.name ?? "")
      : refuseUnsupported("the column list has an unknown form", "Name whole columns.");
  });
}

function analyzeInsert(insert: InsertStmt, scope: QueryScope): readonly RangeColumn[] | null {
  if (insert.withClause !== undefined) {
    analyzeCommonTables(insert.withClause, scope);
  }
  if (insert.override !== undefined && insert.override !== "OVERRIDING_NOT_SET") {
    refuseUnsupported("INSERT … OVERRIDING is not supported", "Leave generated columns out.");
  }
  const source =
    insert.selectStmt === undefined ? null : analyzeQuery(insert.selectStmt, childScope(scope.state, scope));
  const target = resolveTarget(insert.relation, "insert", scope);
  const names =
    insert.cols === undefined ? impliedColumns(target, source?.columns.length ?? 0) : targetNames(insert.cols, scope);
  writeColumns(target, "insert", names, scope);
  if (insert.onConflictClause !== undefined) {
    analyzeConflict(insert.onConflictClause, target, scope);
  }
  return analyzeReturning(insert.returningClause, [target.item], scope);
}

/** INSERT without a column list fills the first columns of the table: all of them must be the grant's to fill. */
function impliedColumns(target: Target, count: number): readonly string[] {
  const all = target.use.relation.columns.map((column) => column.name);
  if (count > 0 && (target.write.view !== null || all.some((name) => !target.write.insertColumns.includes(name)))) {
    refuse(
      "grant.no-column",
      `INSERT into ${quoted(relationKey(target.use.scoped.base))} must name its columns`,
      `Name them: ${target.write.insertColumns.map(quoted).join(", ")}.`,
    );
  }
  return all.slice(0, count);
}

function analyzeConflict(clause: OnConflictClause, target: Target, scope: QueryScope): void {
  const isLabelled = target.use.scoped.maskedColumns.length > 0;
  const doesUpdate = clause.action === "ONCONFLICT_UPDATE";
  if (isLabelled && (doesUpdate || clause.infer?.conname !== undefined)) {
    refuseUnsupported(
      `ON CONFLICT on ${quoted(relationKey(target.use.scoped.base))} could compare masked columns`,
      "Use plain INSERT, or ON CONFLICT (column) DO NOTHING.",
    );
  }
  const excluded: RangeItem = { ...target.item, name: "excluded", unaliased: null };
  const inner = childScope(scope.state, scope);
  inner.visible = [{ item: target.item, byName: true, byColumn: true, lateralOnly: false }];
  for (const node of clause.infer?.indexElems ?? []) {
    scope.state.claim(node);
    if (!("IndexElem" in node)) {
      refuseUnsupported("ON CONFLICT has an unknown form", "Name columns.");
    }
    if (node.IndexElem.name !== undefined) {
      useColumn(inner, columnOf(target.item, node.IndexElem.name));
    }
    resolveAll([node.IndexElem.expr], inner);
  }
  resolveAll([clause.infer?.whereClause], inner);
  if (!doesUpdate) {
    return;
  }
  if (target.write.updateColumns.length === 0) {
    refuse(
      "grant.no-verb",
      `the grant on ${quoted(relationKey(target.use.scoped.base))} does not allow update`,
      "Use ON CONFLICT DO NOTHING.",
    );
  }
  inner.visible = [...inner.visible, { item: excluded, byName: true, byColumn: true, lateralOnly: false }];
  assign(clause.targetList, target, inner);
  resolveAll([clause.whereClause], inner);
}

/** SET: the columns that are assigned, and the values. */
function assign(nodes: readonly Node[] | undefined, target: Target, scope: QueryScope): void {
  for (const node of nodes ?? []) {
    scope.state.claim(node);
    if (!("ResTarget" in node) || node.ResTarget.val === undefined) {
      refuseUnsupported("SET has an unknown form", "Write column = value.");
    }
    const { name = "", indirection, val } = node.ResTarget;
    writeColumns(target, "update", [name], scope);
    if (indirection !== undefined) {
      assignPart(name, indirection, target, scope);
    }
    assignValue(val, scope);
  }
}

/** Assigning to a part of a column reads the rest of it. */
function assignPart(name: string, indirection: readonly Node[], target: Target, scope: QueryScope): void {
  useColumn(scope, columnOf(target.item, name));
  for (const step of indirection) {
    scope.state.claim(step);
    if (!("A_Indices" in step)) {
      refuseUnsupported("SET assigns to a field", "Assign the whole column.");
    }
    resolveAll([step.A_Indices.lidx, step.A_Indices.uidx], scope);
  }
}

function assignValue(node: Node, scope: QueryScope): void {
  if (!("MultiAssignRef" in node)) {
    touch(scope, resolveExpression(node, scope).lineage);
    return;
  }
  scope.state.claim(node);
  for (const value of resolveAll([node.MultiAssignRef.source], scope)) {
    touch(scope, value.lineage);
  }
}

function analyzeUpdate(update: UpdateStmt, scope: QueryScope): readonly RangeColumn[] | null {
  if (update.withClause !== undefined) {
    analyzeCommonTables(update.withClause, scope);
  }
  addFromClause(update.fromClause, scope);
  const target = resolveTarget(update.relation, "update", scope);
  showTarget(target, scope);
  assign(update.targetList, target, scope);
  resolveAll([update.whereClause], scope);
  return analyzeReturning(update.returningClause, null, scope);
}

function analyzeDelete(statement: DeleteStmt, scope: QueryScope): readonly RangeColumn[] | null {
  if (statement.withClause !== undefined) {
    analyzeCommonTables(statement.withClause, scope);
  }
  addFromClause(statement.usingClause, scope);
  const target = resolveTarget(statement.relation, "delete", scope);
  showTarget(target, scope);
  resolveAll([statement.whereClause], scope);
  return analyzeReturning(statement.returningClause, null, scope);
}

function showTarget(target: Target, scope: QueryScope): void {
  if (scope.visible.some(({ item, byName }) => byName && item.name === target.item.name)) {
    refuse(
      "name.ambiguous",
      `table name ${quoted(target.item.name ?? "")} is given more than once`,
      "Give each its own alias.",
    );
  }
  scope.visible = [{ item: target.item, byName: true, byColumn: true, lateralOnly: false }, ...scope.visible];
}

/** `items`: what RETURNING sees; null when the level already shows it. */
function analyzeReturning(
  clause: ReturningClause | undefined,
  items: readonly RangeItem[] | null,
  scope: QueryScope,
): readonly RangeColumn[] | null {
  if (clause === undefined) {
    return null;
  }
  if (items !== null) {
    scope.visible = items.map((item) => ({ item, byName: true, byColumn: true, lateralOnly: false }));
  }
  const columns = resolveTargets(clause.exprs, scope);
  for (const column of columns) {
    touch(scope, column.lineage);
  }
  return columns;
}
