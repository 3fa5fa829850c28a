import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

import { afterAll, describe, expect, test } from "vitest";

import { SallyportError } from "#domain/errors.ts";
import { verifyLedgerDirectory } from "#evidence/verify.ts";
import { openLedger } from "#ledger/append.ts";
import type { OpenLedger } from "#ledger/append.ts";
import { readLedger } from "#ledger/reader.ts";

import { MemoryDisk } from "./memory-files.ts";
import type { Fault, Survival } from "./memory-files.ts";

const scratch = mkdtempSync(join(tmpdir(), "ledger-faults-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A source of bytes that are the same in every run. */
function countingBytes(): (length: number) => Uint8Array {
  let next = 1;
  return (length) => {
    const bytes = Buffer.alloc(length);
    for (let i = 0; i < length; i++) {
      bytes[i] = (next = (next * 75 + 74) % 65_537) & 0xff;
    }
    return bytes;
  };
}

let processes = 0;

/** Opens the ledger on a disk as a new process would. */
function open(disk: MemoryDisk): Promise<OpenLedger> {
  processes += 1;
  const name = `${processes}-start`;
  let nowMs = 1_700_000_000_000;
  return openLedger({
    directory: "/log",
    keysDirectory: "/keys",
    origin: "fault.example/log",
    clock: { nowMs: () => (nowMs += 7), monotonicUs: () => nowMs * 1000 },
    randomBytes: countingBytes(),
    files: disk.files(),
    claimant: { name, isAlive: () => false },
    // No timer: every operation then has the same number in every run.
    tuning: { integrateAfterMs: 3_600_000, integrateEntriesMax: 1_000_000 },
  });
}

/** What the callers were told: an entry's own name, by its index. */
type Acknowledged = Map<number, string>;

async function say(ledger: OpenLedger, acknowledged: Acknowledged, name: string, hasPayload: boolean): Promise<void> {
  const payload = hasPayload ? { payload: { key: "node", fields: { text: `text of ${name}` } } } : {};
  const recorded = await ledger.record({ entry: { type: "node.stopped", reason: name }, ...payload }, name);
  acknowledged.set(recorded.index, recorded.subject);
}

/** Everything that a ledger does in its life: begin, grow past a full tile, lose its process, recover, close, go on. */
async function live(disk: MemoryDisk, acknowledged: Acknowledged): Promise<void> {
  const first = await open(disk);
  await Promise.all(Array.from({ length: 250 }, (_, i) => say(first, acknowledged, `bulk ${i}`, i % 50 === 0)));
  await first.checkpoint();
  await say(first, acknowledged, "alone", true);
  await say(first, acknowledged, "alone too", false);
  await first.checkpoint();
  await Promise.all(Array.from({ length: 8 }, (_, i) => say(first, acknowledged, `past the tile ${i}`, true)));
  await first.checkpoint();
  await say(first, acknowledged, "in the tail", true);
  disk.kill();
  const second = await open(disk);
  await second.openDataKey("ses_a");
  const secret = await second.record(
    { entry: { type: "node.stopped", reason: "secret" }, payload: { key: "ses_a", fields: { text: "to be erased" } } },
    "secret",
  );
  acknowledged.set(secret.index, secret.subject);
  await second.destroyDataKey("ses_a");
  await say(second, acknowledged, "before the end", false);
  await second.close();
  const third = await open(disk);
  await say(third, acknowledged, "the last", true);
  await third.close();
}

/** Opens what is left, and checks that everything acknowledged is there, in its place, once. */
async function checkAfter(disk: MemoryDisk, acknowledged: Acknowledged): Promise<void> {
  const ledger = await open(disk);
  await say(ledger, acknowledged, "after all", true);
  const { verifierKey } = ledger.status();
  await ledger.close();
  const reader = await readLedger("/log", disk.files());
  const found = new Map<number, string>();
  for await (const { index, entry } of reader.entries()) {
    if (entry.type === "node.stopped") {
      found.set(index, entry.reason);
    }
  }
  for (const [index, name] of acknowledged) {
    expect({ index, name: found.get(index) }).toEqual({ index, name });
  }
  expect(new Set(found.values()).size).toBe(found.size);
  const directory = mkdtempSync(join(scratch, "run-"));
  for (const [path, content] of disk.contents()) {
    if (path.startsWith("/log/")) {
      const target = join(directory, path.slice("/log/".length));
      mkdirSync(dirname(target), { recursive: true });
      writeFileSync(target, content);
    }
  }
  const result = await verifyLedgerDirectory({ directory, verifierKey });
  expect(result).toMatchObject({
    faults: [],
    integrity: "intact",
    completeness: "complete",
    checkpointSize: reader.size,
  });
  rmSync(directory, { recursive: true });
}

/** How many operations a life without faults has. */
async function countOperations(): Promise<readonly string[]> {
  const disk = new MemoryDisk();
  await live(disk, new Map());
  return disk.operations;
}

async function liveWithFault(
  at: number,
  fault: Fault,
): Promise<{ disk: MemoryDisk; acknowledged: Acknowledged; error: unknown }> {
  const disk = new MemoryDisk();
  const acknowledged: Acknowledged = new Map();
  disk.plan(at, fault);
  let error: unknown = null;
  try {
    await live(disk, acknowledged);
  } catch (cause) {
    error = cause;
  }
  expect({ at, wasHit: disk.wasHit }).toEqual({ at, wasHit: true });
  return { disk, acknowledged, error };
}

describe("at every file operation of a ledger's life", async () => {
  const operations = await countOperations();
  const numbers = operations.map((_, i) => i + 1);

  test("there are operations of every kind", () => {
    const kinds = [...new Set(operations)].toSorted();
    expect(kinds).toEqual(
      [
        "list",
        "makeDirectory",
        "open",
        "read",
        "remove",
        "removeDirectory",
        "rename",
        "sync",
        "syncDirectory",
        "truncate",
        "write",
      ].filter((kind) => kind !== "truncate"),
    );
    expect(operations.length).toBeGreaterThan(150);
  });

  test.each<[Survival]>([["nothing"], ["half"], ["everything"]])(
    "a crash after which of unsynced bytes and names survives: %s; loses nothing that was acknowledged",
    async (survival) => {
      for (const at of numbers) {
        const { disk, acknowledged, error } = await liveWithFault(at, { kind: "crash" });
        expect(error).toBeInstanceOf(SallyportError);
        disk.restart(survival);
        await checkAfter(disk, acknowledged);
      }
    },
  );

  test.each<[Fault["kind"], Survival]>([
    ["fail", "everything"],
    ["fail", "nothing"],
    ["short-then-fail", "everything"],
    ["short-then-fail", "half"],
  ])(
    "an operation that fails (%s), then a restart that keeps %s; loses nothing that was acknowledged",
    async (kind, survival) => {
      for (const at of numbers) {
        const fault: Fault =
          kind === "fail" ? { kind: "fail", code: "EIO" } : { kind: "short-then-fail", code: "ENOSPC" };
        const { disk, acknowledged, error } = await liveWithFault(at, fault);
        expect({ at, operation: operations[at - 1], code: error instanceof SallyportError && error.code }).toEqual({
          at,
          operation: operations[at - 1],
          code: "ledger.unavailable",
        });
        disk.restart(survival);
        await checkAfter(disk, acknowledged);
      }
    },
  );

  test("a short write is continued, and nobody notices", async () => {
    for (const at of numbers.filter((number) => operations[number - 1] === "write")) {
      const { disk, acknowledged, error } = await liveWithFault(at, { kind: "short" });
      expect(error).toBeNull();
      await checkAfter(disk, acknowledged);
    }
  });

  test("a second crash, at any operation of the recovery from a first one, loses nothing either", async () => {
    // A first crash in the middle of a publication leaves the most to recover: unpublished tiles and a segment.
    const firstAt = operations.lastIndexOf("rename", Math.floor(operations.length / 2));
    for (let at = 1; ; at++) {
      const { disk, acknowledged } = await liveWithFault(firstAt, { kind: "crash" });
      disk.restart("everything");
      disk.plan(disk.operations.length + at, { kind: "crash" });
      try {
        const ledger = await open(disk);
        await ledger.close();
      } catch (error) {
        expect(error).toBeInstanceOf(SallyportError);
      }
      if (!disk.wasHit) {
        expect(at).toBeGreaterThan(30);
        break;
      }
      disk.restart("nothing");
      await checkAfter(disk, acknowledged);
    }
  });
});
