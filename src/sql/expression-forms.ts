/** Casts, collations, fields and subscripts, CASE, and values of one type out of several. */
import type { A_Indirection, CaseExpr, CollateClause, Node, TypeCast } from "libpg-query";
import { compositeColumns } from "./catalog.ts";
import { resolveOperatorByName } from "./calls.ts";
import { columnValue } from "./expression-names.ts";
import { resolveAll, resolveExpression } from "./grammar.ts";
import { isNameReading } from "./name-reading.ts";
import { type QueryScope, touch } from "./namespace.ts";
import { quoted, refuseColumn, refuseUnsupported } from "./refused.ts";
import { namesOf } from "./tree.ts";
import { checkCast, checkUnified, commonType, isCatalogReference, resolveType, typeOids } from "./types.ts";
import { type Value, computed, openValue } from "./value.ts";

/** `x::type`. */
export function resolveCast(cast: TypeCast, scope: QueryScope): Value {
  const value = cast.arg === undefined ? openValue(null) : resolveExpression(cast.arg, scope);
  const type = resolveType(cast.typeName, scope);
  checkCast(value, type, scope);
  scope.state.noteType(type.oid);
  const { catalog } = scope.state.context;
  const isReference = type.oid === typeOids.oid || isNameReading(catalog, type.oid);
  return openValue(type.oid, {
    lineage: value.lineage,
    checked: isReference && (isNameReading(catalog, type.oid) || isCatalogReference(value)),
  });
}

/** `x COLLATE "C"`. */
export function resolveCollation(clause: CollateClause, scope: QueryScope): Value {
  const value = clause.arg === undefined ? openValue(null) : resolveExpression(clause.arg, scope);
  checkCollation(clause.collname, scope);
  // A literal stays one: what decides its type reaches through COLLATE.
  return { ...value, column: null, checked: false };
}

/** @throws StatementRefused for a collation outside `pg_catalog` */
export function checkCollation(nodes: readonly Node[] | undefined, scope: QueryScope): void {
  const names = namesOf(nodes, scope.state);
  const name = names.at(-1) ?? "";
  const isBuiltin = names.length === 1 || (names.length === 2 && names[0] === "pg_catalog");
  if (!isBuiltin || !scope.state.context.catalog.collations.has(name)) {
    refuseUnsupported(`no grant covers collation ${quoted(name)}`, 'Use a built-in collation, such as "C".');
  }
}

/** `a[1]`, `(row).field`. A field can also be a function of one argument: then it is not taken for a field. */
export function resolveIndirection(indirection: A_Indirection, scope: QueryScope): Value {
  let value = indirection.arg === undefined ? openValue(null) : resolveExpression(indirection.arg, scope);
  for (const step of indirection.indirection ?? []) {
    value = resolveStep(value, step, scope);
  }
  return value;
}

/** One step into a value: a subscript or a field. */
export function resolveStep(value: Value, step: Node, scope: QueryScope): Value {
  scope.state.claim(step);
  if ("A_Indices" in step) {
    const bounds = resolveAll([step.A_Indices.lidx, step.A_Indices.uidx], scope);
    const type = scope.state.context.catalog.types.get(value.type ?? 0);
    const element = step.A_Indices.is_slice === true ? value.type : (type?.element ?? 0);
    return computed(element === 0 ? (value.type === typeOids.jsonb ? typeOids.jsonb : null) : element, [
      value,
      ...bounds,
    ]);
  }
  if (!("String" in step)) {
    return refuseUnsupported("a star stands where a value is needed", "Name the field.");
  }
  const name = step.String.sval ?? "";
  if (value.row !== null) {
    return columnValue(value.row, name, scope);
  }
  const { catalog } = scope.state.context;
  const fields = compositeColumns(catalog, value.type ?? 0);
  const field = fields?.find((candidate) => candidate.name === name);
  if (field === undefined && (fields !== null || isFunctionOfOne(name, scope))) {
    refuseColumn(name, null);
  }
  scope.state.noteType(field?.type ?? null);
  return computed(field?.type ?? null, [value]);
}

function isFunctionOfOne(name: string, scope: QueryScope): boolean {
  const routines = scope.state.context.catalog.functions.get(name) ?? [];
  return routines.some(
    (routine) =>
      routine.arguments.length - routine.defaults <= 1 && (routine.arguments.length >= 1 || routine.variadic !== 0),
  );
}

/** CASE: what it returns is computed from its conditions, too. */
export function resolveCase(expression: CaseExpr, scope: QueryScope): Value {
  const argument = expression.arg === undefined ? null : resolveExpression(expression.arg, scope);
  const results: Value[] = [];
  const conditions: Value[] = argument === null ? [] : [argument];
  for (const node of expression.args ?? []) {
    scope.state.claim(node);
    if (!("CaseWhen" in node)) {
      return refuseUnsupported("CASE has an unknown form", "Write WHEN … THEN ….");
    }
    for (const condition of resolveAll([node.CaseWhen.expr], scope)) {
      if (argument !== null) {
        resolveOperatorByName(["="], argument, condition, scope);
      }
      conditions.push(condition);
    }
    results.push(...resolveAll([node.CaseWhen.result], scope));
  }
  results.push(...resolveAll([expression.defresult], scope));
  const result = unified(results, scope);
  return { ...computed(result.type, [result, ...conditions]) };
}

/** One value out of several, of the type that all share. */
export function unified(values: readonly Value[], scope: QueryScope): Value {
  checkUnified(values, scope);
  const types = values.map((value) => value.type).filter((type) => type !== typeOids.unknown);
  const type = types.length === 0 && values.length > 0 ? typeOids.text : commonType(types, scope.state.context.catalog);
  touch(scope, computed(null, values).lineage);
  return computed(type, values);
}
