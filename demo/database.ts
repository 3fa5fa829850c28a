/** Where the demo's data lives: a PostgreSQL of its own for the length of the demo, or the user's, left as it was found. */
import { randomBytes } from "node:crypto";
import { readlink, rm } from "node:fs/promises";
import { join } from "node:path";
import { Client } from "pg";
import { makeVerifier, scramIterations, scramSaltBytes, verifierToPostgres } from "#identity/scram.ts";
import { startEmbeddedPostgres } from "#store/embedded-postgres.ts";
import { type BillingData, loadBillingData } from "./seed.ts";
import { logLinePrefix } from "./statement-log.ts";

/** A login that can make databases and roles. */
interface Server {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  /** To connect to first. */
  readonly database: string;
  readonly version: string;
  /** Null when it cannot be read from here. */
  readonly logFile: string | null;
  readonly stop: () => Promise<void>;
}

export interface DemoDatabase extends AsyncDisposable {
  /** Such as `127.0.0.1:7540`. */
  readonly address: string;
  readonly version: string;
  readonly own: boolean;
  readonly logFile: string | null;
  /** URLs with passwords: for files of 0600 only. */
  readonly stateUrl: string;
  readonly billingUrl: string;
  /** Passwords that must not show anywhere. */
  readonly secrets: readonly string[];
  /** Rows of a table, counted by the database's own administrator. */
  readonly count: (table: string) => Promise<number>;
  readonly load: (data: BillingData) => Promise<void>;
}

/**
 * Makes the two databases and a role that owns each: the gateway's state, and the billing data with its provisioner.
 * @param url the user's own server (SALLYPORT_DATABASE_URL), or null for an embedded one under `directory`.
 */
export async function openDemoDatabase(
  directory: string,
  url: string | null,
  logFile: string | null,
): Promise<DemoDatabase> {
  const server = url === null ? await startOwn(directory) : await useTheirs(url, logFile);
  const suffix = url === null ? "" : `_${randomBytes(4).toString("hex")}`;
  const names = {
    state: `sallyport_demo_state${suffix}`,
    billing: `sallyport_demo_billing${suffix}`,
    provisioner: `sallyport_demo_provisioner${suffix}`,
  };
  const passwords = {
    state: randomBytes(18).toString("base64url"),
    provisioner: randomBytes(18).toString("base64url"),
  };
  const before = await withAdministrator(server, server.database, rolesOf);
  const cleanUp = async (): Promise<void> => {
    try {
      if (url !== null) {
        await leaveAsFound(server, names, before);
      }
    } finally {
      await server.stop();
    }
  };
  try {
    await withAdministrator(server, server.database, async (client) => {
      // CREATEROLE of PostgreSQL 15 and before is nearly superuser; the demo's server holds nothing else.
      await client.query(
        `create role ${names.provisioner} login createrole password '${verifierOf(passwords.provisioner)}'`,
      );
      await client.query(`create role ${names.state} login password '${verifierOf(passwords.state)}'`);
      await client.query(`grant ${names.provisioner}, ${names.state} to current_user`);
      await client.query(`create database ${names.billing} owner ${names.provisioner}`);
      await client.query(`create database ${names.state} owner ${names.state}`);
    });
    await withAdministrator(server, names.billing, async (client) => {
      await client.query(`alter schema public owner to ${names.provisioner}`);
      await client.query(`revoke all on schema public from public`);
      await client.query(`revoke temporary on database ${names.billing} from public`);
    });
  } catch (error) {
    await cleanUp();
    throw error;
  }
  const urlOf = (user: string, password: string, database: string): string =>
    `postgres://${user}:${password}@${server.host}:${server.port}/${database}`;
  const login = { ...server, user: names.provisioner, password: passwords.provisioner };
  return {
    address: `${server.host}:${server.port}`,
    version: server.version,
    own: url === null,
    logFile: server.logFile,
    stateUrl: urlOf(names.state, passwords.state, names.state),
    billingUrl: urlOf(names.provisioner, passwords.provisioner, names.billing),
    secrets: [server.password, ...Object.values(passwords)].filter((secret) => secret !== ""),
    count: (table) =>
      withAdministrator(login, names.billing, async (client) => {
        const { rows } = await client.query<{ n: number }>(
          `select count(*)::int as n from public.${client.escapeIdentifier(table)}`,
        );
        return rows[0]?.n ?? 0;
      }),
    load: (data) => withAdministrator(login, names.billing, (client) => loadBillingData(client, data)),
    [Symbol.asyncDispose]: cleanUp,
  };
}

