/**
 * A scope as SQL: the rights that its role has, exactly, and the statements that make them. Pure.
 *
 * ```
 * grant role (LOGIN) ─ member of ─ scope role ─ member of ─ readers (SELECT on the shadow catalogs)
 *                                      │ USAGE  ─ base schemas, sequences of serial columns
 *                                      │ SELECT ─ open columns, one by one: a column added later is closed
 *                                      │ SELECT ─ masked views        ┐ owned by the view owner (NOLOGIN),
 *                                      │ INSERT, UPDATE, DELETE ─ …   ┘ which alone reads the base tables
 * ```
 *
 * REFERENCES is given on nothing: whoever may make a table somewhere could ask with it which values a column has. What the shadow
 * catalogs show besides the columns with a right on the table itself, they know from the scope's marks (`scope-marks.ts`).
 */
import { createHash } from "node:crypto";

import type { QualifiedName } from "#domain/scope.ts";
import { relationKey } from "#domain/scope.ts";
import { quoteIdentifier } from "#sql/identifier.ts";
import { qualify, quoteLiteral } from "./quoting.ts";
import { maskedSql } from "./scope-compiler.ts";
import type { PlannedTable, ScopePlan } from "./scope-compiler.ts";
import { markStatements, unmarkStatement } from "./scope-marks.ts";

/** What the statements depend on besides the scope. */
export interface ServerFacts {
  /** `server_version_num`. */
  readonly version: number;
  /** The provisioner's login is a superuser: it needs no membership to act for the roles that it makes. */
  readonly superuser: boolean;
  /** NOLOGIN role that owns every view of this database. */
  readonly viewOwner: string;
  /** NOLOGIN role that may read the shadow catalogs of this database. */
  readonly readers: string;
}

export type Privilege = "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "USAGE";

/** One right. `column` is null for a right on the whole object. */
export interface Right {
  readonly on: "table" | "sequence" | "schema";
  readonly schema: string;
  /** Empty for a schema. */
  readonly name: string;
  readonly column: string | null;
  readonly privilege: Privilege;
}

/** A view of a scope, with what its comment says of its definition. */
export interface PlannedView {
  readonly view: QualifiedName;
  readonly sql: string;
  readonly comment: string;
}

/** The comment that tells a scope role from any other role of the same name. */
export function scopeRoleComment(hash: string): string {
  return `Sallyport scope ${hash}: made by the gateway, dropped with its last grant`;
}

export const viewOwnerComment = "Sallyport: owns the views that grants read through";
export const readersComment = "Sallyport: may read the filtered catalogs";

/** A role becomes a member of another, with its rights and without `SET ROLE` unless asked. */
export function grantMembership(role: string, member: string, server: ServerFacts, setRole = false): string {
  const grant = `GRANT ${quoteIdentifier(role)} TO ${member}`;
  return server.version >= 160_000 ? `${grant} WITH INHERIT TRUE, SET ${setRole ? "TRUE" : "FALSE"}` : grant;
}

/** What the scope role has, and nothing else. */
export function scopeRights(plan: ScopePlan): readonly Right[] {
  const rights: Right[] = [];
  const schemas = new Set<string>();
  for (const table of plan.tables) {
    schemas.add(table.relation.base.schema);
    rights.push(...baseRights(table), ...viewRights(table));
    for (const view of [table.relation.view, table.relation.write?.view ?? null]) {
      if (view !== null) {
        schemas.add(view.schema);
      }
    }
  }
  for (const schema of schemas) {
    rights.push({ on: "schema", schema, name: "", column: null, privilege: "USAGE" });
  }
  return rights;
}

/** What every table has besides its own columns; a right on the whole table would hold for them too. */
const systemColumns = ["ctid", "xmin", "cmin", "xmax", "cmax", "tableoid"];

function baseRights({ definition, relation }: PlannedTable): readonly Right[] {
  const { base, openColumns, wholeOpen, write } = relation;
  const rights: Right[] = [...onColumns(base, "SELECT", openColumns)];
  if (wholeOpen && definition.kind !== "v") {
    rights.push(...onColumns(base, "SELECT", systemColumns));
  }
  if (write !== null) {
    if (write.view === null) {
      rights.push(...writeRights(base, write));
    }
    if (write.insertColumns.length > 0) {
      rights.push(
        ...definition.sequences.map(({ schema, name }): Right => ({
          on: "sequence",
          schema,
          name,
          column: null,
          privilege: "USAGE",
        })),
      );
    }
  }
  return rights;
}

