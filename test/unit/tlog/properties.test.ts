import { hash } from "node:crypto";

import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { openCheckpoint, signCheckpoint } from "#tlog/checkpoint.ts";
import { leafHash } from "#tlog/hash.ts";
import { noteCollector, noteSigner, parseNote, parseVerifierKey, signNote, verifyNote } from "#tlog/note.ts";
import type { VerifierKey } from "#tlog/note.ts";
import { verifyConsistency, verifyInclusion } from "#tlog/proof.ts";
import {
  bundleReader,
  encodeBundle,
  formatTilePath,
  hashesAtLevel,
  hashOfPlace,
  parseTilePath,
  placeOfNode,
  tilesOfLevel,
} from "#tlog/tile.ts";
import { formatTlogProof, parseTlogProof, verifyTlogProof } from "#tlog/tlog-proof.ts";
import { buildConsistencyProof, buildInclusionProof, rootOfHashes, treeRoot } from "#tlog/tree.ts";

/** The definitions of RFC 6962 section 2.1, word for word and slow: the oracle. */
const naive = {
  root(leaves: readonly Buffer[]): Buffer {
    if (leaves.length === 0) {
      return hash("sha256", "", "buffer");
    }
    const [only] = leaves;
    if (leaves.length === 1 && only !== undefined) {
      return hash("sha256", Buffer.concat([Buffer.from([0]), only]), "buffer");
    }
    const k = naive.split(leaves.length);
    const left = naive.root(leaves.slice(0, k));
    return hash("sha256", Buffer.concat([Buffer.from([1]), left, naive.root(leaves.slice(k))]), "buffer");
  },
  split(n: number): number {
    return n <= 2 ? 1 : 2 ** (Math.ceil(Math.log2(n)) - 1);
  },
  path(m: number, leaves: readonly Buffer[]): Buffer[] {
    if (leaves.length === 1) {
      return [];
    }
    const k = naive.split(leaves.length);
    return m < k
      ? [...naive.path(m, leaves.slice(0, k)), naive.root(leaves.slice(k))]
      : [...naive.path(m - k, leaves.slice(k)), naive.root(leaves.slice(0, k))];
  },
  proof(m: number, leaves: readonly Buffer[]): Buffer[] {
    return m === 0 ? [] : naive.subproof(m, leaves, true);
  },
  subproof(m: number, leaves: readonly Buffer[], isWhole: boolean): Buffer[] {
    if (m === leaves.length) {
      return isWhole ? [] : [naive.root(leaves)];
    }
    const k = naive.split(leaves.length);
    return m <= k
      ? [...naive.subproof(m, leaves.slice(0, k), isWhole), naive.root(leaves.slice(k))]
      : [...naive.subproof(m - k, leaves.slice(k), false), naive.root(leaves.slice(0, k))];
  },
};

const leavesOf = (size: number): Buffer[] => Array.from({ length: size }, (_, i) => Buffer.from(`entry ${i}`));
const readerOf =
  (leaves: readonly Buffer[]) =>
  (level: number, index: number): Uint8Array =>
    rootOfHashes(leaves.slice(index * 2 ** level, (index + 1) * 2 ** level).map(leafHash));
const asBuffers = (hashes: readonly Uint8Array[]): Buffer[] => hashes.map((h) => Buffer.from(h));

