/**
 * Types, as far as the gate must know them: to tell which function or operator a call can mean, and to find where text would be
 * read as a name (`'payment_methods'::regclass` asks whether the table exists).
 */
import type { Node, TypeName } from "libpg-query";
import { type Catalog, type CatalogType, castKey, findRelation, findType, isBuiltin, lookupPath } from "./catalog.ts";
import { isNameReading, mayReadNames } from "./name-reading.ts";
import type { QueryScope } from "./namespace.ts";
import { quoted, refuse, refuseRelation, refuseUnsupported } from "./refused.ts";
import { namesOf } from "./tree.ts";
import type { Value } from "./value.ts";

/** OIDs of `pg_catalog` types that the gate reasons about: fixed by PostgreSQL (pg_type.dat). */
export const typeOids = {
  boolean: 16,
  bytea: 17,
  name: 19,
  int8: 20,
  int4: 23,
  regproc: 24,
  text: 25,
  oid: 26,
  json: 114,
  xml: 142,
  pgNodeTree: 194,
  unknown: 705,
  bpchar: 1042,
  varchar: 1043,
  bit: 1560,
  numeric: 1700,
  record: 2249,
  jsonb: 3802,
  oidvector: 30,
  int2vector: 22,
} as const;

const polymorphic = new Set([
  "any",
  "anyelement",
  "anyarray",
  "anynonarray",
  "anyenum",
  "anyrange",
  "anymultirange",
  "anycompatible",
  "anycompatiblearray",
  "anycompatiblenonarray",
  "anycompatiblerange",
  "anycompatiblemultirange",
]);

/** Parameters that take arrays. */
const polymorphicArrays = new Set(["anyarray", "anycompatiblearray"]);

export function isPolymorphic(catalog: Catalog, type: number): boolean {
  const found = catalog.types.get(type);
  return found !== undefined && found.kind === "pseudo" && polymorphic.has(found.name);
}

export function isPolymorphicArray(catalog: Catalog, type: number): boolean {
  return polymorphicArrays.has(catalog.types.get(type)?.name ?? "");
}

/** Whether a value of type `source` can be passed where `target` is asked for without a cast. An unknown source can. */
export function isCoercible(catalog: Catalog, source: number | null, target: number): boolean {
  if (source === null || source === typeOids.unknown || source === target) {
    return true;
  }
  const from = catalog.types.get(source);
  const to = catalog.types.get(target);
  if (from === undefined || to === undefined) {
    return true;
  }
  if (isPolymorphic(catalog, target)) {
    return fitsPolymorphic(from, to.name);
  }
  if (from.kind === "domain") {
    return isCoercible(catalog, from.base, target);
  }
  if (from.element !== 0 && to.element !== 0) {
    return isCoercible(catalog, from.element, to.element);
  }
  if (source === typeOids.record || from.kind === "composite") {
    return target === typeOids.record || to.kind === "composite";
  }
  return catalog.casts.get(castKey(source, target))?.context === "implicit";
}

/** A domain can fit as what it is made of: it is not looked into here. */
function fitsPolymorphic(from: CatalogType, parameter: string): boolean {
  if (from.kind === "domain") {
    return true;
  }
  if (polymorphicArrays.has(parameter)) {
    return from.element !== 0;
  }
  switch (parameter.replace(/^anycompatible/, "any")) {
    case "anyrange":
      return from.kind === "range";
    case "anymultirange":
      return from.kind === "multirange";
    case "anyenum":
      return from.kind === "enum";
    case "anynonarray":
      return from.element === 0;
    default:
      return true;
  }
}

const deniedCasts = new Set(
  "aclitem refcursor pg_node_tree pg_ndistinct pg_dependencies pg_mcv_list pg_ddl_command pg_snapshot txid_snapshot".split(
    " ",
  ),
);

/**
 * The type that a statement names, when it may be cast to.
 * @throws StatementRefused for a type outside `pg_catalog` that is not the type of a granted column
 */
export function resolveType(typeName: TypeName | undefined, scope: QueryScope): CatalogType {
  const { catalog } = scope.state.context;
  const names = namesOf(typeName?.names, scope.state);
  const name = names.at(-1) ?? "";
  const type = names.length > 2 ? null : findType(catalog, names.length === 2 ? (names[0] ?? "") : null, name);
  claimModifiers(typeName, scope);
  if (type === null || !isAllowedType(type, scope)) {
    return refuseUnsupported(
      `no grant covers type ${quoted(names.join("."))}`,
      "Cast to a built-in type of PostgreSQL.",
    );
  }
  if ((typeName?.arrayBounds ?? []).length === 0) {
    return type;
  }
  const array = type.element === 0 ? catalog.types.get(type.array) : type;
  return array ?? refuseUnsupported(`type ${quoted(name)} has no arrays`, "Cast to another type.");
}

