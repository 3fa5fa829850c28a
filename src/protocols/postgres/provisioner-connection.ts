/** The gateway's own connections to a resource, with the settings that its SQL relies on, and errors told in its own words. */
import { DatabaseError, Pool } from "pg";
import type { PoolClient } from "pg";

import { SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import type { ServerFacts } from "./scope-sql.ts";

/** The provisioner's login. It never leaves this module's connections. */
export interface ProvisionerConnection {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
}

/** What the server is, besides what scopes need of it. */
export interface Server extends ServerFacts {
  readonly versionText: string;
  readonly login: string;
  readonly createsRoles: boolean;
  readonly createsSchemas: boolean;
  readonly database: string;
  readonly databaseOid: number;
  readonly inRecovery: boolean;
  /** The process that answers is the one that the connection was made to: no pooler in between. */
  readonly direct: boolean;
  /** It can look whether the client is still there in the middle of a statement (PostgreSQL 14, not on every system). */
  readonly checksConnection: boolean;
}

/** Names resolve to nothing but `pg_catalog`, so that every name in our SQL means what it says. */
const sessionSettings: readonly (readonly [string, string])[] = [
  ["search_path", '""'],
  ["lock_timeout", String(limits.provisionLockMs)],
  ["statement_timeout", String(limits.provisionStatementMs)],
  // The ledger is written inside a change's transaction; while that takes, locks are held.
  ["idle_in_transaction_session_timeout", String(limits.provisionStatementMs)],
  ["standard_conforming_strings", "on"],
  ["default_transaction_read_only", "off"],
  ["default_transaction_isolation", "read\\ committed"],
  ["client_min_messages", "error"],
];

export class ResourceConnections {
  readonly #pool: Pool;
  readonly #resource: string;
  #server: Promise<Server> | null = null;

  constructor(connection: ProvisionerConnection, resource: string) {
    const { host, port, user, password, database } = connection;
    this.#resource = resource;
    this.#pool = new Pool({
      host,
      port,
      user,
      password,
      database,
      max: limits.provisionConnectionsMax,
      connectionTimeoutMillis: limits.upstreamConnectMs,
      idleTimeoutMillis: limits.provisionIdleMs,
      application_name: "sallyport",
      options: sessionSettings.map(([name, value]) => `-c ${name}=${value}`).join(" "),
      allowExitOnIdle: true,
    });
    // An idle connection that breaks is taken out of the pool by the pool; whoever needs one next makes it and sees why it fails.
    this.#pool.on("error", () => undefined);
    // One that breaks in use fails the query under way, or the next; without a listener the event would end the process.
    this.#pool.on("connect", (client) => client.on("error", () => undefined));
  }

  /** What the server is: read once, and again after a failure. */
  async server(): Promise<Server> {
    this.#server ??= this.use((client) => readServer(client)).catch((error: unknown) => {
      this.#server = null;
      throw error;
    });
    return this.#server;
  }

  /**
   * Runs `work` on a connection. A connection that failed in any way other than an error of the database is not used again.
   * @throws SallyportError `resource.unavailable`, `resource.rights` or `resource.failed`.
   */
  async use<T>(work: (client: PoolClient) => Promise<T>): Promise<T> {
    let client: PoolClient;
    try {
      client = await this.#pool.connect();
    } catch (error) {
      throw this.#unavailable(error);
    }
    let broken = true;
    try {
      const result = await work(client);
      broken = false;
      return result;
    } catch (error) {
      broken = !isDatabaseError(error) && !(error instanceof SallyportError);
      throw this.#translate(error);
    } finally {
      client.release(broken);
    }
  }

  /**
   * Runs `work` in one transaction, and all of it again when it met another change. `work` gets a connection on which it may also
   * read; what it throws rolls back. `failed` is told of each try that did.
   */
  async change<T>(
    work: (client: PoolClient) => Promise<T>,
    failed: (error: unknown) => Promise<void> = () => Promise.resolve(),
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.use((client) => inTransaction(client, work));
      } catch (error) {
        await failed(error);
        if (attempt === limits.provisionAttemptsMax || !metAnotherChange(error)) {
          throw error;
        }
        // Longer each time, and not the same for two that met: the process that was second waits a step more.
        await delay(attempt * 5 + (process.hrtime()[1] % 10));
      }
    }
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }

  #unavailable(error: unknown): SallyportError {
    const state = sqlStateOf(error);
    const why = state === null ? errorCode(error) : `SQLSTATE ${state}`;
    return new SallyportError(
      "resource.unavailable",
      "upstream",
      `the resource ${this.#resource} cannot be reached (${why})`,
      {
        cause: error,
        nextStep: "Check that the database runs, and the address and login of the resource.",
      },
    );
  }

  #translate(error: unknown): unknown {
    if (error instanceof SallyportError) {
      return error;
    }
    if (isConnectionError(error)) {
      return this.#unavailable(error);
    }
    if (!isDatabaseError(error)) {
      return error;
    }
    if (error.code === "42501") {
      return new SallyportError(
        "resource.rights",
        "upstream",
        `the resource ${this.#resource} refused: ${error.message}`,
        {
          cause: error,
          nextStep: "Give the provisioner's login the right; `sallyport doctor` shows the SQL.",
        },
      );
    }
    if (error.code === "2BP01") {
      return new SallyportError(
        "resource.rights",
        "upstream",
        `the resource ${this.#resource} refused: ${error.message}`,
        {
          cause: error,
          nextStep: `As a superuser run DROP OWNED BY for that role, here and in every database named in: ${error.detail ?? ""}`,
        },
      );
    }
    return new SallyportError(
      "resource.failed",
      "upstream",
      `the resource ${this.#resource} answered ${error.code ?? ""} ${error.message}`,
      { cause: error },
    );
  }
}

