/**
 * What the compiler of scopes needs to know of a database, read from its catalogs: the definitions of the granted tables, and
 * where the labelled values can be read besides their own columns (MASKING.md, "Derived labels": inheritance and partitions,
 * foreign keys, generated columns).
 */
import type { ClientBase } from "pg";

import type { ColumnLabel } from "#domain/resource.ts";
import type { QualifiedName } from "#domain/scope.ts";
import type { ColumnType } from "./mask-expression.ts";

export interface ColumnDefinition {
  readonly name: string;
  readonly type: ColumnType;
  readonly notNull: boolean;
  /** `attgenerated`: computed from other columns, never written. */
  readonly generated: "no" | "stored" | "virtual";
  /** `attidentity` is `a`: written by PostgreSQL alone. */
  readonly identityAlways: boolean;
  /** Part of a unique index, an exclusion constraint or a foreign key: a write of it tells whether a value is there. */
  readonly unique: boolean;
  /** Columns, itself too, that a constraint sees together with it: an update of it tells how it compares with them. */
  readonly comparedWith: readonly string[];
}

export interface TableDefinition extends QualifiedName {
  readonly oid: number;
  /** `pg_class.relkind`. */
  readonly kind: string;
  readonly rowSecurity: boolean;
  /** Not dropped ones, in order of their number. */
  readonly columns: readonly ColumnDefinition[];
  /** Sequences that the columns' defaults draw from. */
  readonly sequences: readonly QualifiedName[];
  /** For a view: what it reads, through other views too, that a scope cannot show as it is. Empty for a table. */
  readonly readsThrough: readonly ViewSource[];
}

/** Something that a view depends on. */
export interface ViewSource {
  readonly kind: "relation" | "function";
  readonly schema: string;
  readonly name: string;
  readonly relationKind: string;
  readonly rowSecurity: boolean;
}

/** A column that holds labelled values. */
export interface LabelledColumn {
  readonly schema: string;
  readonly table: string;
  readonly column: string;
  readonly label: string;
  /**
   * `given`: labelled by the operator; `copied`: holds the same values as a labelled column; `computed`: computed from one, so that
   * only `redact` is sure to hide it.
   */
  readonly origin: "given" | "copied" | "computed";
}

/** One picture of a database for one scope. */
export interface ScopeTables {
  readonly database: string;
  readonly unicode: boolean;
  /** Those that exist; a name that is missing here is unknown. */
  readonly tables: readonly TableDefinition[];
  readonly labelled: readonly LabelledColumn[];
}

/** Reads the definitions of `names` and where labels reach, in one snapshot. */
export async function readScopeTables(
  client: ClientBase,
  names: readonly QualifiedName[],
  labels: readonly ColumnLabel[],
): Promise<ScopeTables> {
  await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  let picture: ScopeTables;
  try {
    const server = await client.query<{ database: string; encoding: string }>(serverSql);
    const tables = await readTables(client, names);
    const labelled = await readLabelled(client, labels);
    const unicode = server.rows[0]?.encoding === "UTF8";
    picture = { database: server.rows[0]?.database ?? "", unicode, tables, labelled };
  } catch (error) {
    // On a lost connection there is nothing to end; the first error is the one to tell.
    await client.query("ROLLBACK").catch(() => undefined);
    throw error;
  }
  await client.query("COMMIT");
  return picture;
}

const serverSql = "SELECT current_database() AS database, current_setting('server_encoding') AS encoding";

interface TableRow {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly kind: string;
  readonly row_security: boolean;
}

const tablesSql = `
  SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind, c.relrowsecurity AS row_security
  FROM unnest($1::text[], $2::text[]) AS wanted(schema, name)
  JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
  ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`;

async function readTables(client: ClientBase, names: readonly QualifiedName[]): Promise<readonly TableDefinition[]> {
  const wanted = [names.map((name) => name.schema), names.map((name) => name.name)];
  const found = (await client.query<TableRow>(tablesSql, wanted)).rows;
  const oids = [found.map((row) => row.oid)];
  const columns = Map.groupBy((await client.query<ColumnRow>(columnsSql, oids)).rows, (row) => row.relation);
  const sequences = Map.groupBy((await client.query<SequenceRow>(sequencesSql, oids)).rows, (row) => row.relation);
  const sources = found.some((row) => row.kind === "v")
    ? Map.groupBy((await client.query<SourceRow>(viewSourcesSql, oids)).rows, (row) => row.relation)
    : new Map<number, readonly SourceRow[]>();
  return found.map((row) => ({
    schema: row.schema,
    name: row.name,
    oid: row.oid,
    kind: row.kind,
    rowSecurity: row.row_security,
    columns: (columns.get(row.oid) ?? []).map(toColumn),
    sequences: (sequences.get(row.oid) ?? []).map(({ schema, name }) => ({ schema, name })),
    readsThrough: (sources.get(row.oid) ?? []).map((source) => ({
      kind: source.kind,
      schema: source.schema,
      name: source.name,
      relationKind: source.relation_kind,
      rowSecurity: source.row_security,
    })),
  }));
}