function isAllowedType(type: CatalogType, scope: QueryScope): boolean {
  const { catalog } = scope.state.context;
  const element = type.element === 0 ? type : catalog.types.get(type.element);
  if (element === undefined) {
    return false;
  }
  if (isBuiltin(element)) {
    return ["base", "range", "multirange"].includes(element.kind) && !deniedCasts.has(element.name);
  }
  return element.kind === "enum" && isTypeOfGrantedColumn(element, scope);
}

/** The names of other types are not told: only those that the grant shows in a column. */
function isTypeOfGrantedColumn(type: CatalogType, scope: QueryScope): boolean {
  const { catalog, scope: compiled } = scope.state.context;
  for (const scoped of compiled.relations.values()) {
    const columns = findRelation(catalog, scoped.base.schema, scoped.base.name)?.columns ?? [];
    if (columns.some((column) => column.type === type.oid && scoped.visibleColumns.includes(column.name))) {
      return true;
    }
  }
  return false;
}

function claimModifiers(typeName: TypeName | undefined, scope: QueryScope): void {
  for (const modifier of typeName?.typmods ?? []) {
    scope.state.claim(modifier);
    if (!("A_Const" in modifier)) {
      refuseUnsupported("a type's modifier is not a constant", "Write the type as in `numeric(10, 2)`.");
    }
  }
  for (const bound of typeName?.arrayBounds ?? []) {
    scope.state.claim(bound);
  }
}

/**
 * What a cast may turn a value into: `reg…` types only from constants that name something granted, and from the OID columns of
 * shadowed catalogs, which hold nothing else.
 */
export function checkCast(value: Value, target: CatalogType, scope: QueryScope): void {
  const { catalog } = scope.state.context;
  if (isNameReading(catalog, target.oid)) {
    checkNameReading(value, target, scope);
  }
  for (const cast of catalog.casts.values()) {
    if (!cast.builtin && cast.target === target.oid && (value.type === null || value.type === cast.source)) {
      refuseUnsupported(`the cast to ${quoted(target.name)} runs a function of the database`, "Cast to another type.");
    }
  }
}

function checkNameReading(value: Value, target: CatalogType, scope: QueryScope): void {
  if (value.constant !== null) {
    checkNamedConstant(value.constant, target.name, scope);
  } else if (!isCatalogReference(value)) {
    refuseRelation(target.name);
  }
}

/** An OID, or a name's number, straight out of a shadowed catalog: it says nothing that the shadow does not show. */
export function isCatalogReference(value: Value): boolean {
  const { type, column } = value;
  const numbers: readonly (number | null)[] = [
    typeOids.oid,
    typeOids.regproc,
    typeOids.oidvector,
    typeOids.pgNodeTree,
    typeOids.int2vector,
  ];
  const fromShadow =
    column !== null && column.origins.length > 0 && column.origins.every(({ use }) => use.kind === "shadow");
  return value.checked || (fromShadow && numbers.includes(type));
}

/**
 * Text that PostgreSQL would read as the name of a catalog object.
 * @throws StatementRefused `name.unknown-relation`, in the same words whether the object exists or not
 */
export function checkNamedConstant(text: string, type: string, scope: QueryScope): void {
  const { catalog } = scope.state.context;
  if (type === "regclass" && isKnownRelation(text, scope)) {
    return;
  }
  if (type === "regtype" && isBuiltinType(text, catalog)) {
    return;
  }
  if (type === "regproc" && isBuiltinFunction(text, catalog)) {
    return;
  }
  if (type === "regnamespace" && isKnownSchema(text, scope)) {
    return;
  }
  if (type === "regconfig" && isTextSearchConfiguration(text)) {
    return;
  }
  refuseRelation(text);
}

/** Splits a constant as PostgreSQL's `stringToQualifiedNameList` does; null when it is not a plain name. */
function splitName(text: string): readonly string[] | null {
  const parts = text.trim().match(/"(?:[^"]|"")*"|[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*|\.|[\s\S]/g) ?? [];
  const names: string[] = [];
  for (const [i, part] of parts.entries()) {
    if (i % 2 === 1) {
      if (part !== ".") {
        return null;
      }
    } else if (part.startsWith('"') && part.length > 1) {
      names.push(part.slice(1, -1).replaceAll('""', '"'));
    } else if (/^[A-Za-z_\u0080-\uffff]/.test(part)) {
      names.push(part.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase()));
    } else {
      return null;
    }
  }
  return parts.length % 2 === 1 ? names : null;
}

