/**
 * Reads a log from its directory, the entries that are not in the tree yet included. It needs no lock and no key, and
 * checks no signature: that is `evidence/verify.ts`. A log that is being written can be read; what is seen is the log
 * as it stood when the reader was opened.
 */
import type { KeyObject } from "node:crypto";
import { dirname, join } from "node:path";

import { SallyportError } from "#domain/errors.ts";
import { parseCheckpoint } from "#tlog/checkpoint.ts";
import type { Checkpoint } from "#tlog/checkpoint.ts";
import { hashBytes } from "#tlog/hash.ts";
import { parseNote } from "#tlog/note.ts";
import { bundleReader, formatTilePath, hashOfPlace, placeOfNode, tileWidth } from "#tlog/tile.ts";
import type { TileName } from "#tlog/tile.ts";
import { formatTlogProof } from "#tlog/tlog-proof.ts";
import { buildInclusionProof } from "#tlog/tree.ts";
import type { NodeReader } from "#tlog/tree.ts";

import type { Entry } from "./entry.ts";
import { nodeFiles } from "./files.ts";
import type { Files } from "./files.ts";
import { decodeSegment, payloadFrames } from "./frame.ts";
import type { Pending } from "./frame.ts";
import { readDataKey, readKek } from "./keys.ts";
import {
  checkpointFile,
  parsePayloadFileName,
  parseSegmentName,
  payloadDirectory,
  payloadFileName,
  segmentDirectory,
} from "./layout.ts";
import { unsealPayload } from "./payloads.ts";
import type { OpenedPayload } from "./payloads.ts";

/** How often a reader starts over when the log was integrated under its hands. */
const attemptsMax = 20;

/** An entry as it was read. */
export interface ReadEntry {
  readonly index: number;
  /** The leaf: canonical JSON. */
  readonly bytes: Uint8Array;
  readonly entry: Entry;
  /** Whether the checkpoint covers it; if not, it is durable but not in the signed tree yet. */
  readonly isIntegrated: boolean;
  /** The payload's ciphertext; null when there is none, or when it is gone. */
  readonly payload: Uint8Array | null;
}

/** Entries `[from, to)`; all of them by default. */
export interface EntryRange {
  readonly from?: number;
  readonly to?: number;
}

export interface LedgerReader {
  /** The checkpoint as it stands in the directory, its signature not checked. */
  readonly checkpoint: Checkpoint;
  /** Entries in all, the ones past the checkpoint included. */
  readonly size: number;
  entries(range?: EntryRange): AsyncGenerator<ReadEntry>;
  /**
   * The `.tlog-proof` of an entry that the checkpoint covers.
   * @throws SallyportError `ledger.not-integrated` for one that it does not cover.
   */
  inclusionProof(index: number): Promise<string>;
}

interface Snapshot {
  readonly note: Uint8Array;
  readonly checkpoint: Checkpoint;
  readonly tail: readonly Pending[];
}

function unreadable(what: string): SallyportError {
  return new SallyportError("ledger.unreadable", "gateway", `The ledger cannot be read: ${what}.`, {
    nextStep: "Check the directory's name, and run `sallyport ledger verify` on it.",
  });
}

/**
 * Opens a log for reading.
 * @throws SallyportError `ledger.unreadable` when the directory holds no log, or one with a gap.
 */
export async function readLedger(directory: string, files: Files = nodeFiles): Promise<LedgerReader> {
  for (let attempt = 1; ; attempt++) {
    const snapshot = await takeSnapshot(directory, files);
    if (snapshot !== null) {
      return new DirectoryReader(directory, files, snapshot);
    }
    if (attempt === attemptsMax) {
      throw unreadable("entries are missing between its checkpoint and its write-ahead segments");
    }
  }
}

/** The checkpoint and what follows it; null when segments were removed between the two looks. */
async function takeSnapshot(directory: string, files: Files): Promise<Snapshot | null> {
  const bytes = await files.read(join(directory, checkpointFile));
  if (bytes === null) {
    throw unreadable(`${directory} has no checkpoint`);
  }
  const note = parseNote(bytes);
  const checkpoint = note.ok ? parseCheckpoint(note.value.text) : note;
  if (!checkpoint.ok) {
    throw unreadable(`its checkpoint is malformed: ${checkpoint.reason}`);
  }
  const { size } = checkpoint.value;
  const tail: Pending[] = [];
  for (const name of await files.list(join(directory, segmentDirectory))) {
    const segment = parseSegmentName(name) === null ? null : await files.read(join(directory, segmentDirectory, name));
    tail.push(...(segment === null ? [] : decodeSegment(segment, null).pending.filter((entry) => entry.index >= size)));
  }
  const isWhole = tail.every((entry, i) => entry.index === size + i);
  return isWhole ? { note: bytes, checkpoint: checkpoint.value, tail } : null;
}

class DirectoryReader implements LedgerReader {
  readonly #directory: string;
  readonly #files: Files;
  readonly #snapshot: Snapshot;
  /** The payload file read last: entries are mostly asked for in order. */
  #payloads: { readonly firstIndex: number; readonly frames: ReadonlyMap<number, Uint8Array> } | null = null;

  constructor(directory: string, files: Files, snapshot: Snapshot) {
    this.#directory = directory;
    this.#files = files;
    this.#snapshot = snapshot;
  }

  get checkpoint(): Checkpoint {
    return this.#snapshot.checkpoint;
  }

  get size(): number {
    return this.checkpoint.size + this.#snapshot.tail.length;
  }

