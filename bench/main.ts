/**
 * `npm run bench`: select-only load through the gateway, directly and, when it is installed, through PgBouncer, in turn.
 *
 *     npm run bench -- [--quick] [--write] [--json] [--peers direct,pgbouncer,sallyport] [--client ours|pgbench]
 *         [--postgres /usr/lib/postgresql/15/bin]
 */
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { measure, type Cell, type Method, type Shape } from "./measure.ts";
import { startDirect, startPgbouncer, startSallyport, type Peer } from "./peers.ts";
import { findPgbench, findProgram } from "./pgbench.ts";
import { describeMachine, renderResults, type BenchResult } from "./results.ts";

const rows = 100_000;
const shapes: readonly Shape[] = (["simple", "prepared"] as const).flatMap((protocol) =>
  [1, 8, 32].map((clients) => ({ protocol, clients })),
);

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    peers: { type: "string" },
    client: { type: "string" },
    postgres: { type: "string" },
  },
});

const say = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

async function startPeers(directory: string): Promise<{ readonly peers: readonly Peer[]; readonly postgres: string }> {
  const wanted = new Set(values.peers?.split(",") ?? ["direct", "pgbouncer", "sallyport"]);
  const direct = await startDirect(directory, rows, values.postgres);
  const [upstream] = direct.logins;
  const peers: Peer[] = [direct];
  try {
    const pgbouncer = await findProgram("pgbouncer");
    if (upstream !== undefined && wanted.has("pgbouncer") && pgbouncer !== null) {
      peers.push(await startPgbouncer(pgbouncer, directory, upstream));
    }
    if (upstream !== undefined && wanted.has("sallyport")) {
      peers.push(await startSallyport(directory, upstream));
    }
  } catch (error) {
    await stopPeers(peers);
    throw error;
  }
  return { peers, postgres: direct.version };
}

async function stopPeers(peers: readonly Peer[]): Promise<void> {
  for (const peer of peers.toReversed()) {
    await peer.stop();
  }
}

async function main(): Promise<void> {
  const pgbench = values.client === "ours" ? null : await findPgbench();
  if (values.client === "pgbench" && pgbench === null) {
    throw new Error("pgbench is not installed");
  }
  const method: Method = {
    pgbench,
    rows,
    warmUpMs: 2500,
    windowMs: values.quick ? 1000 : 2000,
    rounds: values.quick ? 1 : 3,
  };
  const directory = await mkdtemp(join(tmpdir(), "sallyport-bench-"));
  // PostgreSQL and PgBouncer do not run as root: their own account has to pass through. What is in it is closed.
  await chmod(directory, 0o711);
  const cells: Cell[] = [];
  try {
    const { peers, postgres } = await startPeers(directory);
    try {
      for (const shape of shapes) {
        cells.push(...(await measure(peers, shape, method, say)));
      }
    } finally {
      await stopPeers(peers);
    }
    const result: BenchResult = {
      atIso: new Date().toISOString(),
      machine: await describeMachine(directory),
      postgres,
      client: pgbench === null ? "bench/load.ts" : "pgbench",
      method: { rows, warmUpMs: method.warmUpMs, windowMs: method.windowMs, rounds: method.rounds },
      cells,
    };
    const text = renderResults(result);
    if (values.write) {
      await writeFile(fileURLToPath(import.meta.resolve("./RESULTS.md")), text);
    }
    process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : text);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

await main();
