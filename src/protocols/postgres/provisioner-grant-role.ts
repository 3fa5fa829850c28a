/** The login of one grant at a resource: how it is made, pinned, and taken away. */
import { makeVerifier, scramIterations, scramSaltBytes, verifierToPostgres } from "#identity/scram.ts";
import { SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import { quoteIdentifier } from "#sql/identifier.ts";
import type { DatabaseError, PoolClient } from "pg";
import { databaseErrorOf, delay, runAll, sqlStateOf } from "./provisioner-connection.ts";
import type { ResourceConnections, Server } from "./provisioner-connection.ts";
import { quoteLiteral } from "./quoting.ts";
import { grantMembership } from "./scope-sql.ts";
import { readRole } from "./scope-sql-state.ts";
import { scopeLockSql } from "./shadow-catalogs.ts";

/** How a grant role's comment begins: what has it not is not ours, and is neither changed nor dropped. */
export const grantRoleComment = "Sallyport grant role";

/** Stands for the password's verifier in what is recorded. */
const hiddenVerifier = "<verifier>";

export interface GrantRoleInput {
  readonly role: string;
  readonly password: string;
  readonly scopeRole: string;
  readonly scopeHash: string;
  readonly validUntilMs: number;
  readonly connectionsMax: number;
  readonly readOnly: boolean;
}

/** Statements to run, and the same with the verifier taken out, to record. */
export interface RecordedStatements {
  readonly run: readonly string[];
  readonly recorded: readonly string[];
}

/**
 * Makes the role, or makes one that is there already again: with this password, these limits and this scope. The password itself
 * is never sent, and its verifier is never recorded.
 */
export function grantRoleStatements(
  input: GrantRoleInput,
  server: Server,
  salt: Uint8Array,
  exists: boolean,
): RecordedStatements {
  const verifier = verifierToPostgres(makeVerifier(input.password, salt, scramIterations));
  return {
    run: statementsWith(input, server, verifier, exists),
    recorded: statementsWith(input, server, hiddenVerifier, exists),
  };
}

/** Bytes of the salt that `grantRoleStatements` takes. */
export const grantRoleSaltBytes = scramSaltBytes;

function statementsWith(input: GrantRoleInput, server: Server, verifier: string, exists: boolean): readonly string[] {
  const role = quoteIdentifier(input.role);
  const until = new Date(input.validUntilMs).toISOString();
  return [
    // Shared with other grant roles: a scope is not dropped between the look whether it has members and the new member.
    scopeLockSql("SHARE"),
    `${exists ? "ALTER" : "CREATE"} ROLE ${role} LOGIN INHERIT CONNECTION LIMIT ${input.connectionsMax} VALID UNTIL ${quoteLiteral(until)} PASSWORD ${quoteLiteral(verifier)}`,
    `COMMENT ON ROLE ${role} IS ${quoteLiteral(`${grantRoleComment} of scope ${input.scopeHash}`)}`,
    grantMembership(input.scopeRole, role, server),
    // Before PostgreSQL 16 the maker of a role may not end its sessions or drop what it owns without being a member.
    ...(server.superuser ? [] : [grantMembership(input.role, "CURRENT_USER", server)]),
    ...(exists ? [`ALTER ROLE ${role} RESET ALL`] : []),
    ...pinnedSettings(input.readOnly, server).map(([name, value]) => `ALTER ROLE ${role} SET ${name} = ${value}`),
  ];
}

/**
 * What a session of the role begins with and comes back to with RESET ALL. The role can change these for itself; the gate does not
 * let it, and rights hold without them.
 */
function pinnedSettings(readOnly: boolean, server: Server): readonly (readonly [string, string])[] {
  return [
    // `pg_temp` named last: otherwise a temporary table would stand in for a granted one.
    ["search_path", "public, pg_temp"],
    ["standard_conforming_strings", "on"],
    ["backslash_quote", "safe_encoding"],
    ["row_security", "on"],
    ["statement_timeout", String(limits.grantStatementMs)],
    ["lock_timeout", String(limits.grantLockMs)],
    ["idle_in_transaction_session_timeout", String(limits.grantIdleTransactionMs)],
    ...(server.checksConnection
      ? ([["client_connection_check_interval", String(limits.grantConnectionCheckMs)]] as const)
      : []),
    ...(readOnly ? ([["default_transaction_read_only", "on"]] as const) : []),
  ];
}

/**
 * @throws SallyportError `role.not-ours` when a role of that name exists that the gateway did not make.
 * @returns its OID; null when there is none.
 */
export async function findGrantRole(client: PoolClient, role: string): Promise<number | null> {
  const found = await readRole(client, role);
  if (found === null) {
    return null;
  }
  if (found.comment?.startsWith(grantRoleComment) !== true) {
    throw new SallyportError("role.not-ours", "upstream", `the role ${role} was not made by the gateway`, {
      nextStep: "Rename that role, or let the gateway make another name.",
    });
  }
  return found.oid;
}

const endSessionsSql = `
  SELECT pg_catalog.pg_terminate_backend(a.pid) AS ended
  FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = $1`;

/**
 * Ends every session of a role that can no longer log in, and waits until they are gone: true when they are. A login that was
 * checked before the role was closed shows up a moment later, so only a second empty look counts.
 */
export async function endSessions(
  connections: ResourceConnections,
  oid: number,
  nowMs: () => number,
): Promise<boolean> {
  const deadlineMs = nowMs() + limits.sessionEndMs;
  let waitMs = 1;
  let empty = 0;
  for (;;) {
    // A connection for each look: a session that does not end must not keep one from the next grant.
    const { rows } = await connections.use((client) => client.query(endSessionsSql, [oid]));
    empty = rows.length === 0 ? empty + 1 : 0;
    if (empty === 2) {
      return true;
    }
    if (nowMs() > deadlineMs) {
      return false;
    }
    await delay(waitMs);
    waitMs = Math.min(waitMs * 2, 20);
  }
}

/** First of all: no new session, and no right for the running ones from their next statement on. */
export function closeRoleStatements(role: string, scopeRoles: readonly string[]): readonly string[] {
  return [
    `ALTER ROLE ${quoteIdentifier(role)} NOLOGIN CONNECTION LIMIT 0 PASSWORD NULL`,
    ...scopeRoles.map((scopeRole) => `REVOKE ${quoteIdentifier(scopeRole)} FROM ${quoteIdentifier(role)}`),
  ];
}

/** Last: what it may have made (a large object can be made in a read-only transaction), and the role. */
export function dropRoleStatements(role: string): readonly string[] {
  return [`DROP OWNED BY ${quoteIdentifier(role)}`, `DROP ROLE ${quoteIdentifier(role)}`];
}

/** What `retireGrantRole` takes. */
export interface RetiredRole {
  readonly role: string;
  readonly oid: number;
  readonly close: readonly string[];
  readonly drop: readonly string[];
}

/**
 * Closes a grant role, ends its sessions, and drops what it owns here and itself. False when a session did not end: the role can
 * neither log in nor read anything any more, and the next drop goes on from there.
 *
 * Each statement of the drop is a transaction of its own. A crash between them, or a role that has something where we cannot reach
 * it, leaves a role that is closed, is in no scope, and owns nothing in this database.
 * @throws SallyportError `resource.leftover` when the role has something in another database, with what and where.
 */
export async function retireGrantRole(
  connections: ResourceConnections,
  { role, oid, close, drop }: RetiredRole,
  nowMs: () => number,
): Promise<boolean> {
  await changeUnlessGone(connections, close);
  if (!(await endSessions(connections, oid, nowMs))) {
    return false;
  }
  for (const statement of drop) {
    try {
      await changeUnlessGone(connections, [statement]);
    } catch (error) {
      const database = databaseErrorOf(error);
      throw database?.code === dependentObjects ? leftover(role, database) : error;
    }
  }
  return true;
}

const undefinedObject = "42704";
const dependentObjects = "2BP01";

/** Another drop of the same role may have been faster; the look that follows tells whether it is gone. */
async function changeUnlessGone(connections: ResourceConnections, statements: readonly string[]): Promise<void> {
  try {
    await connections.change((client) => runAll(client, statements));
  } catch (error) {
    if (sqlStateOf(error) !== undefinedObject) {
      throw error;
    }
  }
}

function leftover(role: string, cause: DatabaseError): SallyportError {
  const what = (cause.detail ?? cause.message).split("\n").join("; ");
  return new SallyportError(
    "resource.leftover",
    "upstream",
    `the role ${role} cannot log in any more and has no right of its grant, but it could not be dropped: ${what}`,
    {
      cause,
      nextStep: `In each database named there run as a superuser: DROP OWNED BY ${quoteIdentifier(role)}; the gateway then drops the role when it starts.`,
    },
  );
}
