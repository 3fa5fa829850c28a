/** `pgbench` as the load generator, where it is installed: cheaper on the client's side than ours, and known to everyone. */
import { spawn } from "node:child_process";
import { access, constants, glob, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { text } from "node:stream/consumers";
import { percentiles, selectPrefix, type LoadJob, type LoadResult } from "./load.ts";
import type { Login } from "./wire.ts";

/** The newest pgbench of Debian's packages, or the one in the PATH; null when there is none. */
export async function findPgbench(): Promise<string | null> {
  const versioned: string[] = [];
  for await (const path of glob("/usr/lib/postgresql/*/bin/pgbench")) {
    versioned.push(path);
  }
  const newest = versioned.toSorted().at(-1);
  return newest ?? findProgram("pgbench");
}

/** A program in the PATH; null when it is not there. */
export async function findProgram(name: string): Promise<string | null> {
  for (const directory of (process.env["PATH"] ?? "").split(delimiter)) {
    const path = join(directory, name);
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) {
      return path;
    }
  }
  return null;
}

/** Runs the job: one pgbench for each login, the clients divided among them. @throws Error when one fails. */
export async function runPgbench(program: string, job: LoadJob): Promise<LoadResult> {
  const directory = await mkdtemp(join(tmpdir(), "sallyport-bench-"));
  try {
    const script = join(directory, "select.sql");
    await writeFile(script, `\\set aid random(1, ${job.rows})\n${selectPrefix}:aid;\n`);
    const logins = job.logins.slice(0, Math.min(job.logins.length, job.clients));
    await Promise.all(
      logins.map((login, i) => {
        const clients = Math.floor((job.clients + i) / logins.length);
        return runOne(program, job, login, clients, script, join(directory, `log-${i}`));
      }),
    );
    return await readLogs(directory, job);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function runOne(
  program: string,
  job: LoadJob,
  login: Login,
  clients: number,
  script: string,
  logPrefix: string,
): Promise<void> {
  const seconds = Math.ceil((job.endAtMs - Date.now()) / 1000) + 1;
  const child = spawn(
    program,
    [
      "--no-vacuum",
      `--protocol=${job.protocol}`,
      `--client=${clients}`,
      `--time=${seconds}`,
      `--file=${script}`,
      "--log",
      `--log-prefix=${logPrefix}`,
    ],
    {
      stdio: ["ignore", "ignore", "pipe"],
      env: {
        PATH: process.env["PATH"],
        PGHOST: login.host,
        PGPORT: String(login.port),
        PGUSER: login.user,
        PGPASSWORD: login.password,
        PGDATABASE: login.database,
        PGSSLMODE: "disable",
        PGGSSENCMODE: "disable",
      },
    },
  );
  const { promise, resolve } = Promise.withResolvers<number | null>();
  child.on("close", resolve);
  child.on("error", () => resolve(null));
  const [errors, code] = await Promise.all([text(child.stderr), promise]);
  if (code !== 0 || /aborted/.test(errors)) {
    throw new Error(`pgbench failed: ${errors.trim().split("\n").slice(-3).join(" ")}`);
  }
}

/** Lines are `client transaction latency script seconds microseconds`: latency in µs, then the epoch time of completion. */
async function readLogs(directory: string, job: LoadJob): Promise<LoadResult> {
  const latenciesUs: number[] = [];
  let firstMs = Number.POSITIVE_INFINITY;
  for (const name of await readdir(directory)) {
    if (!name.startsWith("log-")) {
      continue;
    }
    for (const line of (await readFile(join(directory, name), "latin1")).split("\n")) {
      const fields = line.split(" ");
      const atMs = Number(fields[4]) * 1000 + Number(fields[5]) / 1000;
      firstMs = Math.min(firstMs, Number.isNaN(atMs) ? firstMs : atMs);
      if (atMs >= job.startAtMs && atMs < job.endAtMs) {
        latenciesUs.push(Number(fields[2]));
      }
    }
  }
  if (firstMs >= job.startAtMs) {
    throw new Error("connecting took longer than the warm-up: make it longer");
  }
  return { transactions: latenciesUs.length, ...percentiles(latenciesUs) };
}
