import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

import { afterAll, describe, expect, test } from "vitest";

import type { AllowPure } from "#domain/decision.ts";
import { SallyportError } from "#domain/errors.ts";
import { idSource } from "#domain/ids.ts";
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

const allow: AllowPure = {
  effect: "allow",
  pure: true,
  id: idSource(countingBytes())("dec"),
  policies: [],
  policySetHash: "00",
  obligations: [],
};

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
async function live(
  disk: MemoryDisk,
  acknowledged: Acknowledged,
  onTail: (operations: number) => void = () => undefined,
): Promise<void> {
  const first = await open(disk);
  await Promise.all(Array.from({ length: 250 }, (_, i) => say(first, acknowledged, `bulk ${i}`, i % 50 === 0)));
  await first.checkpoint();
  await say(first, acknowledged, "alone", true);
  await say(first, acknowledged, "alone too", false);
  await first.checkpoint();
  await Promise.all(Array.from({ length: 8 }, (_, i) => say(first, acknowledged, `past the tile ${i}`, true)));
  await first.checkpoint();
  onTail(disk.operations.length);
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
async function countOperations(): Promise<{ operations: readonly string[]; tailSync: number }> {
  const disk = new MemoryDisk();
  let before = 0;
  await live(disk, new Map(), (count) => {
    before = count;
  });
  // The write of the entry in the tail is the next operation, and its sync the one after.
  return { operations: disk.operations, tailSync: before + 2 };
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
  const { operations, tailSync } = await countOperations();
  const numbers = operations.map((_, i) => i + 1);

  test("there are operations of every kind", () => {
    const kinds = [...new Set(operations)].toSorted();
    // Nothing is torn in this life; the recoveries below have the truncate.
    expect(kinds).toEqual([
      "list",
      "makeDirectory",
      "open",
      "read",
      "remove",
      "removeDirectory",
      "rename",
      "sync",
      "syncDirectory",
      "write",
    ]);
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

  /** Operations of which a first crash leaves the most to recover. */
  const firstCrashes: readonly [string, number, Survival][] = [
    // Unpublished tiles, payloads past the end, and a segment that is not in the tree.
    [
      "before a checkpoint takes its place",
      operations.lastIndexOf("rename", Math.floor(operations.length / 2)) + 1,
      "everything",
    ],
    // A torn batch, of which half is on the disk.
    ["between a write and its sync", tailSync, "half"],
  ];

  test.each(firstCrashes)(
    "a second crash, at any operation of the recovery from one %s, loses nothing either",
    async (_, firstAt, survival) => {
      const hit = new Set<string>();
      for (let at = 1; ; at++) {
        const { disk, acknowledged } = await liveWithFault(firstAt, { kind: "crash" });
        disk.restart(survival);
        const start = disk.operations.length;
        disk.plan(start + at, { kind: "crash" });
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
        hit.add(disk.operations.at(-1) ?? "");
        disk.restart("nothing");
        await checkAfter(disk, acknowledged);
      }
      expect([...hit]).toEqual(
        expect.arrayContaining(["truncate", "rename", "remove", "sync", "syncDirectory", "write"]),
      );
    },
  );

  test.each<["sync" | "syncDirectory"]>([["sync"], ["syncDirectory"]])(
    "a writer that leaves out a %s is caught by these very checks",
    async (operation) => {
      let losses = 0;
      for (const at of numbers.filter((number) => number % 10 === 0)) {
        const disk = new MemoryDisk();
        disk.lieAbout(operation);
        const acknowledged: Acknowledged = new Map();
        disk.plan(at, { kind: "crash" });
        await live(disk, acknowledged).catch(() => undefined);
        disk.restart("nothing");
        await checkAfter(disk, acknowledged).catch(() => {
          losses += 1;
        });
      }
      expect(losses).toBeGreaterThan(3);
    },
  );
});

describe("when nothing can be written any more", () => {
  const cases: readonly [string, Fault, string, string][] = [
    ["a full disk", { kind: "short-then-fail", code: "ENOSPC" }, "write", "Free space on the volume of /log"],
    ["a read-only disk", { kind: "fail", code: "EROFS" }, "write", "Make /log writable"],
    ["a sync that fails", { kind: "fail", code: "EIO" }, "sync", "Check the disk that holds /log"],
  ];

  test.each(cases)(
    "%s refuses what waits and what comes, says what to do, and is never tried again",
    async (_, fault, operation, nextStep) => {
      const disk = new MemoryDisk();
      const ledger = await open(disk);
      const acknowledged: Acknowledged = new Map();
      await say(ledger, acknowledged, "before", true);
      // Of a batch, the write comes first and the sync second.
      disk.plan(disk.operations.length + (operation === "write" ? 1 : 2), fault);
      const waiting = await Promise.allSettled(
        Array.from({ length: 5 }, (_unused, i) => say(ledger, acknowledged, `w${i}`, true)),
      );
      const refusal = { code: "ledger.unavailable", whose: "gateway", nextStep: expect.stringContaining(nextStep) };
      for (const result of waiting) {
        expect(result).toMatchObject({ status: "rejected", reason: refusal });
      }
      expect(await ledger.failed).toMatchObject(refusal);
      expect(ledger.status()).toMatchObject({
        state: "failed",
        size: 2,
        failure: expect.stringContaining("nothing passes"),
      });
      const operationsBefore = disk.operations.length;
      await expect(say(ledger, acknowledged, "after", false)).rejects.toMatchObject(refusal);
      expect(() => ledger.enqueue({ entry: { type: "node.stopped", reason: "after" } }, allow)).toThrow(SallyportError);
      await expect(ledger.checkpoint()).rejects.toMatchObject(refusal);
      await expect(ledger.openDataKey("ses_new")).rejects.toMatchObject(refusal);
      expect(disk.operations.length).toBe(operationsBefore);
      await ledger.close();
      disk.restart("everything");
      await checkAfter(disk, acknowledged);
    },
  );

  test("a failure while entries are integrated in the background is the ledger's too", async () => {
    const disk = new MemoryDisk();
    const ledger = await open(disk);
    disk.plan(disk.operations.length + 4, { kind: "fail", code: "ENOSPC" }, true);
    const acknowledged: Acknowledged = new Map();
    await say(ledger, acknowledged, "durable", true);
    await expect(ledger.checkpoint()).rejects.toMatchObject({ code: "ledger.unavailable" });
    await expect(say(ledger, acknowledged, "late", true)).rejects.toMatchObject({ code: "ledger.unavailable" });
    disk.restart("nothing");
    await checkAfter(disk, acknowledged);
  });
});
