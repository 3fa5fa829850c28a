/**
 * The parts of a query refer to one another: an expression holds queries, a query holds expressions. Each part calls the others
 * through these functions; `analyze.ts` says what they are.
 */
import type { Node, SelectStmt } from "libpg-query";
import type { Lineage, QueryScope, RangeColumn } from "./namespace.ts";
import type { Value } from "./value.ts";

/** What a query returns, and everything masked that it looked at. */
export interface QueryResult {
  readonly columns: readonly RangeColumn[];
  readonly touched: Lineage;
}

/** The parts. Each throws StatementRefused for every name that is not granted and every form that is not known. */
export interface Grammar {
  readonly expression: (node: Node, scope: QueryScope) => Value;
  readonly query: (node: Node, scope: QueryScope) => QueryResult;
  readonly select: (select: SelectStmt, scope: QueryScope) => QueryResult;
  /** A query of WITH, which may write where it stands at the top of a statement. */
  readonly commonQuery: (node: Node, scope: QueryScope) => QueryResult;
}

/** Resolves an expression where it stands. */
export function resolveExpression(node: Node, scope: QueryScope): Value {
  return scope.state.grammar.expression(node, scope);
}

/** Resolves expressions that may be missing. */
export function resolveAll(nodes: readonly (Node | undefined)[] | undefined, scope: QueryScope): readonly Value[] {
  return (nodes ?? []).flatMap((node) => (node === undefined ? [] : [resolveExpression(node, scope)]));
}

/** Analyses a query at the level `scope`, which must be its own. */
export function analyzeQuery(node: Node, scope: QueryScope): QueryResult {
  return scope.state.grammar.query(node, scope);
}

/** As `analyzeQuery`, for a SELECT that stands without a tag: a side of a set operation. */
export function analyzeSelect(select: SelectStmt, scope: QueryScope): QueryResult {
  return scope.state.grammar.select(select, scope);
}

/** As `analyzeQuery`, for a query of WITH. */
export function analyzeCommonQuery(node: Node, scope: QueryScope): QueryResult {
  return scope.state.grammar.commonQuery(node, scope);
}
