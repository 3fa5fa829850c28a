/**
 * The filtered catalogs of one database (MASKING.md, "Catalogs"): one view for each relation of `sql/shadowed.ts`, of the same
 * name, with the same columns in the same order, in a schema that belongs to the view owner. Made for the server's own version
 * from the server's own column lists; remade when what they should be has changed.
 *
 * Two differences: a relation whose `tableoid` clients join on has it as a last column, since a view has no system columns; and
 * `pg_attribute.attmissingval` is text, since no view can have a column of type anyarray.
 */
import { createHash } from "node:crypto";
import type { PoolClient } from "pg";

import { SallyportError } from "#domain/errors.ts";
import { quoteIdentifier } from "#sql/identifier.ts";
import { shadowedCatalogRelations } from "#sql/shadowed.ts";
import type { ShadowedRelation } from "#sql/shadowed.ts";
import { shadowSchema } from "./scope-compiler.ts";
import { quoteLiteral } from "./quoting.ts";
import { createMarksStatement, marksName } from "./scope-marks.ts";
import { grantMembership, readersComment, viewOwnerComment } from "./scope-sql.ts";
import type { ServerFacts } from "./scope-sql.ts";
import { shadowDefinitions } from "./shadow-catalogs-definitions.ts";
import { helperViews } from "./shadow-catalogs-helpers.ts";
import { openOriginal } from "./shadow-catalogs-shape.ts";
import type { ShadowDefinition } from "./shadow-catalogs-shape.ts";

const lockTable = "scope_lock";

/**
 * Scopes are made and dropped one at a time in a database (EXCLUSIVE), and none meanwhile a grant role joins one (SHARE). The lock
 * is a table's and not an advisory one, since everyone who may log in may take any advisory lock.
 */
export function scopeLockSql(mode: "SHARE" | "EXCLUSIVE"): string {
  return `LOCK TABLE ${shadow(lockTable)} IN ${mode} MODE`;
}

/** Whether there is a lock to take: not before the first `prepare`. */
export async function hasScopeLock(client: PoolClient): Promise<boolean> {
  const found = await client.query("SELECT WHERE pg_catalog.to_regclass($1) IS NOT NULL", [shadow(lockTable)]);
  return found.rows.length > 0;
}

function shadow(name: string): string {
  return `${quoteIdentifier(shadowSchema)}.${quoteIdentifier(name)}`;
}

interface OriginalColumn {
  readonly name: string;
  /** For a cast, such as `information_schema.sql_identifier`. */
  readonly type: string;
  /** `pg_type.typcategory`; `N` is a number. */
  readonly category: string;
}

interface OriginalRow {
  readonly schema: string;
  readonly relation: string;
  readonly name: string;
  readonly type: string;
  readonly category: string;
}

const originalsSql = `
  SELECT n.nspname AS schema, c.relname AS relation, a.attname AS name,
    pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, t.typcategory AS category
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.relname = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
  ORDER BY c.oid, a.attnum`;

/** The statements that make every view, for the server that `client` is connected to. */
async function viewStatements(client: PoolClient, server: ServerFacts): Promise<readonly string[]> {
  const present = shadowedCatalogRelations.filter(({ since }) => server.version >= since * 10_000);
  const rows = (await client.query<OriginalRow>(originalsSql, [present.map(({ name }) => name)])).rows;
  const originals = Map.groupBy(rows, ({ schema, relation }) => `${schema}.${relation}`);
  const definitions = await client.query<{ name: string; sql: string }>(definitionsSql);
  const open = new Map(definitions.rows.map(({ name, sql }) => [name, withoutRights(name, sql)]));
  const shadows = present.map((relation) => {
    const columns = originals.get(`${relation.schema}.${relation.name}`);
    if (columns === undefined) {
      throw new SallyportError(
        "resource.version",
        "upstream",
        `the server has no ${relation.schema}.${relation.name}`,
        {
          nextStep: "Use PostgreSQL 13 to 18.",
        },
      );
    }
    return { name: relation.name, sql: shadowStatements(relation, columns, open.get(relation.name) ?? "") };
  });
  const readers = quoteIdentifier(server.readers);
  return [
    ...helperViews.map(({ name, sql }) => `CREATE VIEW ${shadow(name)} AS ${sql}`),
    ...shadows.flatMap(({ sql }) => sql),
    `GRANT USAGE ON SCHEMA ${quoteIdentifier(shadowSchema)} TO ${readers}`,
    `GRANT SELECT ON TABLE ${shadows.map(({ name }) => shadow(name)).join(", ")} TO ${readers}`,
  ];
}

