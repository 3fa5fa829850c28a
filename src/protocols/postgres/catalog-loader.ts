/**
 * Loads the snapshot that names are resolved against, from PostgreSQL 13 to 18, with the gateway's own login.
 * Reads `pg_catalog` only, which every role may.
 */
import { createHash } from "node:crypto";
import type { ClientBase } from "pg";
import {
  type Catalog,
  type CatalogCast,
  type CatalogColumn,
  type CatalogFunction,
  type CatalogOperator,
  type CatalogRelation,
  type CatalogType,
  type RelationKind,
  type Volatility,
  buildCatalog,
} from "#sql/catalog.ts";

/** A connected client; the loader runs plain queries on it and leaves nothing behind. */
export type CatalogClient = Pick<ClientBase, "query">;

export interface CatalogLoadOptions {
  /** Where the grants' sessions look for unqualified names. */
  readonly searchPath: readonly string[];
  /** Schemas whose name starts with this are the gateway's own: no statement names them, so they are left out. */
  readonly ownSchemaPrefix: string;
}

/** What the gateway's own provisioning uses. */
export const defaultCatalogLoadOptions: CatalogLoadOptions = { searchPath: ["public"], ownSchemaPrefix: "sallyport_" };

/**
 * Reads the whole catalog in one snapshot.
 * @throws what `pg` throws when the resource cannot be read.
 */
export async function loadCatalog(
  client: CatalogClient,
  options: CatalogLoadOptions = defaultCatalogLoadOptions,
): Promise<Catalog> {
  // One snapshot for all the queries, or a change in between would tear the picture.
  await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  try {
    const version = await catalogSignature(client, options);
    const server = await readServer(client);
    const rows = {
      version,
      ...server,
      searchPath: options.searchPath,
      schemas: await readNames(client, schemasSql, [options.ownSchemaPrefix]),
      relations: await readRelations(client, options.ownSchemaPrefix),
      functions: await readFunctions(client, options.ownSchemaPrefix),
      types: await readTypes(client, options.ownSchemaPrefix),
      operators: await readOperators(client),
      casts: await readCasts(client),
      collations: await readNames(client, collationsSql, []),
    };
    return buildCatalog(rows);
  } finally {
    await client.query("ROLLBACK");
  }
}

/**
 * A short text that is another one after every committed DDL. Row versions are summed: every insert, update and delete of a
 * catalog row changes a sum. Temporary objects of other sessions and the gateway's own schemas are left out.
 */
export async function catalogSignature(
  client: CatalogClient,
  options: CatalogLoadOptions = defaultCatalogLoadOptions,
): Promise<string> {
  const result = await client.query<{ readonly part: string }>(signatureSql, [options.ownSchemaPrefix]);
  const hash = createHash("sha256");
  for (const row of result.rows) {
    hash.update(`${row.part}\n`);
  }
  hash.update(JSON.stringify(options.searchPath));
  return hash.digest("hex");
}

async function readServer(
  client: CatalogClient,
): Promise<{ readonly serverVersion: number; readonly encoding: string }> {
  const result = await client.query<{ readonly version: number; readonly encoding: string }>(
    "SELECT current_setting('server_version_num')::int AS version, current_setting('server_encoding') AS encoding",
  );
  const row = result.rows[0];
  return { serverVersion: row?.version ?? 0, encoding: row?.encoding ?? "" };
}

async function readNames(client: CatalogClient, sql: string, values: readonly string[]): Promise<readonly string[]> {
  const result = await client.query<{ readonly name: string }>(sql, [...values]);
  return result.rows.map((row) => row.name);
}

interface RelationRow {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly kind: keyof typeof relationKinds;
  readonly owner: string;
  readonly triggers: boolean;
  readonly rules: boolean;
  readonly row_security: boolean;
  readonly children: boolean;
  readonly foreign_below: boolean;
}

interface ColumnRow {
  readonly relation: number;
  readonly name: string;
  readonly type: number;
  readonly type_name: string;
  readonly number: number;
  readonly not_null: boolean;
  readonly has_default: boolean;
  readonly generated: string;
  readonly identity: string;
  readonly is_unique: boolean;
}

const relationKinds = {
  r: "table",
  p: "partitioned",
  v: "view",
  m: "materialized",
  f: "foreign",
} as const satisfies Record<string, RelationKind>;

async function readRelations(client: CatalogClient, ownSchemaPrefix: string): Promise<readonly CatalogRelation[]> {
  const relations = await client.query<RelationRow>(relationsSql, [ownSchemaPrefix]);
  const columns = await client.query<ColumnRow>(columnsSql, [ownSchemaPrefix]);
  const byRelation = Map.groupBy(columns.rows, (row) => row.relation);
  return relations.rows.map((row) => ({
    oid: row.oid,
    schema: row.schema,
    name: row.name,
    kind: relationKinds[row.kind],
    owner: row.owner,
    columns: (byRelation.get(row.oid) ?? []).map(toColumn),
    hasTriggers: row.triggers,
    hasRules: row.rules,
    rowSecurity: row.row_security,
    hasChildren: row.children,
    foreign: row.foreign_below,
  }));
}

