/**
 * What a database consists of, as far as the gate needs it to resolve names: an immutable snapshot.
 * It is loaded by `protocols/postgres/catalog-loader.ts`; everything here is pure.
 */
import { type QualifiedName, type RelationKey, relationKey } from "#domain/scope.ts";

/** `pg_class.relkind`. */
export type RelationKind = "table" | "partitioned" | "view" | "materialized" | "foreign";

export interface CatalogColumn {
  readonly name: string;
  /** OID of its type. */
  readonly type: number;
  /** As PostgreSQL writes it, such as `numeric(10,2)`. */
  readonly typeName: string;
  /** `pg_attribute.attnum`. */
  readonly number: number;
  readonly notNull: boolean;
  readonly hasDefault: boolean;
  readonly generated: "no" | "stored" | "virtual";
  readonly identity: "no" | "always" | "default";
  /** Part of a unique index or an exclusion constraint: writing it says whether a value is there. */
  readonly unique: boolean;
}

export interface CatalogRelation extends QualifiedName {
  readonly oid: number;
  readonly kind: RelationKind;
  readonly owner: string;
  /** In order of `number`, dropped ones left out. */
  readonly columns: readonly CatalogColumn[];
  /** Triggers that a user made (foreign keys' own are left out). */
  readonly hasTriggers: boolean;
  /** Rules other than a view's own. */
  readonly hasRules: boolean;
  readonly rowSecurity: boolean;
  /** It has inheritance children or partitions. */
  readonly hasChildren: boolean;
  /** It is a foreign table, or one is below it. */
  readonly foreign: boolean;
}

export type Volatility = "immutable" | "stable" | "volatile";

export interface CatalogFunction extends QualifiedName {
  readonly oid: number;
  readonly kind: "function" | "procedure" | "aggregate" | "window";
  readonly language: string;
  readonly volatility: Volatility;
  /** Types of the input arguments. */
  readonly arguments: readonly number[];
  /** How many of them, at the end, have a default. */
  readonly defaults: number;
  /** The last argument may be repeated; `arguments` has its array type, this its element type. 0 when it is not variadic. */
  readonly variadic: number;
  readonly returns: number;
  readonly returnsSet: boolean;
  /** Columns of the result when it has OUT arguments or RETURNS TABLE. */
  readonly outputs: readonly { readonly name: string; readonly type: number }[];
  /** Names of the input arguments; empty when none has one. */
  readonly argumentNames: readonly string[];
}

export interface CatalogType extends QualifiedName {
  readonly oid: number;
  /** `pg_type.typtype`. */
  readonly kind: "base" | "composite" | "domain" | "enum" | "pseudo" | "range" | "multirange";
  /** Element type of a true array type, 0 otherwise. */
  readonly element: number;
  /** Its array type, 0 when it has none. */
  readonly array: number;
  /** What a domain is made of, 0 otherwise. */
  readonly base: number;
  /** The relation of a composite type, 0 otherwise. */
  readonly relation: number;
}

export interface CatalogOperator extends QualifiedName {
  readonly oid: number;
  /** 0 for a prefix operator. */
  readonly left: number;
  readonly right: number;
  readonly result: number;
  readonly volatility: Volatility;
}

export interface CatalogCast {
  readonly source: number;
  readonly target: number;
  readonly context: "implicit" | "assignment" | "explicit";
  /** True when it runs no function, or one of `pg_catalog`. */
  readonly builtin: boolean;
}

