/** What of a scope is in the database, read from its catalogs: for making what is missing, and for attesting that nothing is left. */
import type { ClientBase } from "pg";

import { ownSchemaPrefix } from "./scope-compiler.ts";
import type { ScopePlan } from "./scope-compiler.ts";
import { markKeys, readMarks } from "./scope-marks.ts";
import { scopeRights, scopeRoleComment, scopeViews, viewOwnerRights } from "./scope-sql.ts";
import type { Privilege, Right, ServerFacts } from "./scope-sql.ts";

/** A role as `pg_roles` shows it. */
export interface RoleState {
  readonly oid: number;
  /** Null when it has none: then it is not one of ours. */
  readonly comment: string | null;
}

const roleSql = `
  SELECT r.oid, pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment
  FROM pg_catalog.pg_roles r WHERE r.rolname = $1`;

/** Null when there is no role of that name. */
export async function readRole(client: ClientBase, role: string): Promise<RoleState | null> {
  const result = await client.query<RoleState>(roleSql, [role]);
  return result.rows[0] ?? null;
}

interface RightRow {
  readonly object: Right["on"] | "other";
  readonly schema: string;
  readonly name: string;
  readonly column: string | null;
  readonly privilege: Privilege;
}

/**
 * Every right of a role in this database, by `pg_shdepend`, which has a row for each access list that names the role.
 * What is neither a relation nor a schema comes out as `other`.
 */
const rightsSql = `
  WITH named AS (
    SELECT d.classid, d.objid, d.objsubid
    FROM pg_catalog.pg_shdepend d
    WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'a'
      AND d.dbid = (SELECT b.oid FROM pg_catalog.pg_database b WHERE b.datname = current_database())
  )
  SELECT DISTINCT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS object, n.nspname AS schema,
    c.relname AS name, a.attname AS column, x.privilege_type AS privilege
  FROM named
  JOIN pg_catalog.pg_class c ON named.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = named.objid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = named.objsubid AND named.objsubid <> 0
  CROSS JOIN LATERAL aclexplode(CASE named.objsubid WHEN 0 THEN c.relacl ELSE a.attacl END) AS x
  WHERE x.grantee = $1
  UNION
  SELECT 'schema', n.nspname, '', NULL, x.privilege_type
  FROM named
  JOIN pg_catalog.pg_namespace n ON named.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.oid = named.objid
  CROSS JOIN LATERAL aclexplode(n.nspacl) AS x
  WHERE x.grantee = $1
  UNION
  SELECT 'other', '', pg_catalog.pg_describe_object(named.classid, named.objid, named.objsubid), NULL, ''
  FROM named
  WHERE named.classid NOT IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_namespace'::pg_catalog.regclass)`;

async function readRights(client: ClientBase, roleOid: number): Promise<readonly RightRow[]> {
  return (await client.query<RightRow>(rightsSql, [roleOid])).rows;
}

/** One spelling of a right, to compare by. */
function rightKey(
  right: { readonly schema: string; readonly name: string; readonly column: string | null },
  on: string,
  privilege: string,
): string {
  return JSON.stringify([on, right.schema, right.name, right.column, privilege]);
}

interface ViewRow {
  readonly schema: string;
  readonly name: string | null;
  readonly comment: string | null;
  readonly sound: boolean | null;
}

/** Schemas that begin so, with what is in them. */
const viewsSql = `
  SELECT n.nspname AS schema, c.relname AS name, pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
    c.relkind = 'v' AND c.relowner = o.oid AND n.nspowner = o.oid AND 'security_barrier=true' = ANY (c.reloptions) AS sound
  FROM pg_catalog.pg_namespace n
  LEFT JOIN pg_catalog.pg_roles o ON o.rolname = $2
  LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid
  WHERE pg_catalog.starts_with(n.nspname, $1)
  ORDER BY n.nspname, c.relname`;

/** What there is of a scope. */
export interface ScopeState {
  readonly role: RoleState | null;
  /** Schemas of the scope that exist. */
  readonly schemas: readonly string[];
  /** The scope's hash when it has marks; null when it has none. */
  readonly marked: string | null;
  /** True when the role, its rights, its views and its marks are exactly those of the plan. */
  readonly whole: boolean;
  /** What the role has outside these schemas, whether it should or not. */
  readonly rights: readonly Right[];
  /** Rights that the view owner needs for this plan and does not have. */
  readonly missingOwnerRights: readonly Right[];
  /** What the scope role has and should not, in words, and how many of its rights are missing. */
  readonly surplus: readonly string[];
  readonly missing: number;
}