/** What PostgreSQL stores of a password; the password itself would stand in the server's log. */
function verifierOf(password: string): string {
  return verifierToPostgres(makeVerifier(password, randomBytes(scramSaltBytes), scramIterations));
}

async function startOwn(directory: string): Promise<Server> {
  const server = await startEmbeddedPostgres({
    directory: join(directory, "postgres"),
    // Thrown away at the end; the ledger is not in it.
    durable: false,
    settings: { log_statement: "all", log_line_prefix: logLinePrefix, shared_buffers: "64MB" },
  });
  const { host, port, user, password, version, logFile } = server;
  const stop = async (): Promise<void> => {
    await server.stop();
    // Where its account cannot reach the directory, the launcher puts the data elsewhere and leaves a link.
    const elsewhere = await readlink(join(directory, "postgres", "data")).catch(() => null);
    if (elsewhere !== null) {
      await rm(elsewhere, { recursive: true, force: true });
    }
  };
  return { host, port, user, password, database: "postgres", version, logFile, stop };
}

async function useTheirs(url: string, logFile: string | null): Promise<Server> {
  const { hostname, port, username, password, pathname } = new URL(url);
  const server = {
    host: hostname.replaceAll(/^\[|\]$/g, ""),
    port: port === "" ? 5432 : Number(port),
    user: decodeURIComponent(username),
    password: decodeURIComponent(password),
    database: decodeURIComponent(pathname.slice(1)) || "postgres",
    logFile,
    stop: () => Promise.resolve(),
  };
  const version = await withAdministrator(server, server.database, async (client) => {
    const { rows } = await client.query<{ server_version: string }>("show server_version");
    return rows[0]?.server_version.split(" ")[0] ?? "";
  });
  return { ...server, version };
}

async function withAdministrator<T>(
  server: Pick<Server, "host" | "port" | "user" | "password">,
  database: string,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const { host, port, user, password } = server;
  const client = new Client({ host, port, user, password, database, application_name: "sallyport demo" });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function rolesOf(client: Client): Promise<ReadonlySet<string>> {
  const { rows } = await client.query<{ rolname: string }>("select rolname from pg_roles");
  return new Set(rows.map((row) => row.rolname));
}

interface Names {
  readonly state: string;
  readonly billing: string;
  readonly provisioner: string;
}

/** Drops the two databases, and the roles that were made for them: also those of a gateway that was killed. */
async function leaveAsFound(server: Server, names: Names, before: ReadonlySet<string>): Promise<void> {
  const made = await withAdministrator(server, names.billing, rolesOfThisDatabase).catch(() => [names.provisioner]);
  await withAdministrator(server, server.database, async (client) => {
    await client.query(`drop database if exists ${names.billing} with (force)`);
    await client.query(`drop database if exists ${names.state} with (force)`);
    for (const role of [...made, names.state, names.provisioner]) {
      if (!before.has(role)) {
        const name = client.escapeIdentifier(role);
        // One that another database has come to use meanwhile stays: PostgreSQL refuses to drop it.
        await client.query(`drop owned by ${name} cascade`).catch(() => null);
        await client.query(`drop role if exists ${name}`).catch(() => null);
      }
    }
  });
}

/** Roles that own something here, that have rights here or on the database itself, and the members of those. */
async function rolesOfThisDatabase(client: Client): Promise<readonly string[]> {
  const { rows } = await client.query<{ rolname: string }>(`
    with this as (select oid from pg_database where datname = current_database()),
    used as (
      select refobjid as role from pg_shdepend
      where refclassid = 'pg_authid'::regclass
        and (dbid = (select oid from this)
          or (dbid = 0 and classid = 'pg_database'::regclass and objid = (select oid from this))))
    select distinct rolname from pg_roles
    where rolname ~ '^(sp|sallyport)_'
      and (oid in (select role from used) or oid in (select member from pg_auth_members where roleid in (select role from used)))`);
  return rows.map((row) => row.rolname);
}
