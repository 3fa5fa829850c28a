import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { verifyLedgerDirectory } from "#evidence/verify.ts";
import type { LedgerVerification } from "#evidence/verify.ts";
import { judgeEntry } from "#evidence/verify-shapes.ts";
import { canonicalJson } from "#ledger/entry.ts";
import type { OpenLedger } from "#ledger/append.ts";
import { signCheckpoint } from "#tlog/checkpoint.ts";
import { leafHash } from "#tlog/hash.ts";
import { noteSigner } from "#tlog/note.ts";
import { encodeBundle } from "#tlog/tile.ts";
import { rootOfHashes } from "#tlog/tree.ts";

import { testSeed } from "../../support/seed.ts";
import { ids, ledgerFixture, note, recordCommand } from "./ledger-fixture.ts";
import type { LedgerFixture } from "./ledger-fixture.ts";

/** A log with everything in it: full and partial tiles, payloads, commands, and a tail that is not integrated. */
let fixture: LedgerFixture;
let ledger: OpenLedger;
let key: string;
/** The log as a crash would leave it. */
let crashed: string;
/** The log after a clean close. */
let closed: string;
/** A copy for a test to damage. */
let copy: string;
let openIntent: number;

beforeAll(async () => {
  fixture = ledgerFixture();
  ledger = await fixture.open();
  key = ledger.status().verifierKey;
  await Promise.all(
    Array.from({ length: 590 }, (_, i) => ledger.record(note(`n${i}`, i % 7 === 0 ? `text ${i}` : undefined), i)),
  );
  await ledger.checkpoint();
  await recordCommand(ledger, true);
  openIntent = await recordCommand(ledger, false);
  await ledger.checkpoint();
  await recordCommand(ledger, true);
  await ledger.record(note("tail", "text in the tail"), null);
  crashed = join(fixture.root, "crashed");
  cpSync(fixture.directory, crashed, { recursive: true });
  await ledger.close();
  closed = fixture.directory;
  copy = join(fixture.root, "copy");
});
afterAll(() => fixture.remove());

const verify = (directory: string, verifierKey = key): Promise<LedgerVerification> =>
  verifyLedgerDirectory({ directory, verifierKey });

function filesOf(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((item) => item.isFile())
    .map((item) => relative(directory, join(item.parentPath, item.name)))
    .filter((path) => !path.startsWith("lock/"))
    .toSorted();
}

function flip(file: string, at: number, mask: number): void {
  const bytes = readFileSync(file);
  bytes[at] = (bytes[at] ?? 0) ^ mask;
  writeFileSync(file, bytes);
}

/** Numbers from a seed: which byte to change. */
function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0);
}

describe("a log that nobody touched", () => {
  test("after a clean close is intact and complete, and lists what it covers", async () => {
    const result = await verify(closed);
    expect(result).toMatchObject({ integrity: "intact", completeness: "complete", faults: [], filesNotCovered: [] });
    expect(result.files).toEqual(filesOf(closed));
    expect([result.checkpointSize, result.size]).toEqual([600, 600]);
    expect(result.mayHaveRun).toEqual([{ index: openIntent, type: "command.intent" }]);
  });

  test("after a crash is intact, complete, and says which entries nothing signs yet", async () => {
    const result = await verify(crashed);
    expect(result).toMatchObject({ integrity: "intact", completeness: "complete", faults: [] });
    expect([result.checkpointSize, result.size]).toEqual([596, 600]);
    expect(result.files).toEqual(filesOf(crashed));
    expect(result.filesNotCovered).toHaveLength(1);
    expect(result.unsigned.entries).toBe(4);
    expect(result.notices).toEqual([expect.stringMatching(/^4 entries are durable but not signed yet/)]);
  });

  test("with nothing in it yet verifies too", async () => {
    const empty = ledgerFixture();
    const begun = await empty.open();
    const result = await verify(empty.directory, begun.status().verifierKey);
    expect(result).toMatchObject({ integrity: "intact", completeness: "complete", checkpointSize: 0, size: 1 });
    await begun.close();
    empty.remove();
  });
});

