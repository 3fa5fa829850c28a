/**
 * The launcher of the embedded PostgreSQL: state store, and the demo's target, on a machine that has no PostgreSQL.
 *
 * ```
 * directory/            kept by this process's account
 *   password            of the superuser, 0600, made at the first start
 *   owner               pid of the process that started the server
 *   postgres.log        unless the caller names another
 *   data                PostgreSQL's, of the server's account; a link where that account cannot reach `directory`
 * ```
 *
 * PostgreSQL refuses to run as root, so root's server runs as `nobody`; no account is made. It listens on 127.0.0.1 only,
 * with SCRAM-SHA-256 and without TLS (the package carries an old OpenSSL; the gateway terminates TLS). A stopped
 * `directory` can be copied.
 */
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { chmod, chown, mkdir, open, readFile, readlink, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { SallyportError } from "#domain/errors.ts";
import {
  type PostgresBinaries,
  type ServerAccount,
  canReach,
  findPostgresBinaries,
  hasCode,
  makeOpenDirectory,
} from "./postgres-binaries.ts";
import {
  findFreePort,
  isAlive,
  isServerOf,
  portInUse,
  readPid,
  readServerPid,
  refuseTakenPort,
  spawnOptions,
  spawnServer,
  stopProcess,
  waitUntilReady,
} from "./postgres-process.ts";

const execFileAsync = promisify(execFile);

const host = "127.0.0.1";
/** Crash recovery of a large log happens inside this time. */
const startTimeoutMs = 120_000;
/** Between choosing a free port and the server's taking it another program can take it. */
const portAttemptsMax = 5;
/** A longer log is put aside at the next start, one generation of it. */
const logBytesMax = 16 * 1024 * 1024;

export interface EmbeddedPostgresOptions {
  /** Holds everything of this server; made when missing. A second start finds its data there. */
  readonly directory: string;
  /** A free one is taken when not given. */
  readonly port?: number;
  /** False only for data that may be lost, of tests and the demo: nothing is synced to disk. */
  readonly durable: boolean;
  /** Server settings, over the launcher's own. */
  readonly settings?: Readonly<Record<string, string>>;
  /** `postgres` when not given. Counts at the first start. */
  readonly superuser?: string;
  readonly logFile?: string;
  /** Programs of another build than the platform package. */
  readonly binaryDirectory?: string;
}

export interface EmbeddedPostgres extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  /** PostgreSQL's, such as `18.4`. */
  readonly version: string;
  readonly logFile: string;
  readonly pid: number;
  /** Resolves when the server has ended, by `stop` or otherwise, with how. */
  readonly exited: Promise<string>;
  /** A fast stop: open transactions roll back, connections end. A second call waits for the same stop. */
  readonly stop: () => Promise<void>;
}

/**
 * Starts the server and resolves when it takes connections. It ends with this process, also when that is killed.
 * @throws SallyportError `store.postgres-missing`, `store.postgres-account`, `store.postgres-directory`,
 * `store.postgres-running`, `store.port-in-use` or `store.postgres-start`, each with what to do about it.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const directory = resolve(options.directory);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const account = await chooseAccount(join(directory, "data"));
  const binaries = await findPostgresBinaries(options.binaryDirectory ?? null, account);
  await endOrphan(directory);
  const cluster: Cluster = {
    directory,
    account,
    binaries,
    durable: options.durable,
    user: options.superuser ?? "postgres",
    password: await ensurePassword(directory),
    settings: options.settings ?? {},
    logFile: options.logFile ?? join(directory, "postgres.log"),
    data: await placeData(directory, account),
  };
  await initialize(cluster);
  await rotateLog(cluster.logFile);

  for (let attempt = 1; ; attempt += 1) {
    const port = options.port ?? (await findFreePort());
    try {
      return await launch(cluster, port);
    } catch (error) {
      const retry = error instanceof SallyportError && error.code === "store.port-in-use" && options.port === undefined;
      if (!retry || attempt === portAttemptsMax) {
        throw error;
      }
    }
  }
}

interface Cluster {
  readonly directory: string;
  readonly data: string;
  readonly account: ServerAccount;
  readonly binaries: PostgresBinaries;
  readonly durable: boolean;
  readonly user: string;
  readonly password: string;
  readonly settings: Readonly<Record<string, string>>;
  readonly logFile: string;
}

/** This process's own account; for root the one that owns the data already, or else `nobody`. */
async function chooseAccount(data: string): Promise<ServerAccount> {
  if (process.getuid?.() !== 0) {
    return { uid: null, gid: null };
  }
  const owner = await stat(data).catch(() => null);
  if (owner !== null && owner.uid !== 0) {
    return { uid: owner.uid, gid: owner.gid };
  }
  try {
    const [uid, gid] = await Promise.all([
      execFileAsync("id", ["-u", "nobody"]),
      execFileAsync("id", ["-g", "nobody"]),
    ]);
    return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
  } catch (cause) {
    throw new SallyportError(
      "store.postgres-account",
      "gateway",
      "PostgreSQL does not run as root, and this machine has no account `nobody` to run it as",
      { cause, nextStep: "start as an ordinary user, or set SALLYPORT_DATABASE_URL to a PostgreSQL of your own" },
    );
  }
}

