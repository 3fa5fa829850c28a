/**
 * What the ledger alone can do, on this disk:
 *
 *     node bench/ledger.ts [--seconds 3] [--directory <where>] [--json]
 *
 * - `frames`: 200-byte records framed, written and synced in groups; no tree, no entries: the disk's own ceiling
 * - `entries`: small entries without a payload, through the whole ledger
 * - `writes`: commands that wait for their record: an intent with an encrypted statement, then an outcome, each awaited
 * - `reads`: pure reads: the intent is put in the queue, the outcome follows at once, both awaited together
 */
import { createSecretKey, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { AllowPure } from "#domain/decision.ts";
import { idSource, type CommandId } from "#domain/ids.ts";
import type { Outcome } from "#domain/outcome.ts";
import { openLedger, type OpenLedger } from "#ledger/append.ts";
import type { Draft, EntryDraft, EntrySession } from "#ledger/entry.ts";
import { nodeFiles, writeAll, type WritableFile } from "#ledger/files.ts";
import { encodeBatch, encodeSegmentHead, type Unframed } from "#ledger/frame.ts";
import { percentiles } from "./load.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "3" },
    directory: { type: "string", default: tmpdir() },
    json: { type: "boolean", default: false },
  },
});

const inFlight = [1, 8, 32, 256] as const;
const statement = "SELECT abalance FROM pgbench_accounts WHERE aid = 00048213;;";
const newId = idSource(randomBytes);

interface LedgerCell {
  readonly kind: "frames" | "entries" | "writes" | "reads";
  readonly inFlight: number;
  /** Operations a second: frames, entries or commands. */
  readonly perSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  /** CPU time of this process for each operation. */
  readonly cpuUs: number;
  /** What each operation leaves on the disk; null where it was not looked at. */
  readonly bytes: number | null;
}

/** Keeps `clients` operations in flight for the time given. */
async function run(clients: number, ms: number, operation: () => Promise<unknown>): Promise<Omit<LedgerCell, "kind">> {
  const latenciesUs: number[] = [];
  const loop = async (untilMs: number, counts: boolean): Promise<void> => {
    while (performance.now() < untilMs) {
      const before = performance.now();
      await operation();
      if (counts) {
        latenciesUs.push((performance.now() - before) * 1000);
      }
    }
  };
  const everyone = async (untilMs: number, counts: boolean): Promise<unknown> =>
    Promise.all(Array.from({ length: clients }, () => loop(untilMs, counts)));
  await everyone(performance.now() + ms / 4, false);
  const cpu = process.cpuUsage();
  const startedMs = performance.now();
  await everyone(startedMs + ms, true);
  const elapsedMs = performance.now() - startedMs;
  const { user, system } = process.cpuUsage(cpu);
  return {
    inFlight: clients,
    perSecond: (latenciesUs.length * 1000) / elapsedMs,
    ...percentiles(latenciesUs),
    cpuUs: (user + system) / latenciesUs.length,
    bytes: null,
  };
}

/** Group commit with nothing around it: what waits is written and synced together, as soon as the sync before has ended. */
class FrameWriter {
  readonly #file: WritableFile;
  #waiting: { readonly frame: Unframed; readonly resolve: () => void }[] = [];
  #isBusy = false;
  #index = 0;
  #chain = encodeSegmentHead({ sequence: 1, opening: 1 }, createSecretKey(Buffer.alloc(32, 1))).chain;

  constructor(file: WritableFile) {
    this.#file = file;
  }

  write(frame: Unframed): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ frame, resolve });
    if (!this.#isBusy) {
      this.#isBusy = true;
      queueMicrotask(() => {
        void this.#flush();
      });
    }
    return promise;
  }

  async #flush(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      const { bytes, chain } = encodeBatch(
        this.#index,
        batch.map(({ frame }) => frame),
        this.#chain,
      );
      this.#chain = chain;
      this.#index += batch.length;
      writeAll(this.#file, bytes);
      await this.#file.sync();
      for (const { resolve } of batch) {
        resolve();
      }
    }
    this.#isBusy = false;
  }
}

async function runFrames(directory: string, ms: number): Promise<readonly LedgerCell[]> {
  const file = await nodeFiles.open(join(directory, "frames"), "create");
  const writer = new FrameWriter(file);
  const frame: Unframed = { entryText: "x".repeat(200), entryBytes: 200, payload: null };
  const cells: LedgerCell[] = [];
  for (const clients of inFlight) {
    cells.push({ kind: "frames", ...(await run(clients, ms, () => writer.write(frame))) });
  }
  await file.close();
  return cells;
}

const session: EntrySession = {
  id: newId("ses"),
  entry: 17,
  principal: newId("prn"),
  onBehalfOf: null,
  grant: newId("grt"),
  task: newId("tsk"),
  resource: newId("res"),
};

