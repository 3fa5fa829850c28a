import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { afterAll, describe, expect, test } from "vitest";

import { verifyLedgerDirectory } from "#evidence/verify.ts";
import { openLedger } from "#ledger/append.ts";
import { readLedger } from "#ledger/reader.ts";

import { testSeed } from "../../support/seed.ts";

const child = fileURLToPath(new URL("kill-child.ts", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "ledger-kill-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const killsMax = 200;
/** Ledgers that are written and killed at the same time, each by one process after another. */
const lanes = 4;

/** A small seeded generator of numbers in [0, 1): which moment a kill falls on. */
function mulberry(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Starts a writer, kills it some time after its ledger is open, and returns the lines that it got out. */
async function writeAndKill(directory: string, run: string, delayMs: number): Promise<readonly string[]> {
  const process = spawn(globalThis.process.execPath, [child, directory, run], { stdio: ["ignore", "pipe", "pipe"] });
  const pieces: string[] = [];
  const errors: string[] = [];
  const opened = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<void>();
  process.stdout.setEncoding("utf8").on("data", (text: string) => {
    pieces.push(text);
    opened.resolve();
  });
  process.stderr.setEncoding("utf8").on("data", (text: string) => errors.push(text));
  process.on("close", () => {
    opened.resolve();
    closed.resolve();
  });
  await opened.promise;
  await sleep(delayMs);
  process.kill("SIGKILL");
  await closed.promise;
  expect({ signal: process.signalCode, errors: errors.join("") }).toEqual({ signal: "SIGKILL", errors: "" });
  // The last line may be cut off; an acknowledgement counts once it is whole.
  return pieces.join("").split("\n").slice(0, -1);
}

/** Checks that everything acknowledged is in the log, where it was said to be, once; and that the log verifies. */
async function check(directory: string, acknowledged: ReadonlyMap<number, string>): Promise<void> {
  const ledger = await openLedger({
    directory: join(directory, "log"),
    keysDirectory: join(directory, "keys"),
    origin: "kill.example/log",
    clock: { nowMs: () => Date.now(), monotonicUs: () => Math.round(performance.now() * 1000) },
    randomBytes: (length) => randomBytes(length),
  });
  const { verifierKey } = ledger.status();
  await ledger.close();
  const reader = await readLedger(join(directory, "log"));
  const names = new Map<number, string>();
  for await (const { index, entry } of reader.entries()) {
    if (entry.type === "node.stopped") {
      names.set(index, entry.reason);
    }
  }
  const lost = [...acknowledged].filter(([index, name]) => names.get(index) !== name);
  expect(lost).toEqual([]);
  expect(new Set(names.values()).size).toBe(names.size);
  const result = await verifyLedgerDirectory({ directory: join(directory, "log"), verifierKey });
  expect(result).toMatchObject({ faults: [], integrity: "intact", completeness: "complete", size: reader.size });
}

describe("a process that is killed while it writes", () => {
  test(`${killsMax} times at random moments loses nothing that it had acknowledged`, async () => {
    const random = mulberry(testSeed);
    let kills = 0;
    let acknowledgements = 0;
    const lane = async (name: string): Promise<void> => {
      const directory = mkdtempSync(join(scratch, `${name}-`));
      const acknowledged = new Map<number, string>();
      while (kills < killsMax) {
        kills += 1;
        const lines = await writeAndKill(directory, `${name}.${kills}`, Math.floor(random() ** 2 * 60));
        for (const line of lines) {
          const [index, entry] = line.split(" ");
          if (entry !== undefined) {
            expect(acknowledged.has(Number(index))).toBe(false);
            acknowledged.set(Number(index), entry);
            acknowledgements += 1;
          }
        }
        // Not after every kill: what one recovery has made, the next kill may fall upon.
        if (kills % 5 === 0) {
          await check(directory, acknowledged);
        }
      }
      await check(directory, acknowledged);
    };
    await Promise.all(Array.from({ length: lanes }, (_, i) => lane(`lane${i}`)));
    expect(kills).toBe(killsMax);
    expect(acknowledgements).toBeGreaterThan(killsMax);
  });

  test("leaves no lock behind, and a living one keeps others out", async () => {
    const directory = mkdtempSync(join(scratch, "lock-"));
    await writeAndKill(directory, "first", 20);
    const options = {
      directory: join(directory, "log"),
      keysDirectory: join(directory, "keys"),
      origin: "kill.example/log",
      clock: { nowMs: () => Date.now(), monotonicUs: () => 0 },
      randomBytes: (length: number) => randomBytes(length),
    };
    const ledger = await openLedger(options);
    await expect(openLedger(options)).rejects.toMatchObject({ code: "ledger.locked" });
    const other = spawn(process.execPath, [child, directory, "second"], { stdio: ["ignore", "ignore", "pipe"] });
    const errors: string[] = [];
    other.stderr.setEncoding("utf8").on("data", (text: string) => errors.push(text));
    const code = await new Promise((resolve) => {
      other.on("close", resolve);
    });
    expect(code).not.toBe(0);
    expect(errors.join("")).toContain("ledger.locked");
    await ledger.close();
    const again = await openLedger(options);
    await again.close();
  });
});