async function inTransaction<T>(client: PoolClient, work: (client: PoolClient) => Promise<T>): Promise<T> {
  await client.query("BEGIN");
  try {
    const result = await work(client);
    await client.query("COMMIT");
    return result;
  } catch (error) {
    // On a lost connection the server rolls back by itself; the first error is the one to tell.
    await client.query("ROLLBACK").catch(() => undefined);
    throw error;
  }
}

/** A deadlock, a lock not given in time, a row or object that another transaction changed at the same moment. */
const meetingStates = new Set(["40001", "40P01", "55P03", "42710", "23505", "42P06"]);

function metAnotherChange(error: unknown): boolean {
  const database = databaseErrorOf(error);
  return (
    database !== null &&
    (meetingStates.has(database.code ?? "") ||
      /concurrently (updated|deleted)|was concurrently dropped/.test(database.message))
  );
}

/** SQLSTATE of a failure, or of the failure behind it; null when the database did not answer. */
export function sqlStateOf(error: unknown): string | null {
  return databaseErrorOf(error)?.code ?? null;
}

/** The database's own error in a failure; null when there is none. */
export function databaseErrorOf(error: unknown): DatabaseError | null {
  if (isDatabaseError(error)) {
    return error;
  }
  return error instanceof SallyportError && isDatabaseError(error.cause) ? error.cause : null;
}

function isDatabaseError(error: unknown): error is DatabaseError {
  return error instanceof DatabaseError;
}

/** The server went away or is not there: a socket's error, one of the client library's own, or class 57P (shutting down). */
function isConnectionError(error: unknown): boolean {
  if (isDatabaseError(error)) {
    return error.code?.startsWith("57P") === true;
  }
  return (
    error instanceof Error && ("code" in error || /^(Connection terminated|Client has encountered)/.test(error.message))
  );
}

function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "no connection";
}

/** One message: the transaction around it is the caller's. */
export async function runAll(client: PoolClient, statements: readonly string[]): Promise<void> {
  if (statements.length > 0) {
    await client.query(statements.join(";\n"));
  }
}

/** Resolves after `ms`. */
export function delay(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

interface ServerRow {
  readonly version: number;
  readonly version_text: string;
  readonly login: string;
  readonly superuser: boolean;
  readonly createrole: boolean;
  readonly creates_schemas: boolean;
  readonly database: string;
  readonly database_oid: number;
  readonly in_recovery: boolean;
  readonly pid: number;
}

const serverSql = `
  SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS version_text,
    current_user AS login, r.rolsuper AS superuser, r.rolcreaterole AS createrole,
    pg_catalog.has_database_privilege(b.oid, 'CREATE') AS creates_schemas, b.datname AS database, b.oid AS database_oid,
    pg_catalog.pg_is_in_recovery() AS in_recovery, pg_catalog.pg_backend_pid() AS pid
  FROM pg_catalog.pg_database b, pg_catalog.pg_roles r
  WHERE b.datname = current_database() AND r.rolname = current_user`;

async function readServer(client: PoolClient): Promise<Server> {
  const row = (await client.query<ServerRow>(serverSql)).rows[0];
  if (row === undefined) {
    throw new SallyportError("resource.failed", "upstream", "the database does not show its own login");
  }
  return {
    version: row.version,
    versionText: row.version_text,
    superuser: row.superuser,
    viewOwner: `sallyport_views_${row.database_oid}`,
    readers: `sallyport_catalog_${row.database_oid}`,
    login: row.login,
    createsRoles: row.superuser || row.createrole,
    createsSchemas: row.creates_schemas,
    database: row.database,
    databaseOid: row.database_oid,
    inRecovery: row.in_recovery,
    direct: processIdOf(client) === row.pid,
    checksConnection: row.version >= 140_000 && (await canCheckConnection(client)),
  };
}

/** A pooler gives a key of its own in BackendKeyData. */
function processIdOf(client: PoolClient): number | null {
  return "processID" in client && typeof client.processID === "number" ? client.processID : null;
}

async function canCheckConnection(client: PoolClient): Promise<boolean> {
  try {
    await client.query("BEGIN; SET LOCAL client_connection_check_interval = 1000; ROLLBACK");
    return true;
  } catch (error) {
    await client.query("ROLLBACK");
    if (isDatabaseError(error)) {
      return false;
    }
    throw error;
  }
}