describe("a changed byte", () => {
  test.each(["closed", "crashed"])("in any file of a log that was %s is found, and in that file", async (which) => {
    const source = which === "closed" ? closed : crashed;
    const next = numbers(testSeed);
    const covered = filesOf(source);
    expect(covered.length).toBeGreaterThan(9);
    for (const file of covered) {
      const { length } = readFileSync(join(source, file));
      // The first and the last bytes, the places of every kind of header near the start, and random ones.
      const places = new Set([0, 1, 7, 8, 12, 16, 20, 24, 28, 31, 32, 36, length - 1, length - 20]);
      for (let i = 0; i < 14; i++) {
        places.add(next() % length);
      }
      for (const at of [...places].filter((place) => place >= 0 && place < length)) {
        cpSync(source, copy, { recursive: true });
        flip(join(copy, file), at, 1 + (next() % 255));
        const result = await verify(copy);
        const where = { file, at };
        expect({ ...where, found: result.faultCount > 0 }).toEqual({ ...where, found: true });
        expect({ ...where, files: [...new Set(result.faults.map((fault) => fault.file))] }).toEqual({
          ...where,
          files: [file],
        });
        rmSync(copy, { recursive: true });
      }
    }
  });

  test("is located at its entry and near its byte", async () => {
    cpSync(closed, copy, { recursive: true });
    const bundle = join(copy, "tile/entries/001");
    const at = readFileSync(bundle).indexOf('"n300"');
    flip(bundle, at + 2, 1);
    const { faults, integrity } = await verify(copy);
    rmSync(copy, { recursive: true });
    const [fault, ...more] = faults;
    expect(integrity).toBe("broken");
    expect(more).toEqual([]);
    expect(fault).toMatchObject({ verdict: "integrity", file: "tile/entries/001", entry: 301 });
    expect(at - (fault?.byte ?? 0)).toBeGreaterThan(0);
    expect(at - (fault?.byte ?? 0)).toBeLessThan(200);
  });
});

describe("re-signing", () => {
  /** Replaces entry 3 and makes every tile and the checkpoint fit it, as an operator with another key would. */
  function rewrite(directory: string, seed: number): void {
    const path = join(directory, "tile/entries/002.p/88");
    const leaves: Buffer[] = [];
    for (const file of ["tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"]) {
      const bytes = readFileSync(join(directory, file));
      for (let at = 0; at < bytes.length; at += 2 + bytes.readUInt16BE(at)) {
        leaves.push(bytes.subarray(at + 2, at + 2 + bytes.readUInt16BE(at)));
      }
    }
    const changed = leaves.with(598, Buffer.from(leaves[598]?.toString("utf8").replace("1", "2") ?? ""));
    const hashes = changed.map(leafHash);
    writeFileSync(path, encodeBundle(changed.slice(512)));
    writeFileSync(join(directory, "tile/0/002.p/88"), Buffer.concat(hashes.slice(512)));
    const signer = noteSigner("unit.example/log", Buffer.alloc(32, seed));
    const checkpoint = { origin: signer.name, size: 600, root: rootOfHashes(hashes), extensions: [] };
    writeFileSync(join(directory, "checkpoint"), signCheckpoint(checkpoint, [signer]));
  }

  beforeEach(() => cpSync(closed, copy, { recursive: true }));
  afterEach(() => rmSync(copy, { recursive: true }));

  test("a changed log with another key is refused, though it verifies with that key", async () => {
    rewrite(copy, 77);
    const result = await verify(copy);
    expect(result.integrity).toBe("broken");
    expect(result.faults).toMatchObject([{ file: "checkpoint" }]);
    const own = noteSigner("unit.example/log", Buffer.alloc(32, 77)).verifierKey;
    expect((await verify(copy, own)).faults.filter((fault) => fault.file === "checkpoint")).toEqual([]);
  });

  test("tiles rewritten to fit a changed entry do not fit the signed root", async () => {
    const signed = readFileSync(join(copy, "checkpoint"));
    rewrite(copy, 77);
    writeFileSync(join(copy, "checkpoint"), signed);
    const result = await verify(copy);
    expect(result).toMatchObject({ integrity: "broken" });
    expect(result.faults.map((fault) => fault.file)).toContain("checkpoint");
  });

  test("a key that is none is an error, not a verdict", async () => {
    await expect(verify(copy, "unit.example/log+00000000+AAAA")).rejects.toThrow(RangeError);
  });
});

