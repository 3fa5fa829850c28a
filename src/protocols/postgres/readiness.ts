/** Whether a resource allows what grants need, and what PUBLIC may still do there beside them. */
import type { ClientBase } from "pg";

import { SallyportError } from "#domain/errors.ts";
import { quoteIdentifier } from "#sql/identifier.ts";
import { objectSql } from "./scope-sql.ts";
import type { Right } from "./scope-sql.ts";
import { ownSchemaPrefix } from "./scope-compiler.ts";
import type { Server } from "./provisioner-connection.ts";

const oldestVersion = 130_000;

/**
 * Refuses a server that cannot carry rights of its own for each grant.
 * @throws SallyportError `resource.version`, `resource.replica`, `resource.pooler` or `resource.rights`.
 */
export function checkServer(server: Server): void {
  if (server.version < oldestVersion) {
    throw new SallyportError("resource.version", "upstream", `PostgreSQL ${server.versionText} is older than 13`, {
      nextStep: "Use PostgreSQL 13 or later.",
    });
  }
  if (server.inRecovery) {
    throw new SallyportError("resource.replica", "upstream", "the server is a replica: no role can be made on it", {
      nextStep: "Name the primary server in the resource's url.",
    });
  }
  if (!server.direct) {
    throw new SallyportError("resource.pooler", "upstream", "a connection pooler stands before the server", {
      nextStep: "Name the server itself in the resource's url: a pooler knows no roles made for one grant.",
    });
  }
  const login = quoteIdentifier(server.login);
  const missing = [
    ...(server.createsRoles ? [] : [`ALTER ROLE ${login} CREATEROLE;`]),
    ...(server.createsSchemas ? [] : [`GRANT CREATE ON DATABASE ${quoteIdentifier(server.database)} TO ${login};`]),
  ];
  if (missing.length > 0) {
    throw missingRights(server, "make roles and schemas", missing);
  }
}

function missingRights(server: Server, what: string, sql: readonly string[]): SallyportError {
  return new SallyportError("resource.rights", "upstream", `the login ${server.login} may not ${what}`, {
    nextStep: `As an administrator of the database run: ${sql.join(" ")}`,
  });
}

const grantableSql = `
  SELECT n.nspname AS schema, bool_or(pg_catalog.has_table_privilege(c.oid, 'SELECT WITH GRANT OPTION')) AS grantable
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT pg_catalog.starts_with(n.nspname, $1)
  GROUP BY 1 ORDER BY 1`;

/**
 * Refuses a database with tables of which the login may pass on none.
 * @throws SallyportError `resource.rights` with the SQL that gives all of them.
 */
export async function checkSomethingGrantable(client: ClientBase, server: Server): Promise<void> {
  const rows = (await client.query<{ schema: string; grantable: boolean }>(grantableSql, [ownSchemaPrefix])).rows;
  if (rows.length === 0 || rows.some(({ grantable }) => grantable)) {
    return;
  }
  const login = quoteIdentifier(server.login);
  const sql = rows.flatMap(({ schema }) => {
    const name = quoteIdentifier(schema);
    return [
      `GRANT USAGE ON SCHEMA ${name} TO ${login} WITH GRANT OPTION;`,
      `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${name} TO ${login} WITH GRANT OPTION;`,
      `GRANT USAGE ON ALL SEQUENCES IN SCHEMA ${name} TO ${login} WITH GRANT OPTION;`,
    ];
  });
  throw missingRights(server, "pass on rights on any table", sql);
}

/** Rights on one object that the login must be able to pass on. */
interface NeededRow {
  readonly kind: Right["on"];
  readonly schema: string;
  readonly name: string;
  readonly privilege: string;
}

const missingSql = `
  SELECT needed.kind, needed.schema, needed.name, needed.privilege
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS needed(kind, schema, name, privilege)
  JOIN pg_catalog.pg_namespace n ON n.nspname = needed.schema
  LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = needed.name
  WHERE NOT CASE needed.kind
    WHEN 'schema' THEN pg_catalog.has_schema_privilege(n.oid, needed.privilege || ' WITH GRANT OPTION')
    WHEN 'sequence' THEN pg_catalog.has_sequence_privilege(c.oid, needed.privilege || ' WITH GRANT OPTION')
    ELSE pg_catalog.has_table_privilege(c.oid, needed.privilege || ' WITH GRANT OPTION') END
  ORDER BY 1, 2, 3, 4`;

/**
 * Refuses a scope whose rights the login cannot pass on.
 * @throws SallyportError `resource.rights` with the SQL that gives exactly these.
 */
