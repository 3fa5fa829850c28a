/** Expressions: what each kind computes from, and every name in it resolved. An unknown kind denies. */
import type {
  A_Expr,
  A_Indirection,
  CaseExpr,
  ColumnRef,
  FuncCall,
  Node,
  SortBy,
  SubLink,
  TypeCast,
  WindowDef,
} from "libpg-query";
import { compositeColumns } from "./catalog.ts";
import { resolveFunction, resolveOperator, resolveOperatorByName } from "./calls.ts";
import { resolveStandardJson } from "./expression-json.ts";
import {
  type QueryScope,
  type RangeItem,
  childScope,
  columnOf,
  lookUpColumn,
  lookUpItem,
  touch,
  unite,
  useColumn,
  useWhole,
} from "./namespace.ts";
import { quoted, refuse, refuseColumn, refuseFunction, refuseRelation, refuseUnsupported } from "./refused.ts";
import { type QueryResult, analyzeQuery } from "./query.ts";
import { itemsOf, namesOf } from "./tree.ts";
import {
  checkCast,
  checkUnified,
  isCatalogReference,
  isNameReading,
  literalOf,
  resolveType,
  typeOids,
} from "./types.ts";
import { type Value, computed, openValue } from "./value.ts";

/**
 * Resolves an expression where it stands.
 * @throws StatementRefused for every name that is not granted and every form that is not known
 */
export function resolveExpression(node: Node, scope: QueryScope): Value {
  scope.state.claim(node);
  return (
    resolveLeaf(node, scope) ??
    resolveOperation(node, scope) ??
    resolveConstruction(node, scope) ??
    resolveStandardJson(node, scope) ??
    refuseUnsupported(
      `the statement uses ${Object.keys(node)[0] ?? "a form"}, which is not supported here`,
      "Write it without.",
    )
  );
}

/** Resolves expressions that may be missing. */
export function resolveAll(nodes: readonly (Node | undefined)[] | undefined, scope: QueryScope): readonly Value[] {
  return (nodes ?? []).flatMap((node) => (node === undefined ? [] : [resolveExpression(node, scope)]));
}

function resolveLeaf(node: Node, scope: QueryScope): Value | null {
  if ("ColumnRef" in node) {
    return resolveColumnReference(node.ColumnRef, scope);
  }
  if ("A_Const" in node) {
    return resolveConstant(node);
  }
  if ("ParamRef" in node) {
    const number = node.ParamRef.number ?? 0;
    scope.state.parameters = Math.max(scope.state.parameters, number);
    return openValue(null, { parameter: number });
  }
  if ("SQLValueFunction" in node) {
    const op = node.SQLValueFunction.op ?? "";
    return openValue(/USER|ROLE|CATALOG|SCHEMA/.test(op) ? typeOids.name : null);
  }
  // Only where PostgreSQL takes it: in VALUES of an INSERT, and in SET.
  return "SetToDefault" in node ? openValue(null) : null;
}

function resolveConstant(node: Node & { readonly A_Const: unknown }): Value {
  const constant = "A_Const" in node ? literalOf(node) : null;
  if (constant !== null) {
    return openValue(typeOids.unknown, { constant });
  }
  const { A_Const: value } = node;
  const has = (name: string): boolean => typeof value === "object" && value !== null && name in value;
  if (has("ival")) {
    return openValue(typeOids.int4);
  }
  if (has("boolval")) {
    return openValue(typeOids.boolean);
  }
  if (has("fval")) {
    // A number without a point that is too big for int4 is int8 or numeric: not told apart.
    return openValue(null);
  }
  return openValue(has("bsval") ? typeOids.bit : typeOids.unknown);
}

function resolveColumnReference(reference: ColumnRef, scope: QueryScope): Value {
  const fields = reference.fields ?? [];
  const row = starredItem(reference, scope);
  if (row !== null) {
    return rowValue(row, scope);
  }
  const names = namesOf(fields, scope.state);
  const [first = "", second = "", third = ""] = names;
  switch (names.length) {
    case 1:
      return resolveBareName(first, scope);
    case 2: {
      const item = lookUpItem(scope, null, first) ?? refuseRelation(first);
      return columnValue(item, second, scope);
    }
    case 3: {
      const item = lookUpItem(scope, first, second) ?? refuseRelation(`${first}.${second}`);
      if (item.base !== null) {
        scope.state.qualifiedReferences.set(reference, item.base);
      }
      return columnValue(item, third, scope);
    }
    default:
      return refuse("name.unsupported-form", "a column is named with its database", "Write table.column.");
  }
}