function viewRights({ relation }: PlannedTable): readonly Right[] {
  const { view, write, openColumns } = relation;
  const rights: Right[] = view === null ? [] : [onTable(view, "SELECT")];
  if (write !== null && write.view !== null) {
    rights.push(...writeRights(write.view, write), ...onColumns(write.view, "SELECT", openColumns));
  }
  return rights;
}

function writeRights(on: QualifiedName, write: NonNullable<PlannedTable["relation"]["write"]>): readonly Right[] {
  return [
    ...onColumns(on, "INSERT", write.insertColumns),
    ...onColumns(on, "UPDATE", write.updateColumns),
    ...(write.delete ? [onTable(on, "DELETE")] : []),
  ];
}

function onTable({ schema, name }: QualifiedName, privilege: Privilege): Right {
  return { on: "table", schema, name, column: null, privilege };
}

function onColumns(
  { schema, name }: QualifiedName,
  privilege: Privilege,
  columns: readonly string[],
): readonly Right[] {
  return columns.map((column) => ({ on: "table", schema, name, column, privilege }));
}

/** What the view owner needs on the tables below the views of this scope. */
export function viewOwnerRights(plan: ScopePlan): readonly Right[] {
  const rights: Right[] = [];
  const schemas = new Set<string>();
  for (const { relation } of plan.tables) {
    const { base, view, write } = relation;
    const written = write !== null && write.view !== null;
    if (view === null && !written) {
      continue;
    }
    schemas.add(base.schema);
    rights.push(onTable(base, "SELECT"));
    if (written) {
      if (write.insertColumns.length > 0) {
        rights.push(onTable(base, "INSERT"));
      }
      if (write.updateColumns.length > 0) {
        rights.push(onTable(base, "UPDATE"));
      }
      if (write.delete) {
        rights.push(onTable(base, "DELETE"));
      }
    }
  }
  for (const schema of schemas) {
    rights.push({ on: "schema", schema, name: "", column: null, privilege: "USAGE" });
  }
  return rights;
}

/** GRANT or REVOKE of rights, one statement for each object. */
export function changeRights(verb: "GRANT" | "REVOKE", rights: readonly Right[], role: string): readonly string[] {
  const objects = Map.groupBy(rights, ({ on, schema, name }) => JSON.stringify([on, schema, name]));
  return [...objects.values()].map((group) => {
    const [first] = group;
    const object = first === undefined ? "" : objectSql(first);
    const preposition = verb === "GRANT" ? "TO" : "FROM";
    return `${verb} ${privilegesSql(group)} ON ${object} ${preposition} ${quoteIdentifier(role)}`;
  });
}

function privilegesSql(rights: readonly Right[]): string {
  const whole = rights.filter(({ column }) => column === null).map(({ privilege }) => privilege);
  const columns = Map.groupBy(
    rights.filter(({ column }) => column !== null),
    ({ privilege }) => privilege,
  );
  const lists = [...columns].map(
    ([privilege, group]) => `${privilege} (${group.map(({ column }) => quoteIdentifier(column ?? "")).join(", ")})`,
  );
  return [...whole, ...lists].join(", ");
}

/** The object of a right as GRANT names it. */
export function objectSql({ on, schema, name }: Pick<Right, "on" | "schema" | "name">): string {
  return on === "schema" ? `SCHEMA ${quoteIdentifier(schema)}` : `${on.toUpperCase()} ${qualify({ schema, name })}`;
}

/** Every view of the scope. */
export function scopeViews(plan: ScopePlan): readonly PlannedView[] {
  return plan.tables.flatMap((table) => {
    const { view, write } = table.relation;
    return [
      ...(view === null ? [] : [describeView(view, "Masked view", table, maskedSelect(table, plan.unicode))]),
      ...(write === null || write.view === null
        ? []
        : [describeView(write.view, "Write view", table, rawSelect(table, write.insertColumns, write.updateColumns))]),
    ];
  });
}

function describeView(view: QualifiedName, what: string, { relation }: PlannedTable, select: string): PlannedView {
  const sql = `CREATE VIEW ${qualify(view)} WITH (security_barrier = true) AS ${select}`;
  const definition = createHash("sha256").update(sql).digest("hex").slice(0, 16);
  return {
    view,
    sql,
    comment: `Sallyport: ${what.toLowerCase()} of ${relationKey(relation.base)}; definition ${definition}`,
  };
}

/** The granted columns in the base table's order, hidden ones as masked expressions. */
function maskedSelect({ definition, relation }: PlannedTable, unicode: boolean): string {
  const masked = new Map(relation.maskedColumns.map((column) => [column.column, column]));
  const list = relation.visibleColumns.map((name) => {
    const mask = masked.get(name);
    const column = quoteIdentifier(name);
    return mask === undefined ? column : `${maskedSql(definition, name, mask.operator, unicode)} AS ${column}`;
  });
  return `SELECT ${list.join(", ")} FROM ${qualify(relation.base)}`;
}

