/** Somebody who can write to the log's directory and has none of its keys. */
import { createSecretKey } from "node:crypto";
import {
  appendFileSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { verifyLedgerDirectory } from "#evidence/verify.ts";
import { encodeBatch, encodeSegmentHead } from "#ledger/frame.ts";
import { readLedger } from "#ledger/reader.ts";
import { noteSigner, signNote } from "#tlog/note.ts";

import { ledgerFixture, note, seededBytes } from "../../unit/ledger/ledger-fixture.ts";
import type { LedgerFixture } from "../../unit/ledger/ledger-fixture.ts";

let fixture: LedgerFixture;
let verifierKey: string;
beforeEach(() => {
  fixture = ledgerFixture();
});
afterEach(() => fixture.remove());

function keep(name: string): string {
  const copy = join(fixture.root, name);
  cpSync(fixture.directory, copy, { recursive: true });
  return copy;
}

function putBack(copy: string): void {
  rmSync(fixture.directory, { recursive: true });
  cpSync(copy, fixture.directory, { recursive: true });
}

function bytesOf(directory: string): ReadonlyMap<string, string> {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((item) => item.isFile());
  const paths = files.map((item) => join(item.parentPath, item.name)).filter((path) => !path.includes("/lock/"));
  return new Map(paths.map((path) => [path.slice(directory.length), readFileSync(path, "base64")]));
}

/** Records `entries` entries and publishes them, then ends as a killed process does. */
async function live(entries: number, name: string, tail = 0): Promise<void> {
  const ledger = await fixture.open();
  ({ verifierKey } = ledger.status());
  for (let i = 0; i < entries; i++) {
    await ledger.record(note(`${name} ${i}`, i % 2 === 0 ? `payload of ${i}` : undefined), null);
  }
  await ledger.checkpoint();
  for (let i = 0; i < tail; i++) {
    await ledger.record(note(`${name} tail ${i}`, "payload"), null);
  }
}

/** What the log says, from `from` on, with one word in it changed. */
async function editedEntries(directory: string, from: number, entry: string, by: string): Promise<readonly string[]> {
  const texts: string[] = [];
  for await (const { bytes } of (await readLedger(directory)).entries({ from })) {
    texts.push(Buffer.from(bytes).toString("utf8").replace(entry, by));
  }
  return texts;
}

/** A segment as only its format asks for: the attacker has a key of his own for what needs one. */
function forgedSegment(sequence: number, opening: number, first: number, texts: readonly string[]): Uint8Array {
  const { bytes, chain } = encodeSegmentHead({ sequence, opening }, createSecretKey(Buffer.alloc(32, 0x66)));
  const records = texts.map((entryText) => ({
    entryText,
    entryBytes: Buffer.byteLength(entryText),
    payload: null,
  }));
  return Buffer.concat([bytes, encodeBatch(first, records, chain).bytes]);
}

const segments = (): readonly string[] => readdirSync(join(fixture.directory, "wal"));
const segmentPath = (name: string | undefined): string => join(fixture.directory, "wal", name ?? "");

/** The start is refused, in words that say what to do, and changes nothing. */
async function expectRefusal(words: RegExp, code = "ledger.corrupt"): Promise<void> {
  const before = bytesOf(fixture.directory);
  await expect(fixture.open()).rejects.toMatchObject({
    code,
    whose: "gateway",
    message: expect.stringMatching(words),
    nextStep: expect.stringMatching(/copy/),
  });
  expect(bytesOf(fixture.directory)).toEqual(before);
}

describe("a hand-made tail", () => {
  test("of whatever length is refused by the node, and never signed", async () => {
    await live(4, "true", 3);
    const { size } = (await readLedger(fixture.directory)).checkpoint;
    const texts = await editedEntries(fixture.directory, size, "true tail 1", "never was");
    const [name] = segments();
    const signed = readFileSync(join(fixture.directory, "checkpoint"));
    for (const some of [texts, texts.slice(0, 1), [...texts, ...texts.slice(0, 1)]]) {
      writeFileSync(segmentPath(name), forgedSegment(2, 1, size, some));
      await expectRefusal(/did not write/);
      expect(readFileSync(join(fixture.directory, "checkpoint"))).toEqual(signed);
    }
  });

  test("after an older copy of the directory is refused too", async () => {
    await live(4, "early");
    const old = keep("old");
    await live(9, "late");
    const texts = await editedEntries(fixture.directory, 5, "late 3", "never was");
    putBack(old);
    for (const name of segments()) {
      rmSync(segmentPath(name));
    }
    writeFileSync(segmentPath("0000000000000001.wal"), forgedSegment(1, 1, 5, texts));
    await expectRefusal(/did not write/);
  });

  test("is not vouched for by the offline verifier, and its result says so", async () => {
    await live(4, "true", 3);
    const { size } = (await readLedger(fixture.directory)).checkpoint;
    const texts = await editedEntries(fixture.directory, size, "true tail 1", "never was");
    writeFileSync(segmentPath(segments()[0]), forgedSegment(2, 1, size, texts));
    const found = await verifyLedgerDirectory({ directory: fixture.directory, verifierKey });
    expect(found).toMatchObject({ checkpointSize: 5, size: 8, unsigned: { entries: 3 } });
    expect(found.notices).toEqual([
      expect.stringMatching(/^3 entries are durable but not signed yet\..*only by the node/),
    ]);
  });

  test("that spans a long time is pointed out", async () => {
    await live(2, "true", 2);
    const [first = "", second = ""] = await editedEntries(fixture.directory, 3, "", "");
    const later = second.replace(/"at":"[^"]+"/, '"at":"2026-01-01T03:00:00.000Z"');
    writeFileSync(segmentPath(segments()[0]), forgedSegment(2, 1, 3, [first, later].map(withoutPayload)));
    const found = await verifyLedgerDirectory({ directory: fixture.directory, verifierKey });
    expect(found.faults).toEqual([]);
    expect(found.unsigned).toMatchObject({ entries: 2, newestAt: "2026-01-01T03:00:00.000Z" });
    expect(found.notices[1]).toMatch(/span 10\d{3} seconds by their own times/);
  });

  test("with batches left out, moved or repeated is refused, and a torn last write is not", async () => {
    await live(4, "true", 4);
    const whole = keep("whole");
    const [name = ""] = segments();
    const bytes = readFileSync(segmentPath(name));
    const magic = Buffer.from("ff504231", "hex");
    const starts: number[] = [];
    for (let at = bytes.indexOf(magic); at >= 0; at = bytes.indexOf(magic, at + 1)) {
      starts.push(at);
    }
    expect(starts).toHaveLength(4);
    const head = bytes.subarray(0, starts[0]);
    const batches = starts.map((start, i) => bytes.subarray(start, starts[i + 1]));
    const pick = (...which: readonly number[]): Uint8Array =>
      Buffer.concat([head, ...which.map((i) => batches[i] ?? head)]);
    for (const changed of [pick(0, 2, 3), pick(1, 0, 2, 3), pick(0, 1, 1, 2, 3), pick(0, 0), pick(3)]) {
      writeFileSync(segmentPath(name), changed);
      await expectRefusal(/did not write/);
    }
    putBack(whole);
    writeFileSync(segmentPath(name), bytes.subarray(0, -1));
    const ledger = await fixture.open();
    expect(ledger.status().size).toBe(5 + 3 + 1);
    await ledger.close();
  });
});

/** An entry that names no payload, since the attacker cannot make one. */
function withoutPayload(text: string): string {
  return text.replace(/"commitments":\{[^}]*\},/, "").replace(/"payload":\{[^}]*\},/, "");
}