/** What `a.*` means where a value is needed: the whole row; null when the reference has no star. */
export function starredItem(reference: ColumnRef, scope: QueryScope): RangeItem | null {
  const fields = reference.fields ?? [];
  const star = fields.at(-1);
  if (star === undefined || !("A_Star" in star)) {
    return null;
  }
  scope.state.claim(star);
  const [first = "", second, ...more] = namesOf(fields.slice(0, -1), scope.state);
  if (fields.length === 1 || more.length > 0) {
    refuse("name.unsupported-form", "a star stands where a value is needed", "Write table.*, or name the columns.");
  }
  const item = second === undefined ? lookUpItem(scope, null, first) : lookUpItem(scope, first, second);
  if (item === null) {
    return refuseRelation(second === undefined ? first : `${first}.${second}`);
  }
  if (second !== undefined && item.base !== null) {
    scope.state.qualifiedReferences.set(reference, item.base);
  }
  return item;
}

/** Expressions of ROW(…) and VALUES, where `a.*` stands for all columns of `a`. */
export function resolveExpanded(nodes: readonly Node[] | undefined, scope: QueryScope): readonly Value[] {
  return (nodes ?? []).flatMap((node) => {
    const item = "ColumnRef" in node ? starredItem(node.ColumnRef, scope) : null;
    if (item === null) {
      return [resolveExpression(node, scope)];
    }
    scope.state.claim(node);
    useWhole(scope, item);
    return item.columns.map((column) => openValue(column.type, { lineage: column.lineage, column }));
  });
}

function resolveBareName(name: string, scope: QueryScope): Value {
  const column = lookUpColumn(scope, name);
  if (column !== null) {
    useColumn(scope, column);
    return openValue(column.type, { lineage: column.lineage, column });
  }
  const item = lookUpItem(scope, null, name);
  return item === null ? refuseColumn(name, null) : rowValue(item, scope);
}

function columnValue(item: RangeItem, name: string, scope: QueryScope): Value {
  const column = columnOf(item, name);
  useColumn(scope, column);
  return openValue(column.type, { lineage: column.lineage, column });
}

/** The whole row of something in FROM; of a function that returns one value, the value. */
function rowValue(item: RangeItem, scope: QueryScope): Value {
  const lineage = useWhole(scope, item);
  return openValue(null, { lineage, row: item });
}

function resolveOperation(node: Node, scope: QueryScope): Value | null {
  if ("A_Expr" in node) {
    return resolveOperatorExpression(node.A_Expr, scope);
  }
  if ("BoolExpr" in node) {
    return computed(typeOids.boolean, resolveAll(node.BoolExpr.args, scope));
  }
  if ("NullTest" in node) {
    return computed(typeOids.boolean, resolveAll([node.NullTest.arg], scope));
  }
  if ("BooleanTest" in node) {
    return computed(typeOids.boolean, resolveAll([node.BooleanTest.arg], scope));
  }
  if ("FuncCall" in node) {
    return resolveCall(node.FuncCall, scope).value;
  }
  if ("TypeCast" in node) {
    return resolveCast(node.TypeCast, scope);
  }
  if ("CollateClause" in node) {
    return resolveCollation(node.CollateClause, scope);
  }
  if ("SubLink" in node) {
    return resolveSubLink(node.SubLink, scope);
  }
  return "A_Indirection" in node ? resolveIndirection(node.A_Indirection, scope) : null;
}