/** The start of the names of a scope's schemas. */
export function scopeSchemaPrefix(hash: string): string {
  return `${ownSchemaPrefix}${hash.slice(0, 12)}_`;
}

/** Compares what there is with what there should be, exactly: a right too many counts as well as one that is missing. */
export async function inspectScope(client: ClientBase, plan: ScopePlan, server: ServerFacts): Promise<ScopeState> {
  const { scope } = plan;
  const role = await readRole(client, scope.role);
  const rows = (await client.query<ViewRow>(viewsSql, [scopeSchemaPrefix(scope.hash), server.viewOwner])).rows;
  const missingOwnerRights = await readMissingOwnerRights(client, plan, server);
  const rights = role === null ? [] : await readRights(client, role.oid);
  const marks = await readMarks(client, scope.hash);
  const member = role !== null && (await isMember(client, role.oid, server.readers));
  const wanted = new Set(scopeRights(plan).map((right) => rightKey(right, right.on, right.privilege)));
  const had = new Set(rights.map((right) => rightKey(right, right.object, right.privilege)));
  const surplus = rights
    .filter((right) => !wanted.has(rightKey(right, right.object, right.privilege)))
    .map(({ schema, name, column, privilege }) => [privilege, schema, name, column ?? ""].join(" ").trim());
  const missing = wanted.difference(had).size;
  const whole =
    role !== null &&
    role.comment === scopeRoleComment(scope.hash) &&
    member &&
    missingOwnerRights.length === 0 &&
    surplus.length === 0 &&
    missing === 0 &&
    sameSet(marks, markKeys(plan)) &&
    sameSet(
      rows.map(({ schema, name, comment, sound }) => JSON.stringify([schema, name, comment, sound])),
      scopeViews(plan).map(({ view, comment }) => JSON.stringify([view.schema, view.name, comment, true])),
    );
  const schemas = [...new Set(rows.map(({ schema }) => schema))];
  const marked = marks.length > 0 ? scope.hash : null;
  return { role, schemas, rights: outside(rights, schemas), marked, whole, missingOwnerRights, surplus, missing };
}

/** Rights on relations and schemas other than those that are dropped whole. */
function outside(rows: readonly RightRow[], schemas: readonly string[]): readonly Right[] {
  return rows.flatMap(({ object, schema, name, column, privilege }) =>
    object === "other" || schemas.includes(schema) ? [] : [{ on: object, schema, name, column, privilege }],
  );
}

function sameSet(a: readonly string[], b: readonly string[]): boolean {
  const left = new Set(a);
  const right = new Set(b);
  return left.size === right.size && left.isSubsetOf(right);
}

async function readMissingOwnerRights(
  client: ClientBase,
  plan: ScopePlan,
  server: ServerFacts,
): Promise<readonly Right[]> {
  const needed = viewOwnerRights(plan);
  if (needed.length === 0) {
    return [];
  }
  const owner = await readRole(client, server.viewOwner);
  const rows = owner === null ? [] : await readRights(client, owner.oid);
  const has = new Set(rows.map((right) => rightKey(right, right.object, right.privilege)));
  return needed.filter((right) => !has.has(rightKey(right, right.on, right.privilege)));
}

async function isMember(client: ClientBase, memberOid: number, role: string): Promise<boolean> {
  const result = await client.query(
    `SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.roleid
     WHERE m.member = $1 AND r.rolname = $2`,
    [memberOid, role],
  );
  return result.rows.length > 0;
}

const scopeRolesSql = `
  SELECT r.rolname AS name
  FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.roleid
  WHERE m.member = $1 AND pg_catalog.starts_with(pg_catalog.shobj_description(r.oid, 'pg_authid'), 'Sallyport scope ')
  ORDER BY 1`;

/** The scope roles that a grant role is a member of. */
export async function readScopeRoles(client: ClientBase, grantRoleOid: number): Promise<readonly string[]> {
  return (await client.query<{ name: string }>(scopeRolesSql, [grantRoleOid])).rows.map(({ name }) => name);
}

/** What is left of a scope whose plan is not known: for its drop. */
export interface ScopeRemains {
  readonly role: RoleState | null;
  readonly schemas: readonly string[];
  /** What the role has outside these schemas. */
  readonly rights: readonly Right[];
  /** The scope's hash when it has marks; null when it has none. */
  readonly marked: string | null;
  /** Grant roles that are members of the scope role. */
  readonly members: readonly string[];
  /** Rights that the view owner has and, once this scope is gone, needs no more. */
  readonly surplusOwnerRights: readonly Right[];
}