function toColumn(row: ColumnRow): CatalogColumn {
  return {
    name: row.name,
    type: row.type,
    typeName: row.type_name,
    number: row.number,
    notNull: row.not_null,
    hasDefault: row.has_default,
    generated: row.generated === "s" ? "stored" : row.generated === "v" ? "virtual" : "no",
    identity: row.identity === "a" ? "always" : row.identity === "d" ? "default" : "no",
    unique: row.is_unique,
  };
}

interface FunctionRow {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly kind: keyof typeof functionKinds;
  readonly language: string;
  readonly volatility: keyof typeof volatilities;
  readonly arguments: string;
  readonly defaults: number;
  readonly variadic: number;
  readonly returns: number;
  readonly returns_set: boolean;
  readonly all_types: readonly number[] | null;
  readonly modes: readonly string[] | null;
  readonly names: readonly string[] | null;
}

const functionKinds = {
  f: "function",
  p: "procedure",
  a: "aggregate",
  w: "window",
} as const satisfies Record<string, CatalogFunction["kind"]>;

const volatilities = { i: "immutable", s: "stable", v: "volatile" } as const satisfies Record<string, Volatility>;

async function readFunctions(client: CatalogClient, ownSchemaPrefix: string): Promise<readonly CatalogFunction[]> {
  const result = await client.query<FunctionRow>(functionsSql, [ownSchemaPrefix]);
  return result.rows.map((row) => ({
    oid: row.oid,
    schema: row.schema,
    name: row.name,
    kind: functionKinds[row.kind],
    language: row.language,
    volatility: volatilities[row.volatility],
    arguments: row.arguments === "" ? [] : row.arguments.split(" ").map(Number),
    defaults: row.defaults,
    variadic: row.variadic,
    returns: row.returns,
    returnsSet: row.returns_set,
    outputs: outputsOf(row),
    argumentNames: argumentNamesOf(row),
  }));
}

/** Modes: `i`n, `o`ut, `b`oth, `v`ariadic, `t`able; null when all are in. */
function outputsOf(row: FunctionRow): CatalogFunction["outputs"] {
  const outputs: { readonly name: string; readonly type: number }[] = [];
  for (const [i, mode] of (row.modes ?? []).entries()) {
    if (mode === "o" || mode === "b" || mode === "t") {
      outputs.push({ name: row.names?.[i] ?? "", type: row.all_types?.[i] ?? 0 });
    }
  }
  return outputs;
}

function argumentNamesOf(row: FunctionRow): readonly string[] {
  const names = row.names ?? [];
  const modes = row.modes;
  return modes === null ? names : names.filter((_, i) => modes[i] === "i" || modes[i] === "b" || modes[i] === "v");
}

interface TypeRow {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly kind: keyof typeof typeKinds;
  readonly element: number;
  readonly array: number;
  readonly base: number;
  readonly relation: number;
}

const typeKinds = {
  b: "base",
  c: "composite",
  d: "domain",
  e: "enum",
  p: "pseudo",
  r: "range",
  m: "multirange",
} as const satisfies Record<string, CatalogType["kind"]>;

async function readTypes(client: CatalogClient, ownSchemaPrefix: string): Promise<readonly CatalogType[]> {
  const result = await client.query<TypeRow>(typesSql, [ownSchemaPrefix]);
  return result.rows.map((row) => ({ ...row, kind: typeKinds[row.kind] }));
}

interface OperatorRow {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly left: number;
  readonly right: number;
  readonly result: number;
  readonly volatility: keyof typeof volatilities;
}

async function readOperators(client: CatalogClient): Promise<readonly CatalogOperator[]> {
  const result = await client.query<OperatorRow>(operatorsSql);
  return result.rows.map((row) => ({ ...row, volatility: volatilities[row.volatility] }));
}

interface CastRow {
  readonly source: number;
  readonly target: number;
  readonly context: keyof typeof castContexts;
  readonly builtin: boolean;
}

const castContexts = {
  i: "implicit",
  a: "assignment",
  e: "explicit",
} as const satisfies Record<string, CatalogCast["context"]>;

async function readCasts(client: CatalogClient): Promise<readonly CatalogCast[]> {
  const result = await client.query<CastRow>(castsSql);
  return result.rows.map((row) => ({ ...row, context: castContexts[row.context] }));
}

/** Schemas that are left out everywhere: the gateway's own, and what belongs to one session or to TOAST. */
const shownSchema = `(NOT starts_with(n.nspname, $1) AND n.nspname !~ '^pg_(toast|temp|toast_temp)')`;

const schemasSql = `SELECT n.nspname AS name FROM pg_catalog.pg_namespace n WHERE ${shownSchema} ORDER BY 1`;

const collationsSql = `
  SELECT DISTINCT c.collname AS name
  FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
  WHERE n.nspname = 'pg_catalog' AND c.collisdeterministic
  ORDER BY 1`;