/** A relation that the grant covers, or one of `pg_catalog` and `information_schema`: by name or by OID. */
export function isKnownRelation(text: string, scope: QueryScope): boolean {
  const { catalog, scope: compiled } = scope.state.context;
  const isShown = (schema: string, name: string): boolean =>
    schema === "pg_catalog" || schema === "information_schema"
      ? findRelation(catalog, schema, name) !== null
      : compiled.relations.has(`${schema}.${name}`) && findRelation(catalog, schema, name) !== null;
  if (/^\d{1,10}$/.test(text)) {
    const found = catalog.relationsByOid.get(Number(text));
    return found !== undefined && isShown(found.schema, found.name);
  }
  const names = splitName(text);
  const [first, second] = names ?? [];
  if (names === null || names.length > 2 || first === undefined) {
    return false;
  }
  if (second !== undefined) {
    return isShown(first, second);
  }
  const place = lookupPath(catalog).find((schema) => findRelation(catalog, schema, first) !== null);
  return place !== undefined && isShown(place, first);
}

function isBuiltinType(text: string, catalog: Catalog): boolean {
  const names = splitName(text);
  const [schema, name] = names?.length === 2 ? names : ["pg_catalog", names?.[0]];
  const found =
    names !== null && names.length <= 2 && name !== undefined ? findType(catalog, "pg_catalog", name) : null;
  return schema === "pg_catalog" && found !== null;
}

function isBuiltinFunction(text: string, catalog: Catalog): boolean {
  const names = splitName(text) ?? [];
  const name = names.at(-1) ?? "";
  const isPlain = names.length === 1 || (names.length === 2 && names[0] === "pg_catalog");
  return isPlain && (catalog.functions.get(name) ?? []).some(isBuiltin);
}

/** The catalog's schemas and those of granted relations. */
export function isKnownSchema(text: string, scope: QueryScope): boolean {
  const names = splitName(text);
  const schema = names?.length === 1 ? names[0] : undefined;
  return (
    schema === "pg_catalog" ||
    schema === "information_schema" ||
    [...scope.state.context.scope.relations.values()].some((scoped) => scoped.base.schema === schema)
  );
}

const textSearchConfigurations = new Set(
  "simple arabic armenian basque catalan danish dutch english estonian finnish french german greek hindi hungarian indonesian irish italian lithuanian nepali norwegian portuguese romanian russian serbian spanish swedish tamil turkish yiddish".split(
    " ",
  ),
);

function isTextSearchConfiguration(text: string): boolean {
  return textSearchConfigurations.has(text.replace(/^pg_catalog\./, ""));
}

/** The constant of a node that is an untyped literal, and nothing else. */
export function literalOf(node: Node | undefined): string | null {
  if (node === undefined || !("A_Const" in node)) {
    return null;
  }
  const { sval } = node.A_Const;
  return sval === undefined ? null : (sval.sval ?? "");
}

/**
 * Whether a client may declare this type for a parameter, by OID as in Parse; 0 leaves it to PostgreSQL. A `reg…` type would read
 * the bound text as a name.
 */
export function isParameterTypeAllowed(oid: number, catalog: Catalog): boolean {
  const type = catalog.types.get(oid);
  const element = type !== undefined && type.element !== 0 ? catalog.types.get(type.element) : type;
  const isPlain =
    element !== undefined && (isBuiltin(element) ? !deniedCasts.has(element.name) : element.kind === "enum");
  return (
    oid === 0 || (isPlain && element.kind !== "pseudo" && element.kind !== "composite" && !isNameReading(catalog, oid))
  );
}

/** One type out of several: the same one, or the one that reads names, since that is how text next to it would be read. */
export function commonType(types: Iterable<number | null>, catalog: Catalog): number | null {
  const all = new Set(types);
  const [only] = all;
  return [...all].find((type) => isNameReading(catalog, type)) ?? (all.size === 1 ? (only ?? null) : null);
}

/**
 * Values that PostgreSQL brings to one type.
 * @throws StatementRefused where text that would be read as a name meets a value of a type that reads names, or that may be one
 */
export function checkUnified(values: readonly Value[], scope: QueryScope): void {
  const { catalog } = scope.state.context;
  const reading = values.find((value) => mayReadNames(catalog, value.type));
  if (reading === undefined) {
    checkUnknown(values, scope);
    return;
  }
  const target = catalog.types.get(reading.type ?? 0);
  for (const value of values) {
    if (value.constant !== null && target !== undefined) {
      checkNamedConstant(value.constant, target.name, scope);
    } else if (value.isUntyped || value.type === null) {
      refuse(
        "name.unsupported-form",
        `a value is brought to type ${quoted(target?.name ?? "reg")}`,
        "Compare OIDs or names: cast both sides to oid or to text.",
      );
    }
  }
}

/** A value whose type is not known can only be of a type that reads names when the statement has come across one. */
function checkUnknown(values: readonly Value[], scope: QueryScope): void {
  const hasUnknown = values.some((value) => value.type === null && !value.isUntyped);
  if (scope.state.readsNames && hasUnknown && values.some((value) => value.isUntyped)) {
    refuse(
      "name.unsupported-form",
      "a literal or a parameter meets a value whose type is not known, beside values that name objects",
      "Cast both sides, as in (…)::text = 'x'::text.",
    );
  }
}