function resolveOperatorExpression(expression: A_Expr, scope: QueryScope): Value {
  const left = expression.lexpr === undefined ? null : resolveExpression(expression.lexpr, scope);
  const rights =
    expression.rexpr !== undefined && "List" in expression.rexpr
      ? resolveAll(itemsOf(expression.rexpr, scope.state), scope)
      : resolveAll([expression.rexpr], scope);
  const [right] = rights;
  if (right === undefined) {
    return refuseUnsupported("an operator has no right side", "Write both sides.");
  }
  const all = left === null ? rights : [left, ...rights];
  switch (expression.kind) {
    case "AEXPR_BETWEEN":
    case "AEXPR_NOT_BETWEEN":
    case "AEXPR_BETWEEN_SYM":
    case "AEXPR_NOT_BETWEEN_SYM":
      namesOf(expression.name, scope.state);
      for (const bound of rights) {
        for (const name of ["<", "<=", ">", ">="]) {
          resolveOperatorByName([name], left, bound, scope);
        }
      }
      return computed(typeOids.boolean, all);
    case "AEXPR_IN":
      for (const item of rights) {
        resolveOperator(expression.name, left, item, scope);
      }
      checkUnified(all, scope);
      return computed(typeOids.boolean, all);
    case "AEXPR_OP_ANY":
    case "AEXPR_OP_ALL":
      resolveOperator(expression.name, left, elementOf(right, scope), scope);
      return computed(typeOids.boolean, all);
    case "AEXPR_NULLIF":
      resolveOperator(expression.name, left, right, scope);
      return computed(left?.type ?? null, all);
    default: {
      const type = resolveOperator(expression.name, left, right, scope);
      return computed(type, all);
    }
  }
}

/** What the right side of ANY holds. A literal `'{…}'` is read element by element: as a literal, where names are read. */
function elementOf(value: Value, scope: QueryScope): Value {
  const element = scope.state.context.catalog.types.get(value.type ?? 0)?.element ?? 0;
  return { ...value, type: element === 0 ? (value.constant === null ? null : value.type) : element, elements: null };
}

/** The result of a call, for an expression and for FROM. */
export interface CallResult {
  readonly value: Value;
  readonly call: ReturnType<typeof resolveFunction>;
}

export function resolveCall(call: FuncCall, scope: QueryScope): CallResult {
  const values = (call.args ?? []).map((argument) => resolveArgument(argument, scope));
  const order = resolveSort(call.agg_order, scope);
  const filter = resolveAll([call.agg_filter], scope);
  const window = call.over === undefined ? [] : resolveWindow(call.over, scope);
  const passed = call.agg_within_group === true ? [...values, ...order] : values;
  const resolved = resolveFunction(call.funcname, passed, scope);
  const result = computed(resolved.returns, [...values, ...order, ...filter, ...window]);
  if (resolved.name === "pg_column_size" && result.lineage.size > 0) {
    // A stored size tells how long the real value is.
    refuseFunction("pg_column_size");
  }
  return { value: result, call: resolved };
}

function resolveArgument(node: Node, scope: QueryScope): Value {
  if (!("NamedArgExpr" in node)) {
    return resolveExpression(node, scope);
  }
  scope.state.claim(node);
  const { arg } = node.NamedArgExpr;
  // By name, an argument can stand at any position: nothing that depends on positions may be taken from it.
  const value = arg === undefined ? openValue(null) : resolveExpression(arg, scope);
  return { ...value, type: null, constant: null, column: null, checked: false };
}

/** The values that a list of ORDER BY items sorts by. */
export function resolveSort(nodes: readonly Node[] | undefined, scope: QueryScope): readonly Value[] {
  return (nodes ?? []).map((node) => resolveSortItem(sortOf(node, scope), scope));
}

export function sortOf(node: Node, scope: QueryScope): SortBy {
  scope.state.claim(node);
  return "SortBy" in node ? node.SortBy : refuseUnsupported("ORDER BY has an unknown form", "Sort by expressions.");
}

export function resolveSortItem(sort: SortBy, scope: QueryScope): Value {
  const value = sort.node === undefined ? openValue(null) : resolveExpression(sort.node, scope);
  if (sort.useOp !== undefined) {
    resolveOperator(sort.useOp, value, value, scope);
  }
  return value;
}

export function resolveWindow(window: WindowDef, scope: QueryScope): readonly Value[] {
  return [
    ...resolveAll(window.partitionClause, scope),
    ...resolveSort(window.orderClause, scope),
    ...resolveAll([window.startOffset, window.endOffset], scope),
  ];
}

function resolveCast(cast: TypeCast, scope: QueryScope): Value {
  const value = cast.arg === undefined ? openValue(null) : resolveExpression(cast.arg, scope);
  const type = resolveType(cast.typeName, scope);
  checkCast(value, type, scope);
  const { catalog } = scope.state.context;
  const isReference = type.oid === typeOids.oid || isNameReading(catalog, type.oid);
  return openValue(type.oid, {
    lineage: value.lineage,
    checked: isReference && (isNameReading(catalog, type.oid) || isCatalogReference(value)),
  });
}

