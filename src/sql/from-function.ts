/** Functions in FROM: which columns they have (addRangeTableEntryForFunction in parse_relation.c). */
import type { Node, RangeFunction } from "libpg-query";
import { type CatalogFunction, compositeColumns } from "./catalog.ts";
import { renamed } from "./common-tables.ts";
import { resolveCall } from "./expression-calls.ts";
import { checkCollation } from "./expression-forms.ts";
import { resolveExpression } from "./grammar.ts";
import type { QueryScope, RangeColumn, RangeItem } from "./namespace.ts";
import { touch } from "./namespace.ts";
import { quoted, refuseUnsupported } from "./refused.ts";
import { figureName } from "./targets.ts";
import { isAbsent, itemsOf, namesOf } from "./tree.ts";
import { isNameReading } from "./name-reading.ts";
import { isPolymorphic, resolveType, typeOids } from "./types.ts";
import type { Value } from "./value.ts";

/** Resolves one function, or ROWS FROM (…), in FROM. */
export function functionItem(range: RangeFunction, scope: QueryScope): RangeItem {
  const before = scope.lateral;
  // A function sees what stands before it, LATERAL or not.
  scope.lateral = true;
  const functions = range.functions ?? [];
  const alias = range.alias?.aliasname ?? null;
  const columns = functions.flatMap((node) => {
    const [call, definitions] = itemsOf(node, scope.state);
    if (call === undefined) {
      return refuseUnsupported("FROM has an empty function", "Write the function.");
    }
    const several = unnestArguments(call, range);
    if (several !== null) {
      scope.state.claim(call);
      return several.flatMap((each) => functionColumns(each, undefined, null, scope));
    }
    const given =
      range.coldeflist ??
      (definitions === undefined || isAbsent(definitions) ? undefined : itemsOf(definitions, scope.state));
    return functionColumns(call, given, functions.length === 1 ? alias : null, scope);
  });
  scope.lateral = before;
  const ordinality: readonly RangeColumn[] =
    range.ordinality === true
      ? [{ name: "ordinality", type: typeOids.int8, lineage: columns[0]?.lineage ?? new Set(), origins: [] }]
      : [];
  const named = renamed([...columns, ...ordinality], namesOf(range.alias?.colnames, scope.state));
  const [first] = functions.flatMap((node) => itemsOf(node, scope.state));
  const name = alias ?? (first === undefined ? null : figureName(first));
  return { name, unaliased: null, columns: named, uses: [], base: null };
}

/** `unnest(a, b)` in FROM stands for ROWS FROM (unnest(a), unnest(b)); null for anything else. */
function unnestArguments(node: Node, range: RangeFunction): readonly Node[] | null {
  if (!("FuncCall" in node) || range.coldeflist !== undefined) {
    return null;
  }
  const { funcname = [], args = [], ...rest } = node.FuncCall;
  const [name] = funcname;
  const isUnnest = funcname.length === 1 && name !== undefined && "String" in name && name.String.sval === "unnest";
  const isPlain = Object.keys(rest).every((key) => key === "funcformat" || key === "location");
  return isUnnest && isPlain && args.length > 1
    ? args.map((argument) => ({ FuncCall: { ...rest, funcname, args: [argument] } }))
    : null;
}

function functionColumns(
  node: Node,
  definitions: readonly Node[] | undefined,
  alias: string | null,
  scope: QueryScope,
): readonly RangeColumn[] {
  const name = figureName(node) ?? "";
  if (!("FuncCall" in node)) {
    const value = resolveExpression(node, scope);
    return [{ name: alias ?? name, type: value.type, lineage: value.lineage, origins: [] }];
  }
  scope.state.claim(node);
  const { value, call } = resolveCall(node.FuncCall, scope);
  touch(scope, value.lineage);
  if (definitions !== undefined && definitions.length > 0) {
    return definitions.map((definition) => definedColumn(definition, value, scope));
  }
  const shapes = call.candidates.map((routine) => resultColumns(routine, value, alias ?? name, scope));
  const [first] = shapes;
  const same = shapes.every(
    (shape) => shape.map((column) => column.name).join("\n") === first?.map((column) => column.name).join("\n"),
  );
  if (first === undefined || !same) {
    return refuseUnsupported(
      `the columns of ${quoted(name)} depend on types that are not known`,
      "Cast its arguments, as in $1::int[].",
    );
  }
  return first.map((column, i) => ({
    ...column,
    type: shapes.every((shape) => shape[i]?.type === column.type) ? column.type : null,
  }));
}

function definedColumn(definition: Node, value: Value, scope: QueryScope): RangeColumn {
  scope.state.claim(definition);
  if (!("ColumnDef" in definition)) {
    return refuseUnsupported("a column definition has an unknown form", "Write name and type.");
  }
  const { colname = "", typeName, collClause } = definition.ColumnDef;
  const type = resolveType(typeName, scope);
  if (collClause !== undefined) {
    checkCollation(collClause.collname, scope);
  }
  if (isNameReading(scope.state.context.catalog, type.oid)) {
    refuseUnsupported("a column definition has a type that reads names", "Define the column as text or a number.");
  }
  return { name: colname, type: type.oid, lineage: value.lineage, origins: [] };
}

/** The columns of a function's result: its OUT arguments, the fields of a row, or the one value. */
function resultColumns(
  routine: CatalogFunction,
  value: Value,
  scalarName: string,
  scope: QueryScope,
): readonly RangeColumn[] {
  const { catalog } = scope.state.context;
  const { lineage } = value;
  const [output] = routine.outputs;
  if (routine.outputs.length > 1) {
    return routine.outputs.map(({ name, type }, i) => ({
      name: name === "" ? `column${i + 1}` : name,
      type: isPolymorphic(catalog, type) ? null : type,
      lineage,
      origins: [],
    }));
  }
  if (output !== undefined) {
    return [{ name: output.name === "" ? scalarName : output.name, type: value.type, lineage, origins: [] }];
  }
  const type = isPolymorphic(catalog, routine.returns) ? value.type : routine.returns;
  const found = type === null ? undefined : catalog.types.get(type);
  if (found === undefined || found.kind === "pseudo") {
    return refuseUnsupported(
      `the columns of ${quoted(routine.name)} are not known`,
      "Cast its argument, as in $1::int[], or define the columns.",
    );
  }
  if (found.kind === "composite") {
    const fields = compositeColumns(catalog, found.oid);
    return fields === null
      ? refuseUnsupported(`the columns of ${quoted(routine.name)} are not known`, "Select its fields by name.")
      : fields.map((field) => ({ name: field.name, type: field.type, lineage, origins: [] }));
  }
  // A domain over a composite type also has columns.
  const base = found.kind === "domain" ? catalog.types.get(found.base) : found;
  return base?.kind === "composite"
    ? refuseUnsupported(`the columns of ${quoted(routine.name)} are not known`, "Select its fields by name.")
    : [{ name: scalarName, type: found.oid, lineage, origins: [] }];
}
