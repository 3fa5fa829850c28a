import canonicalize from "canonicalize";
import { createSecretKey } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { canonicalJson } from "#ledger/entry.ts";
import { TreeEdge } from "#ledger/edge.ts";
import { decodeSegment, encodeBatch, encodeSegmentHead } from "#ledger/frame.ts";
import { commitmentOf, sealPayload, unsealPayload, unwrapDataKey, wrapDataKey } from "#ledger/payloads.ts";
import { leafHash } from "#tlog/hash.ts";
import { formatTilePath } from "#tlog/tile.ts";
import { rootOfHashes } from "#tlog/tree.ts";

import { seededBytes } from "./ledger-fixture.ts";

describe("canonical JSON", () => {
  const text = fc.string({ unit: "grapheme", maxLength: 12 });
  const value = fc.letrec((tie) => ({
    node: fc.oneof(
      { maxDepth: 4 },
      text,
      fc.maxSafeInteger(),
      fc.boolean(),
      fc.constant(null),
      fc.array(tie("node"), { maxLength: 5 }),
      fc.dictionary(text, tie("node"), { maxKeys: 6 }),
    ),
  })).node;

  test("is what the canonicalize package makes", () => {
    fc.assert(
      fc.property(value, (v) => {
        expect(canonicalJson(v)).toBe(canonicalize(v));
      }),
      { numRuns: 500 },
    );
  });

  test("sorts names by UTF-16 code units, which is not by code points", () => {
    expect(canonicalJson({ "\u{1f600}": 1, "\ufb33": 2, a: 3, "\r": 4, "1": 5 })).toBe(
      '{"\\r":4,"1":5,"a":3,"\u{1f600}":1,"\ufb33":2}',
    );
  });

  test("leaves out undefined members and refuses what has no one spelling", () => {
    expect(canonicalJson({ a: undefined, b: 1 })).toBe('{"b":1}');
    for (const bad of [0.5, -0, Number.NaN, Infinity, 2 ** 53, 1n, "\udc00", { "\ud800": 1 }, () => 1]) {
      expect(() => canonicalJson(bad)).toThrow(RangeError);
    }
  });
});