describe("missing, cut and added files", () => {
  beforeEach(() => cpSync(crashed, copy, { recursive: true }));
  afterEach(() => rmSync(copy, { recursive: true }));

  test("a missing file is found, whichever it is", async () => {
    for (const file of filesOf(crashed).filter((path) => !path.startsWith("wal/"))) {
      renameSync(join(copy, file), join(fixture.root, "aside"));
      const result = await verify(copy);
      expect({ file, completeness: result.completeness }).toEqual({ file, completeness: "incomplete" });
      mkdirSync(dirname(join(copy, file)), { recursive: true });
      renameSync(join(fixture.root, "aside"), join(copy, file));
    }
    expect((await verify(copy)).faults).toEqual([]);
  });

  test("a file cut short is found, whichever it is and wherever it ends", async () => {
    const next = numbers(testSeed + 1);
    for (const file of filesOf(crashed)) {
      const bytes = readFileSync(join(crashed, file));
      // A segment cut exactly between two writes is whole; only a witness sees that its end is gone.
      const cuts = file.startsWith("wal/") ? [bytes.length - 1, 5] : [0, bytes.length - 1, next() % bytes.length];
      for (const cut of cuts) {
        writeFileSync(join(copy, file), bytes.subarray(0, cut));
        const result = await verify(copy);
        expect({ file, cut, found: result.faultCount > 0 }).toEqual({ file, cut, found: true });
        expect({ file, cut, files: result.faults.map((fault) => fault.file) }).toEqual({
          file,
          cut,
          files: result.faults.map(() => file),
        });
      }
      writeFileSync(join(copy, file), bytes);
    }
  });

  test("a file that goes on is found, whichever it is", async () => {
    for (const file of filesOf(crashed)) {
      const bytes = readFileSync(join(crashed, file));
      appendFileSync(join(copy, file), Buffer.alloc(40, 0x7b));
      const result = await verify(copy);
      expect({ file, files: [...new Set(result.faults.map((fault) => fault.file))] }).toEqual({ file, files: [file] });
      writeFileSync(join(copy, file), bytes);
    }
  });

  test("a file that does not belong to the log is found", async () => {
    for (const file of [
      "notes.txt",
      "tile/0/009",
      "tile/entries/003",
      "tile/5/000",
      "payload/0000000000000700.payload",
    ]) {
      writeFileSync(join(copy, file === "tile/5/000" ? "tile/0/777" : file), "surplus");
    }
    symlinkSync("/etc/hostname", join(copy, "tile/0/555"));
    const { faults } = await verify(copy);
    expect(faults.map((fault) => fault.file).toSorted()).toEqual(
      [
        "notes.txt",
        "payload/0000000000000700.payload",
        "tile/0/009",
        "tile/0/555",
        "tile/0/777",
        "tile/entries/003",
      ].toSorted(),
    );
  });

  test("what an interrupted publication leaves is no fault, unless it is not what the entries make", async () => {
    // The partial tile that the last publication replaced, and the draft of the next checkpoint.
    const partial = readFileSync(join(copy, "tile/0/002.p/84"));
    const next = readFileSync(join(closed, "tile/0/002.p/88"));
    writeFileSync(join(copy, "tile/0/002.p/79"), partial.subarray(0, 79 * 32));
    writeFileSync(join(copy, "tile/0/002.p/88"), next);
    writeFileSync(
      join(copy, "tile/entries/002.p/88"),
      readFileSync(join(closed, "tile/entries/002.p/88")).subarray(0, 900),
    );
    writeFileSync(join(copy, "checkpoint.new"), "half a checkp");
    const result = await verify(copy);
    expect(result.faults).toEqual([]);
    expect(result.filesNotCovered).toContain("checkpoint.new");
    for (const file of ["tile/0/002.p/79", "tile/0/002.p/88", "tile/entries/002.p/88"]) {
      flip(join(copy, file), 40, 4);
      expect((await verify(copy)).faults.map((fault) => fault.file)).toEqual([file]);
      flip(join(copy, file), 40, 4);
    }
  });
});