/**
 * Stops a server that outlived the process that started it; a server whose owner still runs is left alone.
 * Also takes away a pid file whose number belongs to an unrelated program by now: PostgreSQL would refuse to start.
 */
async function endOrphan(directory: string): Promise<void> {
  const data = join(directory, "data");
  const pid = await readServerPid(data);
  if (pid === null || !isAlive(pid)) {
    return;
  }
  if (!(await isServerOf(pid, data))) {
    await rm(join(data, "postmaster.pid"), { force: true });
    return;
  }
  const owner = await readPid(join(directory, "owner"));
  if (owner !== null && isAlive(owner)) {
    throw new SallyportError(
      "store.postgres-running",
      "gateway",
      `process ${owner} already runs a PostgreSQL (process ${pid}) in ${directory}`,
      { nextStep: `use that one, or stop process ${owner}` },
    );
  }
  await stopProcess(pid, () => !isAlive(pid));
}

async function ensurePassword(directory: string): Promise<string> {
  const path = join(directory, "password");
  try {
    const file = await open(path, "wx", 0o600);
    const password = randomBytes(24).toString("base64url");
    await file.writeFile(password);
    // Synced before the cluster exists: a crash cannot leave a cluster whose password nobody knows.
    await file.sync();
    await file.close();
    return password;
  } catch (error) {
    if (!hasCode(error, "EEXIST")) {
      throw error;
    }
    return readFile(path, "utf8");
  }
}

/**
 * The data directory: `directory/data`, or, where root's checkout is closed to the server's account, a place of its own
 * under the system's state directory that `data` then links to.
 */
async function placeData(directory: string, account: ServerAccount): Promise<string> {
  const data = join(directory, "data");
  const link = await readlink(data).catch(() => null);
  if (account.uid !== null && link === null) {
    // Everything secret in here is 0600; the server's account only has to pass through.
    await chmod(directory, 0o711);
  }
  if (link === null && (await canReach(data, account))) {
    return data;
  }
  const state = process.platform === "darwin" ? "/var/db/sallyport" : "/var/lib/sallyport";
  const place = join(state, `postgres-${createHash("sha256").update(directory).digest("hex").slice(0, 16)}`);
  if (link === null) {
    await makeOpenDirectory(state);
    await symlink(place, data);
  } else if (link !== place) {
    throw new SallyportError("store.postgres-directory", "gateway", `${data} links to the data of another directory`, {
      nextStep: `remove ${data} to start with an empty database`,
    });
  }
  return place;
}

