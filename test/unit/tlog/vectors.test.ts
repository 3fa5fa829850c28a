import { readFileSync } from "node:fs";

import { describe, expect, test } from "vitest";

import { judgeAddCheckpoint, parseAddCheckpoint } from "#tlog/add-checkpoint.ts";
import type { WitnessedTree } from "#tlog/add-checkpoint.ts";
import { formatCheckpoint, openCheckpoint, parseCheckpoint } from "#tlog/checkpoint.ts";
import { emptyRoot, leafHash, nodeHash } from "#tlog/hash.ts";
import { cosignatureTimestamp, noteCollector, parseNote, parseVerifierKey, verifyNote } from "#tlog/note.ts";
import type { VerifierKey } from "#tlog/note.ts";
import type { Parsed } from "#tlog/parsed.ts";
import { verifyConsistency, verifyInclusion } from "#tlog/proof.ts";
import { bundleReader, encodeBundle, formatTilePath, parseTilePath } from "#tlog/tile.ts";
import { buildConsistencyProof, buildInclusionProof, rootOfHashes, treeRoot } from "#tlog/tree.ts";

function fixture<T>(name: string): T {
  const text = readFileSync(new URL(`../../fixtures/tlog/${name}`, import.meta.url), "utf8");
  // The mint of the fixtures' types: data that this repository holds.
  return JSON.parse(text) as T;
}

const utf8 = (text: string): Buffer => Buffer.from(text, "utf8");
const base64 = (text: string): Buffer => Buffer.from(text, "base64");

function valueOf<T>(parsed: Parsed<T>): T {
  if (!parsed.ok) {
    throw new Error(parsed.reason);
  }
  return parsed.value;
}

interface Hashing {
  hashing: {
    emptyRoot: string;
    emptyLeaf: string;
    leaf: { inputUtf8: string; hash: string };
    node: { leftUtf8: string; rightUtf8: string; hash: string };
  };
  leafInputsHex: string[];
  nodeHashesHex: string[][];
  rootHashesHexBySize: string[];
}

describe("RFC 6962 hashing vectors", () => {
  const vectors = fixture<Hashing>("merkle-hashing.json");
  const hex = (hash: Uint8Array): string => Buffer.from(hash).toString("hex");
  const read = (level: number, index: number): Uint8Array =>
    Buffer.from(vectors.nodeHashesHex[level]?.[index] ?? "", "hex");

  test("empty tree, empty leaf, leaf and node", () => {
    const { hashing } = vectors;
    expect(hex(emptyRoot())).toBe(hashing.emptyRoot);
    expect(hex(leafHash(utf8("")))).toBe(hashing.emptyLeaf);
    expect(hex(leafHash(utf8(hashing.leaf.inputUtf8)))).toBe(hashing.leaf.hash);
    expect(hex(nodeHash(utf8(hashing.node.leftUtf8), utf8(hashing.node.rightUtf8)))).toBe(hashing.node.hash);
  });

  test("every node hash and every root of the eight leaves", () => {
    const leaves = vectors.leafInputsHex.map((input) => leafHash(Buffer.from(input, "hex")));
    expect(leaves.map(hex)).toEqual(vectors.nodeHashesHex[0]);
    for (const [size, root] of vectors.rootHashesHexBySize.entries()) {
      expect(hex(rootOfHashes(leaves.slice(0, size)))).toBe(root);
      expect(hex(treeRoot(size, read))).toBe(root);
    }
    for (const [level, hashes] of vectors.nodeHashesHex.entries()) {
      const span = 2 ** level;
      const made = hashes.map((_, i) => hex(rootOfHashes(leaves.slice(i * span, (i + 1) * span))));
      expect(made).toEqual(hashes);
    }
  });

  test("our own proofs over the vectors' nodes verify against the vectors' roots", () => {
    const root = (size: number): Buffer => Buffer.from(vectors.rootHashesHexBySize[size] ?? "", "hex");
    for (let size = 1; size <= 8; size++) {
      for (let index = 0; index < size; index++) {
        const proof = buildInclusionProof(index, size, read);
        expect(verifyInclusion({ index, size, leafHash: read(0, index), proof, root: root(size) })).toBe(true);
      }
      for (let first = 0; first <= size; first++) {
        const proof = buildConsistencyProof(first, size, read);
        const claim = { firstSize: first, secondSize: size, firstRoot: root(first), secondRoot: root(size), proof };
        expect(verifyConsistency(claim)).toBe(true);
      }
    }
  });
});