/** An immutable picture of one database. Keys of `functions`, `typesByName` and `operators` are bare names. */
export interface Catalog {
  /** Changes with every change that can change what a statement means. */
  readonly version: string;
  /** `server_version_num`. */
  readonly serverVersion: number;
  /** Server encoding, such as `UTF8`. */
  readonly encoding: string;
  /** Where unqualified names are looked for after `pg_catalog`. */
  readonly searchPath: readonly string[];
  readonly schemas: ReadonlySet<string>;
  readonly relations: ReadonlyMap<RelationKey, CatalogRelation>;
  readonly relationsByOid: ReadonlyMap<number, CatalogRelation>;
  readonly functions: ReadonlyMap<string, readonly CatalogFunction[]>;
  readonly types: ReadonlyMap<number, CatalogType>;
  readonly typesByName: ReadonlyMap<string, readonly CatalogType[]>;
  readonly operators: ReadonlyMap<string, readonly CatalogOperator[]>;
  /** Keyed by `castKey`. */
  readonly casts: ReadonlyMap<string, CatalogCast>;
  /** Names of the collations in `pg_catalog`. */
  readonly collations: ReadonlySet<string>;
}

/** The rows that a snapshot is made of. */
export interface CatalogRows {
  readonly version: string;
  readonly serverVersion: number;
  readonly encoding: string;
  readonly searchPath: readonly string[];
  readonly schemas: readonly string[];
  readonly relations: readonly CatalogRelation[];
  readonly functions: readonly CatalogFunction[];
  readonly types: readonly CatalogType[];
  readonly operators: readonly CatalogOperator[];
  readonly casts: readonly CatalogCast[];
  readonly collations: readonly string[];
}

/** OIDs from here on were given out after the cluster was made: what has one is not PostgreSQL's own, whatever its schema. */
const firstNormalObjectId = 16_384;

/** True for what PostgreSQL itself brought, and false for what a user or an extension put into `pg_catalog`. */
export function isBuiltin(object: { readonly schema: string; readonly oid: number }): boolean {
  return object.schema === "pg_catalog" && object.oid < firstNormalObjectId;
}

/** Key of `Catalog.casts`. */
export function castKey(source: number, target: number): string {
  return `${source}>${target}`;
}

/** Indexes the rows of one database. */
export function buildCatalog(rows: CatalogRows): Catalog {
  return {
    version: rows.version,
    serverVersion: rows.serverVersion,
    encoding: rows.encoding,
    searchPath: rows.searchPath,
    schemas: new Set(rows.schemas),
    relations: new Map(rows.relations.map((relation) => [relationKey(relation), relation])),
    relationsByOid: new Map(rows.relations.map((relation) => [relation.oid, relation])),
    functions: Map.groupBy(rows.functions, (routine) => routine.name),
    types: new Map(rows.types.map((type) => [type.oid, type])),
    typesByName: Map.groupBy(rows.types, (type) => type.name),
    operators: Map.groupBy(rows.operators, (operator) => operator.name),
    casts: new Map(rows.casts.map((cast) => [castKey(cast.source, cast.target), cast])),
    collations: new Set(rows.collations),
  };
}

/** A relation by its full name; null when there is none. */
export function findRelation(catalog: Catalog, schema: string, name: string): CatalogRelation | null {
  const found = catalog.relations.get(relationKey({ schema, name }));
  // Two names with dots in them can share a key; only the one that was asked for counts.
  return found !== undefined && found.schema === schema && found.name === name ? found : null;
}

/** The schemas that an unqualified name is looked for in, in order: `pg_catalog` is always first. */
export function lookupPath(catalog: Catalog): readonly string[] {
  return catalog.searchPath.includes("pg_catalog") ? catalog.searchPath : ["pg_catalog", ...catalog.searchPath];
}

/** A type as a statement names it, `schema` null when it gave none; null when there is none. */
export function findType(catalog: Catalog, schema: string | null, name: string): CatalogType | null {
  const candidates = catalog.typesByName.get(name) ?? [];
  for (const place of schema === null ? lookupPath(catalog) : [schema]) {
    const found = candidates.find((type) => type.schema === place);
    if (found !== undefined) {
      return found;
    }
  }
  return null;
}

/** Columns of a composite type; null when the type is not one or its relation is not in the snapshot. */
export function compositeColumns(catalog: Catalog, type: number): readonly CatalogColumn[] | null {
  const found = catalog.types.get(type);
  if (found === undefined || found.kind !== "composite") {
    return null;
  }
  return catalog.relationsByOid.get(found.relation)?.columns ?? null;
}
