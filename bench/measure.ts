/** One run of load against one peer, and what runs of several peers in turn say together. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { LoadJob, LoadResult } from "./load.ts";
import type { Peer } from "./peers.ts";
import { runPgbench } from "./pgbench.ts";

/** How the load is made, the same for every run. */
export interface Method {
  /** Path of pgbench; null means our own generator. */
  readonly pgbench: string | null;
  readonly rows: number;
  readonly warmUpMs: number;
  readonly windowMs: number;
  readonly rounds: number;
}

/** One shape of load. */
export interface Shape {
  readonly protocol: LoadJob["protocol"];
  readonly clients: number;
}

/** What one peer did with one shape of load: medians over the rounds. */
export interface Cell extends Shape {
  readonly peer: Peer["name"];
  readonly tps: number;
  /** Against PostgreSQL itself and against PgBouncer, round by round, then the median. Null without that peer. */
  readonly vsDirect: number | null;
  readonly vsPgbouncer: number | null;
  readonly p50Us: number;
  readonly p99Us: number;
  /** CPU time of the peer's process for each transaction; null for PostgreSQL and where `/proc` is not there. */
  readonly cpuUs: number | null;
}

interface Run extends LoadResult {
  readonly tps: number;
  readonly cpuUs: number | null;
}

/** Linux counts a process's time in hundredths of a second for user space, whatever the kernel's own tick. */
const tickUs = 10_000;

/** All peers in turn, round after round, so that what else the machine does meets all of them. */
export async function measure(
  peers: readonly Peer[],
  shape: Shape,
  method: Method,
  onRun: (line: string) => void,
): Promise<readonly Cell[]> {
  const runs = new Map<Peer["name"], Run[]>(peers.map(({ name }) => [name, []]));
  for (let round = 1; round <= method.rounds; round += 1) {
    for (const peer of peers) {
      const run = await runOnce(peer, shape, method);
      runs.get(peer.name)?.push(run);
      const cpu = run.cpuUs === null ? "" : `, ${run.cpuUs.toFixed(0)} µs of CPU`;
      onRun(
        `${shape.protocol} c=${shape.clients} ${round}/${method.rounds} ${peer.name}: ${run.tps.toFixed(0)}/s${cpu}`,
      );
    }
  }
  return peers.map(({ name }): Cell => {
    const own = runs.get(name) ?? [];
    const cpu = own.flatMap(({ cpuUs }) => (cpuUs === null ? [] : [cpuUs]));
    return {
      ...shape,
      peer: name,
      tps: median(own.map(({ tps }) => tps)),
      vsDirect: ratio(own, runs.get("direct")),
      vsPgbouncer: ratio(own, runs.get("pgbouncer")),
      p50Us: median(own.map(({ p50Us }) => p50Us)),
      p99Us: median(own.map(({ p99Us }) => p99Us)),
      cpuUs: cpu.length === 0 ? null : median(cpu),
    };
  });
}

async function runOnce(peer: Peer, shape: Shape, method: Method): Promise<Run> {
  const startAtMs = Date.now() + method.warmUpMs;
  const job: LoadJob = {
    ...shape,
    logins: peer.logins,
    rows: method.rows,
    startAtMs,
    endAtMs: startAtMs + method.windowMs,
  };
  const [result, cpuUs] = await Promise.all([
    method.pgbench === null ? runOurs(job) : runPgbench(method.pgbench, job),
    peer.pid === null ? null : cpuInWindow(peer.pid, job),
  ]);
  return {
    ...result,
    tps: (result.transactions * 1000) / method.windowMs,
    cpuUs: cpuUs === null ? null : cpuUs / result.transactions,
  };
}

/** The generator in a process of its own: in ours it would be slowed by what we do meanwhile. The job holds passwords: by pipe. */
async function runOurs(job: LoadJob): Promise<LoadResult> {
  const child = spawn(process.execPath, [fileURLToPath(import.meta.resolve("./load.ts"))], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  const exited = once(child, "close");
  child.stdin.end(JSON.stringify(job));
  const [output, errors] = await Promise.all([text(child.stdout), text(child.stderr)]);
  await exited;
  if (child.exitCode !== 0) {
    throw new Error(`the load generator failed: ${errors.trim()}`);
  }
  // Written by `load.ts` in the same checkout.
  return JSON.parse(output) as LoadResult;
}

async function cpuInWindow(pid: number, { startAtMs, endAtMs }: LoadJob): Promise<number | null> {
  await delay(startAtMs - Date.now());
  const before = await cpuUsOf(pid);
  await delay(endAtMs - Date.now());
  const after = await cpuUsOf(pid);
  return before === null || after === null ? null : after - before;
}

/** User and system time of a process with all its threads (proc(5), fields 14 and 15). */
async function cpuUsOf(pid: number): Promise<number | null> {
  const stat = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => null);
  if (stat === null) {
    return null;
  }
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * tickUs;
}

function ratio(own: readonly Run[], other: readonly Run[] | undefined): number | null {
  return other === undefined ? null : median(own.map(({ tps }, i) => tps / (other[i]?.tps ?? Number.NaN)));
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}