function decide(): AllowPure {
  return {
    id: newId("dec"),
    effect: "allow",
    pure: true,
    policies: ["base:statement", `grant:${session.grant}:public.pgbench_accounts:select`],
    policySetHash: "ab".repeat(32),
    obligations: [],
  };
}

function intentDraft(command: CommandId, decision: AllowPure): Draft {
  return {
    entry: {
      type: "command.intent",
      session,
      command,
      prepared: null,
      cause: { strength: "none", calls: [] },
      kind: "select",
      effects: [{ verb: "select", object: "public.pgbench_accounts", columns: ["abalance", "aid"] }],
      decision: {
        id: decision.id,
        effect: "allow",
        policies: decision.policies,
        policySet: decision.policySetHash,
        obligations: [],
      },
      pure: true,
      rewritten: false,
      statement: 1,
      statements: 1,
    },
    payload: { key: session.id, fields: { statement } },
  };
}

const outcome: Outcome = {
  status: "ok",
  rows: 1,
  bytes: 12,
  tag: "SELECT 1",
  sqlState: null,
  durationUs: 187,
  redactions: [],
};

function outcomeDraft(command: CommandId, intent: number): Draft {
  const entry: EntryDraft = { type: "command.outcome", session, command, intent, execution: 1, outcome };
  return { entry };
}

async function runLedger(directory: string, ms: number): Promise<readonly LedgerCell[]> {
  const place = join(directory, "ledger");
  const keysDirectory = join(directory, "keys");
  await mkdir(keysDirectory, { mode: 0o700 });
  const ledger: OpenLedger = await openLedger({
    directory: place,
    keysDirectory,
    origin: "sallyport.example/bench",
    clock: { nowMs: Date.now, monotonicUs: () => Math.round(performance.now() * 1000) },
    randomBytes: (length) => randomBytes(length),
  });
  await ledger.openDataKey(session.id);
  const operations: Readonly<Record<"entries" | "writes" | "reads", () => Promise<unknown>>> = {
    entries: () => ledger.record({ entry: { type: "cancel.requested", session: null, known: false, count: 1 } }, null),
    writes: async () => {
      const command = newId("cmd");
      const decision = decide();
      const { index } = await ledger.record(intentDraft(command, decision), decision);
      await ledger.record(outcomeDraft(command, index), outcome);
    },
    reads: async () => {
      const command = newId("cmd");
      const decision = decide();
      const enqueued = ledger.enqueue(intentDraft(command, decision), decision);
      await Promise.all([enqueued.durable, ledger.record(outcomeDraft(command, enqueued.index), outcome)]);
    },
  };
  const cells: LedgerCell[] = [];
  for (const kind of ["entries", "writes", "reads"] as const) {
    for (const clients of inFlight) {
      const [bytesBefore, sizeBefore] = [await bytesIn(place, ledger), ledger.status().size];
      const cell = await run(clients, ms, operations[kind]);
      const entries = ledger.status().size - sizeBefore;
      const bytes = ((await bytesIn(place, ledger)) - bytesBefore) / entries;
      cells.push({ kind, ...cell, bytes: kind === "entries" ? bytes : 2 * bytes });
    }
  }
  await ledger.close();
  return cells;
}

/** What the log takes once everything is in the tree; write-ahead segments come and go and are left out. */
async function bytesIn(directory: string, ledger: OpenLedger): Promise<number> {
  await ledger.checkpoint();
  let bytes = 0;
  for (const file of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const isSegment = file.name.endsWith(".wal");
    bytes += file.isFile() && !isSegment ? (await stat(join(file.parentPath, file.name))).size : 0;
  }
  return bytes;
}

const directory = await mkdtemp(join(values.directory, "sallyport-bench-ledger-"));
try {
  const ms = Number(values.seconds) * 1000;
  const cells = [...(await runFrames(directory, ms)), ...(await runLedger(directory, ms))];
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ cells })}\n`);
  } else {
    process.stdout.write("kind     in flight   per second     p50 µs     p99 µs   CPU µs   bytes\n");
    for (const cell of cells) {
      process.stdout.write(
        `${cell.kind.padEnd(8)} ${String(cell.inFlight).padStart(9)} ${cell.perSecond.toFixed(0).padStart(12)} ` +
          `${cell.p50Us.toFixed(0).padStart(10)} ${cell.p99Us.toFixed(0).padStart(10)} ${cell.cpuUs.toFixed(1).padStart(8)} ` +
          `${(cell.bytes === null ? "–" : cell.bytes.toFixed(0)).padStart(7)}\n`,
      );
    }
  }
} finally {
  await rm(directory, { recursive: true, force: true });
}