export async function checkGrantable(client: ClientBase, server: Server, rights: readonly Right[]): Promise<void> {
  if (server.superuser) {
    return;
  }
  const needed = [
    ...new Map(
      rights.map((right) => [JSON.stringify([right.on, right.schema, right.name, right.privilege]), right]),
    ).values(),
  ];
  const rows = (
    await client.query<NeededRow>(missingSql, [
      needed.map(({ on }) => on),
      needed.map(({ schema }) => schema),
      needed.map(({ name }) => name),
      needed.map(({ privilege }) => privilege),
    ])
  ).rows;
  if (rows.length === 0) {
    return;
  }
  const login = quoteIdentifier(server.login);
  const objects = Map.groupBy(rows, ({ kind, schema, name }) => JSON.stringify([kind, schema, name]));
  const sql = [...objects.values()].map((group) => {
    const [first] = group;
    const object = first === undefined ? "" : objectSql({ on: first.kind, schema: first.schema, name: first.name });
    return `GRANT ${group.map(({ privilege }) => privilege).join(", ")} ON ${object} TO ${login} WITH GRANT OPTION;`;
  });
  throw missingRights(server, "pass on the rights of this scope", sql);
}

/** What everyone who may log in may do, one sentence a kind. Objects of PostgreSQL itself are left out. */
const publicRightsSql = `
  SELECT 'TEMP on database ' || b.datname AS finding
  FROM pg_catalog.pg_database b CROSS JOIN LATERAL aclexplode(coalesce(b.datacl, acldefault('d', b.datdba))) AS x
  WHERE b.datname = current_database() AND x.grantee = 0 AND x.privilege_type = 'TEMPORARY'
  UNION ALL
  SELECT 'CREATE on database ' || b.datname
  FROM pg_catalog.pg_database b CROSS JOIN LATERAL aclexplode(b.datacl) AS x
  WHERE b.datname = current_database() AND x.grantee = 0 AND x.privilege_type = 'CREATE'
  UNION ALL
  SELECT 'CONNECT on ' || count(*) || ' other database' || CASE count(*) WHEN 1 THEN '' ELSE 's' END
  FROM pg_catalog.pg_database b CROSS JOIN LATERAL aclexplode(coalesce(b.datacl, acldefault('d', b.datdba))) AS x
  WHERE b.datname <> current_database() AND b.datallowconn AND x.grantee = 0 AND x.privilege_type = 'CONNECT'
  HAVING count(*) > 0
  UNION ALL
  SELECT x.privilege_type || ' on schema ' || n.nspname
  FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) AS x
  WHERE x.grantee = 0 AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND (x.privilege_type = 'CREATE' OR n.oid >= 16384)
  UNION ALL
  SELECT 'EXECUTE on ' || count(*) || ' function' || CASE count(*) WHEN 1 THEN '' ELSE 's' END || ' in schema ' || n.nspname
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS x
  WHERE p.oid >= 16384 AND x.grantee = 0
  GROUP BY n.nspname
  UNION ALL
  SELECT string_agg(DISTINCT x.privilege_type, ', ') || ' on ' || n.nspname || '.' || c.relname
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL aclexplode(c.relacl) AS x
  WHERE c.oid >= 16384 AND x.grantee = 0
  GROUP BY n.nspname, c.relname
  UNION ALL
  SELECT string_agg(DISTINCT x.privilege_type, ', ') || ' on column ' || n.nspname || '.' || c.relname || '.' || a.attname
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL aclexplode(a.attacl) AS x
  WHERE c.oid >= 16384 AND x.grantee = 0 AND NOT a.attisdropped
  GROUP BY n.nspname, c.relname, a.attname
  UNION ALL
  SELECT x.privilege_type || ' on ' || count(*) || ' large object' || CASE count(*) WHEN 1 THEN '' ELSE 's' END
  FROM pg_catalog.pg_largeobject_metadata l CROSS JOIN LATERAL aclexplode(l.lomacl) AS x
  WHERE x.grantee = 0
  GROUP BY x.privilege_type
  UNION ALL
  SELECT 'USAGE on foreign server ' || f.srvname
  FROM pg_catalog.pg_foreign_server f CROSS JOIN LATERAL aclexplode(f.srvacl) AS x
  WHERE x.grantee = 0
  UNION ALL
  SELECT 'USAGE on language ' || l.lanname
  FROM pg_catalog.pg_language l CROSS JOIN LATERAL aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) AS x
  WHERE x.grantee = 0 AND l.lanpltrusted AND l.lanname NOT IN ('sql', 'internal', 'c')
  ORDER BY 1`;

/** What PUBLIC may still do: empty on a hardened database. It cannot be taken from one role alone. */
export async function readPublicRights(client: ClientBase): Promise<readonly string[]> {
  return (await client.query<{ finding: string }>(publicRightsSql)).rows.map(({ finding }) => finding);
}
