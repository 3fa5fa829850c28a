import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, test } from "vitest";

import type { AllowPure } from "#domain/decision.ts";
import { SallyportError } from "#domain/errors.ts";
import { verifyLedgerDirectory } from "#evidence/verify.ts";
import { nodeFiles } from "#ledger/files.ts";
import type { Files } from "#ledger/files.ts";
import { openPayload, readLedger, readPayloadKeys } from "#ledger/reader.ts";
import type { ReadEntry } from "#ledger/reader.ts";
import { assertGenuine } from "#ledger/recorded.ts";
import { leafHash } from "#tlog/hash.ts";
import { parseVerifierKey } from "#tlog/note.ts";
import { parseTlogProof, verifyTlogProof } from "#tlog/tlog-proof.ts";

import { ids, ledgerFixture, note } from "./ledger-fixture.ts";
import type { LedgerFixture } from "./ledger-fixture.ts";

let fixture: LedgerFixture;
beforeEach(() => {
  fixture = ledgerFixture();
});
afterEach(() => fixture.remove());

async function entriesOf(directory: string): Promise<readonly ReadEntry[]> {
  return Array.fromAsync((await readLedger(directory)).entries());
}

const allow: AllowPure = {
  effect: "allow",
  pure: true,
  id: ids("dec"),
  policies: [],
  policySetHash: "00",
  obligations: [],
};

/** Counts syncs of the write-ahead segments, and can hold them back. */
function gatedFiles(): { files: Files; syncs: () => number; hold: () => () => void } {
  let syncs = 0;
  let gate: Promise<void> = Promise.resolve();
  const files: Files = {
    ...nodeFiles,
    async open(path, how) {
      const file = await nodeFiles.open(path, how);
      if (!path.endsWith(".wal")) {
        return file;
      }
      return {
        ...file,
        async sync() {
          syncs += 1;
          await gate;
          await file.sync();
        },
      };
    },
  };
  const hold = (): (() => void) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    gate = promise;
    return resolve;
  };
  return { files, syncs: () => syncs, hold };
}

describe("recording", () => {
  test("gives entries their place in the order of the calls, and a genuine token for each", async () => {
    const ledger = await fixture.open();
    const tokens = await Promise.all(Array.from({ length: 700 }, (_, i) => ledger.record(note(`n${i}`), i)));
    expect(tokens.map((token) => [token.index, token.subject])).toEqual(tokens.map((_, i) => [i + 1, i]));
    for (const token of tokens) {
      assertGenuine(token);
    }
    expect(ledger.status()).toMatchObject({ size: 701, checkpointSize: 0, state: "open" });
    await ledger.close();
    const entries = await entriesOf(fixture.directory);
    expect(entries.map(({ index }) => index)).toEqual(entries.map((_, i) => i));
    expect(entries.slice(1).map(({ entry }) => entry.type === "node.stopped" && entry.reason)).toEqual(
      tokens.map((_, i) => `n${i}`),
    );
    expect(entries[0]?.entry).toMatchObject({ v: 1, type: "ledger.opened", origin: "unit.example/log", size: 0 });
  });

  test("resolves only when the batch that holds the entry is synced", async () => {
    const gated = gatedFiles();
    const ledger = await fixture.open({ files: gated.files });
    const release = gated.hold();
    let isDurable = false;
    const recorded = ledger.record(note("held"), null).then(() => {
      isDurable = true;
    });
    await new Promise((resolve) => {
      setTimeout(resolve, 30);
    });
    expect({ isDurable, size: ledger.status().size }).toEqual({ isDurable: false, size: 1 });
    release();
    await recorded;
    expect(ledger.status().size).toBe(2);
    await ledger.close();
  });

  test("commits in groups: what comes while a sync runs shares the next one", async () => {
    const gated = gatedFiles();
    const ledger = await fixture.open({ files: gated.files });
    const before = gated.syncs();
    const clients = Array.from({ length: 16 }, async () => {
      for (let i = 0; i < 25; i++) {
        await ledger.record(note("grouped"), null);
      }
    });
    await Promise.all(clients);
    expect(gated.syncs() - before).toBeLessThanOrEqual(30);
    await ledger.close();
  });

  test("enqueue returns at once with the entry's index, and its promise keeps the order", async () => {
    const ledger = await fixture.open();
    const first = ledger.enqueue(note("first"), allow);
    const second = ledger.record(note("second"), 2);
    const third = ledger.enqueue(note("third", "payload"), allow);
    assertGenuine(first);
    expect([first.index, third.index, ledger.status().size]).toEqual([1, 3, 1]);
    const [a, b, c] = await Promise.all([first.durable, second, third.durable]);
    expect([a.index, b.index, c.index]).toEqual([1, 2, 3]);
    expect(a.subject).toBe(allow);
    assertGenuine(a);
    await ledger.close();
  });

  test("an entry that is too large is refused and the ledger goes on", async () => {
    const ledger = await fixture.open();
    await expect(ledger.record(note("x".repeat(65_600)), null)).rejects.toMatchObject({ code: "limit.exceeded" });
    await expect(ledger.record(note("p", "y".repeat(9 * 1024 * 1024)), null)).rejects.toMatchObject({
      code: "limit.exceeded",
    });
    expect(() => ledger.enqueue(note("x".repeat(65_600)), allow)).toThrow(SallyportError);
    const after = await ledger.record(note("fits"), null);
    expect([after.index, ledger.status().state]).toEqual([1, "open"]);
    await ledger.close();
  });

  test("a value without one canonical spelling is refused and the ledger goes on", async () => {
    const ledger = await fixture.open();
    await expect(ledger.record(note("\ud800"), null)).rejects.toThrow(/surrogate/);
    const draft = { entry: { type: "node.stopped", reason: "x", extra: 0.5 } } as const;
    await expect(ledger.record(draft, null)).rejects.toThrow(/whole numbers/);
    expect(ledger.status().state).toBe("open");
    await ledger.close();
  });

  test("a payload whose data key is not open is refused", async () => {
    const ledger = await fixture.open();
    const draft = { ...note("x"), payload: { key: "ses_unknown", fields: { a: "b" } } };
    await expect(ledger.record(draft, null)).rejects.toMatchObject({ code: "invariant" });
    await ledger.openDataKey("ses_unknown");
    await expect(ledger.record(draft, null)).resolves.toMatchObject({ index: 1 });
    await ledger.close();
  });

  test("callers wait while more than the bound is held, none is lost, and memory stays bounded", async () => {
    const ledger = await fixture.open({ tuning: { integrateAfterMs: 3_600_000, heldBytesMax: 20_000 } });
    const text = "z".repeat(900);
    const tokens = await Promise.all(Array.from({ length: 300 }, (_, i) => ledger.record(note(`w${i}`, text), i)));
    expect(tokens.map((token) => token.index)).toEqual(tokens.map((_, i) => i + 1));
    expect(ledger.status().checkpointSize).toBeGreaterThan(200);
    await ledger.close();
  });

  test("after close nothing is taken, and closing again is harmless", async () => {
    const ledger = await fixture.open();
    const last = ledger.record(note("last"), null);
    await ledger.close();
    await expect(last).resolves.toMatchObject({ index: 1 });
    await expect(ledger.record(note("late"), null)).rejects.toMatchObject({ code: "ledger.unavailable" });
    expect(() => ledger.enqueue(note("late"), allow)).toThrow(SallyportError);
    await ledger.close();
    expect(ledger.status().state).toBe("closed");
  });
});