describe("an older copy", () => {
  test("of the whole directory, after a crash or a clean close, is refused", async () => {
    await live(4, "early", 2);
    const crashed = keep("crashed");
    const second = await fixture.open();
    await second.record(note("late"), null);
    await second.close();
    const closed = keep("closed");
    const third = await fixture.open();
    await third.record(note("latest"), null);
    await third.close();
    putBack(closed);
    await expectRefusal(/an older copy, of 9 entries, and this node has signed a tree of 11/);
    putBack(crashed);
    await expectRefusal(/an older copy: the last start did not find/);
    for (const name of segments()) {
      rmSync(segmentPath(name));
    }
    await expectRefusal(/an older copy, of 5 entries/);
  });

  test("of a segment, from before the last recovery, is refused", async () => {
    await live(4, "early", 3);
    const old = keep("old");
    // The tail is cut off while the node is down, and the node goes on without it.
    const [name = ""] = readdirSync(join(old, "wal"));
    const bytes = readFileSync(segmentPath(name));
    writeFileSync(segmentPath(name), bytes.subarray(0, bytes.lastIndexOf(Buffer.from("ff504231", "hex"))));
    await fixture.open();
    // Now it has published seven entries, and recorded another one at the place of the one that was cut off.
    for (const segment of segments()) {
      rmSync(segmentPath(segment));
    }
    cpSync(join(old, "wal", name), segmentPath(name));
    await expectRefusal(/an older copy: the last start did not find/);
  });

  test("that a node with the same keys has continued differently is refused", async () => {
    await live(4, "common");
    const start = keep("start");
    const keys = join(fixture.root, "kept-keys");
    cpSync(fixture.keysDirectory, keys, { recursive: true });
    const own = await fixture.open();
    await own.record(note("own"), null);
    await own.close();
    const forks: string[] = [];
    for (const entries of [1, 5]) {
      const directory = join(fixture.root, `fork-${entries}`);
      const keysDirectory = join(fixture.root, `fork-keys-${entries}`);
      cpSync(start, directory, { recursive: true });
      cpSync(keys, keysDirectory, { recursive: true });
      const fork = await fixture.open({ directory, keysDirectory, randomBytes: seededBytes("fork") });
      for (let i = 0; i < entries; i++) {
        await fork.record(note(`fork ${i}`), null);
      }
      await fork.close();
      forks.push(directory);
    }
    for (const fork of forks) {
      putBack(fork);
      await expectRefusal(/are not the ones that this node has signed/);
    }
  });

  test("of the note of the newest checkpoint does no harm, and a missing or damaged one is refused", async () => {
    await live(300, "early");
    const path = join(fixture.keysDirectory, "log.newest");
    const older = readFileSync(path);
    await (await fixture.open()).close();
    const newest = readFileSync(path);
    writeFileSync(path, older);
    await (await fixture.open()).close();
    rmSync(path);
    await expectRefusal(/is missing/, "ledger.keys");
    writeFileSync(path, newest.subarray(0, -3));
    await expectRefusal(/is damaged/, "ledger.keys");
  });
});