describe("the tree against the naive one", () => {
  const sizes = fc.integer({ min: 1, max: 600 });

  test("roots", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 600 }), (size) => {
        const leaves = leavesOf(size);
        expect(Buffer.from(treeRoot(size, readerOf(leaves)))).toEqual(naive.root(leaves));
        expect(Buffer.from(rootOfHashes(leaves.map(leafHash)))).toEqual(naive.root(leaves));
      }),
      { numRuns: 60 },
    );
  });

  test("inclusion proofs are the same, verify, and do not verify for anything else", () => {
    fc.assert(
      fc.property(sizes, fc.nat(), fc.nat(), (size, at, other) => {
        const leaves = leavesOf(size);
        const index = at % size;
        const proof = buildInclusionProof(index, size, readerOf(leaves));
        expect(asBuffers(proof)).toEqual(naive.path(index, leaves));
        const claim = {
          index,
          size,
          leafHash: leafHash(leaves[index] ?? Buffer.alloc(0)),
          proof,
          root: naive.root(leaves),
        };
        expect(verifyInclusion(claim)).toBe(true);
        const wrong = other % size;
        expect(verifyInclusion({ ...claim, index: wrong })).toBe(wrong === index);
        expect(verifyInclusion({ ...claim, leafHash: leafHash(Buffer.from("other")) })).toBe(false);
        expect(verifyInclusion({ ...claim, proof: [...proof, claim.root] })).toBe(false);
        expect(proof.length > 0 && verifyInclusion({ ...claim, proof: proof.slice(1) })).toBe(false);
      }),
      { numRuns: 60 },
    );
  });

  test("consistency proofs are the same, verify, and do not verify for a changed leaf", () => {
    fc.assert(
      fc.property(sizes, fc.nat(), fc.nat(), (size, at, changed) => {
        const leaves = leavesOf(size);
        const first = at % (size + 1);
        const proof = buildConsistencyProof(first, size, readerOf(leaves));
        expect(asBuffers(proof)).toEqual(naive.proof(first, leaves));
        const claim = {
          firstSize: first,
          secondSize: size,
          firstRoot: naive.root(leaves.slice(0, first)),
          secondRoot: naive.root(leaves),
          proof,
        };
        expect(verifyConsistency(claim)).toBe(true);
        if (first > 0) {
          const forged = leaves.slice(0, first).with(changed % first, Buffer.from("forged"));
          expect(verifyConsistency({ ...claim, firstRoot: naive.root(forged) })).toBe(false);
        }
        expect(verifyConsistency({ ...claim, proof: [...proof, claim.secondRoot] })).toBe(false);
      }),
      { numRuns: 60 },
    );
  });

  test("every node of a tree is found in its tiles", () => {
    const size = 70_000;
    const leaves = Array.from({ length: size }, (_, i) => leafHash(Buffer.from(`${i}`)));
    const levels = [leaves];
    for (let level = 1; hashesAtLevel(level, size) > 0; level++) {
      const below = levels[level - 1] ?? [];
      levels.push(
        Array.from({ length: hashesAtLevel(level, size) }, (_, i) => rootOfHashes(below.slice(i * 256, (i + 1) * 256))),
      );
    }
    const tile = (path: string): Buffer => {
      const name = parseTilePath(path);
      const hashes = typeof name?.level === "number" ? (levels[name.level] ?? []) : [];
      const start = (name?.index ?? 0) * 256;
      return Buffer.concat(hashes.slice(start, start + (name?.width ?? 0)));
    };
    const read = (level: number, index: number): Uint8Array => {
      const place = placeOfNode(level, index, size);
      return hashOfPlace(tile(formatTilePath(place.tile)), place);
    };
    const root = rootOfHashes(leaves);
    expect(treeRoot(size, read)).toEqual(root);
    for (const index of [0, 1, 255, 256, 65_535, 65_536, 69_999]) {
      const proof = buildInclusionProof(index, size, read);
      const leaf = leaves[index] ?? Buffer.alloc(0);
      expect(verifyInclusion({ index, size, leafHash: leaf, proof, root })).toBe(true);
    }
    expect([...tilesOfLevel(1, size)]).toEqual([
      { level: 1, index: 0, width: 256 },
      { level: 1, index: 1, width: 17 },
    ]);
  });
});

describe("tile paths", () => {
  test("are those of the specification", () => {
    expect(formatTilePath({ level: 0, index: 1_234_067, width: 256 })).toBe("tile/0/x001/x234/067");
    expect(formatTilePath({ level: "entries", index: 0, width: 7 })).toBe("tile/entries/000.p/7");
    expect(formatTilePath({ level: 3, index: 1000, width: 255 })).toBe("tile/3/x001/000.p/255");
  });

  test("read back to what made them, and have no other spelling", () => {
    const level = fc.oneof(fc.integer({ min: 0, max: 6 }), fc.constant("entries" as const));
    fc.assert(
      fc.property(level, fc.maxSafeNat(), fc.integer({ min: 1, max: 256 }), (l, index, width) => {
        const name = { level: l, index, width };
        expect(parseTilePath(formatTilePath(name))).toEqual(name);
      }),
    );
    for (const path of ["tile/0/000.p/256", "tile/0/000.p/0", "tile/0/000.p/01", "tile/0/x000/001", "tile/00/000"]) {
      expect(parseTilePath(path)).toBeNull();
    }
    for (const path of ["tile/0/0", "tile/0/1000", "tile/0/x1/000", "tile/64/000", "tile/data/000", "/tile/0/000"]) {
      expect(parseTilePath(path)).toBeNull();
    }
  });
});