describe("integration", () => {
  test("a checkpoint covers everything durable, and each entry has a proof that verifies", async () => {
    const ledger = await fixture.open();
    await Promise.all(Array.from({ length: 600 }, (_, i) => ledger.record(note(`n${i}`), i)));
    const status = await ledger.checkpoint();
    expect([status.size, status.checkpointSize]).toEqual([601, 601]);
    await ledger.record(note("after"), null);
    const reader = await readLedger(fixture.directory);
    expect([reader.checkpoint.size, reader.size]).toEqual([601, 602]);
    const key = parseVerifierKey(status.verifierKey);
    if (!key.ok) {
      throw new Error(key.reason);
    }
    for await (const { index, bytes, isIntegrated } of reader.entries()) {
      expect(isIntegrated).toBe(index < 601);
      if (index % 50 === 0 && isIntegrated) {
        const proof = parseTlogProof(await reader.inclusionProof(index));
        expect(proof.ok && verifyTlogProof(proof.value, leafHash(bytes), key.value).ok).toBe(true);
        expect(proof.ok && verifyTlogProof(proof.value, leafHash(Buffer.from("x")), key.value).ok).toBe(false);
      }
    }
    await expect(reader.inclusionProof(601)).rejects.toMatchObject({ code: "ledger.not-integrated" });
    await ledger.close();
  });

  test("happens by itself after a while, and sooner when much has come", async () => {
    const timed = await fixture.open({ tuning: { integrateAfterMs: 20 } });
    await timed.record(note("one"), null);
    await expect.poll(() => timed.status().checkpointSize).toBe(2);
    await timed.close();
    const counted = await fixture.open({ tuning: { integrateAfterMs: 3_600_000, integrateEntriesMax: 10 } });
    await Promise.all(Array.from({ length: 12 }, () => counted.record(note("many"), null)));
    await expect.poll(() => counted.status().checkpointSize).toBeGreaterThanOrEqual(12);
    await counted.close();
  });

  test("keeps one partial tile a level, and no segment after a clean close", async () => {
    const ledger = await fixture.open();
    for (let round = 0; round < 5; round++) {
      await Promise.all(Array.from({ length: 70 }, () => ledger.record(note("r"), null)));
      await ledger.checkpoint();
    }
    await ledger.close();
    expect(readdirSync(join(fixture.directory, "wal"))).toEqual([]);
    expect(readdirSync(join(fixture.directory, "tile/entries")).toSorted()).toEqual(["000", "001.p"]);
    expect(readdirSync(join(fixture.directory, "tile/0/001.p"))).toEqual(["95"]);
    expect(readdirSync(join(fixture.directory, "tile/1/000.p"))).toEqual(["1"]);
  });

  test("a reader and a verifier of a log that is being written see a whole one", async () => {
    const ledger = await fixture.open({ tuning: { integrateAfterMs: 1, integrateEntriesMax: 5 } });
    const state = { isWriting: true };
    const writing = (async () => {
      for (let i = 0; i < 1200; i++) {
        await ledger.record(note(`n${i}`, i % 2 === 0 ? "text" : undefined), i);
      }
      state.isWriting = false;
    })();
    let looks = 0;
    const verifierKey = ledger.status().verifierKey;
    while (state.isWriting) {
      const verified = await verifyLedgerDirectory({ directory: fixture.directory, verifierKey });
      expect(verified).toMatchObject({ faults: [], integrity: "intact", completeness: "complete" });
      const reader = await readLedger(fixture.directory);
      const read = await Array.fromAsync(reader.entries());
      expect(read.map(({ index }) => index)).toEqual(Array.from({ length: reader.size }, (_, i) => i));
      looks += 1;
    }
    await writing;
    expect(looks).toBeGreaterThan(1);
    await ledger.close();
  });
});

