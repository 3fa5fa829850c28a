/** The constructors and queries of SQL/JSON and SQL/XML: they compute from all that is passed to them. */
import type { JsonBehavior, JsonFuncExpr, JsonOutput, JsonValueExpr, Node } from "libpg-query";
import { resolveSort, resolveWindow } from "./expression-calls.ts";
import { analyzeQuery, resolveAll, resolveExpression } from "./grammar.ts";
import { type QueryScope, childScope } from "./namespace.ts";
import { refuseUnsupported } from "./refused.ts";
import { isNameReading } from "./name-reading.ts";
import { resolveType, typeOids } from "./types.ts";
import { type Value, computed, openValue } from "./value.ts";

/** Resolves an expression of SQL/JSON or SQL/XML; null when it is of another kind. */
export function resolveStandardJson(node: Node, scope: QueryScope): Value | null {
  return resolveJson(node, scope) ?? resolveJsonAggregate(node, scope) ?? resolveXml(node, scope);
}

function resolveJson(node: Node, scope: QueryScope): Value | null {
  if ("JsonObjectConstructor" in node) {
    const { exprs, output } = node.JsonObjectConstructor;
    return computed(outputType(output, scope), resolveAll(exprs, scope));
  }
  if ("JsonArrayConstructor" in node) {
    const { exprs, output } = node.JsonArrayConstructor;
    return computed(outputType(output, scope), resolveAll(exprs, scope));
  }
  if ("JsonArrayQueryConstructor" in node) {
    const { query, output } = node.JsonArrayQueryConstructor;
    if (query === undefined) {
      return null;
    }
    const result = analyzeQuery(query, childScope(scope.state, scope));
    const values = result.columns.map((column) => openValue(column.type, { lineage: column.lineage }));
    return computed(outputType(output, scope), values);
  }
  if ("JsonKeyValue" in node) {
    return computed(null, [...resolveAll([node.JsonKeyValue.key], scope), ...passed(node.JsonKeyValue.value, scope)]);
  }
  if ("JsonValueExpr" in node) {
    return computed(null, passed(node.JsonValueExpr, scope));
  }
  if ("JsonIsPredicate" in node) {
    return computed(typeOids.boolean, resolveAll([node.JsonIsPredicate.expr], scope));
  }
  if ("JsonParseExpr" in node) {
    return computed(outputType(node.JsonParseExpr.output, scope), passed(node.JsonParseExpr.expr, scope));
  }
  if ("JsonScalarExpr" in node) {
    return computed(outputType(node.JsonScalarExpr.output, scope), resolveAll([node.JsonScalarExpr.expr], scope));
  }
  if ("JsonSerializeExpr" in node) {
    return computed(outputType(node.JsonSerializeExpr.output, scope), passed(node.JsonSerializeExpr.expr, scope));
  }
  return "JsonFuncExpr" in node ? resolveJsonQuery(node.JsonFuncExpr, scope) : null;
}

function resolveJsonQuery(query: JsonFuncExpr, scope: QueryScope): Value {
  const passing = (query.passing ?? []).flatMap((node) => {
    scope.state.claim(node);
    // The types do not list JsonArgument among tagged nodes' fields in every version: it is read as it comes.
    return "JsonArgument" in node
      ? passed(node.JsonArgument.val, scope)
      : refuseUnsupported("PASSING has an unknown form", "Leave it out.");
  });
  const values = [
    ...passed(query.context_item, scope),
    ...resolveAll([query.pathspec], scope),
    ...passing,
    ...behavior(query.on_empty, scope),
    ...behavior(query.on_error, scope),
  ];
  return computed(outputType(query.output, scope), values);
}

function behavior(clause: JsonBehavior | undefined, scope: QueryScope): readonly Value[] {
  return resolveAll([clause?.expr], scope);
}

function passed(value: JsonValueExpr | undefined, scope: QueryScope): readonly Value[] {
  return value?.raw_expr === undefined ? [] : [resolveExpression(value.raw_expr, scope)];
}

/** RETURNING makes a value of another type out of text: not one that reads names. */
function outputType(output: JsonOutput | undefined, scope: QueryScope): number | null {
  if (output?.typeName === undefined) {
    return null;
  }
  const type = resolveType(output.typeName, scope);
  return isNameReading(scope.state.context.catalog, type.oid)
    ? refuseUnsupported("RETURNING names a type that reads names", "Return text or a number.")
    : type.oid;
}

function resolveJsonAggregate(node: Node, scope: QueryScope): Value | null {
  const aggregate = "JsonObjectAgg" in node ? node.JsonObjectAgg : "JsonArrayAgg" in node ? node.JsonArrayAgg : null;
  if (aggregate === null) {
    return null;
  }
  const constructor = aggregate.constructor;
  if (typeof constructor === "function" || constructor === undefined) {
    return refuseUnsupported("a JSON aggregate has an unknown form", "Use json_agg or json_object_agg.");
  }
  const argument =
    "JsonObjectAgg" in node
      ? [...resolveAll([node.JsonObjectAgg.arg?.key], scope), ...passed(node.JsonObjectAgg.arg?.value, scope)]
      : "JsonArrayAgg" in node
        ? passed(node.JsonArrayAgg.arg, scope)
        : [];
  const values = [
    ...argument,
    ...resolveAll([constructor.agg_filter], scope),
    ...resolveSort(constructor.agg_order, scope),
    ...(constructor.over === undefined ? [] : resolveWindow(constructor.over, scope)),
  ];
  return computed(outputType(constructor.output, scope), values);
}

function resolveXml(node: Node, scope: QueryScope): Value | null {
  if ("XmlSerialize" in node) {
    const type = resolveType(node.XmlSerialize.typeName, scope);
    return isNameReading(scope.state.context.catalog, type.oid)
      ? refuseUnsupported("XMLSERIALIZE names a type that reads names", "Serialize to text.")
      : computed(type.oid, resolveAll([node.XmlSerialize.expr], scope));
  }
  if (!("XmlExpr" in node)) {
    return null;
  }
  const named = (node.XmlExpr.named_args ?? []).flatMap((argument) => {
    scope.state.claim(argument);
    return "ResTarget" in argument
      ? resolveAll([argument.ResTarget.val], scope)
      : refuseUnsupported("an XML argument has an unknown form", "Name plain values.");
  });
  return computed(typeOids.xml, [...resolveAll(node.XmlExpr.args, scope), ...named]);
}