const membersSql = `
  SELECT r.rolname AS name
  FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member
  WHERE m.roleid = $1 AND pg_catalog.starts_with(pg_catalog.shobj_description(r.oid, 'pg_authid'), $2)
  ORDER BY 1`;

/** Tables below the views of all other scopes of this database, and whether one of those is a write view. */
const neededByOthersSql = `
  SELECT bn.nspname AS schema, b.relname AS name, bool_or(vn.nspname LIKE '%\\_w') AS written
  FROM pg_catalog.pg_class v
  JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace
  JOIN pg_catalog.pg_roles o ON o.oid = v.relowner AND o.rolname = $2
  JOIN pg_catalog.pg_rewrite r ON r.ev_class = v.oid
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> v.oid
  JOIN pg_catalog.pg_class b ON b.oid = d.refobjid
  JOIN pg_catalog.pg_namespace bn ON bn.oid = b.relnamespace
  WHERE v.relkind = 'v' AND NOT pg_catalog.starts_with(vn.nspname, $1)
  GROUP BY 1, 2`;

/** Reads what is there of a scope by its names. `grantRoleComment` is how a grant role's comment begins. */
export async function inspectRemains(
  client: ClientBase,
  scope: { readonly hash: string; readonly role: string },
  server: ServerFacts,
  grantRoleComment: string,
): Promise<ScopeRemains> {
  const role = await readRole(client, scope.role);
  const prefix = scopeSchemaPrefix(scope.hash);
  const rows = (await client.query<ViewRow>(viewsSql, [prefix, server.viewOwner])).rows;
  const members =
    role === null ? [] : (await client.query<{ name: string }>(membersSql, [role.oid, grantRoleComment])).rows;
  const schemas = [...new Set(rows.map(({ schema }) => schema))];
  return {
    role,
    schemas,
    rights: role === null ? [] : outside(await readRights(client, role.oid), schemas),
    marked: (await readMarks(client, scope.hash)).length > 0 ? scope.hash : null,
    members: members.map(({ name }) => name),
    surplusOwnerRights: await readSurplusOwnerRights(client, prefix, server),
  };
}

async function readSurplusOwnerRights(
  client: ClientBase,
  prefix: string,
  server: ServerFacts,
): Promise<readonly Right[]> {
  const owner = await readRole(client, server.viewOwner);
  if (owner === null) {
    return [];
  }
  const needed = (
    await client.query<{ schema: string; name: string; written: boolean }>(neededByOthersSql, [
      prefix,
      server.viewOwner,
    ])
  ).rows;
  const isNeeded = (right: RightRow): boolean =>
    right.object === "schema"
      ? needed.some(({ schema }) => schema === right.schema)
      : needed.some(
          ({ schema, name, written }) =>
            schema === right.schema && name === right.name && (written || right.privilege === "SELECT"),
        );
  const rows = await readRights(client, owner.oid);
  return outside(
    rows.filter((right) => !isNeeded(right)),
    [],
  );
}

/** Whether nothing of a role is left: no role, no membership, no setting, no owned object, no access list, no session. */
const roleGoneSql = `
  SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = $1 OR r.oid = $2::oid)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE $2::oid IN (m.roleid, m.member, m.grantor))
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = $2::oid)
    AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_shdepend d
      WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = $2::oid)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = $2::oid OR a.usename = $1) AS gone`;

/** Reads the catalogs: true when nothing of the role is left. `oid` is the one that it had; 0 when it was gone already. */
export async function isRoleGone(client: ClientBase, role: string, oid: number): Promise<boolean> {
  // The row of `pg_authid` with OID 0 does not exist, but 0 stands for PUBLIC and for "all roles" elsewhere.
  const result = await client.query<{ gone: boolean }>(roleGoneSql, [role, oid === 0 ? null : oid]);
  return result.rows[0]?.gone ?? false;
}

/** Reads the catalogs: true when no schema and no mark of the scope is left. */
export async function areViewsGone(client: ClientBase, hash: string): Promise<boolean> {
  const result = await client.query(
    "SELECT FROM pg_catalog.pg_namespace n WHERE pg_catalog.starts_with(n.nspname, $1)",
    [scopeSchemaPrefix(hash)],
  );
  return result.rows.length === 0 && (await readMarks(client, hash)).length === 0;
}