describe("opening again", () => {
  test("after a clean close says so, and goes on where the log ended", async () => {
    const first = await fixture.open();
    await first.record(note("one"), null);
    const { verifierKey } = first.status();
    await first.close();
    const second = await fixture.open();
    expect(second.status()).toMatchObject({ size: 3, checkpointSize: 2, verifierKey });
    await second.close();
    const [, , opened] = await entriesOf(fixture.directory);
    expect(opened?.entry).toMatchObject({ type: "ledger.opened", size: 2 });
  });

  test("after a crash keeps the tail, cuts off an unfinished write, and records it", async () => {
    const first = await fixture.open();
    await first.record(note("kept", "with payload"), null);
    const [segment] = readdirSync(join(fixture.directory, "wal"));
    const path = join(fixture.directory, "wal", segment ?? "");
    writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from([0xff, 0x50, 0x42, 0x31, 0, 0])]));
    const second = await fixture.open();
    await second.close();
    const entries = await entriesOf(fixture.directory);
    expect(entries.map(({ entry }) => entry.type)).toEqual(["ledger.opened", "node.stopped", "ledger.recovered"]);
    expect(entries[2]?.entry).toMatchObject({ checkpoint: 0, entries: 2, tornBytes: 6 });
  });

  test("refuses a log whose acknowledged entries are damaged", async () => {
    const first = await fixture.open();
    await first.record(note("one"), null);
    await first.record(note("two"), null);
    const [segment] = readdirSync(join(fixture.directory, "wal"));
    const path = join(fixture.directory, "wal", segment ?? "");
    const bytes = readFileSync(path);
    const at = bytes.indexOf("one");
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    await expect(fixture.open()).rejects.toMatchObject({ code: "ledger.corrupt" });
    // Nothing was cut off by the refusal.
    expect(readFileSync(path)).toEqual(bytes);
  });

  test("refuses to begin a new log in place of one that is gone", async () => {
    await (await fixture.open()).close();
    rmSync(fixture.directory, { recursive: true });
    await expect(fixture.open()).rejects.toMatchObject({ code: "ledger.corrupt" });
  });

  test("refuses to go on with another key, or none", async () => {
    await (await fixture.open()).close();
    writeFileSync(join(fixture.keysDirectory, "signing.seed"), `${Buffer.alloc(32, 9).toString("base64")}\n`);
    await expect(fixture.open()).rejects.toMatchObject({ code: "ledger.corrupt" });
    rmSync(join(fixture.keysDirectory, "signing.seed"));
    await expect(fixture.open()).rejects.toMatchObject({ code: "ledger.keys" });
    writeFileSync(join(fixture.keysDirectory, "signing.seed"), "short\n");
    await expect(fixture.open()).rejects.toMatchObject({ code: "ledger.keys" });
  });

  test("refuses another log's name", async () => {
    await (await fixture.open()).close();
    await expect(fixture.open({ origin: "unit.example/other" })).rejects.toMatchObject({ code: "ledger.corrupt" });
  });

  test("a second opening while the first lives is refused", async () => {
    const alive = new Set(["1-alive", "2-alive"]);
    const claimant = (name: string) => ({ name, isAlive: (other: string) => alive.has(other) });
    const first = await fixture.open({ claimant: claimant("1-alive") });
    await expect(fixture.open({ claimant: claimant("2-alive") })).rejects.toMatchObject({ code: "ledger.locked" });
    alive.delete("1-alive");
    const second = await fixture.open({ claimant: claimant("2-alive") });
    await second.close();
    await first.close();
  });
});

