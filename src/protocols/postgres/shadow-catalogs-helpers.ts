/** The views that the shadow catalogs are made with: what the role that has logged in was marked for. No session may read them. */
import { ownSchemaPrefix, shadowSchema } from "./scope-compiler.ts";
import { marksTable } from "./scope-marks.ts";

/** A view that the shadows are made with and no session may read. */
export interface HelperView {
  readonly name: string;
  readonly sql: string;
}

/** A view of the shadow schema as SQL names it. */
export function shadowOf(name: string): string {
  return `"${shadowSchema}".${name}`;
}

/** OID of the role that has logged in. */
export const ownRole =
  "(SELECT pg_catalog.to_regrole(pg_catalog.quote_ident(SESSION_USER::pg_catalog.text))::pg_catalog.oid)";

/** OID of a catalog, as `classid` columns have it. */
export function isClass(catalog: string): string {
  return `'pg_catalog.${catalog}'::pg_catalog.regclass`;
}

/**
 * Whether an expression, the object `oid` of `catalog`, names nothing but granted columns of its table (`granted` has its row of
 * `granted_relations`), sequences, granted types, and what PostgreSQL itself and extensions bring.
 */
function usesGrantedOnly(catalog: string, oid: string, granted: string): string {
  return `NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = ${isClass(catalog)} AND d.objid = ${oid} AND NOT CASE
      WHEN d.refclassid = ${isClass("pg_class")} AND d.refobjid = ${granted}.relation
        THEN d.refobjsubid = ANY (${granted}.numbers)
      WHEN d.refclassid = ${isClass("pg_class")}
        THEN d.refobjid IN (SELECT s.oid FROM pg_catalog.pg_class s WHERE s.relkind = 'S')
      WHEN d.refclassid = ${isClass("pg_type")} THEN d.refobjid IN (SELECT t.oid FROM ${shadowOf("granted_types")} t)
      ELSE EXISTS (
        SELECT FROM pg_catalog.pg_depend e
        WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e') END)`;
}

/**
 * In order: each may use those before it. A filter asks them with `IN (SELECT …)`, which PostgreSQL answers from a hash table made
 * once; a correlated EXISTS would walk the marks again for every row.
 */
export const helperViews: readonly HelperView[] = [
  {
    name: "granted_columns",
    // A right on a column of a table is its own mark; a right on a view of the scope stands for the view's marks. The array is
    // made once, and the casts leave the planner only the index by referenced role: without statistics that tell of
    // roles, it would rather walk all marks of the database.
    sql: `
      WITH held AS MATERIALIZED (
        SELECT d.objid AS relation, d.objsubid::pg_catalog.int2 AS number
        FROM pg_catalog.pg_shdepend d
        WHERE d.refclassid = ${isClass("pg_authid")}
          AND d.refobjid = ANY (ARRAY(SELECT m.roleid FROM pg_catalog.pg_auth_members m WHERE m.member = ${ownRole}))
          AND d.dbid::pg_catalog.int8 = (
            SELECT b.oid::pg_catalog.int8 FROM pg_catalog.pg_database b WHERE b.datname = pg_catalog.current_database())
          AND d.classid::pg_catalog.int8 = ${isClass("pg_class")}::pg_catalog.oid::pg_catalog.int8
          AND d.objsubid >= 0 AND d.deptype = 'a'
      )
      SELECT held.relation, held.number
      FROM held
      JOIN pg_catalog.pg_class c ON c.oid = held.relation
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE held.number > 0 AND NOT pg_catalog.starts_with(n.nspname::pg_catalog.text, '${ownSchemaPrefix}')
      UNION
      SELECT m.relation, m.number
      FROM held
      JOIN ${marksTable} m ON m.view = held.relation
      JOIN pg_catalog.pg_attribute a ON a.attrelid = m.relation AND a.attnum = m.number
      WHERE NOT a.attisdropped`,
  },
  {
    name: "granted_relations",
    sql: `
      SELECT g.relation, g.numbers, c.relnamespace AS namespace, n.nspname AS schema, c.relname AS name
      FROM (
        SELECT m.relation, pg_catalog.array_agg(m.number) AS numbers FROM ${shadowOf("granted_columns")} m GROUP BY m.relation
      ) AS g
      JOIN pg_catalog.pg_class c ON c.oid = g.relation
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace`,
  },
  {
    name: "granted_indexes",
    sql: `
      SELECT i.indexrelid AS index, i.indrelid AS relation
      FROM ${shadowOf("granted_relations")} g JOIN pg_catalog.pg_index i ON i.indrelid = g.relation
      WHERE i.indexprs IS NULL AND i.indpred IS NULL AND i.indkey::pg_catalog.int2[] OPERATOR(pg_catalog.<@) g.numbers`,
  },
  {
    name: "granted_types",
    sql: `
      WITH RECURSIVE used(oid) AS (
        SELECT shown.oid FROM (
          SELECT a.atttypid AS oid
          FROM ${shadowOf("granted_columns")} g
          JOIN pg_catalog.pg_attribute a ON a.attrelid = g.relation AND a.attnum = g.number
          UNION
          SELECT c.reltype FROM ${shadowOf("granted_relations")} g JOIN pg_catalog.pg_class c ON c.oid = g.relation
        ) AS shown
        UNION
        SELECT related.oid
        FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid
        CROSS JOIN LATERAL (VALUES (t.typelem), (t.typarray), (t.typbasetype)) AS related(oid)
        WHERE related.oid <> 0
      )
      SELECT used.oid FROM used`,
  },
  {
    name: "granted_constraints",
    sql: `
      SELECT k.oid, k.conname AS name, g.relation, k.contype AS kind, g.schema AS table_schema, g.name AS table_name
      FROM ${shadowOf("granted_relations")} g
      JOIN pg_catalog.pg_constraint k ON k.conrelid = g.relation
      LEFT JOIN ${shadowOf("granted_relations")} f ON f.relation = k.confrelid
      WHERE k.conkey OPERATOR(pg_catalog.<@) g.numbers AND CASE k.contype
        WHEN 'f' THEN k.confkey OPERATOR(pg_catalog.<@) f.numbers
        WHEN 'c' THEN ${usesGrantedOnly("pg_constraint", "k.oid", "g")}
        WHEN 'n' THEN true
        -- Its key is not all: INCLUDE names columns that only its index has.
        WHEN 'p' THEN k.conindid IN (SELECT i.index FROM ${shadowOf("granted_indexes")} i)
        WHEN 'u' THEN k.conindid IN (SELECT i.index FROM ${shadowOf("granted_indexes")} i)
        ELSE false END`,
  },
  {
    name: "granted_defaults",
    sql: `
      SELECT a.oid, a.adrelid AS relation, a.adnum AS number, g.schema, g.name, c.attname AS column
      FROM ${shadowOf("granted_relations")} g
      JOIN pg_catalog.pg_attrdef a ON a.adrelid = g.relation AND a.adnum = ANY (g.numbers)
      JOIN pg_catalog.pg_attribute c ON c.attrelid = a.adrelid AND c.attnum = a.adnum
      WHERE ${usesGrantedOnly("pg_attrdef", "a.oid", "g")}`,
  },
];