describe("write-ahead segments", () => {
  const record = fc.record({
    entry: fc.string({ unit: "grapheme", minLength: 1, maxLength: 60 }),
    payload: fc.option(fc.uint8Array({ minLength: 1, maxLength: 60 })),
  });
  const batches = fc.array(fc.array(record, { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 5 });

  interface Record {
    readonly entry: string;
    readonly payload: Uint8Array | null;
  }

  const key = createSecretKey(Buffer.alloc(32, 3));
  const headBytes = 60;

  function segmentOf(groups: readonly (readonly Record[])[]): { bytes: Buffer; ends: number[]; records: Record[] } {
    const head = encodeSegmentHead({ sequence: 7, opening: 2 }, key);
    let { chain } = head;
    const parts: Uint8Array[] = [head.bytes];
    const ends = [headBytes];
    let index = 0;
    for (const group of groups) {
      const unframed = group.map(({ entry, payload }) => ({
        entryText: entry,
        entryBytes: Buffer.byteLength(entry),
        payload,
      }));
      const batch = encodeBatch(index, unframed, chain);
      const { bytes } = batch;
      chain = batch.chain;
      index += group.length;
      parts.push(bytes);
      ends.push((ends.at(-1) ?? 0) + bytes.length);
    }
    return { bytes: Buffer.concat(parts), ends, records: groups.flat() };
  }

  const plain = (records: readonly Record[]): unknown[] =>
    records.map(({ entry, payload }) => [entry, payload === null ? null : Buffer.from(payload)]);
  const read = (bytes: Uint8Array): unknown[] =>
    decodeSegment(bytes, key).pending.map(({ entry, payload }) => [
      Buffer.from(entry).toString("utf8"),
      payload === null ? null : Buffer.from(payload),
    ]);

  test("read back to what was written, with indexes in order", () => {
    fc.assert(
      fc.property(batches, (groups) => {
        const { bytes, records } = segmentOf(groups);
        const segment = decodeSegment(bytes, key);
        expect(segment).toMatchObject({ head: { sequence: 7, opening: 2 }, end: "clean" });
        expect(read(bytes)).toEqual(plain(records));
        expect(segment.pending.map(({ index }) => index)).toEqual(records.map((_, i) => i));
      }),
    );
  });

  test("cut anywhere, are torn after the last whole batch", () => {
    fc.assert(
      fc.property(batches, fc.nat(), (groups, at) => {
        const { bytes, ends } = segmentOf(groups);
        const cut = at % bytes.length;
        const segment = decodeSegment(bytes.subarray(0, cut), key);
        const wholeBytes = ends.findLast((end) => end <= cut) ?? 0;
        expect(segment).toMatchObject({ wholeBytes, end: ends.includes(cut) ? "clean" : "torn" });
      }),
    );
  });

  test("with a changed byte before the last batch, are corrupt and not torn; in the last one, nothing false is read", () => {
    fc.assert(
      fc.property(batches, fc.nat(), fc.integer({ min: 1, max: 255 }), (groups, at, flip) => {
        const { bytes, ends, records } = segmentOf(groups);
        const place = at % bytes.length;
        bytes[place] = (bytes[place] ?? 0) ^ flip;
        const segment = decodeSegment(bytes, key);
        const last = ends.at(-2) ?? 0;
        expect(segment.end).toBe(place < last ? "corrupt" : "torn");
        expect(plain(records).slice(0, segment.pending.length)).toEqual(read(bytes));
      }),
      { numRuns: 400 },
    );
  });
});

describe("macs of write-ahead segments", () => {
  const key = createSecretKey(Buffer.alloc(32, 3));
  const foreignKey = createSecretKey(Buffer.alloc(32, 4));
  const record = (text: string) => ({ entryText: text, entryBytes: Buffer.byteLength(text), payload: null });

  /** A segment in pieces: its head, then a batch for each text. */
  function piecesOf(texts: readonly string[], by = key, head = { sequence: 1, opening: 1 }): readonly Uint8Array[] {
    const { bytes, chain: first } = encodeSegmentHead(head, by);
    let chain = first;
    const batches = texts.map((text, i) => {
      const batch = encodeBatch(i, [record(text)], chain);
      chain = batch.chain;
      return batch.bytes;
    });
    return [bytes, ...batches];
  }
  const [head = Buffer.alloc(0), a = head, b = head, c = head] = piecesOf(["a", "b", "c"]);
  const [, otherA = head, otherB = head] = piecesOf(["A", "B", "C"]);
  const [nextHead = head] = piecesOf([], key, { sequence: 1, opening: 2 });
  const [, foreignA = head] = piecesOf(["a"], foreignKey);

  test.each<[string, readonly Uint8Array[], number]>([
    ["another's key throughout", piecesOf(["a", "b", "c"], foreignKey), 0],
    ["one batch of another's key", [head, foreignA, b, c], 0],
    ["a batch dropped", [head, a, c], 1],
    ["two batches in another order", [head, b, a, c], 0],
    ["a batch twice", [head, a, b, b, c], 2],
    ["a batch of another segment", [head, a, otherB, c], 1],
    ["its first batch from another segment", [head, otherA, b, c], 1],
    ["the head of another opening", [nextHead, a, b, c], 0],
  ])("%s is found forged from there on", (_, pieces, good) => {
    const bytes = Buffer.concat(pieces);
    const segment = decodeSegment(bytes, key);
    expect(segment.end).toBe("forged");
    expect(segment.pending).toHaveLength(good);
    // Who has no key reads all of it, and must not rely on it.
    expect(decodeSegment(bytes, null).end).toBe("clean");
  });

  test("its batches in place are not", () => {
    expect(decodeSegment(Buffer.concat([head, a, b, c]), key)).toMatchObject({ end: "clean" });
  });

  test("an unfinished mac is a torn write, and not a forgery", () => {
    const bytes = Buffer.concat([head, a, b]);
    bytes.fill(0, bytes.length - 20);
    expect(decodeSegment(bytes, key)).toMatchObject({ end: "torn", wholeBytes: head.length + a.length });
  });
});

describe("payloads", () => {
  const key = createSecretKey(Buffer.alloc(32, 1));
  const fields = fc.dictionary(
    fc.stringMatching(/^[A-Za-z][A-Za-z0-9._-]{0,20}$/),
    fc.string({ unit: "grapheme", maxLength: 80 }),
    { maxKeys: 4, noNullPrototype: true },
  );

  test("open to what was sealed, and every commitment can be checked by whoever has text and salt", () => {
    const random = seededBytes("payloads");
    fc.assert(
      fc.property(fields, (texts) => {
        const sealed = sealPayload("ses_1", key, texts, random);
        const opened = unsealPayload({ ciphertext: sealed.ciphertext, keyName: "ses_1", key }, sealed.commitments);
        if (!opened.ok) {
          throw new Error(opened.reason);
        }
        expect(Object.fromEntries([...opened.fields].map(([name, { text }]) => [name, text]))).toEqual(texts);
        for (const [name, field] of opened.fields) {
          expect(commitmentOf(name, field)).toBe(sealed.commitments[name]);
          expect(commitmentOf(`${name}x`, field)).not.toBe(sealed.commitments[name]);
          expect(commitmentOf(name, { ...field, text: `${field.text}x` })).not.toBe(sealed.commitments[name]);
        }
      }),
    );
  });

  test("equal texts have unequal commitments and ciphertexts", () => {
    const random = seededBytes("salts");
    const a = sealPayload("ses_1", key, { one: "same", two: "same" }, random);
    const b = sealPayload("ses_1", key, { one: "same", two: "same" }, random);
    const all = [a, b].flatMap(({ commitments }) => Object.values(commitments));
    expect(new Set(all).size).toBe(4);
    expect(a.payload.hash).not.toBe(b.payload.hash);
  });

  test("do not open when any byte, the key, its name or a commitment is another", () => {
    const sealed = sealPayload("ses_1", key, { text: "hello" }, seededBytes("flip"));
    const { ciphertext, commitments } = sealed;
    for (let at = 0; at < ciphertext.length; at++) {
      const changed = Buffer.from(ciphertext);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(unsealPayload({ ciphertext: changed, keyName: "ses_1", key }, commitments).ok).toBe(false);
    }
    const other = createSecretKey(Buffer.alloc(32, 2));
    expect(unsealPayload({ ciphertext, keyName: "ses_1", key: other }, commitments).ok).toBe(false);
    expect(unsealPayload({ ciphertext, keyName: "ses_2", key }, commitments).ok).toBe(false);
    expect(unsealPayload({ ciphertext, keyName: "ses_1", key }, { text: "A".repeat(43) }).ok).toBe(false);
    expect(unsealPayload({ ciphertext, keyName: "ses_1", key }, {}).ok).toBe(false);
    expect(unsealPayload({ ciphertext, keyName: "ses_1", key }, { ...commitments, more: "x" }).ok).toBe(false);
    expect(unsealPayload({ ciphertext: ciphertext.subarray(0, 20), keyName: "ses_1", key }, commitments).ok).toBe(
      false,
    );
  });

  test("a field's name cannot smuggle a line break into a commitment", () => {
    expect(() => sealPayload("ses_1", key, { "a\nb": "x" }, seededBytes("name"))).toThrow(RangeError);
  });

  test("a wrapped data key opens under its own name and key only", () => {
    const dataKey = Buffer.alloc(32, 5);
    const wrapped = wrapDataKey("ses_1", key, dataKey, Buffer.alloc(12, 1));
    expect(unwrapDataKey("ses_1", key, wrapped)).toEqual(dataKey);
    expect(unwrapDataKey("ses_2", key, wrapped)).toBeNull();
    expect(unwrapDataKey("ses_1", createSecretKey(Buffer.alloc(32, 2)), wrapped)).toBeNull();
    expect(unwrapDataKey("ses_1", key, wrapped.subarray(0, 10))).toBeNull();
  });
});

describe("the tree's edge", () => {
  const leavesOf = (size: number): Buffer[] => Array.from({ length: size }, (_, i) => Buffer.from(`leaf ${i}`));

  test("has the root of all entries at every size, and makes the same files in one go or in many", async () => {
    const size = 1_300;
    const leaves = leavesOf(size);
    const hashes = leaves.map(leafHash);
    const files = new Map<string, Uint8Array>();
    let edge = await TreeEdge.load(0, async () => new Uint8Array(0));
    for (const [i, leaf] of leaves.entries()) {
      const done = edge.append(leaf);
      for (const { name, bytes } of [...done, ...(i % 97 === 0 ? edge.partialFiles() : [])]) {
        files.set(formatTilePath(name), bytes);
      }
      if (i % 97 === 0) {
        expect(edge.root()).toEqual(rootOfHashes(hashes.slice(0, i + 1)));
        // What is loaded from the files goes on exactly like what was in memory.
        edge = await TreeEdge.load(i + 1, async (name) => files.get(formatTilePath(name)) ?? new Uint8Array(0));
        expect(edge.root()).toEqual(rootOfHashes(hashes.slice(0, i + 1)));
      }
    }
    for (const { name, bytes } of edge.partialFiles()) {
      files.set(formatTilePath(name), bytes);
    }
    const whole = await TreeEdge.load(0, async () => new Uint8Array(0));
    const inOne = [...leaves.flatMap((leaf) => whole.append(leaf)), ...whole.partialFiles()];
    for (const { name, bytes } of inOne) {
      expect(Buffer.from(files.get(formatTilePath(name)) ?? [])).toEqual(Buffer.from(bytes));
    }
    expect(inOne.map(({ name }) => formatTilePath(name))).toContain("tile/1/000.p/5");
  });

  test("crosses a full tile of the second level", async () => {
    const size = 65_536 + 3;
    const edge = await TreeEdge.load(0, async () => new Uint8Array(0));
    const leaves = leavesOf(size);
    const names = leaves.flatMap((leaf) => edge.append(leaf).map(({ name }) => formatTilePath(name)));
    expect(edge.root()).toEqual(rootOfHashes(leaves.map(leafHash)));
    expect(names).toContain("tile/1/000");
    expect(edge.partialFiles().map(({ name }) => formatTilePath(name))).toEqual([
      "tile/entries/256.p/3",
      "tile/0/256.p/3",
      "tile/2/000.p/1",
    ]);
  });
});