interface InclusionCase {
  leafIdx: number;
  treeSize: number;
  root: string;
  leafHash: string;
  proof: string[] | null;
  wantErr: boolean;
  file: string;
}
interface ConsistencyCase {
  size1: number;
  size2: number;
  root1: string;
  root2: string;
  proof: string[] | null;
  wantErr: boolean;
  file: string;
}

describe("Merkle proof vectors", () => {
  const inclusion = fixture<InclusionCase[]>("merkle-inclusion.json");
  const consistency = fixture<ConsistencyCase[]>("merkle-consistency.json");

  test("there are 98 of each, six of each positive", () => {
    expect(inclusion.filter((c) => !c.wantErr)).toHaveLength(6);
    expect(consistency.filter((c) => !c.wantErr)).toHaveLength(6);
    expect([inclusion.length, consistency.length]).toEqual([98, 98]);
  });

  test.each(inclusion)("inclusion $file", (c) => {
    const claim = {
      index: c.leafIdx,
      size: c.treeSize,
      leafHash: base64(c.leafHash),
      proof: (c.proof ?? []).map(base64),
      root: base64(c.root),
    };
    expect(verifyInclusion(claim)).toBe(!c.wantErr);
  });

  // The three cases of an empty first tree pass as they stand: their roots are not the empty tree's, or not hashes.
  test.each(consistency)("consistency $file", (c) => {
    const claim = {
      firstSize: c.size1,
      secondSize: c.size2,
      firstRoot: base64(c.root1),
      secondRoot: base64(c.root2),
      proof: (c.proof ?? []).map(base64),
    };
    expect(verifyConsistency(claim)).toBe(!c.wantErr);
  });

  test("an empty first tree is consistent with every tree, by an empty proof and under its own root only", () => {
    const claim = { firstSize: 0, secondSize: 1, firstRoot: emptyRoot(), secondRoot: leafHash(utf8("a")), proof: [] };
    expect(verifyConsistency(claim)).toBe(true);
    expect(verifyConsistency({ ...claim, proof: [emptyRoot()] })).toBe(false);
    expect(verifyConsistency({ ...claim, firstRoot: leafHash(utf8("b")) })).toBe(false);
    expect(verifyConsistency({ ...claim, secondSize: 0, secondRoot: emptyRoot() })).toBe(true);
  });
});

interface Notes {
  notes: { name: string; vkeys: string[]; note: string; valid: boolean }[];
  badVkeys: { vkey: string; why: string }[];
  cosignatureTimestamps: { base64: string; unixSeconds: number }[];
}

describe("signed note vectors", () => {
  const vectors = fixture<Notes>("signed-notes.json");

  test.each(vectors.notes)("$name verifies, whole and byte by byte", (vector) => {
    const keys = vector.vkeys.map((vkey) => valueOf(parseVerifierKey(vkey)));
    const whole = valueOf(parseNote(utf8(vector.note)));
    const verified = valueOf(verifyNote(whole, keys));
    expect(verified.map((signature) => signature.key)).toEqual(keys);
    const collector = noteCollector();
    for (const byte of utf8(vector.note)) {
      collector.push(Uint8Array.of(byte));
    }
    expect(valueOf(collector.finish())).toEqual(whole);
  });

  test("the witness line of the cosigned checkpoint carries its time, and its unknown log line is ignored", () => {
    const vector = vectors.notes.find((note) => note.name === "sunlight-witness-cosigned");
    const note = valueOf(parseNote(utf8(vector?.note ?? "")));
    expect(note.signatures).toHaveLength(2);
    const [only, ...more] = valueOf(verifyNote(note, [valueOf(parseVerifierKey(vector?.vkeys[0] ?? ""))]));
    expect(more).toEqual([]);
    expect(only?.timestampSeconds).toBe(0x69546780);
  });

  test.each(vectors.badVkeys)("a bad verifier key is refused: $why", ({ vkey }) => {
    expect(parseVerifierKey(vkey).ok).toBe(false);
  });

  test.each(vectors.cosignatureTimestamps)("cosignature time $unixSeconds", ({ base64: text, unixSeconds }) => {
    // The vector is a whole signature field with its key id.
    expect(cosignatureTimestamp(base64(text).subarray(4))).toBe(unixSeconds);
  });

  test.each(vectors.notes)("$name with any base64 character of a known key changed is refused", (vector) => {
    const keys = vector.vkeys.map((vkey) => valueOf(parseVerifierKey(vkey)));
    const [text, signatures] = vector.note.split("\n\n");
    const lines = (signatures ?? "").split("\n");
    for (const [i, line] of lines.entries()) {
      if (!keys.some((key) => line.startsWith(`\u2014 ${key.name} `))) {
        continue;
      }
      // Past the key id: a changed id only makes the key an unknown one.
      for (let at = line.lastIndexOf(" ") + 8; at < line.length; at++) {
        const changed = `${line.slice(0, at)}${line[at] === "A" ? "B" : "A"}${line.slice(at + 1)}`;
        const note = parseNote(utf8(`${text}\n\n${lines.with(i, changed).join("\n")}`));
        expect(note.ok && verifyNote(note.value, keys).ok).toBe(false);
      }
    }
  });

  test("a plain verifier does not accept a cosignature of the same key bytes", () => {
    const vector = vectors.notes.find((note) => note.name === "sunlight-witness-cosigned");
    const witness = valueOf(parseVerifierKey(vector?.vkeys[0] ?? ""));
    const plain: VerifierKey = { ...witness, kind: "ed25519" };
    expect(verifyNote(valueOf(parseNote(utf8(vector?.note ?? ""))), [plain]).ok).toBe(false);
  });
});

