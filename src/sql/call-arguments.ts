/** What a call of a function that looks something up may be passed. */
import type { CatalogFunction } from "./catalog.ts";
import type { FunctionVerdict, RowPair } from "./functions.ts";
import { isNameReading } from "./name-reading.ts";
import type { QueryScope, ShadowUse } from "./namespace.ts";
import { checkPrivilegeQuestion } from "./privilege-questions.ts";
import { quoted, refuse, refuseFunction, refuseUnsupported } from "./refused.ts";
import { checkSetting, isReadableSetting, isWritableSetting } from "./settings.ts";
import { checkNamedConstant, isCatalogReference, isKnownRelation } from "./types.ts";
import type { Value } from "./value.ts";

/**
 * Checks the arguments of a call by what was found out about the function.
 * @throws StatementRefused `grant.no-function`, `grant.no-session-setting` and all that a name throws
 */
export function applyVerdict(
  verdict: FunctionVerdict,
  routine: CatalogFunction,
  values: readonly Value[],
  scope: QueryScope,
): void {
  switch (verdict.kind) {
    case "plain":
      return;
    case "denied":
      return refuseFunction(routine.name);
    case "helper":
      return checkHelper(routine.name, verdict.objects, values, scope);
    case "row":
      return checkRow(routine.name, verdict.pairs, values);
    case "partition":
      checkPartition(routine.name, verdict.speaksOf, scope);
      return checkHelper(routine.name, [0], values, scope);
    case "configuration":
      return checkConfiguration(values, scope);
    case "privilege":
      return checkPrivilegeQuestion(routine.name, values, scope);
    case "setting":
      return checkSettingCall(verdict.access, values, scope);
    default:
      return verdict satisfies never;
  }
}

/** Helpers check no right: they may be asked only about what a shadowed catalog shows, or about something that is granted. */
function checkHelper(name: string, objects: readonly number[], values: readonly Value[], scope: QueryScope): void {
  for (const position of objects) {
    const value = values[position];
    if (value === undefined || isCatalogReference(value)) {
      continue;
    }
    if (value.constant !== null && isKnownRelation(value.constant, scope)) {
      continue;
    }
    refuse(
      "grant.no-function",
      `${quoted(name)} may only be asked about objects that the catalog shows`,
      "Pass a column of a catalog relation, such as pg_class.oid, or the name of a granted table.",
    );
  }
}

/** An expression over one table read with another one's columns names those; a number of a column means one in its own table. */
function checkRow(name: string, pairs: readonly RowPair[], values: readonly Value[]): void {
  const [first, second] = values.map(ownColumn);
  const isAllowed = pairs.some(
    (pair) =>
      first?.use.shadow.name === pair.relation &&
      first.column === pair.first &&
      (pair.second === null || (second?.use === first.use && second.column === pair.second)) &&
      values[1] !== undefined &&
      (pair.second !== null || isCatalogReference(values[1])),
  );
  if (!isAllowed) {
    const [example] = pairs;
    refuse(
      "grant.no-function",
      `${quoted(name)} may only be asked about two columns of one catalog row`,
      example === undefined
        ? "Leave it out."
        : `Write ${name}(a.${example.first}, a.${example.second ?? "oid"}) with ${example.relation} as a.`,
    );
  }
}

/** The catalog column that a value is, in the row of FROM itself and not through a subquery. */
function ownColumn(value: Value): { readonly use: ShadowUse; readonly column: string } | null {
  const [origin, ...others] = value.column?.origins ?? [];
  return value.column !== null &&
    origin?.use.kind === "shadow" &&
    others.length === 0 &&
    origin.use.columns.has(value.column)
    ? { use: origin.use, column: origin.column }
    : null;
}

/** A partition's key or bounds: told by the table's OID alone, so that it depends on what the scope covers at all. */
function checkPartition(name: string, speaksOf: "columns" | "values", scope: QueryScope): void {
  const { catalog, scope: compiled } = scope.state.context;
  for (const scoped of compiled.relations.values()) {
    const relation = catalog.relations.get(`${scoped.base.schema}.${scoped.base.name}`);
    const shown = new Set(speaksOf === "columns" ? scoped.visibleColumns : scoped.openColumns);
    const isPartition = relation?.kind === "partitioned" || (relation?.kind === "table" && speaksOf === "values");
    if (isPartition && relation.columns.some((column) => !shown.has(column.name))) {
      refuseFunction(name);
    }
  }
}

function checkConfiguration(values: readonly Value[], scope: QueryScope): void {
  const [first] = values;
  if (first !== undefined && first.constant !== null) {
    checkNamedConstant(first.constant, "regconfig", scope);
  } else if (
    first !== undefined &&
    !first.checked &&
    (first.type === null || isNameReading(scope.state.context.catalog, first.type))
  ) {
    refuseUnsupported("the text search configuration is not a constant", "Name it, as in to_tsvector('english', …).");
  }
}

function checkSettingCall(access: "read" | "write", values: readonly Value[], scope: QueryScope): void {
  const [name, value] = values;
  const { state } = scope;
  if (access === "read") {
    if (name === undefined || name.constant === null || !isReadableSetting(name.constant)) {
      refuseSetting(name?.constant ?? null, "read");
    }
    state.settings.set(
      (name.constant ?? "").toLowerCase(),
      state.settings.get((name.constant ?? "").toLowerCase()) ?? "read",
    );
    return;
  }
  state.impure = true;
  if (name === undefined || value === undefined) {
    return refuseSetting(null, "write");
  }
  if (name.parameter !== null && value.parameter !== null) {
    state.bindSetting({ nameParameter: name.parameter, valueParameter: value.parameter });
    return;
  }
  if (name.constant === null || value.constant === null || !checkSetting(name.constant, value.constant)) {
    return refuseSetting(name.constant, "write");
  }
  state.settings.set(name.constant.toLowerCase(), "write");
}

/** @throws StatementRefused `grant.no-session-setting` */
export function refuseSetting(name: string | null, access: "read" | "write"): never {
  const what = name === null ? "a setting that is not named in the statement" : `the setting ${quoted(name)}`;
  const known = name !== null && isWritableSetting(name);
  refuse(
    "grant.no-session-setting",
    `a session may not ${access === "read" ? "read" : "change"} ${what}${known && access === "write" ? " to this value" : ""}`,
    access === "read" ? "Read one of the listed settings." : "Leave it as the grant pins it; timeouts can be lowered.",
  );
}
