/** What is measured: PostgreSQL itself, and what can stand in front of it. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chown, mkdir, open, readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Client } from "pg";
import { z } from "zod";
import { startEmbeddedPostgres } from "#store/embedded-postgres.ts";
import { findFreePort } from "#store/postgres-process.ts";
import type { Login } from "./wire.ts";

/** Something that takes the load. */
export interface Peer {
  readonly name: "direct" | "pgbouncer" | "sallyport";
  /** More than one: a grant has a limit of sessions. */
  readonly logins: readonly Login[];
  /** The process whose CPU time is its cost; null for PostgreSQL itself. */
  readonly pid: number | null;
  readonly stop: () => Promise<void>;
}

const host = "127.0.0.1";
const database = "bench";
const startTimeoutMs = 60_000;
/** The gateway drops what it made at the resource before it ends. */
const stopTimeoutMs = 30_000;
/** Clients of the largest run divided by the sessions that one grant may have. */
const loginsNeeded = 2;

/**
 * PostgreSQL with the data of `pgbench -i`, `rows` accounts, everything synced to disk.
 * @param binaryDirectory of another build than the embedded one.
 */
export async function startDirect(
  directory: string,
  rows: number,
  binaryDirectory: string | undefined,
): Promise<Peer & { readonly version: string }> {
  const server = await startEmbeddedPostgres({
    directory: join(directory, "postgres"),
    durable: true,
    settings: { shared_buffers: "128MB" },
    ...(binaryDirectory === undefined ? {} : { binaryDirectory }),
  });
  const login: Login = { host, port: server.port, user: server.user, password: server.password, database };
  await runSql({ ...login, database: "postgres" }, `create database ${database}`);
  await runSql(
    login,
    `create table pgbench_accounts (aid int not null primary key, bid int, abalance int, filler char(84));
     insert into pgbench_accounts select i, 1, 0, '' from generate_series(1, ${rows}) as i;`,
  );
  await runSql(login, "vacuum analyze pgbench_accounts");
  await runSql(login, "checkpoint");
  return { name: "direct", logins: [login, login], pid: null, version: server.version, stop: server.stop };
}

/** PgBouncer in session mode before the same server. */
export async function startPgbouncer(program: string, directory: string, upstream: Login): Promise<Peer> {
  const port = await findFreePort();
  const place = join(directory, "pgbouncer");
  await mkdir(place, { mode: 0o700 });
  const configuration = join(place, "pgbouncer.ini");
  const { host: at, port: to, user, password } = upstream;
  await writeFile(
    configuration,
    `[databases]
${database} = host=${at} port=${to} user=${user} password=${password} dbname=${database}
[pgbouncer]
listen_addr = ${host}
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = session
default_pool_size = 100
ignore_startup_parameters = extra_float_digits
`,
    { mode: 0o600 },
  );
  // It does not run as root.
  const account = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
  if (account.uid !== undefined) {
    await chown(place, account.uid, account.gid);
    await chown(configuration, account.uid, account.gid);
  }
  const log = await open(join(directory, "pgbouncer.log"), "a");
  const child = spawn(program, [configuration], { ...account, cwd: place, stdio: ["ignore", log.fd, log.fd] });
  await log.close();
  await untilListening(child, port, join(directory, "pgbouncer.log"));
  const login: Login = { host, port, user: "bench", password: "", database };
  return { name: "pgbouncer", logins: [login, login], pid: child.pid ?? null, stop: () => stopChild(child) };
}

const addedGrant = z.object({
  connection: z.object({
    host: z.string(),
    port: z.number(),
    user: z.string(),
    password: z.string(),
    database: z.string(),
  }),
});

/** The gateway as its operator would start it, and grants for one principal. */
export async function startSallyport(directory: string, upstream: Login): Promise<Peer> {
  const [port, controlPort] = [await findFreePort(), await findFreePort()];
  const place = join(directory, "sallyport");
  await mkdir(place, { mode: 0o700 });
  const configuration = join(place, "sallyport.yaml");
  const { host: at, port: to, user, password } = upstream;
  await writeFile(
    configuration,
    `version: 1
node: { name: bench }
listen: { postgres: "${host}:${port}", control: "${host}:${controlPort}" }
directory: state
principals:
  - { name: operator, kind: human }
  - { name: load, kind: service, owner: operator, expires: "${new Date(Date.now() + 86_400_000).toISOString()}" }
resources:
  - { name: ${database}, kind: postgres, url: "postgres://${user}:\${env:BENCH_PASSWORD}@${at}:${to}/${database}" }
`,
    { mode: 0o600 },
  );
  const command = join(dirname(fileURLToPath(import.meta.url)), "../bin/sallyport.mjs");
  const env = { ...process.env, BENCH_PASSWORD: password };
  const log = await open(join(directory, "sallyport.log"), "a");
  const child = spawn(process.execPath, [command, "up", "-c", configuration], {
    env,
    stdio: ["ignore", log.fd, log.fd],
  });
  await log.close();
  await untilListening(child, port, join(directory, "sallyport.log"));
  const logins: Login[] = [];
  for (let i = 1; i <= loginsNeeded; i += 1) {
    const added = await runForJson(
      command,
      ["grant", "add", "-c", configuration, "--json"],
      ["--principal", "load", "--resource", database, "--task", `bench ${i}`],
      ["--table", "public.pgbench_accounts:select:all", "--for", "1h"],
    );
    logins.push(addedGrant.parse(added).connection);
  }
  return { name: "sallyport", logins, pid: child.pid ?? null, stop: () => stopChild(child) };
}

async function runForJson(command: string, ...parts: readonly (readonly string[])[]): Promise<unknown> {
  const child = spawn(process.execPath, [command, ...parts.flat()], { stdio: ["ignore", "pipe", "pipe"] });
  const exited = once(child, "close");
  const [output, errors] = await Promise.all([text(child.stdout), text(child.stderr)]);
  await exited;
  if (child.exitCode !== 0) {
    throw new Error(`sallyport ${parts[0]?.slice(0, 2).join(" ") ?? ""} failed: ${errors.trim()}`);
  }
  const lastLine: unknown = JSON.parse(output.trim().split("\n").at(-1) ?? "");
  return lastLine;
}

async function untilListening(child: ChildProcess, port: number, logFile: string): Promise<void> {
  for (const deadlineMs = Date.now() + startTimeoutMs; ;) {
    if (child.exitCode !== null || child.pid === undefined || Date.now() > deadlineMs) {
      await stopChild(child);
      throw new Error(`a program did not start:\n${(await readFile(logFile, "utf8")).slice(-2000)}`);
    }
    if (await isListening(port)) {
      return;
    }
    await delay(50);
  }
}

function isListening(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, host);
  socket.once("connect", () => {
    resolve(true);
  });
  socket.once("error", () => {
    resolve(false);
  });
  return promise.finally(() => socket.destroy());
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null && child.kill("SIGINT")) {
    const killer = setTimeout(() => child.kill("SIGKILL"), stopTimeoutMs);
    await once(child, "exit");
    clearTimeout(killer);
  }
}

async function runSql(login: Login, sql: string): Promise<void> {
  const client = new Client(login);
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}
