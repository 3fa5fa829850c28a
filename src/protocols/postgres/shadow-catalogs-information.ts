/**
 * The shadows of `information_schema`. Its own views show a session only what it has a right on in the table itself, which it has not
 * for a masked column; so these take the views' definitions without that, and filter by what was granted.
 */
import { shadowOf as s } from "./shadow-catalogs-helpers.ts";
import { inInformationSchema, isGrantedName, isSystemSchema, openOriginal } from "./shadow-catalogs-shape.ts";
import type { ShadowBranch, ShadowDefinition } from "./shadow-catalogs-shape.ts";

/** Before PostgreSQL 18, NOT NULL has made-up names there. */
const isNotNullOfGranted = `(x.table_schema, x.table_name, x.constraint_name::pg_catalog.text) IN (
  SELECT g.schema, g.name, pg_catalog.concat(g.namespace, '_', g.relation, '_', part.number, '_not_null')
  FROM ${s("granted_relations")} g CROSS JOIN LATERAL pg_catalog.unnest(g.numbers) AS part(number))`;
const isGrantedConstraint = `(x.table_schema, x.table_name, x.constraint_name) IN (
  SELECT g.table_schema, g.table_name, g.name FROM ${s("granted_constraints")} g)`;

/** An expression that names what was not granted is not shown; the column is. */
const isDefaultShown = `(x.table_schema, x.table_name, x.column_name) IN (
  SELECT d.schema, d.name, d.column FROM ${s("granted_defaults")} d)`;

/** What the original shows of PostgreSQL itself, and what was granted whatever the session's rights on the table are. */
function ofOriginalAndGranted(
  name: string,
  granted: string,
  replaced: Readonly<Record<string, string>> = {},
): readonly ShadowBranch[] {
  return [
    { from: `information_schema.${name} x`, where: isSystemSchema("table_schema") },
    { from: `${openOriginal} x`, where: `${granted} AND NOT (${isSystemSchema("table_schema")})`, replaced },
  ];
}

/** Every shadow of a view of `information_schema`. */
export const informationSchemaShadows: readonly ShadowDefinition[] = [
  inInformationSchema(
    "schemata",
    `${isSystemSchema("schema_name")} OR x.schema_name IN (SELECT g.schema FROM ${s("granted_relations")} g)`,
    { replaced: { schema_owner: "SESSION_USER" } },
  ),
  inInformationSchema("tables", ofOriginalAndGranted("tables", isGrantedName("table_schema", "table_name"))),
  inInformationSchema(
    "columns",
    ofOriginalAndGranted(
      "columns",
      `(x.table_schema, x.table_name, x.column_name) IN (
        SELECT g.schema, g.name, a.attname
        FROM ${s("granted_relations")} g
        JOIN pg_catalog.pg_attribute a ON a.attrelid = g.relation AND a.attnum = ANY (g.numbers))`,
      {
        column_default: `CASE WHEN ${isDefaultShown} THEN x.column_default END`,
        generation_expression: `CASE WHEN ${isDefaultShown} THEN x.generation_expression END`,
      },
    ),
  ),
  inInformationSchema("routines", isSystemSchema("specific_schema"), { replaced: { routine_definition: "NULL" } }),
  inInformationSchema("parameters", isSystemSchema("specific_schema"), { replaced: { parameter_default: "NULL" } }),
  inInformationSchema(
    "table_constraints",
    ofOriginalAndGranted("table_constraints", `(${isGrantedConstraint} OR ${isNotNullOfGranted})`),
  ),
  inInformationSchema("key_column_usage", ofOriginalAndGranted("key_column_usage", isGrantedConstraint)),
  // The original shows these two to a table's owner only; they tell how granted tables join and what their columns take.
  inInformationSchema(
    "constraint_column_usage",
    [
      {
        from: `${s("granted_constraints")} g
          JOIN pg_catalog.pg_constraint k ON k.oid = g.oid
          JOIN pg_catalog.pg_namespace kn ON kn.oid = k.connamespace
          JOIN pg_catalog.pg_class c ON c.oid = CASE k.contype WHEN 'f' THEN k.confrelid ELSE k.conrelid END
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
            AND a.attnum = ANY (CASE k.contype WHEN 'f' THEN k.confkey ELSE k.conkey END)`,
        where: "k.contype <> 'n'",
      },
    ],
    {
      replaced: {
        table_catalog: "pg_catalog.current_database()",
        table_schema: "n.nspname",
        table_name: "c.relname",
        column_name: "a.attname",
        constraint_catalog: "pg_catalog.current_database()",
        constraint_schema: "kn.nspname",
        constraint_name: "k.conname",
      },
    },
  ),
  inInformationSchema(
    "check_constraints",
    [
      {
        from: `${s("granted_constraints")} g
          JOIN pg_catalog.pg_constraint k ON k.oid = g.oid
          JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace`,
        where: "k.contype = 'c'",
      },
    ],
    {
      replaced: {
        constraint_catalog: "pg_catalog.current_database()",
        constraint_schema: "n.nspname",
        constraint_name: "k.conname",
        check_clause: `pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), '^CHECK ', '')`,
      },
    },
  ),
];