const definitionsSql = `
  SELECT c.relname AS name, pg_catalog.pg_get_viewdef(c.oid) AS sql
  FROM pg_catalog.pg_class c
  WHERE c.relnamespace = 'information_schema'::pg_catalog.regnamespace
    AND c.relname IN ('tables', 'columns', 'table_constraints', 'key_column_usage')`;

/**
 * The server's own definition of a view of `information_schema` without its conditions on the session's rights: the shadow has a
 * filter of its own, and a session has no right on the table for a column that is masked.
 * @throws SallyportError `resource.version` when a condition is left that is not understood.
 */
function withoutRights(name: string, sql: string): string {
  const open = sql
    .replace(/;\s*$/, "")
    .replaceAll(/\b(?:pg_has_role|has_[a-z_]+_privilege)\((?:[^()']|'[^']*')*\)/g, "true");
  if (/pg_has_role|_privilege\(/.test(open)) {
    throw new SallyportError("resource.version", "upstream", `information_schema.${name} is not as expected`, {
      nextStep: "Use PostgreSQL 13 to 18.",
    });
  }
  return open;
}

/** In order: the shadow is the last. */
function shadowStatements(
  relation: ShadowedRelation,
  columns: readonly OriginalColumn[],
  open: string,
): readonly string[] {
  const definition = shadowDefinitions.get(relation.name) ?? emptyDefinition(relation);
  const selects = definition.branches.map(({ from, where, replaced = {} }) => {
    const overridden = { ...definition, replaced: { ...definition.replaced, ...replaced } };
    const list = columns.map((column) => `${columnSql(overridden, column)} AS ${quoteIdentifier(column.name)}`);
    if (relation.tableoid) {
      list.push(`'${relation.schema}.${relation.name}'::pg_catalog.regclass::pg_catalog.oid AS tableoid`);
    }
    return `SELECT ${list.join(", ")} FROM ${from.replace(openOriginal, () => `(${open})`)} WHERE ${where}`;
  });
  const [only] = selects;
  if (only !== undefined && selects.length === 1) {
    return [barrierView(relation.name, only)];
  }
  // One view for each part: PostgreSQL flattens a UNION ALL and forgets that the view around it is a barrier.
  const parts = selects.map((select, i) => ({ name: `${relation.name}_part_${i + 1}`, select }));
  const union = parts.map(({ name }) => `SELECT * FROM ${shadow(name)}`).join(" UNION ALL ");
  return [...parts.map(({ name, select }) => barrierView(name, select)), barrierView(relation.name, union)];
}

/** A barrier: a condition that can fail or speak must not see a row before the filter has. */
function barrierView(name: string, select: string): string {
  return `CREATE VIEW ${shadow(name)} WITH (security_barrier = true) AS ${select}`;
}

/** A relation that the gate knows and we do not is shown empty. */
function emptyDefinition({ schema, name }: ShadowedRelation): ShadowDefinition {
  return { schema, name, branches: [{ from: `${schema}.${name} x`, where: "false" }], replaced: {}, kept: null };
}

function columnSql({ replaced, kept }: ShadowDefinition, { name, type, category }: OriginalColumn): string {
  const expression = replaced[name];
  if (expression !== undefined) {
    return type === "anyarray" ? expression : `CAST(${expression} AS ${type})`;
  }
  if (kept !== null && !kept.includes(name)) {
    return `CAST(${category === "N" ? "0" : "NULL"} AS ${type})`;
  }
  return `x.${quoteIdentifier(name)}`;
}

interface CatalogState {
  readonly owner: boolean;
  readonly readers: boolean;
  readonly ownerMember: boolean;
  readonly readersMember: boolean;
  readonly schema: boolean;
  readonly schema_is_ours: boolean | null;
  readonly schema_comment: string | null;
  readonly lock: boolean;
  readonly marks: boolean;
  readonly connects: boolean;
  readonly database: string;
}

const stateSql = `
  SELECT o.oid IS NOT NULL AS owner, d.oid IS NOT NULL AS readers,
    coalesce(pg_catalog.pg_has_role(current_user, o.oid, 'MEMBER'), false) AS "ownerMember",
    coalesce(pg_catalog.pg_has_role(current_user, d.oid, 'MEMBER'), false) AS "readersMember",
    n.oid IS NOT NULL AS schema, n.nspowner = o.oid AS schema_is_ours,
    pg_catalog.obj_description(n.oid, 'pg_namespace') AS schema_comment,
    EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = '${lockTable}') AS lock,
    EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = '${marksName}') AS marks,
    coalesce(
      pg_catalog.has_database_privilege(d.oid, b.oid, 'CONNECT'), pg_catalog.has_database_privilege('public', b.oid, 'CONNECT')
    ) AS connects,
    b.datname AS database
  FROM pg_catalog.pg_database b
  LEFT JOIN pg_catalog.pg_roles o ON o.rolname = $1
  LEFT JOIN pg_catalog.pg_roles d ON d.rolname = $2
  LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = $3
  WHERE b.datname = current_database()`;

const viewsSql = `
  SELECT c.relname AS name
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = $1 AND c.relkind = 'v'
  ORDER BY 1`;

/**
 * What it takes to make the view owner, the readers and the shadow catalogs what they should be: empty when they are.
 * @throws SallyportError `resource.rights` when the schema's name is taken by someone else.
 */
export async function catalogStatements(client: PoolClient, server: ServerFacts): Promise<readonly string[]> {
  const state = (await client.query<CatalogState>(stateSql, [server.viewOwner, server.readers, shadowSchema])).rows[0];
  if (state === undefined || (state.schema && state.schema_is_ours !== true)) {
    throw new SallyportError("resource.rights", "upstream", `the schema ${shadowSchema} belongs to another role`, {
      nextStep: `DROP SCHEMA ${quoteIdentifier(shadowSchema)} CASCADE;`,
    });
  }
  const views = await viewStatements(client, server);
  const hash = createHash("sha256").update(views.join(";")).digest("hex").slice(0, 16);
  const comment = `Sallyport: the catalogs as a grant may see them; definition ${hash}`;
  const tables = state.lock && state.marks;
  const whole = state.owner && state.readers && state.schema && tables && state.schema_comment === comment;
  const roles = [
    ...roleStatements(server.viewOwner, viewOwnerComment, { exists: state.owner, member: state.ownerMember }, server),
    ...roleStatements(server.readers, readersComment, { exists: state.readers, member: state.readersMember }, server),
    // On a database that is closed to PUBLIC, grant roles come in as readers.
    ...(state.connects
      ? []
      : [`GRANT CONNECT ON DATABASE ${quoteIdentifier(state.database)} TO ${quoteIdentifier(server.readers)}`]),
  ];
  if (whole) {
    return roles;
  }
  const old = state.schema ? (await client.query<{ name: string }>(viewsSql, [shadowSchema])).rows : [];
  const owner = quoteIdentifier(server.viewOwner);
  return [
    ...roles,
    ...(state.schema ? [] : [`CREATE SCHEMA ${quoteIdentifier(shadowSchema)} AUTHORIZATION ${owner}`]),
    `SET LOCAL ROLE ${owner}`,
    ...(state.lock ? [] : [`CREATE TABLE ${shadow(lockTable)} ()`]),
    ...(state.marks ? [] : [createMarksStatement]),
    ...(old.length === 0 ? [] : [`DROP VIEW ${old.map(({ name }) => shadow(name)).join(", ")}`]),
    ...views,
    `COMMENT ON SCHEMA ${quoteIdentifier(shadowSchema)} IS ${quoteLiteral(comment)}`,
    "SET LOCAL ROLE NONE",
  ];
}

function roleStatements(
  name: string,
  comment: string,
  state: { readonly exists: boolean; readonly member: boolean },
  server: ServerFacts,
): readonly string[] {
  const role = quoteIdentifier(name);
  return [
    ...(state.exists ? [] : [`CREATE ROLE ${role} NOLOGIN`, `COMMENT ON ROLE ${role} IS ${quoteLiteral(comment)}`]),
    ...(server.superuser || (state.exists && state.member)
      ? []
      : [grantMembership(name, "CURRENT_USER", server, true)]),
  ];
}