describe("payloads", () => {
  test("missing ones are a fault, unless the log says that their key was destroyed", async () => {
    const own = ledgerFixture();
    const writer = await own.open();
    await writer.openDataKey("ses_x");
    const draft = { ...note("a"), payload: { key: "ses_x", fields: { text: "to go" } } };
    await writer.record(draft, null);
    await writer.checkpoint();
    const ownKey = writer.status().verifierKey;
    const [file] = readdirSync(join(own.directory, "payload"));
    renameSync(join(own.directory, "payload", file ?? ""), join(own.root, "aside"));
    const lost = await verify(own.directory, ownKey);
    expect(lost).toMatchObject({ integrity: "intact", completeness: "incomplete", payloadsDestroyed: 0 });
    expect(lost.faults).toMatchObject([{ entry: 1 }]);
    await writer.destroyDataKey("ses_x");
    await writer.checkpoint();
    const destroyed = await verify(own.directory, ownKey);
    expect(destroyed).toMatchObject({
      integrity: "intact",
      completeness: "complete",
      payloadsDestroyed: 1,
      faults: [],
    });
    await writer.close();
    own.remove();
  });

  test("two that changed places are found", async () => {
    cpSync(closed, copy, { recursive: true });
    const [file] = readdirSync(join(copy, "payload"));
    const path = join(copy, "payload", file ?? "");
    const bytes = readFileSync(path);
    const first = 12 + bytes.readUInt32BE(8);
    const second = first + 12 + bytes.readUInt32BE(first + 8);
    writeFileSync(
      path,
      Buffer.concat([bytes.subarray(first, second), bytes.subarray(0, first), bytes.subarray(second)]),
    );
    const { integrity, completeness } = await verify(copy);
    expect([integrity, completeness]).not.toEqual(["intact", "complete"]);
    rmSync(copy, { recursive: true });
  });
});