interface ColumnRow {
  readonly relation: number;
  readonly name: string;
  readonly not_null: boolean;
  readonly generated: string;
  readonly identity: string;
  readonly is_unique: boolean;
  readonly compared_with: readonly string[];
  readonly type_name: string;
  readonly type_schema: string;
  readonly type_kind: string;
  readonly type_category: string;
  readonly type_sql: string;
  readonly modifier: number;
  readonly collation: string | null;
  readonly collation_schema: string | null;
}

/** Domains are taken off one by one. With an empty `search_path`, `format_type` qualifies what is not in `pg_catalog`. */
const columnsSql = `
  WITH RECURSIVE bare(relation, number, type, modifier) AS (
    SELECT a.attrelid, a.attnum, a.atttypid, a.atttypmod
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.relation, b.number, t.typbasetype, CASE WHEN b.modifier = -1 THEN t.typtypmod ELSE b.modifier END
    FROM bare b JOIN pg_catalog.pg_type t ON t.oid = b.type
    WHERE t.typtype = 'd'
  )
  SELECT a.attrelid AS relation, a.attname AS name, a.attnotnull AS not_null, a.attgenerated AS generated,
    a.attidentity AS identity, t.typname AS type_name, tn.nspname AS type_schema, t.typtype AS type_kind,
    t.typcategory AS type_category, pg_catalog.format_type(b.type, b.modifier) AS type_sql, b.modifier,
    co.collname AS collation, cn.nspname AS collation_schema,
    EXISTS (
      SELECT FROM pg_catalog.pg_index i
      WHERE i.indrelid = a.attrelid AND (i.indisunique OR i.indisexclusion)
        AND (a.attnum = ANY (i.indkey) OR i.indexprs IS NOT NULL AND EXISTS (
          SELECT FROM pg_catalog.pg_depend d
          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = a.attrelid
            AND d.refobjsubid = a.attnum))
    ) OR EXISTS (
      SELECT FROM pg_catalog.pg_constraint f
      WHERE f.conrelid = a.attrelid AND f.contype = 'f' AND a.attnum = ANY (f.conkey)
    ) AS is_unique,
    ARRAY(
      SELECT DISTINCT o.attname::text
      FROM (
        SELECT k.conkey AS numbers FROM pg_catalog.pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'c'
        UNION ALL
        SELECT pg_catalog.array_remove(i.indkey::int2[], 0::int2) || ARRAY(
            SELECT d.refobjsubid::int2 FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
              AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = i.indrelid AND d.refobjsubid > 0)
        FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND (i.indisunique OR i.indisexclusion)
      ) AS seen
      JOIN pg_catalog.pg_attribute o ON o.attrelid = a.attrelid AND o.attnum > 0 AND NOT o.attisdropped
      -- 0 is the whole row in a condition.
      WHERE 0 = ANY (seen.numbers) OR a.attnum = ANY (seen.numbers) AND o.attnum = ANY (seen.numbers)
      ORDER BY 1
    ) AS compared_with
  FROM bare b
  JOIN pg_catalog.pg_attribute a ON a.attrelid = b.relation AND a.attnum = b.number
  JOIN pg_catalog.pg_type t ON t.oid = b.type AND t.typtype <> 'd'
  JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
  ORDER BY a.attrelid, a.attnum`;

function toColumn(row: ColumnRow): ColumnDefinition {
  return {
    name: row.name,
    type: {
      name: row.type_name,
      schema: row.type_schema,
      kind: row.type_kind,
      category: row.type_category,
      sql: row.type_sql,
      modifier: row.modifier,
      collation:
        row.collation === null || row.collation_schema === null
          ? null
          : { schema: row.collation_schema, name: row.collation },
    },
    notNull: row.not_null,
    generated: row.generated === "s" ? "stored" : row.generated === "v" ? "virtual" : "no",
    identityAlways: row.identity === "a",
    unique: row.is_unique,
    comparedWith: row.compared_with,
  };
}

interface SequenceRow {
  readonly relation: number;
  readonly schema: string;
  readonly name: string;
}

/** `nextval('…')` in a default leaves a dependency of the default on its sequence; identity columns need no right. */
const sequencesSql = `
  SELECT DISTINCT ad.adrelid AS relation, n.nspname AS schema, s.relname AS name
  FROM pg_catalog.pg_attrdef ad
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = ad.oid
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'
  JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
  WHERE ad.adrelid = ANY ($1::oid[])
  ORDER BY 1, 2, 3`;

interface SourceRow {
  readonly relation: number;
  readonly kind: "relation" | "function";
  readonly schema: string;
  readonly name: string;
  readonly relation_kind: string;
  readonly row_security: boolean;
}

