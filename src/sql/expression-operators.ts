/** Operators and subqueries in expressions. */
import type { A_Expr, SubLink } from "libpg-query";
import { resolveOperator, resolveOperatorByName } from "./calls.ts";
import { type QueryResult, analyzeQuery, resolveAll, resolveExpression } from "./grammar.ts";
import { type QueryScope, childScope, unite } from "./namespace.ts";
import { refuseUnsupported } from "./refused.ts";
import { itemsOf, namesOf } from "./tree.ts";
import { checkUnified, typeOids } from "./types.ts";
import { type Value, computed, openValue } from "./value.ts";

/** `a + b`, `a IN (…)`, `a BETWEEN b AND c`, `a = ANY (…)` and their kin. */
export function resolveOperatorExpression(expression: A_Expr, scope: QueryScope): Value {
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
      return computed(left?.type === typeOids.unknown ? typeOids.text : (left?.type ?? null), all);
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

/** A subquery in an expression. */
export function resolveSubLink(link: SubLink, scope: QueryScope): Value {
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
  // Several columns stand beside a row, and are compared with it one by one.
  return result.columns.length === 1 && column !== undefined ? { ...value, column } : { ...value, elements: values };
}

function checkComparison(link: SubLink, test: Value | null, values: readonly Value[], scope: QueryScope): void {
  const lefts = test?.elements ?? (test === null ? [] : [test]);
  const names = link.operName === undefined ? ["="] : namesOf(link.operName, scope.state);
  for (const [i, value] of values.entries()) {
    resolveOperatorByName(names, lefts[i] ?? test, value, scope);
  }
}