const relationsSql = `
  WITH RECURSIVE below(root, relation) AS (
    SELECT i.inhparent, i.inhrelid FROM pg_catalog.pg_inherits i
    UNION
    SELECT b.root, i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.relation
  ), foreign_roots AS (
    SELECT DISTINCT b.root FROM below b JOIN pg_catalog.pg_class f ON f.oid = b.relation AND f.relkind = 'f'
  )
  SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
    pg_catalog.pg_get_userbyid(c.relowner) AS owner,
    EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal) AS triggers,
    EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN') AS rules,
    c.relrowsecurity AS row_security,
    EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid) AS children,
    (c.relkind = 'f' OR EXISTS (SELECT FROM foreign_roots f WHERE f.root = c.oid)) AS foreign_below
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' AND ${shownSchema}
  ORDER BY 2, 3`;

const columnsSql = `
  WITH uniques AS (
    SELECT DISTINCT i.indrelid AS relation, k.number
    FROM pg_catalog.pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) AS k(number)
    WHERE i.indisunique OR i.indisexclusion
  )
  SELECT a.attrelid AS relation, a.attname AS name, a.atttypid AS type,
    pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_name, a.attnum AS number, a.attnotnull AS not_null,
    a.atthasdef AND a.attgenerated = '' AS has_default, a.attgenerated AS generated, a.attidentity AS identity,
    u.number IS NOT NULL AS is_unique
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN uniques u ON u.relation = a.attrelid AND u.number = a.attnum
  WHERE a.attnum > 0 AND NOT a.attisdropped
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' AND ${shownSchema}
  ORDER BY a.attrelid, a.attnum`;

const functionsSql = `
  SELECT p.oid, n.nspname AS schema, p.proname AS name, p.prokind AS kind, l.lanname AS language,
    p.provolatile AS volatility, p.proargtypes::text AS arguments, p.pronargdefaults AS defaults,
    p.provariadic AS variadic, p.prorettype AS returns, p.proretset AS returns_set,
    p.proallargtypes AS all_types, p.proargmodes::text[] AS modes, p.proargnames AS names
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  WHERE ${shownSchema}
  ORDER BY p.oid`;

const typesSql = `
  SELECT t.oid, n.nspname AS schema, t.typname AS name, t.typtype AS kind,
    CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0::oid END AS element, t.typarray AS array, t.typbasetype AS base,
    t.typrelid AS relation
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  WHERE ${shownSchema}
  ORDER BY t.oid`;

const operatorsSql = `
  SELECT o.oid, n.nspname AS schema, o.oprname AS name, o.oprleft AS left, o.oprright AS right, o.oprresult AS result,
    coalesce(p.provolatile, 'v') AS volatility
  FROM pg_catalog.pg_operator o
  JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
  LEFT JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
  ORDER BY o.oid`;

const castsSql = `
  SELECT c.castsource AS source, c.casttarget AS target, c.castcontext AS context,
    (c.castmethod <> 'f' OR coalesce(n.nspname = 'pg_catalog' AND p.oid < 16384, false)) AS builtin
  FROM pg_catalog.pg_cast c
  LEFT JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  ORDER BY 1, 2`;

function versionsOf(table: string, condition: string): string {
  return `SELECT '${table} ' || count(*) || ' ' || coalesce(sum(x.xmin::text::int8), 0) AS part
    FROM pg_catalog.${table} x WHERE ${condition}`;
}

const inShownSchema = (column: string): string => `x.${column} IN (SELECT oid FROM shown)`;
const ofShownRelation = (column: string): string => `x.${column} IN (SELECT oid FROM relation)`;

const signatureSql = `
  WITH shown AS (
    SELECT n.oid FROM pg_catalog.pg_namespace n WHERE ${shownSchema}
  ), relation AS (
    SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relpersistence <> 't' AND c.relnamespace IN (SELECT oid FROM shown)
  )
  ${[
    versionsOf("pg_namespace", inShownSchema("oid")),
    versionsOf("pg_class", `x.relpersistence <> 't' AND ${inShownSchema("relnamespace")}`),
    versionsOf("pg_attribute", ofShownRelation("attrelid")),
    versionsOf("pg_attrdef", ofShownRelation("adrelid")),
    versionsOf("pg_index", ofShownRelation("indrelid")),
    versionsOf("pg_inherits", ofShownRelation("inhparent")),
    versionsOf("pg_trigger", ofShownRelation("tgrelid")),
    versionsOf("pg_rewrite", ofShownRelation("ev_class")),
    versionsOf("pg_policy", ofShownRelation("polrelid")),
    versionsOf("pg_proc", inShownSchema("pronamespace")),
    versionsOf("pg_type", inShownSchema("typnamespace")),
    versionsOf("pg_operator", inShownSchema("oprnamespace")),
    versionsOf("pg_collation", inShownSchema("collnamespace")),
    versionsOf("pg_cast", "true"),
  ].join("\n  UNION ALL ")}`;