describe("what entries say of one another", () => {
  /** Records through the real ledger what no honest gateway would, and verifies. */
  async function faultsOf(write: (writer: OpenLedger) => Promise<void>): Promise<readonly string[]> {
    const own = ledgerFixture();
    const writer = await own.open();
    await write(writer);
    await writer.close();
    const { faults } = await verify(own.directory, writer.status().verifierKey);
    own.remove();
    return faults.map((fault) => fault.words);
  }

  const callIntent = (call = ids("call"), run = ids("run")) =>
    ({
      type: "call.intent",
      call,
      run,
      principal: ids("prn"),
      grant: ids("grt"),
      task: ids("tsk"),
      method: "tools/call",
      tool: "query",
    }) as const;
  const outcomeOf = (intent: number, { call, run }: ReturnType<typeof callIntent>) =>
    ({ type: "call.outcome", call, run, intent, status: "ok", bytes: 1, durationUs: 1 }) as const;

  test("an outcome of its own earlier intent is in order", async () => {
    const faults = await faultsOf(async (writer) => {
      const entry = callIntent();
      const { index } = await writer.record({ entry }, null);
      await writer.record({ entry: outcomeOf(index, entry) }, null);
    });
    expect(faults).toEqual([]);
  });

  test("an outcome that names a later entry, another kind of entry, or another's intent is found", async () => {
    const faults = await faultsOf(async (writer) => {
      const entry = callIntent();
      await writer.record({ entry: outcomeOf(7, entry) }, null);
      await writer.record({ entry: outcomeOf(0, entry) }, null);
      const { index } = await writer.record({ entry }, null);
      await writer.record({ entry: outcomeOf(index, callIntent()) }, null);
    });
    expect(faults).toHaveLength(3);
    expect(faults[0]).toContain("it names entry 7, which is not an earlier call.intent");
    expect(faults[1]).toContain("it names entry 0, which is not an earlier call.intent");
    expect(faults[2]).toContain("whose ids are others");
  });

  test("a command of a session that was not opened so is found", async () => {
    const faults = await faultsOf(async (writer) => {
      const intent = await recordCommand(writer, true);
      const entry = {
        type: "cancel.requested",
        count: 1,
        known: true,
        session: {
          id: ids("ses"),
          entry: intent - 1,
          principal: ids("prn"),
          onBehalfOf: null,
          grant: ids("grt"),
          task: ids("tsk"),
          resource: ids("res"),
        },
      } as const;
      await writer.record({ entry }, null);
    });
    expect(faults).toHaveLength(1);
    expect(faults[0]).toContain("its session is not the one");
  });

  test("an entry with a field too many or of another kind is found", async () => {
    const faults = await faultsOf(async (writer) => {
      const surplus = { type: "node.stopped", reason: "x", surplus: 1 } as const;
      await writer.record({ entry: surplus }, null);
      await writer.record({ entry: { ...callIntent(), tool: "t", method: "m" } }, null);
    });
    expect(faults).toEqual([expect.stringContaining('its field "surplus" is missing, unknown or malformed')]);
  });
});

describe("single entries", () => {
  const good = { v: 1, type: "node.stopped", at: "2026-01-02T03:04:05.678Z", mono: 1, reason: "r" };
  const judge = (value: unknown): string | null => {
    const judged = judgeEntry(Buffer.from(typeof value === "string" ? value : canonicalJson(value), "utf8"));
    return judged.ok ? null : judged.reason;
  };

  const withPayload = (more: object): object => ({
    ...good,
    commitments: { text: "A".repeat(43) },
    payload: { key: "node", hash: "A".repeat(43), bytes: 1, ...more },
  });

  test("a good one passes", () => {
    expect(judge(good)).toBeNull();
    expect(judge(withPayload({}))).toBeNull();
    expect(judge(withPayload({ scrubbed: { text: 2 } }))).toBeNull();
  });

  test.each([
    ["not JSON", "{"],
    ["another spelling", `${canonicalJson(good)} `],
    ["names out of order", '{"v":1,"type":"node.stopped","reason":"r","mono":1,"at":"2026-01-02T03:04:05.678Z"}'],
    ["a name twice", `${canonicalJson(good).slice(0, -1)},"v":1}`],
    ["another version", { ...good, v: 2 }],
    ["an unknown type", { ...good, type: "node.paused" }],
    ["a type of Object's own", { ...good, type: "constructor" }],
    ["no time", { ...good, at: undefined }],
    ["a time that is none", { ...good, at: "2026-02-31T00:00:00.000Z" }],
    ["a field too few", { ...good, reason: undefined }],
    ["a payload without commitments", { ...good, payload: { key: "node", hash: "A".repeat(43), bytes: 1 } }],
    ["a field scrubbed that is not committed to", withPayload({ scrubbed: { other: 1 } })],
    ["a field scrubbed of nothing", withPayload({ scrubbed: { text: 0 } })],
    ["no field scrubbed, and said so", withPayload({ scrubbed: {} })],
    ["a payload with a field too many", withPayload({ scrub: { text: 1 } })],
    ["commitments without a payload", { ...good, commitments: { text: "A".repeat(43) } }],
    ["a list", [good]],
    ["null", null],
  ])("%s is refused", (_, value) => {
    expect(judge(value)).not.toBeNull();
  });

  test("bytes that are not UTF-8 are refused", () => {
    expect(judgeEntry(Buffer.from([0x7b, 0xff, 0x7d])).ok).toBe(false);
  });
});
