/**
 * The catalog relations that clients may read, each through a filtered view of the same name (MASKING.md, "Catalogs").
 * A catalog relation that is not listed is refused: it cannot be shown without showing what was not granted.
 */

/** One catalog relation that has a shadow, `<shadow schema>.<name>`. No two have the same name. */
export interface ShadowedRelation {
  readonly schema: "pg_catalog" | "information_schema";
  readonly name: string;
  /** The first major version of PostgreSQL that has it; the shadow is not made on an older one. */
  readonly since: number;
  /** True when clients join on its `tableoid`, which a view does not have by itself: it is the shadow's last column. */
  readonly tableoid: boolean;
}

function inCatalog(name: string, options: { since?: number; tableoid?: boolean } = {}): ShadowedRelation {
  return { schema: "pg_catalog", name, since: options.since ?? 13, tableoid: options.tableoid ?? false };
}

function inInformationSchema(name: string): ShadowedRelation {
  return { schema: "information_schema", name, since: 13, tableoid: false };
}

/** Every shadowed catalog relation. Discovery of drivers and MCP servers, then `psql`, then monitoring. */
export const shadowedCatalogRelations: readonly ShadowedRelation[] = [
  inInformationSchema("schemata"),
  inInformationSchema("tables"),
  inInformationSchema("columns"),
  inInformationSchema("routines"),
  inInformationSchema("parameters"),
  inInformationSchema("table_constraints"),
  inInformationSchema("key_column_usage"),
  inInformationSchema("constraint_column_usage"),
  inInformationSchema("check_constraints"),

  inCatalog("pg_namespace", { tableoid: true }),
  inCatalog("pg_class", { tableoid: true }),
  inCatalog("pg_attribute"),
  inCatalog("pg_index"),
  inCatalog("pg_constraint", { tableoid: true }),
  inCatalog("pg_description"),
  inCatalog("pg_proc", { tableoid: true }),
  inCatalog("pg_type", { tableoid: true }),
  inCatalog("pg_enum"),
  inCatalog("pg_trigger", { tableoid: true }),
  inCatalog("pg_policies"),
  inCatalog("pg_extension", { tableoid: true }),

  inCatalog("pg_am"),
  inCatalog("pg_attrdef"),
  inCatalog("pg_collation"),
  inCatalog("pg_inherits"),
  inCatalog("pg_policy"),
  inCatalog("pg_rewrite", { tableoid: true }),
  inCatalog("pg_statistic_ext"),
  inCatalog("pg_publication"),
  inCatalog("pg_publication_rel"),
  inCatalog("pg_publication_namespace", { since: 15 }),
  inCatalog("pg_roles"),
  inCatalog("pg_auth_members"),
  inCatalog("pg_database"),
  inCatalog("pg_language"),

  inCatalog("pg_tables"),
  inCatalog("pg_settings"),
  inCatalog("pg_stat_activity"),
  inCatalog("pg_stat_database"),
  inCatalog("pg_stat_user_tables"),
  inCatalog("pg_stat_user_indexes"),
  inCatalog("pg_statio_user_tables"),
  inCatalog("pg_locks"),
];

const byKey = new Map(shadowedCatalogRelations.map((relation) => [`${relation.schema}.${relation.name}`, relation]));

/** The shadow of a catalog relation; null when it has none and is refused. */
export function findShadowed(schema: string, name: string): ShadowedRelation | null {
  return byKey.get(`${schema}.${name}`) ?? null;
}
