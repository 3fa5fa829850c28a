/** The embedded PostgreSQL as a process: how it is started, watched and ended, and the port it takes. */
import { type ChildProcess, type SpawnOptions, execFile, spawn } from "node:child_process";
import { readFile, readlink, realpath } from "node:fs/promises";
import { Socket, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { SallyportError } from "#domain/errors.ts";
import { type ServerAccount, hasCode } from "./postgres-binaries.ts";

const execFileAsync = promisify(execFile);

const pollIntervalMs = 10;
/** SIGINT is a fast stop, which waits for a checkpoint; SIGQUIT an immediate one, which the next start recovers from. */
const stopSignals = [
  ["SIGINT", 30_000],
  ["SIGQUIT", 5_000],
  ["SIGKILL", 5_000],
] as const;

/** A process of the server's account that was started here. */
export interface ServerProcess {
  readonly pid: number;
  /** Resolves with how it ended. */
  readonly exited: Promise<string>;
  readonly hasExited: () => boolean;
  readonly stop: () => Promise<void>;
}

/** What a program of PostgreSQL is spawned with: nothing of this process's environment, which may hold secrets. */
export function spawnOptions(account: ServerAccount): {
  readonly cwd: string;
  readonly env: Record<string, string>;
  readonly uid?: number;
  readonly gid?: number;
} {
  return {
    cwd: "/",
    env: { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" },
    ...(account.uid === null ? {} : { uid: account.uid }),
    ...(account.gid === null ? {} : { gid: account.gid }),
  };
}

/**
 * Spawns a server that ends with this process, also when that is killed.
 * @param logDescriptor an open file for both of its outputs.
 * @throws the error of `spawn` when the program cannot be run.
 */
export async function spawnServer(
  program: string,
  parameters: readonly string[],
  account: ServerAccount,
  logDescriptor: number,
): Promise<ServerProcess> {
  const options: SpawnOptions = {
    ...spawnOptions(account),
    stdio: ["ignore", logDescriptor, logDescriptor],
    // A session of its own: Ctrl-C in the terminal reaches this process only, which then stops the server in order.
    detached: true,
  };
  const child = spawn(program, parameters, options);
  const exited = new Promise<string>((settle) => {
    child.once("exit", (code, signal) => settle(signal ?? `exit code ${code}`));
  });
  const { pid } = child;
  if (pid === undefined) {
    throw await new Promise<Error>((settle) => {
      child.once("error", settle);
    });
  }
  // In the same turn as the spawn, so that there is no moment at which the server would outlive this process.
  guard(pid, account, exited);
  child.unref();

  let stopping: Promise<void> | null = null;
  return {
    pid,
    exited,
    hasExited: () => child.exitCode !== null || child.signalCode !== null,
    stop: () => {
      stopping ??= stopChild(child, pid);
      return stopping;
    },
  };
}

/** A shell that waits at the end of a pipe, and stops the server when the pipe breaks. One line disarms it. */
function guard(pid: number, account: ServerAccount, exited: Promise<string>): void {
  const watchdog = spawn("/bin/sh", ["-c", 'read -r _ || kill -INT "$1"', "sallyport-postgres-guard", String(pid)], {
    ...spawnOptions(account),
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  // Without a shell there is no guard, and the next start ends what was left over.
  watchdog.on("error", () => {});
  watchdog.stdin.on("error", () => {});
  watchdog.unref();
  // Typed as a plain stream, though it is a socket: it must not keep this process alive.
  if (watchdog.stdin instanceof Socket) {
    watchdog.stdin.unref();
  }
  void exited.then(() => watchdog.stdin.end("\n"));
}

async function stopChild(child: ChildProcess, pid: number): Promise<void> {
  child.ref();
  await stopProcess(pid, () => child.exitCode !== null || child.signalCode !== null);
}

/**
 * Ends a postmaster, with more force after each timeout.
 * @throws SallyportError `store.postgres-running` when it does not end.
 */
export async function stopProcess(pid: number, hasEnded: () => boolean): Promise<void> {
  for (const [signal, timeoutMs] of stopSignals) {
    if (!hasEnded()) {
      send(pid, signal);
    }
    if (await waitUntil(async () => hasEnded(), timeoutMs)) {
      return;
    }
  }
  throw new SallyportError("store.postgres-running", "gateway", `PostgreSQL (process ${pid}) does not end`, {
    nextStep: `end process ${pid} by hand`,
  });
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    // It ended by itself in the meantime, which is what was wanted.
    if (!hasCode(error, "ESRCH")) {
      throw error;
    }
  }
}

/** True when a process has this number, of whatever account. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !hasCode(error, "ESRCH");
  }
}

/** True when the process is a postmaster on this data directory: it makes that its working directory. */
export async function isServerOf(pid: number, data: string): Promise<boolean> {
  const real = await realpath(data);
  if (process.platform === "linux") {
    return (await readlink(`/proc/${pid}/cwd`).catch(() => "")) === real;
  }
  const { stdout } = await execFileAsync("ps", ["-o", "command=", "-p", String(pid)]).catch(() => ({ stdout: "" }));
  return stdout.includes(real) || stdout.includes(data);
}

/** The number in the data directory's pid file; null when there is no server's. */
export async function readServerPid(data: string): Promise<number | null> {
  return readPid(join(data, "postmaster.pid"));
}

/** A number at the start of a file; null when the file or the number is not there. */
export async function readPid(path: string): Promise<number | null> {
  const pid = Number.parseInt(await readFile(path, "utf8").catch(() => ""), 10);
  return Number.isSafeInteger(pid) && pid > 0 ? pid : null;
}

/**
 * Waits until the postmaster says in its pid file that it takes connections.
 * Resolves with false when it ended instead, or after `timeoutMs`.
 */
export async function waitUntilReady(server: ServerProcess, data: string, timeoutMs: number): Promise<boolean> {
  const path = join(data, "postmaster.pid");
  const isReady = async (): Promise<boolean> => {
    const lines = (await readFile(path, "utf8").catch(() => "")).split("\n");
    return lines[0] === String(server.pid) && lines[7]?.trim() === "ready";
  };
  await waitUntil(async () => server.hasExited() || (await isReady()), timeoutMs);
  return !server.hasExited() && isReady();
}

async function waitUntil(condition: () => Promise<boolean>, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) {
      return false;
    }
    await delay(pollIntervalMs);
  }
  return true;
}

/** A port of 127.0.0.1 that was free a moment ago. */
export async function findFreePort(): Promise<number> {
  return tryPort(0);
}

/**
 * Tells early, and clearly, that a port cannot be had.
 * @throws SallyportError `store.port-in-use`.
 */
export async function refuseTakenPort(port: number): Promise<void> {
  try {
    await tryPort(port);
  } catch (cause) {
    throw portInUse(port, cause);
  }
}

/** The error for a port that another program has. */
export function portInUse(port: number, cause: unknown): SallyportError {
  return new SallyportError("store.port-in-use", "gateway", `port ${port} of 127.0.0.1 cannot be used for PostgreSQL`, {
    cause,
    nextStep: "stop the program that has it, or name another port",
  });
}

function tryPort(port: number): Promise<number> {
  return new Promise((settle, fail) => {
    const probe = createServer();
    probe.once("error", fail);
    probe.listen({ host: "127.0.0.1", port }, () => {
      const address = probe.address();
      probe.close(() => settle(typeof address === "object" && address !== null ? address.port : port));
    });
  });
}
