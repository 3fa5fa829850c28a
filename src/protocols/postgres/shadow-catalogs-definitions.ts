/**
 * What each shadowed catalog relation shows, as a filter and replaced columns over the original.
 *
 * A session sees what its scope role was given, by name: `pg_shdepend` has a row for each right of a role on a column of a table,
 * and on a view of a scope, which stands for the columns that it is marked for (`scope-marks.ts`). So the granted columns of a
 * session are an index scan away, and rights that PUBLIC has somewhere else show nothing.
 *
 * Objects of PostgreSQL itself (OIDs below 16384) are shown as they are. Owners are shown as the session's own role, access lists as none; what speaks of physical layout or of other sessions is blank.
 */
import { shadowedCatalogRelations } from "#sql/shadowed.ts";
import { isClass, ownRole, shadowOf as s } from "./shadow-catalogs-helpers.ts";
import { informationSchemaShadows } from "./shadow-catalogs-information.ts";
import {
  grantedOr,
  inCatalog,
  isGrantedName,
  isSystemSchema,
  nothing,
  ownOids,
  relations,
  types,
} from "./shadow-catalogs-shape.ts";
import type { ShadowDefinition } from "./shadow-catalogs-shape.ts";

const isPartitionShown = `x.oid IN (
  SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN ${s("granted_relations")} p ON p.relation = i.inhparent)`;

/** The bounds of a partition quote values of the key, which must be open. */
const isBoundShown = `x.oid IN (
  SELECT i.inhrelid
  FROM pg_catalog.pg_inherits i
  JOIN ${s("granted_relations")} p ON p.relation = i.inhparent
  JOIN pg_catalog.pg_partitioned_table k ON k.partrelid = i.inhparent
  WHERE k.partexprs IS NULL AND NOT EXISTS (
    SELECT FROM pg_catalog.unnest(k.partattrs::pg_catalog.int2[]) AS part(number)
    WHERE NOT pg_catalog.has_column_privilege(k.partrelid, part.number, 'SELECT')))`;

/** What a table has that its columns do not tell. */
const grantedTable: Readonly<Record<string, string>> = {
  // An estimate is made from pages, which hidden values fill too.
  reltuples: `CASE WHEN NOT EXISTS (
      SELECT FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = x.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND NOT pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'))
    THEN x.reltuples ELSE -1 END`,
  // A partition key of hidden columns is told by functions that take the table's OID; a plain table has none.
  relkind: `CASE WHEN x.relkind = 'p' AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_partitioned_table p
      WHERE p.partrelid = x.oid AND p.partexprs IS NULL AND p.partattrs::pg_catalog.int2[] OPERATOR(pg_catalog.<@) g.numbers)
    THEN 'r' ELSE x.relkind END`,
  relnatts: "(SELECT pg_catalog.max(part.number) FROM pg_catalog.unnest(g.numbers) AS part(number))",
  relchecks: `(SELECT pg_catalog.count(*) FROM ${s("granted_constraints")} k WHERE k.relation = x.oid AND k.kind = 'c')`,
  relhasrules: "false",
  relhastriggers: "false",
  relrowsecurity: "false",
  relforcerowsecurity: "false",
  relhassubclass: `x.oid IN (
    SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN ${s("granted_relations")} c ON c.relation = i.inhrelid)`,
  relispartition: `x.relispartition AND ${isPartitionShown}`,
  relpartbound: `CASE WHEN ${isBoundShown} THEN x.relpartbound END`,
};

const pgClass = inCatalog(
  "pg_class",
  [
    {
      from: "pg_catalog.pg_class x JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace",
      where: `x.oid < ${ownOids} AND n.nspname IN ('pg_catalog', 'information_schema')`,
    },
    {
      from: `${s("granted_relations")} g JOIN pg_catalog.pg_class x ON x.oid = g.relation`,
      where: "true",
      replaced: grantedTable,
    },
    { from: `${s("granted_indexes")} g JOIN pg_catalog.pg_class x ON x.oid = g.index`, where: "true" },
  ],
  {
    replaced: {
      relowner: ownRole,
      relfilenode: "0",
      reltablespace: "0",
      reltoastrelid: "0",
      relpages: "0",
      reltuples: "-1",
      relallvisible: "0",
      relallfrozen: "0",
      relfrozenxid: "'0'",
      relminmxid: "'0'",
      relacl: "NULL",
    },
  },
);