/**
 * What views read, through views, and the functions in them that a scope does not trust: those that are not PostgreSQL's own (only
 * these leave a dependency), and of PostgreSQL's own the volatile ones and those that read tables by a name in a string.
 */
const viewSourcesSql = `
  WITH RECURSIVE reached(root, relation) AS (
    SELECT c.oid, c.oid FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1::oid[]) AND c.relkind = 'v'
    UNION
    SELECT e.root, d.refobjid
    FROM reached e
    JOIN pg_catalog.pg_rewrite r ON r.ev_class = e.relation
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
    WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  )
  SELECT e.root AS relation, 'relation' AS kind, n.nspname AS schema, c.relname AS name, c.relkind AS relation_kind,
    c.relrowsecurity AS row_security
  FROM reached e
  JOIN pg_catalog.pg_class c ON c.oid = e.relation AND c.oid <> e.root
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  UNION
  SELECT e.root, 'function', '', pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0), '', false
  FROM reached e
  JOIN pg_catalog.pg_rewrite r ON r.ev_class = e.relation
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
  WHERE d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass)
  UNION
  SELECT e.root, 'function', '', 'function ' || p.proname, '', false
  FROM reached e
  JOIN pg_catalog.pg_rewrite r ON r.ev_class = e.relation
  CROSS JOIN LATERAL regexp_matches(r.ev_action::text, ':(?:funcid|aggfnoid|winfnoid) ([0-9]+)', 'g') AS used(call)
  JOIN pg_catalog.pg_proc p ON p.oid = used.call[1]::pg_catalog.oid
  WHERE p.provolatile = 'v' OR p.proname LIKE '%\\_to\\_xml%'
  ORDER BY 1, 2, 3, 4`;

interface LabelledRow {
  readonly schema: string;
  readonly table: string;
  readonly column: string;
  readonly label: string;
  readonly origin: "given" | "copied" | "computed";
}

/** A fixpoint from the given labels along inheritance (both ways), foreign keys (both ways) and generated columns. */
const labelledSql = `
  WITH RECURSIVE carried(relation, number, label, origin) AS (
    SELECT c.oid, a.attnum, given.label, 'given'
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS given(schema, relation, attribute, label)
    JOIN pg_catalog.pg_namespace n ON n.nspname = given.schema
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = given.relation
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = given.attribute
    WHERE a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT next.relation, next.number, k.label,
      CASE WHEN next.computed OR k.origin = 'computed' THEN 'computed' ELSE 'copied' END
    FROM carried k
    CROSS JOIN LATERAL (
      SELECT other.attrelid, other.attnum, false
      FROM pg_catalog.pg_attribute own
      JOIN (
        SELECT i.inhparent AS near, i.inhrelid AS far FROM pg_catalog.pg_inherits i
        UNION ALL
        SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i
      ) AS related ON related.near = own.attrelid
      JOIN pg_catalog.pg_attribute other ON other.attrelid = related.far AND other.attname = own.attname
      WHERE own.attrelid = k.relation AND own.attnum = k.number AND NOT other.attisdropped
      UNION ALL
      SELECT f.conrelid, f.conkey[place.i], false
      FROM pg_catalog.pg_constraint f CROSS JOIN LATERAL generate_subscripts(f.conkey, 1) AS place(i)
      WHERE f.contype = 'f' AND f.confrelid = k.relation AND f.confkey[place.i] = k.number
      UNION ALL
      SELECT f.confrelid, f.confkey[place.i], false
      FROM pg_catalog.pg_constraint f CROSS JOIN LATERAL generate_subscripts(f.conkey, 1) AS place(i)
      WHERE f.contype = 'f' AND f.conrelid = k.relation AND f.conkey[place.i] = k.number
      UNION ALL
      SELECT ad.adrelid, ad.adnum, true
      FROM pg_catalog.pg_depend d
      JOIN pg_catalog.pg_attrdef ad ON ad.oid = d.objid AND ad.adrelid = k.relation
      JOIN pg_catalog.pg_attribute g ON g.attrelid = ad.adrelid AND g.attnum = ad.adnum AND g.attgenerated <> ''
      WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND d.refobjid = k.relation AND d.refobjsubid = k.number AND ad.adnum <> k.number
    ) AS next(relation, number, computed)
  )
  SELECT n.nspname AS schema, c.relname AS table, a.attname AS column, k.label, k.origin
  FROM carried k
  JOIN pg_catalog.pg_class c ON c.oid = k.relation
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = k.relation AND a.attnum = k.number
  ORDER BY 1, 2, 3, 4, 5`;

async function readLabelled(client: ClientBase, labels: readonly ColumnLabel[]): Promise<readonly LabelledColumn[]> {
  if (labels.length === 0) {
    return [];
  }
  const result = await client.query<LabelledRow>(labelledSql, [
    labels.map((label) => label.schema),
    labels.map((label) => label.table),
    labels.map((label) => label.column),
    labels.map((label) => label.label),
  ]);
  return result.rows;
}
