/** Results as a person reads them. */
import { statfs } from "node:fs/promises";
import { cpus, release, totalmem } from "node:os";
import type { Cell, Method } from "./measure.ts";

/** What a result is worth nothing without. */
export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly system: string;
  readonly node: string;
  /** Type of the file system that PostgreSQL and the ledger are on, as statfs(2) numbers it. */
  readonly fileSystem: string;
}

export interface BenchResult {
  readonly atIso: string;
  readonly machine: Machine;
  readonly postgres: string;
  readonly client: "bench/load.ts" | "pgbench";
  readonly method: Omit<Method, "pgbench">;
  readonly cells: readonly Cell[];
}

/** statfs(2). */
const fileSystemNames: ReadonlyMap<number, string> = new Map([
  [0xef53, "ext4"],
  [0x58465342, "xfs"],
  [0x9123683e, "btrfs"],
  [0x01021994, "tmpfs (nothing is synced)"],
  [0x794c7630, "overlayfs"],
]);

/** The machine that this runs on; `directory` is where the data is. */
export async function describeMachine(directory: string): Promise<Machine> {
  const { type } = await statfs(directory);
  const processors = cpus();
  return {
    processor: processors[0]?.model.trim() ?? "unknown",
    cores: processors.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${process.platform} ${release()}`,
    node: process.version,
    fileSystem: fileSystemNames.get(type) ?? `0x${type.toString(16)}`,
  };
}

/** The whole of RESULTS.md. */
export function renderResults(result: BenchResult): string {
  const { machine, method } = result;
  const added = new Map(result.cells.filter(({ peer }) => peer === "direct").map((cell) => [shapeOf(cell), cell]));
  const lines = result.cells.map((cell) => {
    const direct = added.get(shapeOf(cell));
    const isDirect = direct === undefined || cell.peer === "direct";
    return [
      `| ${cell.protocol} | ${cell.clients} | ${cell.peer} | ${cell.tps.toFixed(0)}`,
      decimal(isDirect ? null : cell.vsDirect),
      decimal(cell.peer === "pgbouncer" ? null : cell.vsPgbouncer),
      cell.p50Us.toFixed(0),
      cell.p99Us.toFixed(0),
      isDirect ? "–" : (cell.p50Us - direct.p50Us).toFixed(0),
      isDirect ? "–" : (cell.p99Us - direct.p99Us).toFixed(0),
      `${cell.cpuUs === null ? "–" : cell.cpuUs.toFixed(0)} |`,
    ].join(" | ");
  });
  return `# Benchmark: select-only load

Written by \`npm run bench -- --write\`.

- ${result.atIso}, ${machine.cores} cores of ${machine.processor}, ${machine.memoryGiB} GiB, ${machine.system}, ${machine.fileSystem}
- Node ${machine.node.slice(1)}, PostgreSQL ${result.postgres} with \`fsync\` on, load from ${result.client}
- \`SELECT abalance FROM pgbench_accounts WHERE aid = …\` over ${method.rows} rows, as \`pgbench -S\` sends it; everything on loopback, no TLS
- all peers in turn, ${method.rounds} ${method.rounds === 1 ? "round" : "rounds"} of ${method.windowMs / 1000} s after ${method.warmUpMs / 1000} s of warm-up; medians. Ratios are taken round by round. Client, peer and PostgreSQL share the cores, so the CPU column says more about a peer than its rate
- CPU is user and system time of the peer's own process with all its threads, for each transaction, inside the window
- through the gateway every statement is parsed, decided, recorded durably (intent and outcome) and passed by the masker

| protocol | clients | peer | tps | vs direct | vs PgBouncer | p50 µs | p99 µs | added p50 µs | added p99 µs | CPU µs |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
${lines.join("\n")}
`;
}

function shapeOf(cell: Cell): string {
  return `${cell.protocol} ${cell.clients}`;
}

function decimal(value: number | null): string {
  return value === null ? "–" : value.toFixed(2);
}