const pgAttribute = inCatalog(
  "pg_attribute",
  [
    { from: "pg_catalog.pg_attribute x", where: `x.attrelid < ${ownOids}` },
    {
      from: `${s("granted_columns")} g JOIN pg_catalog.pg_attribute x ON x.attrelid = g.relation AND x.attnum = g.number`,
      where: "true",
      replaced: {
        atthasdef: `x.atthasdef AND (x.attrelid, x.attnum) IN (SELECT d.relation, d.number FROM ${s("granted_defaults")} d)`,
      },
    },
    { from: `${s("granted_indexes")} g JOIN pg_catalog.pg_attribute x ON x.attrelid = g.index`, where: "true" },
  ],
  {
    replaced: {
      atthasmissing: "false",
      // A value of the column, for rows older than it. A view cannot have its type, anyarray.
      attmissingval: "CAST(NULL AS pg_catalog.text)",
      attacl: "NULL",
      attfdwoptions: "NULL",
    },
  },
);

const pgDescription = inCatalog(
  "pg_description",
  `CASE x.classoid
      WHEN ${isClass("pg_class")} THEN x.objoid < ${ownOids}
        OR (x.objsubid = 0 AND x.objoid IN (${relations} UNION ALL SELECT i.index FROM ${s("granted_indexes")} i))
        OR (x.objoid, x.objsubid) IN (SELECT g.relation, g.number::pg_catalog.int4 FROM ${s("granted_columns")} g)
      WHEN ${isClass("pg_namespace")} THEN x.objoid IN (
        SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname IN ('pg_catalog', 'information_schema')
        UNION ALL SELECT g.namespace FROM ${s("granted_relations")} g)
      WHEN ${isClass("pg_constraint")} THEN x.objoid IN (SELECT g.oid FROM ${s("granted_constraints")} g)
      WHEN ${isClass("pg_type")} THEN x.objoid < ${ownOids} OR x.objoid IN (${types})
      ELSE x.objoid < ${ownOids} END`,
);

/** Settings that drivers and monitoring read. */
const shownSettings = [
  "application_name",
  "client_encoding",
  "DateStyle",
  "default_transaction_isolation",
  "default_transaction_read_only",
  "extra_float_digits",
  "idle_in_transaction_session_timeout",
  "integer_datetimes",
  "IntervalStyle",
  "lc_collate",
  "lc_ctype",
  "lock_timeout",
  "max_connections",
  "max_identifier_length",
  "max_index_keys",
  "search_path",
  "server_encoding",
  "server_version",
  "server_version_num",
  "standard_conforming_strings",
  "statement_timeout",
  "TimeZone",
  "transaction_isolation",
  "transaction_read_only",
];

