/** Brings the state database to this program's version: numbered .sql files, applied once each, in order. */
import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Pool, PoolClient } from "pg";
import { SallyportError } from "#domain/errors.ts";

/** One numbered file. */
export interface Migration {
  readonly number: number;
  readonly name: string;
  readonly sql: string;
}

/** Two nodes that start at once take turns; the number is arbitrary, and ours. */
const lockKey = 7_230_017_432;

/**
 * Reads `0001-name.sql`, `0002-name.sql`, … without a gap.
 * @throws SallyportError `store.migrations` when a number is missing, twice there, or a name does not fit.
 */
export async function readMigrations(
  directory: string = join(import.meta.dirname, "migrations"),
): Promise<readonly Migration[]> {
  const names = (await readdir(directory)).filter((name) => name.endsWith(".sql")).toSorted();
  return Promise.all(
    names.map(async (name, position) => {
      const number = /^([0-9]{4})-[a-z0-9-]+\.sql$/.exec(name)?.[1];
      if (number === undefined || Number(number) !== position + 1) {
        const expected = String(position + 1).padStart(4, "0");
        throw new SallyportError("store.migrations", "gateway", `migration ${name} should be number ${expected}`);
      }
      return { number: position + 1, name, sql: await readFile(join(directory, name), "utf8") };
    }),
  );
}

/**
 * Applies what is missing, each migration in a transaction of its own together with the note that it was applied: a crash
 * leaves it either whole and noted, or not there at all, and the next start goes on from there.
 * @returns the numbers that were applied now.
 * @throws SallyportError `store.migration-changed` when an applied file is no longer what it was, `store.newer` when the
 * database was made by a newer program.
 */
export async function migrate(pool: Pool, migrations: readonly Migration[]): Promise<readonly number[]> {
  const client = await pool.connect();
  let failed: Error | undefined;
  try {
    await client.query("select pg_catalog.pg_advisory_lock($1)", [lockKey]);
    return await applyMissing(client, migrations);
  } catch (error) {
    failed = error instanceof Error ? error : new Error("the migration failed");
    throw error;
  } finally {
    // Closing the connection gives the lock back, also after an error that left the connection unusable.
    if (failed === undefined) {
      await client.query("select pg_catalog.pg_advisory_unlock($1)", [lockKey]);
    }
    client.release(failed);
  }
}

async function applyMissing(client: PoolClient, migrations: readonly Migration[]): Promise<readonly number[]> {
  await client.query("create schema if not exists sallyport");
  await client.query(`create table if not exists sallyport.migrations (
    number integer primary key,
    name text not null,
    sha256 text not null,
    applied_at timestamptz not null default pg_catalog.now()
  )`);
  const noted = await client.query<{ number: number; name: string; sha256: string }>(
    "select number, name, sha256 from sallyport.migrations order by number",
  );
  for (const { number, name, sha256 } of noted.rows) {
    const migration = migrations[number - 1];
    if (migration === undefined) {
      throw new SallyportError(
        "store.newer",
        "gateway",
        `the state database has migration ${name}, which this program does not know`,
        {
          nextStep: "start the newer version of Sallyport that made it",
        },
      );
    }
    if (hashOf(migration) !== sha256) {
      throw new SallyportError(
        "store.migration-changed",
        "gateway",
        `migration ${name} was applied with another text than ${migration.name} has now`,
        {
          nextStep: "restore the file, and put the change into a new migration",
        },
      );
    }
  }
  const applied: number[] = [];
  for (const migration of migrations.slice(noted.rows.length)) {
    await apply(client, migration);
    applied.push(migration.number);
  }
  return applied;
}

async function apply(client: PoolClient, migration: Migration): Promise<void> {
  await client.query("begin");
  try {
    await client.query(migration.sql);
    await client.query("insert into sallyport.migrations (number, name, sha256) values ($1, $2, $3)", [
      migration.number,
      migration.name,
      hashOf(migration),
    ]);
    await client.query("commit");
  } catch (cause) {
    await client.query("rollback").catch(() => {
      // The connection is gone, and the transaction with it; the failure below says why.
    });
    throw new SallyportError("store.migration-failed", "gateway", `migration ${migration.name} could not be applied`, {
      cause,
      nextStep: "give the login of the state database the right to create a schema, or look at the database's log",
    });
  }
}

/** Line ends are taken out of the comparison: a checkout may change them. */
function hashOf(migration: Migration): string {
  return createHash("sha256").update(migration.sql.replaceAll("\r\n", "\n")).digest("hex");
}