function resolveCollation(clause: { arg?: Node; collname?: Node[] }, scope: QueryScope): Value {
  const value = clause.arg === undefined ? openValue(null) : resolveExpression(clause.arg, scope);
  checkCollation(clause.collname, scope);
  return { ...value, column: null, constant: null };
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

function resolveSubLink(link: SubLink, scope: QueryScope): Value {
  const test = resolveAll([link.testexpr], scope);
  const inner = childScope(scope.state, scope);
  const result = link.subselect === undefined ? null : analyzeQuery(link.subselect, inner);
  if (result === null) {
    return refuseUnsupported("a subquery is missing", "Write the subquery.");
  }
  const values = result.columns.map((column) => openValue(column.type, { lineage: column.lineage }));
  switch (link.subLinkType) {
    case "EXISTS_SUBLINK":
      return openValue(typeOids.boolean, { lineage: result.touched });
    case "EXPR_SUBLINK":
      return subqueryValue(result, values);
    case "ARRAY_SUBLINK": {
      const element = scope.state.context.catalog.types.get(result.columns[0]?.type ?? 0);
      return computed(element?.array ?? null, values);
    }
    case "ANY_SUBLINK":
    case "ALL_SUBLINK":
      checkComparison(link, test[0] ?? null, values, scope);
      return openValue(typeOids.boolean, { lineage: unite(computed(null, test).lineage, result.touched) });
    default:
      return refuseUnsupported("a subquery has an unknown form", "Use IN, ANY, ALL, EXISTS or a scalar subquery.");
  }
}

function subqueryValue(result: QueryResult, values: readonly Value[]): Value {
  const value = computed(result.columns.length === 1 ? (result.columns[0]?.type ?? null) : null, values);
  const column = result.columns[0];
  return result.columns.length === 1 && column !== undefined ? { ...value, column } : value;
}

function checkComparison(link: SubLink, test: Value | null, values: readonly Value[], scope: QueryScope): void {
  const lefts = test?.elements ?? (test === null ? [] : [test]);
  const names = link.operName === undefined ? ["="] : namesOf(link.operName, scope.state);
  for (const [i, value] of values.entries()) {
    resolveOperatorByName(names, lefts[i] ?? test, value, scope);
  }
}

/** `a[1]`, `(row).field`. A field can also be a function of one argument: then it is not taken for a field. */
function resolveIndirection(indirection: A_Indirection, scope: QueryScope): Value {
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
  return computed(field?.type ?? null, [value]);
}

function isFunctionOfOne(name: string, scope: QueryScope): boolean {
  const routines = scope.state.context.catalog.functions.get(name) ?? [];
  return routines.some(
    (routine) =>
      routine.arguments.length - routine.defaults <= 1 && (routine.arguments.length >= 1 || routine.variadic !== 0),
  );
}

function resolveConstruction(node: Node, scope: QueryScope): Value | null {
  if ("CaseExpr" in node) {
    return resolveCase(node.CaseExpr, scope);
  }
  if ("CoalesceExpr" in node) {
    return unified(resolveAll(node.CoalesceExpr.args, scope), scope);
  }
  if ("MinMaxExpr" in node) {
    return unified(resolveAll(node.MinMaxExpr.args, scope), scope);
  }
  if ("A_ArrayExpr" in node) {
    const element = unified(resolveAll(node.A_ArrayExpr.elements, scope), scope);
    const type = scope.state.context.catalog.types.get(element.type ?? 0);
    // An array of arrays has the type of its elements.
    return { ...element, type: type === undefined ? null : type.element === 0 ? type.array || null : type.oid };
  }
  if ("RowExpr" in node) {
    const elements = resolveExpanded(node.RowExpr.args, scope);
    return { ...computed(typeOids.record, elements), elements };
  }
  if ("GroupingFunc" in node) {
    resolveAll(node.GroupingFunc.args, scope);
    return openValue(typeOids.int4);
  }
  return null;
}

function resolveCase(expression: CaseExpr, scope: QueryScope): Value {
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
  const types = new Set(values.map((value) => value.type).filter((type) => type !== typeOids.unknown));
  const [only] = types;
  const type = types.size === 1 ? (only ?? null) : types.size === 0 && values.length > 0 ? typeOids.text : null;
  touch(scope, computed(null, values).lineage);
  return computed(type, values);
}