interface SmallLog {
  vkey: string;
  entriesUtf8: string[];
  checkpoints: { [size: string]: string };
  tiles: { [path: string]: string };
  entryBundles: { [path: string]: string };
}

describe("tiled log vectors", () => {
  const log = fixture<SmallLog>("tlog-tiles-small-log.json");
  const entries = log.entriesUtf8.map(utf8);
  const leaves = entries.map(leafHash);
  const key = valueOf(parseVerifierKey(log.vkey));

  test.each(Object.entries(log.checkpoints))("checkpoint of size %s verifies and has our root", (size, note) => {
    const checkpoint = valueOf(openCheckpoint(utf8(note), key));
    expect(checkpoint.size).toBe(Number(size));
    expect(Buffer.from(checkpoint.root)).toEqual(Buffer.from(rootOfHashes(leaves.slice(0, checkpoint.size))));
    const text = valueOf(parseNote(utf8(note))).text;
    expect(formatCheckpoint(valueOf(parseCheckpoint(text)))).toBe(text);
  });

  test.each(Object.entries(log.tiles))("%s is our tile", (path, content) => {
    const name = parseTilePath(path);
    expect(name).toMatchObject({ level: 0, index: 0 });
    expect(formatTilePath(name ?? { level: 0, index: 0, width: 0 })).toBe(path);
    expect(base64(content)).toEqual(Buffer.concat(leaves.slice(0, name?.width)));
  });

  test.each(Object.entries(log.entryBundles))("%s is our bundle, whole and byte by byte", (path, content) => {
    const width = parseTilePath(path)?.width ?? 0;
    const expected = entries.slice(0, width);
    expect(Buffer.from(encodeBundle(expected))).toEqual(base64(content));
    const reader = bundleReader();
    const read = [...base64(content)].flatMap((byte) => reader.push(Uint8Array.of(byte)));
    expect(read.map(({ entry }) => Buffer.from(entry))).toEqual(expected);
    expect(reader.unfinishedBytes).toBe(0);
    expect(read.map(({ offset }) => base64(content).readUInt16BE(offset))).toEqual(expected.map((e) => e.length));
  });
});

interface Witness {
  logOrigin: string;
  logEd25519PublicKeyHex: string;
  requests: { body: string; status: number; assert: string; value: string }[];
}

describe("witness vectors", () => {
  test("the nine requests in order are answered as the reference server answers them", () => {
    const vectors = fixture<Witness>("witness-add-checkpoint.json");
    const signature = valueOf(parseNote(utf8((vectors.requests[0]?.body ?? "").split("\n\n").slice(1).join("\n\n"))));
    const idHex = signature.signatures[0]?.idHex ?? "";
    const key = `${vectors.logOrigin}+${idHex}+${Buffer.from(`01${vectors.logEd25519PublicKeyHex}`, "hex").toString("base64")}`;
    const logKey = valueOf(parseVerifierKey(key));
    let state: WitnessedTree | null = null;
    const statuses: number[] = [];
    for (const { body, status, value } of vectors.requests) {
      const answer = judgeAddCheckpoint(valueOf(parseAddCheckpoint(utf8(body))), logKey, state);
      statuses.push(answer.status);
      if (answer.status === 200) {
        state = answer.checkpoint;
      } else if (answer.status === 409) {
        expect(`${answer.size}\n`).toBe(value);
      }
      expect(answer.status).toBe(status);
    }
    expect(statuses).toHaveLength(9);
  });
});