const catalogs: readonly ShadowDefinition[] = [
  inCatalog(
    "pg_namespace",
    `x.nspname IN ('pg_catalog', 'information_schema') OR x.oid IN (SELECT g.namespace FROM ${s("granted_relations")} g)`,
    { replaced: { nspowner: ownRole, nspacl: "NULL" } },
  ),
  pgClass,
  pgAttribute,
  inCatalog("pg_index", grantedOr(`SELECT g.index FROM ${s("granted_indexes")} g`, "indexrelid")),
  inCatalog("pg_constraint", grantedOr(`SELECT g.oid FROM ${s("granted_constraints")} g`), {
    replaced: {
      // Of another table, these may not be granted.
      conindid: `CASE WHEN x.conindid < ${ownOids} OR x.conindid IN (SELECT i.index FROM ${s("granted_indexes")} i)
        THEN x.conindid ELSE 0 END`,
      conparentid: `CASE WHEN x.conparentid IN (SELECT k.oid FROM ${s("granted_constraints")} k) THEN x.conparentid ELSE 0 END`,
    },
  }),
  pgDescription,
  inCatalog("pg_proc", `x.oid < ${ownOids} AND x.pronamespace = 'pg_catalog'::pg_catalog.regnamespace`, {
    replaced: {
      proowner: ownRole,
      prosrc: "NULL",
      probin: "NULL",
      prosqlbody: "NULL",
      proconfig: "NULL",
      proacl: "NULL",
    },
  }),
  inCatalog("pg_type", grantedOr(types), {
    replaced: {
      typowner: ownRole,
      typacl: "NULL",
      // A domain's default may call what was not granted.
      typdefault: `CASE WHEN x.oid < ${ownOids} THEN x.typdefault END`,
      typdefaultbin: `CASE WHEN x.oid < ${ownOids} THEN x.typdefaultbin END`,
    },
  }),
  inCatalog("pg_enum", grantedOr(types, "enumtypid")),
  inCatalog("pg_trigger", nothing),
  inCatalog("pg_policies", nothing),
  inCatalog("pg_extension", `x.oid < ${ownOids}`, { replaced: { extowner: ownRole } }),

  inCatalog("pg_am", `x.oid < ${ownOids}`),
  inCatalog("pg_attrdef", `x.oid IN (SELECT g.oid FROM ${s("granted_defaults")} g)`),
  inCatalog(
    "pg_collation",
    grantedOr(`SELECT a.attcollation FROM ${s("granted_columns")} g
      JOIN pg_catalog.pg_attribute a ON a.attrelid = g.relation AND a.attnum = g.number`),
    { replaced: { collowner: ownRole } },
  ),
  inCatalog("pg_inherits", `x.inhrelid IN (${relations}) AND x.inhparent IN (${relations})`),
  inCatalog("pg_policy", nothing),
  inCatalog("pg_rewrite", nothing),
  inCatalog("pg_statistic_ext", nothing),
  inCatalog("pg_publication", nothing),
  inCatalog("pg_publication_rel", nothing),
  inCatalog("pg_publication_namespace", nothing),
  inCatalog("pg_roles", "x.rolname = SESSION_USER", { replaced: { rolconfig: "NULL" } }),
  inCatalog("pg_auth_members", nothing),
  inCatalog("pg_database", "x.datname = pg_catalog.current_database()", {
    replaced: { datdba: ownRole, datfrozenxid: "'0'", datminmxid: "'0'", dattablespace: "1663", datacl: "NULL" },
  }),
  inCatalog("pg_language", `x.oid < ${ownOids}`, { replaced: { lanowner: ownRole, lanacl: "NULL" } }),

  inCatalog("pg_tables", `${isSystemSchema("schemaname")} OR ${isGrantedName("schemaname", "tablename")}`, {
    replaced: {
      tableowner: "SESSION_USER",
      tablespace: "NULL",
      hasrules: "false",
      hastriggers: "false",
      rowsecurity: "false",
    },
  }),
  inCatalog("pg_settings", `x.name IN (${shownSettings.map((name) => `'${name}'`).join(", ")})`, {
    replaced: { sourcefile: "NULL", sourceline: "NULL" },
  }),
  inCatalog("pg_stat_activity", "x.usename = SESSION_USER AND x.datname = pg_catalog.current_database()", {
    replaced: {
      client_addr: "NULL",
      client_hostname: "NULL",
      client_port: "NULL",
      backend_xid: "NULL",
      backend_xmin: "NULL",
      query_id: "NULL",
      // The text as it ran, with the names of the scope's views in it.
      query: "NULL",
    },
  }),
  inCatalog("pg_stat_database", "x.datname = pg_catalog.current_database()", {
    kept: ["datid", "datname"],
    replaced: {
      numbackends: "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.usename = SESSION_USER)",
    },
  }),
  inCatalog("pg_stat_user_tables", `x.relid IN (${relations})`, { kept: ["relid", "schemaname", "relname"] }),
  inCatalog("pg_stat_user_indexes", `x.indexrelid IN (SELECT g.index FROM ${s("granted_indexes")} g)`, {
    kept: ["relid", "indexrelid", "schemaname", "relname", "indexrelname"],
  }),
  inCatalog("pg_statio_user_tables", `x.relid IN (${relations})`, { kept: ["relid", "schemaname", "relname"] }),
  inCatalog("pg_locks", nothing),
];

/** Every shadow, by the relation's own name. */
export const shadowDefinitions: ReadonlyMap<string, ShadowDefinition> = new Map(
  [...informationSchemaShadows, ...catalogs].map((definition) => [definition.name, definition]),
);

/** Relations that the gate splices onto a shadow and that have no definition here: always empty. */
export function undefinedShadows(): readonly string[] {
  return shadowedCatalogRelations.map(({ name }) => name).filter((name) => !shadowDefinitions.has(name));
}
