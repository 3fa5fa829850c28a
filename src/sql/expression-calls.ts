/** Calls of functions, with all that can stand in them. */
import type { FuncCall, Node, SortBy, WindowDef } from "libpg-query";
import { type ResolvedCall, resolveFunction, resolveOperator } from "./calls.ts";
import { resolveAll, resolveExpression } from "./grammar.ts";
import { type QueryScope, noLineage } from "./namespace.ts";
import { refuseFunction, refuseUnsupported } from "./refused.ts";
import { type Value, computed, openValue } from "./value.ts";

/** The result of a call, for an expression and for FROM. */
export interface CallResult {
  readonly value: Value;
  readonly call: ResolvedCall;
}

/** Resolves a call with its ORDER BY, FILTER and OVER. */
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
  const isOwnName = resolved.name === "current_database" || resolved.name === "current_schema";
  return { value: { ...result, isOwnName }, call: resolved };
}

function resolveArgument(node: Node, scope: QueryScope): Value {
  if (!("NamedArgExpr" in node)) {
    return resolveExpression(node, scope);
  }
  scope.state.claim(node);
  const { arg } = node.NamedArgExpr;
  // By name, an argument can stand at any position: nothing that depends on positions may be taken from it.
  const value = arg === undefined ? openValue(null) : resolveExpression(arg, scope);
  return { ...openValue(null, { lineage: value.lineage }), isUntyped: value.isUntyped };
}

/** The values that a list of ORDER BY items sorts by. */
export function resolveSort(nodes: readonly Node[] | undefined, scope: QueryScope): readonly Value[] {
  return (nodes ?? []).map((node) => resolveSortItem(sortOf(node, scope), scope));
}

/** The ORDER BY item in a node. */
export function sortOf(node: Node, scope: QueryScope): SortBy {
  scope.state.claim(node);
  return "SortBy" in node ? node.SortBy : refuseUnsupported("ORDER BY has an unknown form", "Sort by expressions.");
}

/** What one ORDER BY item sorts by. */
export function resolveSortItem(sort: SortBy, scope: QueryScope): Value {
  const value = sort.node === undefined ? openValue(null) : resolveExpression(sort.node, scope);
  if (sort.useOp !== undefined) {
    resolveOperator(sort.useOp, value, value, scope);
  }
  return value;
}

/** What a window is made of, with the window that it names. */
export function resolveWindow(window: WindowDef, scope: QueryScope): readonly Value[] {
  // In OVER w it is `name` that refers to a window; in OVER (w …) and in WINDOW it is `refname`.
  const named = [window.name, window.refname].map((name) => scope.windows.get(name ?? "") ?? noLineage);
  return [
    ...named.map((lineage) => openValue(null, { lineage })),
    ...resolveAll(window.partitionClause, scope),
    ...resolveSort(window.orderClause, scope),
    ...resolveAll([window.startOffset, window.endOffset], scope),
  ];
}
