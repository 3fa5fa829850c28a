/** The select list: stars expanded, and every output named as PostgreSQL names it (FigureColname in parse_target.c). */
import type { ColumnRef, Node, TypeName } from "libpg-query";
import { compositeColumns } from "./catalog.ts";
import { resolveStep } from "./expression-forms.ts";
import { starredItem } from "./expression-names.ts";
import { resolveExpression } from "./grammar.ts";
import { type QueryScope, type RangeColumn, type RangeItem, useColumn, useWhole } from "./namespace.ts";
import { refuse, refuseUnsupported } from "./refused.ts";
import type { Value } from "./value.ts";
import { limits } from "#domain/limits.ts";

/** One output of a query. */
export type TargetColumn = RangeColumn;

/** Resolves a select list, or RETURNING. */
export function resolveTargets(nodes: readonly Node[] | undefined, scope: QueryScope): readonly TargetColumn[] {
  const targets = (nodes ?? []).flatMap((node) => {
    scope.state.claim(node);
    if (!("ResTarget" in node) || node.ResTarget.val === undefined || node.ResTarget.indirection !== undefined) {
      return refuseUnsupported("a select list has an unknown form", "Select expressions.");
    }
    const { val, name } = node.ResTarget;
    return expandStar(val, scope) ?? [toTarget(name ?? figureName(val) ?? "?column?", resolveExpression(val, scope))];
  });
  if (targets.length > limits.columnsMax) {
    refuse("statement.too-large", `a query may return ${limits.columnsMax} columns`, "Select fewer columns.");
  }
  return targets;
}

function toTarget(name: string, value: Value): TargetColumn {
  // A literal that nothing gives a type is text.
  const type = value.constant === null ? value.type : 25;
  const target = { name, type, lineage: value.lineage, origins: value.column?.origins ?? [] };
  if (value.constant !== null) {
    return { ...target, literal: value.constant };
  }
  return value.isUntyped ? { ...target, isUntyped: true } : target;
}

/** The outputs of `*`, `a.*`, `schema.a.*` and `(row).*`; null when it is no star. */
function expandStar(node: Node, scope: QueryScope): readonly TargetColumn[] | null {
  if ("ColumnRef" in node && hasStar(node.ColumnRef.fields)) {
    return expandColumnStar(node, node.ColumnRef, scope);
  }
  if (!("A_Indirection" in node) || !hasStar(node.A_Indirection.indirection)) {
    return null;
  }
  scope.state.claim(node);
  const { arg, indirection = [] } = node.A_Indirection;
  let value = arg === undefined ? null : resolveExpression(arg, scope);
  for (const step of indirection.slice(0, -1)) {
    value = value === null ? null : resolveStep(value, step, scope);
  }
  claimStar(indirection, scope);
  if (value?.row !== null && value?.row !== undefined) {
    return starOf(value.row, scope);
  }
  const fields = compositeColumns(scope.state.context.catalog, value?.type ?? 0);
  if (fields === null || value === null) {
    return refuseUnsupported("the columns of a row are not known", "Name the fields instead of writing a star.");
  }
  const { lineage } = value;
  return fields.map((field) => ({ name: field.name, type: field.type, lineage, origins: [] }));
}

function hasStar(nodes: readonly Node[] | undefined): boolean {
  const last = nodes?.at(-1);
  return last !== undefined && "A_Star" in last;
}

function claimStar(nodes: readonly Node[], scope: QueryScope): void {
  const star = nodes.at(-1);
  if (star !== undefined) {
    scope.state.claim(star);
  }
}

function expandColumnStar(node: Node, reference: ColumnRef, scope: QueryScope): readonly TargetColumn[] {
  scope.state.claim(node);
  if ((reference.fields ?? []).length > 1) {
    const item = starredItem(reference, scope);
    return item === null ? [] : starOf(item, scope);
  }
  claimStar(reference.fields ?? [], scope);
  const items = scope.visible.filter(({ byColumn }) => byColumn).map(({ item }) => item);
  if (items.length === 0) {
    refuse("statement.syntax", "SELECT * with no tables specified is not valid", "Add FROM.");
  }
  return items.flatMap((item) => starOf(item, scope));
}

function starOf(item: RangeItem, scope: QueryScope): readonly TargetColumn[] {
  useWhole(scope, item);
  for (const column of item.columns) {
    useColumn(scope, column);
  }
  return item.columns;
}

/** The name that PostgreSQL gives an output without alias; null when it has none of its own. */
export function figureName(node: Node): string | null {
  return figureByPart(node)?.name ?? null;
}

/** `weak`: a cast's type name, which gives way to the name of what is cast. */
interface Figured {
  readonly name: string;
  readonly weak: boolean;
}

function strong(name: string): Figured {
  return { name, weak: false };
}

function lastName(nodes: readonly Node[] | undefined): string | null {
  const last = nodes?.filter((node) => "String" in node).at(-1);
  return last !== undefined && "String" in last ? (last.String.sval ?? "") : null;
}