describe("files that do not belong", () => {
  const magicOnly = Buffer.from("SPWAL002", "latin1");

  test.each(["9999999999999999.wal", "0000000000000000.wal", "1.wal", "notes"])(
    "a segment named %s is refused by the verifier and by the node alike",
    async (name) => {
      await live(3, "true", 1);
      writeFileSync(segmentPath(name), magicOnly);
      const found = await verifyLedgerDirectory({ directory: fixture.directory, verifierKey });
      expect(found).toMatchObject({ integrity: "broken", faults: [{ file: `wal/${name}` }] });
      await expectRefusal(/is not a segment/);
    },
  );

  test("a segment under another's name is refused by both", async () => {
    await live(3, "true", 1);
    const [name = ""] = segments();
    renameSync(segmentPath(name), segmentPath("0000000000000044.wal"));
    const found = await verifyLedgerDirectory({ directory: fixture.directory, verifierKey });
    expect(found).toMatchObject({ integrity: "broken", faults: [{ file: "wal/0000000000000044.wal" }] });
    await expectRefusal(/another segment under its name/);
  });

  test("a segment of nothing but its first bytes is an unfinished write to both", async () => {
    const ledger = await fixture.open();
    ({ verifierKey } = ledger.status());
    await ledger.close();
    writeFileSync(segmentPath("0000000000000044.wal"), magicOnly);
    const found = await verifyLedgerDirectory({ directory: fixture.directory, verifierKey });
    expect(found).toMatchObject({ completeness: "incomplete", faults: [{ file: "wal/0000000000000044.wal" }] });
    const again = await fixture.open();
    await again.close();
    expect(existsSync(segmentPath("0000000000000044.wal"))).toBe(false);
  });
});

describe("signature lines on the checkpoint", () => {
  const checkpoint = (): string => join(fixture.directory, "checkpoint");
  const verify = () => verifyLedgerDirectory({ directory: fixture.directory, verifierKey });

  test("that repeat are a fault", async () => {
    await live(3, "true");
    const text = readFileSync(checkpoint(), "utf8");
    appendFileSync(checkpoint(), text.slice(text.lastIndexOf("\u2014")));
    expect(await verify()).toMatchObject({ integrity: "broken", faults: [{ file: "checkpoint" }] });
  });

  test("of unknown keys are ignored, counted and spoken of; repeated, they are a fault", async () => {
    await live(3, "true");
    const body = readFileSync(checkpoint(), "utf8").split("\n\n")[0] ?? "";
    const foreign = signNote(`${body}\n`, [noteSigner("witness.example/w", Buffer.alloc(32, 5))]);
    const line = foreign.slice(foreign.lastIndexOf("\u2014"));
    appendFileSync(checkpoint(), line);
    const found = await verify();
    expect(found).toMatchObject({ integrity: "intact", faults: [], signaturesIgnored: 1 });
    expect(found.notices).toContainEqual(expect.stringMatching(/^1 signature line of the checkpoint .* ignored/));
    appendFileSync(checkpoint(), line);
    expect(await verify()).toMatchObject({
      integrity: "broken",
      signaturesIgnored: 2,
      faults: [{ file: "checkpoint" }],
    });
  });

  test("none beside the log's own are not spoken of", async () => {
    await live(3, "true");
    const ledger = await fixture.open();
    await ledger.close();
    expect(await verify()).toMatchObject({
      signaturesIgnored: 0,
      notices: [],
      unsigned: { entries: 0, oldestAt: null },
    });
  });
});