describe("files and keys", () => {
  test("are readable by their owner only", async () => {
    await (await fixture.open()).close();
    for (const item of readdirSync(fixture.root, { recursive: true, withFileTypes: true })) {
      const mode = statSync(join(item.parentPath, item.name)).mode & 0o777;
      expect({ name: item.name, mode }).toEqual({ name: item.name, mode: item.isDirectory() ? 0o700 : 0o600 });
    }
  });

  test("a read-only directory stops the opening with what to do about it", async () => {
    await (await fixture.open()).close();
    const setEuid = process.seteuid;
    const isRoot = process.geteuid?.() === 0;
    // Root may write anywhere, so the test is somebody else for a moment.
    const other = mkdirSync(join(fixture.root, "elsewhere"), { mode: 0o755 });
    chmodSync(fixture.root, 0o755);
    chmodSync(other ?? fixture.root, 0o555);
    if (isRoot) {
      setEuid?.(65_534);
    }
    try {
      const directory = join(fixture.root, "elsewhere", "log");
      const error: unknown = await fixture.open({ directory }).catch((cause: unknown) => cause);
      expect(error).toBeInstanceOf(SallyportError);
      expect(error).toMatchObject({ code: "ledger.unavailable", whose: "gateway" });
      expect(error instanceof SallyportError && error.nextStep).toContain("writable");
    } finally {
      if (isRoot) {
        setEuid?.(0);
      }
    }
  });
});

describe("payloads", () => {
  test("are read back with the keys, checked field by field, and are nowhere in clear text", async () => {
    const ledger = await fixture.open();
    await ledger.record(note("in the tree", "secret text one"), null);
    await ledger.checkpoint();
    await ledger.record(note("in the tail", "secret text two"), null);
    const keys = await readPayloadKeys(fixture.keysDirectory);
    const entries = await entriesOf(fixture.directory);
    const texts: (string | undefined)[] = [];
    for (const read of entries.slice(1)) {
      const opened = await openPayload(read, keys);
      texts.push(opened.ok ? opened.fields.get("text")?.text : opened.reason);
    }
    expect(texts).toEqual(["secret text one", "secret text two"]);
    for (const item of readdirSync(fixture.root, { recursive: true, withFileTypes: true })) {
      if (item.isFile()) {
        expect(readFileSync(join(item.parentPath, item.name)).includes("secret text")).toBe(false);
      }
    }
    await ledger.close();
  });

  test("more data keys than are kept in memory stay usable", async () => {
    const ledger = await fixture.open();
    const names = Array.from({ length: 2060 }, (_, i) => `ses_${i}`);
    await Promise.all(names.map((name) => ledger.openDataKey(name)));
    const drafts = ["ses_0", "node", "ses_2059"].map((key) => ({
      ...note(key),
      payload: { key, fields: { text: key } },
    }));
    await Promise.all(drafts.map((draft) => ledger.record(draft, null)));
    await ledger.close();
    const keys = await readPayloadKeys(fixture.keysDirectory);
    for (const read of (await entriesOf(fixture.directory)).slice(1)) {
      const opened = await openPayload(read, keys);
      expect(opened.ok && opened.fields.get("text")?.text).toBe(read.entry.payload?.key);
    }
  });

  test("destroying a data key is recorded, lasts, and leaves every proof as it was", async () => {
    const ledger = await fixture.open();
    await ledger.openDataKey("ses_gone");
    const draft = { ...note("erased"), payload: { key: "ses_gone", fields: { text: "personal" } } };
    const { index } = await ledger.record(draft, null);
    await ledger.destroyDataKey("ses_gone");
    await expect(ledger.record(draft, null)).rejects.toMatchObject({ code: "invariant" });
    await ledger.close();
    expect(existsSync(join(fixture.keysDirectory, "data", "ses_gone.key"))).toBe(false);
    const reader = await readLedger(fixture.directory);
    const [read] = await Array.fromAsync(reader.entries({ from: index, to: index + 1 }));
    const opened = read === undefined ? null : await openPayload(read, await readPayloadKeys(fixture.keysDirectory));
    expect(opened).toMatchObject({ ok: false });
    expect((await reader.inclusionProof(index)).startsWith("c2sp.org/tlog-proof@v1\n")).toBe(true);
    const types = (await entriesOf(fixture.directory)).map(({ entry }) => entry.type);
    expect(types).toEqual(["ledger.opened", "node.stopped", "payload.destroyed"]);
  });
});