/** The columns that may be written or are open, as they are: an updatable view. */
function rawSelect({ definition, relation }: PlannedTable, ...written: readonly (readonly string[])[]): string {
  const shown = new Set([...relation.openColumns, ...written.flat()]);
  const columns = definition.columns.filter(({ name }) => shown.has(name));
  // A grant of DELETE alone: the view must have some column, on which nothing is granted.
  const list = (columns.length > 0 ? columns : definition.columns.slice(0, 1)).map(({ name }) => quoteIdentifier(name));
  return `SELECT ${list.join(", ")} FROM ${qualify(relation.base)}`;
}

/** Schemas of the scope's views, sorted. */
export function scopeSchemas(plan: ScopePlan): readonly string[] {
  const views = plan.tables.flatMap(({ relation }) => [relation.view, relation.write?.view ?? null]);
  return [...new Set(views.flatMap((view) => (view === null ? [] : [view.schema])))].sort();
}

/**
 * Makes a scope: of nothing, or of a role without rights and views that is kept because grant roles are its members.
 * `missingOwnerRights` are those of `viewOwnerRights` that the view owner does not have yet: a
 * GRANT of what is there already would rewrite the table's row in `pg_class` for nothing.
 */
export function createScopeStatements(
  plan: ScopePlan,
  server: ServerFacts,
  missingOwnerRights: readonly Right[],
  roleExists: boolean,
): readonly string[] {
  const { scope } = plan;
  const role = quoteIdentifier(scope.role);
  const ownViews = scopeViews(plan);
  const schemas = scopeSchemas(plan);
  const own = new Set(schemas);
  const rights = scopeRights(plan);
  const inOwnSchemas = rights.filter(({ schema }) => own.has(schema));
  return [
    ...(roleExists ? [] : [`CREATE ROLE ${role} NOLOGIN`]),
    `COMMENT ON ROLE ${role} IS ${quoteLiteral(scopeRoleComment(scope.hash))}`,
    ...(server.superuser ? [] : [grantMembership(scope.role, "CURRENT_USER", server)]),
    grantMembership(server.readers, role, server),
    ...changeRights("GRANT", missingOwnerRights, server.viewOwner),
    ...changeRights(
      "GRANT",
      rights.filter(({ schema }) => !own.has(schema)),
      scope.role,
    ),
    ...schemas.map(
      (schema) => `CREATE SCHEMA ${quoteIdentifier(schema)} AUTHORIZATION ${quoteIdentifier(server.viewOwner)}`,
    ),
    `SET LOCAL ROLE ${quoteIdentifier(server.viewOwner)}`,
    ...schemas.map((schema) => `COMMENT ON SCHEMA ${quoteIdentifier(schema)} IS 'Sallyport: views of one scope'`),
    ...ownViews.flatMap(({ view, sql, comment }) => [
      sql,
      `COMMENT ON VIEW ${qualify(view)} IS ${quoteLiteral(comment)}`,
    ]),
    ...changeRights("GRANT", inOwnSchemas, scope.role),
    ...markStatements(plan),
    "SET LOCAL ROLE NONE",
  ];
}

/** What there is of a scope, to be taken away. */
export interface ScopeRest {
  /** The role's name; null when it is gone. */
  readonly role: string | null;
  readonly schemas: readonly string[];
  /** What the role has outside these schemas. */
  readonly rights: readonly Right[];
  /** The scope's hash when it has marks; null when it has none. */
  readonly marked: string | null;
}

/**
 * Takes a scope's views and rights away; its role stays. Not by DROP OWNED, which refuses to take a right on a sequence from a role
 * when whoever runs it may pass on no more than that right.
 */
export function emptyScopeStatements({ role, schemas, rights, marked }: ScopeRest): readonly string[] {
  return [
    ...(marked === null ? [] : [unmarkStatement(marked)]),
    ...schemas.map((schema) => `DROP SCHEMA ${quoteIdentifier(schema)} CASCADE`),
    ...(role === null ? [] : changeRights("REVOKE", rights, role)),
  ];
}

/** Takes a scope away: its views, its rights, its role, and what the view owner then no longer needs. */
export function dropScopeStatements(
  rest: ScopeRest,
  surplusOwnerRights: readonly Right[],
  server: ServerFacts,
): readonly string[] {
  return [
    ...emptyScopeStatements(rest),
    ...(rest.role === null ? [] : [`DROP ROLE ${quoteIdentifier(rest.role)}`]),
    ...changeRights("REVOKE", surplusOwnerRights, server.viewOwner),
  ];
}
