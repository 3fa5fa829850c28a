/** Expressions: what each kind computes from, and every name in it resolved. An unknown kind denies. */
import type { A_Const, Node } from "libpg-query";
import { resolveCall } from "./expression-calls.ts";
import { resolveCase, resolveCast, resolveCollation, resolveIndirection, unified } from "./expression-forms.ts";
import { resolveStandardJson } from "./expression-json.ts";
import { resolveColumnReference, resolveExpanded } from "./expression-names.ts";
import { resolveOperatorExpression, resolveSubLink } from "./expression-operators.ts";
import { resolveAll } from "./grammar.ts";
import type { QueryScope } from "./namespace.ts";
import { refuseUnsupported } from "./refused.ts";
import { literalOf, typeOids } from "./types.ts";
import { type Value, computed, openValue } from "./value.ts";

/** `Grammar.expression`. */
export function expression(node: Node, scope: QueryScope): Value {
  scope.state.claim(node);
  return (
    resolveLeaf(node, scope) ??
    resolveOperation(node, scope) ??
    resolveConstruction(node, scope) ??
    resolveStandardJson(node, scope) ??
    refuseUnsupported(
      `the statement uses ${Object.keys(node)[0] ?? "a form"}, which is not supported here`,
      "Write the statement without it.",
    )
  );
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
    return openValue(null, { parameter: number, isUntyped: true });
  }
  if ("SQLValueFunction" in node) {
    const type = valueFunctionTypes.get((node.SQLValueFunction.op ?? "").replace(/_N$/, ""));
    return openValue(type ?? typeOids.name, { isOwnName: type === undefined });
  }
  // Only where PostgreSQL takes it: in VALUES of an INSERT, and in SET.
  return "SetToDefault" in node ? openValue(null) : null;
}

/** Those about time; the others give a name of the session. */
const valueFunctionTypes = new Map<string, number>([
  ["SVFOP_CURRENT_DATE", 1082],
  ["SVFOP_CURRENT_TIME", 1266],
  ["SVFOP_CURRENT_TIMESTAMP", 1184],
  ["SVFOP_LOCALTIME", 1083],
  ["SVFOP_LOCALTIMESTAMP", 1114],
]);

/** A number that is not int4: int8 if it fits, otherwise numeric (make_const in parse_node.c). */
function typeOfNumber(text: string): number {
  const digits = text.replaceAll("_", "");
  return /^(\d+|0[xob][\da-f]+)$/i.test(digits) && BigInt(digits) <= int8Max ? typeOids.int8 : typeOids.numeric;
}

const int8Max = 2n ** 63n - 1n;

function resolveConstant(node: { readonly A_Const: A_Const }): Value {
  const constant = literalOf(node);
  if (constant !== null) {
    return openValue(typeOids.unknown, { constant, isUntyped: true });
  }
  const { A_Const: value } = node;
  if (value.ival !== undefined) {
    return openValue(typeOids.int4);
  }
  if (value.boolval !== undefined) {
    return openValue(typeOids.boolean);
  }
  if (value.fval !== undefined) {
    return openValue(typeOfNumber(value.fval.fval ?? ""));
  }
  return openValue(value.bsval === undefined ? typeOids.unknown : typeOids.bit);
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
