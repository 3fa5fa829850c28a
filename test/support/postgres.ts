/**
 * Real PostgreSQL for tests: a cluster of its own for each call, thrown away at the end. The cluster is made once for each
 * build of PostgreSQL, in the temporary directory, and copied from then on.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rename, rm, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Client } from "pg";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "#store/embedded-postgres.ts";

const execFileAsync = promisify(execFile);

export interface StartPostgresOptions {
  readonly settings?: Readonly<Record<string, string>>;
  /** The programs of another build, such as Debian's PostgreSQL 15; the embedded PostgreSQL when not given. */
  readonly binaryDirectory?: string;
  readonly port?: number;
}

/** A running throw-away PostgreSQL. */
export interface TestPostgres extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** The superuser. */
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly version: string;
  /** Holds the server's own log; with `log_statement` set, every statement that reached it. */
  readonly logFile: string;
  readonly pid: number;
  readonly exited: Promise<string>;
  /** Ends the server and deletes its data. */
  readonly stop: () => Promise<void>;
}

/** Starts an empty PostgreSQL on a free port of 127.0.0.1. It does not outlive the test's process. */
export async function startPostgres(options: StartPostgresOptions = {}): Promise<TestPostgres> {
  const binaries = options.binaryDirectory === undefined ? {} : { binaryDirectory: options.binaryDirectory };
  const template = await ensureTemplate(options.binaryDirectory);
  const directory = await mkdtemp(join(tmpdir(), "sallyport test postgres "));
  await execFileAsync("cp", ["-pPR", `${template}/.`, directory]);
  const server = await startEmbeddedPostgres({
    directory,
    durable: false,
    settings: { shared_buffers: "32MB", ...options.settings },
    ...binaries,
    ...(options.port === undefined ? {} : { port: options.port }),
  }).catch(async (error: unknown) => {
    await rm(directory, { recursive: true, force: true });
    throw error;
  });
  let stopping: Promise<void> | null = null;
  const stop = (): Promise<void> => {
    stopping ??= server.stop().then(() => rm(directory, { recursive: true, force: true }));
    return stopping;
  };
  return { ...server, database: "postgres", stop, [Symbol.asyncDispose]: stop };
}

/** Where and as whom to connect. */
export interface DatabaseAddress {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
}

/** Makes an empty database on a server, so that test files can share the server. */
export async function createDatabase(server: DatabaseAddress, name: string): Promise<DatabaseAddress> {
  const { host, port, user, password } = server;
  await runSql(server, `create database "${name.replaceAll('"', '""')}"`);
  return { host, port, user, password, database: name };
}

/** Runs SQL text, of one or several statements, on a connection of its own. */
export async function runSql(address: DatabaseAddress, sql: string): Promise<readonly Record<string, unknown>[]> {
  const { host, port, user, password, database } = address;
  const client = new Client({ host, port, user, password, database });
  await client.connect();
  try {
    const result: { readonly rows?: readonly Record<string, unknown>[] } = await client.query(sql);
    return result.rows ?? [];
  } finally {
    await client.end();
  }
}

async function ensureTemplate(binaryDirectory: string | undefined): Promise<string> {
  const build = binaryDirectory === undefined ? await packageVersion() : binaryDirectory.replaceAll("/", "-");
  const template = join(tmpdir(), `sallyport-test-postgres-template-${build}-${process.getuid?.() ?? 0}`);
  if ((await stat(join(template, "whole")).catch(() => null)) !== null) {
    return template;
  }
  const unfinished = `${template}.${randomBytes(6).toString("hex")}`;
  const server: EmbeddedPostgres = await startEmbeddedPostgres({
    directory: unfinished,
    durable: false,
    ...(binaryDirectory === undefined ? {} : { binaryDirectory }),
  });
  await server.stop();
  await rename(server.logFile, join(unfinished, "whole"));
  try {
    await rename(unfinished, template);
  } catch {
    // Another worker made it at the same time: any of the two will do, and a missing one fails at the copy.
    await rm(unfinished, { recursive: true, force: true });
  }
  return template;
}

async function packageVersion(): Promise<string> {
  const main = createRequire(import.meta.url).resolve(`@embedded-postgres/${process.platform}-${process.arch}`);
  const manifest: unknown = JSON.parse(await readFile(join(main, "../../package.json"), "utf8"));
  return typeof manifest === "object" && manifest !== null && "version" in manifest
    ? String(manifest.version)
    : "unknown";
}
