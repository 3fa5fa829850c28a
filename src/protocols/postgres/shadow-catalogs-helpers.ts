/** The views that the shadow catalogs are made with: what the role that has logged in was marked for. No session may read them. */
import { ownSchemaPrefix, shadowSchema } from "./scope-compiler.ts";

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
 * In order: each may use those before it. A filter asks them with `IN (SELECT …)`, which PostgreSQL answers from a hash table made
 * once; a correlated EXISTS would walk the marks again for every row.
 */
export const helperViews: readonly HelperView[] = [
  {
    name: "granted_columns",
    // The array is made once, and the casts leave the planner only the index by referenced role: without statistics that tell of
    // roles, it would rather walk all marks of the database.
    sql: `
      WITH marks AS MATERIALIZED (
        SELECT d.objid AS relation, d.objsubid::pg_catalog.int2 AS number
        FROM pg_catalog.pg_shdepend d
        WHERE d.refclassid = ${isClass("pg_authid")}
          AND d.refobjid = ANY (ARRAY(SELECT m.roleid FROM pg_catalog.pg_auth_members m WHERE m.member = ${ownRole}))
          AND d.dbid::pg_catalog.int8 = (
            SELECT b.oid::pg_catalog.int8 FROM pg_catalog.pg_database b WHERE b.datname = pg_catalog.current_database())
          AND d.classid::pg_catalog.int8 = ${isClass("pg_class")}::pg_catalog.oid::pg_catalog.int8
          AND d.objsubid > 0 AND d.deptype = 'a'
      )
      SELECT DISTINCT marks.relation, marks.number
      FROM marks
      JOIN pg_catalog.pg_class c ON c.oid = marks.relation
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE NOT pg_catalog.starts_with(n.nspname::pg_catalog.text, '${ownSchemaPrefix}')`,
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
    name: "granted_constraints",
    sql: `
      SELECT k.oid, k.conname AS name, g.relation, k.contype AS kind, g.schema AS table_schema, g.name AS table_name
      FROM ${shadowOf("granted_relations")} g
      JOIN pg_catalog.pg_constraint k ON k.conrelid = g.relation
      LEFT JOIN ${shadowOf("granted_relations")} f ON f.relation = k.confrelid
      WHERE k.contype IN ('p', 'u', 'f', 'c', 'n') AND k.conkey OPERATOR(pg_catalog.<@) g.numbers
        AND (k.contype <> 'f' OR k.confkey OPERATOR(pg_catalog.<@) f.numbers)`,
  },
  {
    name: "granted_defaults",
    sql: `
      SELECT a.oid, a.adrelid AS relation, a.adnum AS number
      FROM ${shadowOf("granted_relations")} g
      JOIN pg_catalog.pg_attrdef a ON a.adrelid = g.relation AND a.adnum = ANY (g.numbers)
      WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = ${isClass("pg_attrdef")} AND d.objid = a.oid AND d.refclassid = ${isClass("pg_class")}
          AND d.refobjid = a.adrelid AND d.refobjsubid > 0 AND d.refobjsubid <> ALL (g.numbers))`,
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
];
