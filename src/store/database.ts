/** The connection to the state database, and what its failures mean. */
import { type Generated, Kysely, PostgresDialect } from "kysely";
import { DatabaseError, Pool, types } from "pg";
import { SallyportError } from "#domain/errors.ts";

/** Where the state database is and whom to log in as. */
export interface StoreConnection {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string;
}

/** One signed row: see `migrations/0001-rights.sql`. */
export interface SignedRow {
  body: unknown;
  entry_index: number;
  signature: Buffer;
  /** The columns computed from `body`. */
  id: Generated<string>;
}

/** The tables of schema `sallyport`. */
export interface Tables {
  principals: SignedRow & { name: Generated<string> };
  resources: SignedRow & { name: Generated<string> };
  grants: SignedRow & { state: Generated<string> };
  credentials: SignedRow & { login: Generated<string>; grant_id: Generated<string>; run_id: Generated<string | null> };
  provisioned_roles: { resource: string; role: string; grant_id: string; scope_hash: string };
  provisioned_scopes: { resource: string; hash: string; role: string };
}

/** Connections to the state database at one time: it holds small rows, read by key. */
const connectionsMax = 8;
const connectTimeoutMs = 10_000;
/** A statement of the store is a look-up by key or one row written; longer means that the database is in trouble. */
const statementTimeoutMs = 15_000;

/** Opens the pool; no connection is made yet. `onIdleError` hears when the database closes a connection nobody was using. */
export function openPool(connection: StoreConnection, onIdleError: (error: Error) => void): Pool {
  const pool = new Pool({
    ...connection,
    ssl: false,
    max: connectionsMax,
    connectionTimeoutMillis: connectTimeoutMs,
    statement_timeout: statementTimeoutMs,
    application_name: "sallyport",
    // Every name in our SQL is qualified, so that nothing in another schema of the database can stand in for ours.
    options: "-c search_path=pg_catalog",
    types: {
      getTypeParser: (oid, format): unknown =>
        oid === types.builtins.INT8 ? readInt8 : types.getTypeParser(oid, format),
    },
  });
  pool.on("error", onIdleError);
  return pool;
}

function readInt8(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) {
    throw new SallyportError(
      "store.tampered",
      "gateway",
      "the state database holds a number that the gateway never writes",
    );
  }
  return value;
}

/** Typed queries over the pool, in schema `sallyport`. */
export function openQueries(pool: Pool): Kysely<Tables> {
  return new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) }).withSchema("sallyport");
}

/**
 * Runs one piece of work on the database and names its failure.
 * @throws SallyportError `store.conflict` (a name that is taken), `store.rights`, `store.unavailable`, or what the work itself threw.
 */
export async function guardStore<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof SallyportError) {
      throw error;
    }
    if (error instanceof DatabaseError && error.code === "23505") {
      throw new SallyportError("store.conflict", "gateway", `another row has the same ${error.constraint ?? "key"}`, {
        cause: error,
      });
    }
    if (error instanceof DatabaseError && error.code === "42501") {
      throw new SallyportError(
        "store.rights",
        "gateway",
        "the login of the state database lacks a right that the store needs",
        {
          cause: error,
          nextStep: "grant create on database … to that login, or let it own the schema sallyport",
        },
      );
    }
    const what = error instanceof DatabaseError ? `answered ${error.code ?? "with an error"}` : "cannot be reached";
    throw new SallyportError("store.unavailable", "gateway", `the state database ${what}`, {
      cause: error,
      nextStep: "look at the database's own log, and run `sallyport doctor`",
    });
  }
}