  async *entries(range: EntryRange = {}): AsyncGenerator<ReadEntry> {
    const from = range.from ?? 0;
    const to = Math.min(range.to ?? this.size, this.size);
    const integrated = Math.min(to, this.checkpoint.size);
    for (let bundle = Math.floor(from / tileWidth); bundle * tileWidth < integrated; bundle++) {
      const first = bundle * tileWidth;
      const width = Math.min(tileWidth, this.checkpoint.size - first);
      const bytes = await this.#readTreeFile({ level: "entries", index: bundle, width });
      const entries = bundleReader().push(bytes);
      if (entries.length < width) {
        throw unreadable(`${formatTilePath({ level: "entries", index: bundle, width })} is too short`);
      }
      for (const [i, { entry: leaf }] of entries.slice(0, Math.max(0, integrated - first)).entries()) {
        if (first + i >= from) {
          const entry = parseEntry(leaf);
          const payload = entry.payload === undefined ? null : await this.#payload(first + i);
          yield { index: first + i, bytes: leaf, entry, isIntegrated: true, payload };
        }
      }
    }
    for (const { index, entry: bytes, payload } of this.#snapshot.tail) {
      if (index >= from && index < to) {
        yield { index, bytes, entry: parseEntry(bytes), isIntegrated: false, payload };
      }
    }
  }

  async inclusionProof(index: number): Promise<string> {
    const { size } = this.checkpoint;
    if (index >= size) {
      throw new SallyportError("ledger.not-integrated", "client", `Entry ${index} is not in the signed tree yet.`, {
        nextStep: "Ask again after the next checkpoint.",
      });
    }
    // A first run with a placeholder finds which nodes are needed; the second has their tiles.
    const needed = new Map<string, TileName>();
    buildInclusionProof(index, size, (level, at) => {
      const { tile } = placeOfNode(level, at, size);
      needed.set(formatTilePath(tile), tile);
      return new Uint8Array(hashBytes);
    });
    const tiles = new Map<string, Uint8Array>();
    for (const [path, tile] of needed) {
      tiles.set(path, await this.#readTreeFile(tile));
    }
    const read: NodeReader = (level, at) => {
      const place = placeOfNode(level, at, size);
      return hashOfPlace(tiles.get(formatTilePath(place.tile)) ?? new Uint8Array(0), place);
    };
    const proof = buildInclusionProof(index, size, read);
    const checkpoint = Buffer.from(this.#snapshot.note).toString("utf8");
    return formatTlogProof({ index, proof, checkpoint, extra: null });
  }

  /** A tile or bundle; when the log has grown and removed this partial one, a wider one, which begins the same. */
  async #readTreeFile(name: TileName): Promise<Uint8Array> {
    const exact = await this.#files.read(join(this.#directory, formatTilePath(name)));
    if (exact !== null) {
      return exact;
    }
    const full = await this.#files.read(join(this.#directory, formatTilePath({ ...name, width: tileWidth })));
    if (full !== null) {
      return full;
    }
    const partials = dirname(join(this.#directory, formatTilePath({ ...name, width: 1 })));
    const widths = (await this.#files.list(partials)).map(Number).filter((width) => width > name.width);
    const wider = widths.length === 0 ? null : await this.#files.read(join(partials, String(Math.max(...widths))));
    if (wider === null) {
      throw unreadable(`${formatTilePath(name)} is missing`);
    }
    return wider;
  }

  async #payload(index: number): Promise<Uint8Array | null> {
    if (this.#payloads?.frames.get(index) === undefined) {
      const names = await this.#files.list(join(this.#directory, payloadDirectory));
      const indexes = names.map(parsePayloadFileName).filter((first) => first !== null);
      const firstIndex = indexes.findLast((first) => first <= index);
      if (firstIndex === undefined) {
        return null;
      }
      const path = join(this.#directory, payloadDirectory, payloadFileName(firstIndex));
      const bytes = (await this.#files.read(path)) ?? new Uint8Array(0);
      const frames = new Map([...payloadFrames(bytes)].map((frame) => [frame.index, frame.payload]));
      this.#payloads = { firstIndex, frames };
    }
    return this.#payloads.frames.get(index) ?? null;
  }
}

function parseEntry(bytes: Uint8Array): Entry {
  // The mint of an entry that is read back. The writer makes no other, and the verifier checks every field of them.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return JSON.parse(Buffer.from(bytes).toString("utf8")) as Entry;
}

/** Opens payloads with the keys of a directory. */
export interface PayloadKeys {
  /** Null when the data key is not there: never made on this node, or destroyed. */
  dataKey(name: string): Promise<KeyObject | null>;
}

/** The keys that a ledger keeps in its keys directory. */
export async function readPayloadKeys(directory: string, files: Files = nodeFiles): Promise<PayloadKeys> {
  const store = {
    directory,
    files,
    randomBytes: () => {
      throw new RangeError("a reader makes no keys");
    },
  };
  const kek = await readKek(store);
  const cache = new Map<string, KeyObject | null>();
  return {
    async dataKey(name) {
      const cached = cache.get(name);
      if (cached !== undefined) {
        return cached;
      }
      const key = kek === null ? null : await readDataKey(store, kek, name);
      cache.set(name, key);
      return key;
    },
  };
}

/** Decrypts an entry's payload and checks every field against the entry's commitments. */
export async function openPayload(read: ReadEntry, keys: PayloadKeys): Promise<OpenedPayload> {
  const { payload, commitments } = read.entry;
  if (payload === undefined || commitments === undefined) {
    return { ok: true, fields: new Map() };
  }
  if (read.payload === null) {
    return { ok: false, reason: "the payload is not there" };
  }
  const key = await keys.dataKey(payload.key);
  if (key === null) {
    return { ok: false, reason: `the data key ${payload.key} is not there: it was destroyed, or is kept elsewhere` };
  }
  return unsealPayload({ ciphertext: read.payload, keyName: payload.key, key }, commitments);
}