function figureByPart(node: Node): Figured | null {
  if ("ColumnRef" in node) {
    const name = lastName(node.ColumnRef.fields);
    return name === null ? null : strong(name);
  }
  if ("A_Indirection" in node) {
    const name = lastName(node.A_Indirection.indirection);
    return name !== null
      ? strong(name)
      : node.A_Indirection.arg === undefined
        ? null
        : figureByPart(node.A_Indirection.arg);
  }
  if ("FuncCall" in node) {
    return strong(lastName(node.FuncCall.funcname) ?? "");
  }
  if ("A_Expr" in node) {
    return node.A_Expr.kind === "AEXPR_NULLIF" ? strong("nullif") : null;
  }
  if ("TypeCast" in node) {
    const inner = node.TypeCast.arg === undefined ? null : figureByPart(node.TypeCast.arg);
    return inner !== null && !inner.weak ? inner : typeFigure(node.TypeCast.typeName);
  }
  if ("CollateClause" in node) {
    return node.CollateClause.arg === undefined ? null : figureByPart(node.CollateClause.arg);
  }
  if ("CaseExpr" in node) {
    const inner = node.CaseExpr.defresult === undefined ? null : figureByPart(node.CaseExpr.defresult);
    return inner !== null && !inner.weak ? inner : { name: "case", weak: true };
  }
  if ("SubLink" in node) {
    return figureSubLink(node);
  }
  return figureSyntax(node);
}

function typeFigure(type: TypeName | undefined): Figured | null {
  const name = lastName(type?.names);
  return name === null ? null : { name, weak: true };
}

function figureSubLink(node: Node): Figured | null {
  if (!("SubLink" in node)) {
    return null;
  }
  const { subLinkType, subselect } = node.SubLink;
  if (subLinkType === "EXISTS_SUBLINK") {
    return strong("exists");
  }
  if (subLinkType === "ARRAY_SUBLINK") {
    return strong("array");
  }
  if (subLinkType !== "EXPR_SUBLINK" || subselect === undefined || !("SelectStmt" in subselect)) {
    return null;
  }
  return figureQuery(subselect.SelectStmt);
}

/** The name of a scalar subquery is that of its first output. */
function figureQuery(select: Extract<Node, { SelectStmt: unknown }>["SelectStmt"]): Figured | null {
  if (select.larg !== undefined) {
    return figureQuery(select.larg);
  }
  if (select.valuesLists !== undefined) {
    return strong("column1");
  }
  const [target] = select.targetList ?? [];
  if (target === undefined || !("ResTarget" in target)) {
    return null;
  }
  const { name, val } = target.ResTarget;
  return strong(name ?? (val === undefined ? null : figureName(val)) ?? "?column?");
}

const valueFunctionNames: Readonly<Record<string, string>> = {
  SVFOP_CURRENT_DATE: "current_date",
  SVFOP_CURRENT_TIME: "current_time",
  SVFOP_CURRENT_TIME_N: "current_time",
  SVFOP_CURRENT_TIMESTAMP: "current_timestamp",
  SVFOP_CURRENT_TIMESTAMP_N: "current_timestamp",
  SVFOP_LOCALTIME: "localtime",
  SVFOP_LOCALTIME_N: "localtime",
  SVFOP_LOCALTIMESTAMP: "localtimestamp",
  SVFOP_LOCALTIMESTAMP_N: "localtimestamp",
  SVFOP_CURRENT_ROLE: "current_role",
  SVFOP_CURRENT_USER: "current_user",
  SVFOP_USER: "user",
  SVFOP_SESSION_USER: "session_user",
  SVFOP_CURRENT_CATALOG: "current_catalog",
  SVFOP_CURRENT_SCHEMA: "current_schema",
};

const xmlNames: Readonly<Record<string, string>> = {
  IS_XMLCONCAT: "xmlconcat",
  IS_XMLELEMENT: "xmlelement",
  IS_XMLFOREST: "xmlforest",
  IS_XMLPARSE: "xmlparse",
  IS_XMLPI: "xmlpi",
  IS_XMLROOT: "xmlroot",
};

const syntaxNames: ReadonlyMap<string, string> = new Map([
  ["A_ArrayExpr", "array"],
  ["RowExpr", "row"],
  ["CoalesceExpr", "coalesce"],
  ["GroupingFunc", "grouping"],
  ["XmlSerialize", "xmlserialize"],
  ["JsonParseExpr", "json"],
  ["JsonScalarExpr", "json_scalar"],
  ["JsonSerializeExpr", "json_serialize"],
  ["JsonObjectConstructor", "json_object"],
  ["JsonArrayConstructor", "json_array"],
  ["JsonArrayQueryConstructor", "json_array"],
  ["JsonObjectAgg", "json_objectagg"],
  ["JsonArrayAgg", "json_arrayagg"],
]);

const jsonQueryNames: Readonly<Record<string, string>> = {
  JSON_EXISTS_OP: "json_exists",
  JSON_QUERY_OP: "json_query",
  JSON_VALUE_OP: "json_value",
};

function figureSyntax(node: Node): Figured | null {
  if ("MinMaxExpr" in node) {
    return strong(node.MinMaxExpr.op === "IS_GREATEST" ? "greatest" : "least");
  }
  if ("SQLValueFunction" in node) {
    return named(valueFunctionNames[node.SQLValueFunction.op ?? ""]);
  }
  if ("XmlExpr" in node) {
    return named(xmlNames[node.XmlExpr.op ?? ""]);
  }
  if ("JsonFuncExpr" in node) {
    return named(jsonQueryNames[node.JsonFuncExpr.op ?? ""]);
  }
  return named(syntaxNames.get(Object.keys(node)[0] ?? ""));
}

function named(name: string | undefined): Figured | null {
  return name === undefined ? null : strong(name);
}