/** Made under another name and renamed when whole, so that an interrupted start leaves nothing that looks like a cluster. */
async function initialize(cluster: Cluster): Promise<void> {
  const made = await readFile(join(cluster.data, "PG_VERSION"), "utf8").catch((error: unknown) => {
    if (hasCode(error, "ENOENT")) {
      return null;
    }
    throw new SallyportError("store.postgres-directory", "gateway", `${cluster.data} cannot be read`, {
      cause: error,
      nextStep: "start as the account that made it, or name another directory",
    });
  });
  if (made !== null) {
    if (Number(made) !== cluster.binaries.major) {
      throw new SallyportError(
        "store.postgres-directory",
        "gateway",
        `${cluster.data} was made by PostgreSQL ${made.trim()}, and this is ${cluster.binaries.version}`,
        { nextStep: "name another directory" },
      );
    }
    return;
  }
  const unfinished = `${cluster.data}.${randomBytes(6).toString("hex")}`;
  const passwordFile = join(unfinished, "password");
  const data = join(unfinished, "data");
  try {
    await mkdir(unfinished, { mode: 0o700 });
    await writeFile(passwordFile, cluster.password, { mode: 0o600 });
    await giveTo(unfinished, cluster.account);
    await giveTo(passwordFile, cluster.account);
    await runInitdb(cluster, data, passwordFile);
    await rename(data, cluster.data);
  } catch (error) {
    // Another start at the same time may have been first; it used the same password.
    if (!hasCode(error, "ENOTEMPTY") && !hasCode(error, "EEXIST")) {
      throw error;
    }
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
}

async function runInitdb(cluster: Cluster, data: string, passwordFile: string): Promise<void> {
  // One collation on every machine, whatever its locales; the provider of our own came with PostgreSQL 17.
  const locale =
    cluster.binaries.major >= 17
      ? ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
      : ["--locale=C"];
  const initdb = join(cluster.binaries.directory, "initdb");
  try {
    await execFileAsync(
      initdb,
      [
        `--pgdata=${data}`,
        `--username=${cluster.user}`,
        `--pwfile=${passwordFile}`,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-instructions",
        ...locale,
        ...(cluster.durable ? [] : ["--no-sync", "--wal-segsize=1"]),
      ],
      spawnOptions(cluster.account),
    );
  } catch (cause) {
    throw explainStart(cause, initdb, cause instanceof Error && "stderr" in cause ? String(cause.stderr) : "");
  }
}

/** A missing loader is reported as a missing program: the packages are built for glibc. */
function explainStart(cause: unknown, program: string, output: string): SallyportError {
  if (hasCode(cause, "ENOENT")) {
    return new SallyportError("store.postgres-missing", "gateway", `${program} cannot be loaded on this system`, {
      cause,
      nextStep:
        "the embedded PostgreSQL needs glibc (not Alpine's musl): set SALLYPORT_DATABASE_URL to a PostgreSQL of your own",
    });
  }
  const lastLines = output.trim().split("\n").slice(-5).join("\n");
  return new SallyportError("store.postgres-start", "gateway", `PostgreSQL did not start: ${lastLines}`, {
    cause,
    nextStep: "free the disk or memory that it names, or set SALLYPORT_DATABASE_URL to a PostgreSQL of your own",
  });
}

async function launch(cluster: Cluster, port: number): Promise<EmbeddedPostgres> {
  await refuseTakenPort(port);
  const program = join(cluster.binaries.directory, "postgres");
  await writeFile(join(cluster.directory, "owner"), `${process.pid}\n`, { mode: 0o600 });
  const log = await open(cluster.logFile, "a+", 0o600);
  try {
    const logStart = (await log.stat()).size;
    const server = await spawnServer(program, serverArguments(cluster, port), cluster.account, log.fd).catch(
      (error: unknown) => {
        throw explainStart(error, program, "");
      },
    );
    if (!(await waitUntilReady(server, cluster.data, startTimeoutMs))) {
      await server.stop();
      const output = (await readFile(cluster.logFile)).subarray(logStart).toString("utf8");
      const cause = new Error(await server.exited);
      throw output.includes("could not bind") ? portInUse(port, cause) : explainStart(cause, program, output);
    }
    return {
      host,
      port,
      user: cluster.user,
      password: cluster.password,
      version: cluster.binaries.version,
      logFile: cluster.logFile,
      pid: server.pid,
      exited: server.exited,
      stop: server.stop,
      [Symbol.asyncDispose]: server.stop,
    };
  } finally {
    await log.close();
  }
}

function serverArguments(cluster: Cluster, port: number): readonly string[] {
  const settings = {
    timezone: "UTC",
    log_timezone: "UTC",
    ...(cluster.durable ? {} : { fsync: "off", synchronous_commit: "off", full_page_writes: "off" }),
    ...cluster.settings,
    // Not the caller's to change: loopback only, no socket file that other accounts could reach, the log where it is looked for.
    listen_addresses: host,
    port: String(port),
    unix_socket_directories: "",
    ssl: "off",
    logging_collector: "off",
    log_destination: "stderr",
  };
  return ["-D", cluster.data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])];
}

async function rotateLog(path: string): Promise<void> {
  const info = await stat(path).catch(() => null);
  if (info !== null && info.size > logBytesMax) {
    await rename(path, `${path}.1`);
  }
}

async function giveTo(path: string, account: ServerAccount): Promise<void> {
  if (account.uid !== null && account.gid !== null) {
    await chown(path, account.uid, account.gid);
  }
}