describe("entry bundles", () => {
  test("read the same in every division of their bytes", () => {
    const entry = fc.uint8Array({ maxLength: 300 });
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 20 }), fc.array(fc.nat({ max: 50 })), (entries, cuts) => {
        const bytes = encodeBundle(entries);
        const reader = bundleReader();
        const read: Uint8Array[] = [];
        let at = 0;
        for (const cut of [...cuts, bytes.length]) {
          read.push(...reader.push(bytes.subarray(at, at + cut)).map((item) => item.entry));
          at = Math.min(bytes.length, at + cut);
        }
        expect(read.map((e) => Buffer.from(e))).toEqual(entries.map((e) => Buffer.from(e)));
        expect(reader.unfinishedBytes).toBe(0);
      }),
    );
  });

  test("hold an entry of 65,535 bytes and refuse a longer one", () => {
    const [first] = bundleReader().push(encodeBundle([Buffer.alloc(65_535, 1)]));
    expect(first?.entry).toHaveLength(65_535);
    expect(() => encodeBundle([Buffer.alloc(65_536)])).toThrow(RangeError);
  });

  test("say how much of an entry is missing its end", () => {
    const reader = bundleReader();
    expect(reader.push(encodeBundle([Buffer.from("abc"), Buffer.from("def")]).subarray(0, 8))).toHaveLength(1);
    expect(reader.unfinishedBytes).toBe(3);
  });
});

const signer = noteSigner("log.example/one", Buffer.alloc(32, 7));
const otherSigner = noteSigner("log.example/one", Buffer.alloc(32, 8));

function keyOf(text: string): VerifierKey {
  const key = parseVerifierKey(text);
  if (!key.ok) {
    throw new Error(key.reason);
  }
  return key.value;
}

describe("signed notes", () => {
  const key = keyOf(signer.verifierKey);
  const lines = fc.array(fc.string({ unit: "grapheme", maxLength: 20 }), { minLength: 1, maxLength: 5 });

  test("what is signed verifies, in whatever pieces it comes, and no changed byte does", () => {
    fc.assert(
      fc.property(lines, fc.nat(), fc.integer({ min: 1, max: 255 }), (texts, at, flip) => {
        // oxlint-disable-next-line no-control-regex -- a note has none
        const text = `${texts.join("\n").replaceAll(/[\u0000-\u0009\u000b-\u001f\u007f]/g, "")}\n`;
        const note = Buffer.from(signNote(text, [signer]), "utf8");
        const collector = noteCollector();
        collector.push(note.subarray(0, at % note.length));
        collector.push(note.subarray(at % note.length));
        const parsed = collector.finish();
        expect(parsed.ok && parsed.value.text).toBe(text);
        expect(parsed.ok && verifyNote(parsed.value, [key]).ok).toBe(true);
        note[at % note.length] = (note[at % note.length] ?? 0) ^ flip;
        const changed = parseNote(note);
        expect(changed.ok && verifyNote(changed.value, [key]).ok).toBe(false);
      }),
    );
  });

  test("malformed ones are refused", () => {
    const good = signNote("text\n", [signer]);
    const line = good.slice(good.indexOf("\u2014"));
    const bad = [
      "",
      "text\n",
      "text\n\n",
      good.slice(0, -1),
      `${good}\n`,
      good.replace("\u2014 ", "- "),
      good.replace("\u2014 ", "\u2014  "),
      good.replace("log.example/one", "log+example"),
      good.replace("text", "te\u0000xt"),
      good.replace("text", "te\txt"),
      good.replace("text\n", "text\r\n"),
      `text\n\n${line}x\n`,
      `text\n\n\u2014 name AAAA\n`,
      `text\n\n${line.repeat(101)}`,
    ];
    for (const note of bad) {
      expect({ note, ok: parseNote(Buffer.from(note, "utf8")).ok }).toEqual({ note, ok: false });
    }
    expect(parseNote(Buffer.concat([Buffer.from([0xff]), Buffer.from(good, "utf8")])).ok).toBe(false);
    expect(parseNote(Buffer.alloc(1_000_001, 0x0a)).ok).toBe(false);
  });

  test("unknown keys are ignored, a known key that did not sign refuses, and nobody known refuses", () => {
    const note = parseNote(Buffer.from(signNote("text\n", [otherSigner, signer]), "utf8"));
    expect(note.ok && verifyNote(note.value, [key]).ok).toBe(true);
    expect(note.ok && verifyNote(note.value, [keyOf(noteSigner("else", Buffer.alloc(32, 1)).verifierKey)]).ok).toBe(
      false,
    );
    const forged = signNote("text\n", [signer]).replace("text", "tent");
    const parsed = parseNote(Buffer.from(`${forged}${signNote("tent\n", [otherSigner]).split("\n\n")[1]}`, "utf8"));
    expect(parsed.ok && verifyNote(parsed.value, [key, keyOf(otherSigner.verifierKey)]).ok).toBe(false);
  });

  test("a verifier key with another name, id or key is not a verifier key", () => {
    const [name, id, data] = signer.verifierKey.split("+");
    expect(parseVerifierKey(`${name}x+${id}+${data}`).ok).toBe(false);
    expect(parseVerifierKey(`${name}+00000000+${data}`).ok).toBe(false);
    expect(parseVerifierKey(`${name}+${id?.toUpperCase()}+${data}`).ok).toBe(/^[0-9]+$/.test(id ?? ""));
  });
});

describe("checkpoints and .tlog-proof", () => {
  const leaves = leavesOf(300);
  const checkpoint = { origin: signer.name, size: 300, root: naive.root(leaves), extensions: [] };
  const note = signCheckpoint(checkpoint, [signer]);
  const key = keyOf(signer.verifierKey);

  test("a checkpoint of another origin or by another key is refused", () => {
    expect(openCheckpoint(Buffer.from(note), key).ok).toBe(true);
    expect(openCheckpoint(Buffer.from(note), keyOf(otherSigner.verifierKey)).ok).toBe(false);
    const elsewhere = signCheckpoint({ ...checkpoint, origin: "log.example/two" }, [signer]);
    expect(openCheckpoint(Buffer.from(elsewhere), key).ok).toBe(false);
  });

  test("malformed checkpoints are refused though they are signed", () => {
    const root = Buffer.from(checkpoint.root).toString("base64");
    for (const text of [
      `${signer.name}\n0300\n${root}\n`,
      `${signer.name}\n-1\n${root}\n`,
      `${signer.name}\n300\n${root.slice(4)}\n`,
      `${signer.name}\n300\n`,
      `${signer.name}\n99999999999999999999\n${root}\n`,
    ]) {
      expect({ text, ok: openCheckpoint(Buffer.from(signNote(text, [signer])), key).ok }).toEqual({ text, ok: false });
    }
  });

  test("a proof round-trips, proves its own entry and no other", () => {
    fc.assert(
      fc.property(fc.nat({ max: 299 }), fc.option(fc.uint8Array({ maxLength: 40 })), (index, extra) => {
        const proof = { index, proof: buildInclusionProof(index, 300, readerOf(leaves)), checkpoint: note, extra };
        const parsed = parseTlogProof(formatTlogProof(proof));
        if (!parsed.ok) {
          throw new Error(parsed.reason);
        }
        expect(parsed.value.index).toBe(index);
        expect(asBuffers(parsed.value.proof)).toEqual(asBuffers(proof.proof));
        expect(parsed.value.extra === null ? null : Buffer.from(parsed.value.extra)).toEqual(
          extra === null ? null : Buffer.from(extra),
        );
        const leaf = leafHash(leaves[index] ?? Buffer.alloc(0));
        expect(verifyTlogProof(parsed.value, leaf, key).ok).toBe(true);
        expect(verifyTlogProof(parsed.value, leafHash(Buffer.from("other")), key).ok).toBe(false);
        expect(verifyTlogProof({ ...parsed.value, index: (index + 1) % 300 }, leaf, key).ok).toBe(false);
      }),
      { numRuns: 30 },
    );
  });

  test("malformed proofs are refused", () => {
    const good = formatTlogProof({ index: 3, proof: [checkpoint.root], checkpoint: note, extra: Buffer.from("x") });
    for (const bad of [
      good.replace("@v1", "@v2"),
      good.replace("index 3", "index 03"),
      good.replace("index 3", "indx 3"),
      good.replace("extra ", "extra !"),
      good.replace("\n\n", "\n"),
      good.replace("index 3\n", `index 3\n${`${Buffer.from(checkpoint.root).toString("base64")}\n`.repeat(64)}`),
    ]) {
      const parsed = parseTlogProof(bad);
      expect(parsed.ok && verifyTlogProof(parsed.value, checkpoint.root, key).ok).toBe(false);
    }
  });
});
