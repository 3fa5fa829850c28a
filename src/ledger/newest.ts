/**
 * The newest checkpoint that this node has signed, noted beside the keys, where whoever can write to the log's directory
 * cannot reach. Without it an older copy of that directory, signed and whole as it is, could be put in its place.
 *
 * What this does not notice: after a crash, that the last batches of the segments were cut off; they are under no
 * checkpoint and in no note. That is about a second of entries at the most, and only while the node is down.
 *
 * File: the text of the checkpoint, with the extension line `opening <n>`.
 */
import { join } from "node:path";

import { SallyportError } from "#domain/errors.ts";
import { formatCheckpoint, parseCheckpoint } from "#tlog/checkpoint.ts";
import type { Checkpoint } from "#tlog/checkpoint.ts";
import { equalBytes, hashBytes } from "#tlog/hash.ts";
import type { NoteSigner } from "#tlog/note.ts";
import { parseDecimal } from "#tlog/parsed.ts";
import { formatTilePath, hashOfPlace, placeOfNode } from "#tlog/tile.ts";
import type { TileName } from "#tlog/tile.ts";
import { treeRoot } from "#tlog/tree.ts";

import type { TreeEdge } from "./edge.ts";
import type { Pending } from "./frame.ts";
import { writeDurably } from "./keys.ts";
import type { KeyStore } from "./keys.ts";
import { foreign, loadTree, readTreeFile } from "./recover.ts";
import type { LogPlace } from "./recover.ts";

const newestFile = "log.newest";
const openingWord = "opening ";

/** What is noted. */
export interface Newest {
  readonly checkpoint: Checkpoint;
  /** How many times the ledger has been opened. */
  readonly opening: number;
}

/**
 * Reads the note; null for a log that was never begun.
 * @throws SallyportError `ledger.keys` when it is missing or damaged.
 */
export async function readNewest(store: KeyStore, origin: string, hasLog: boolean): Promise<Newest | null> {
  const path = join(store.directory, newestFile);
  const bytes = await store.files.read(path);
  if (bytes === null && !hasLog) {
    return null;
  }
  const parsed = bytes === null ? null : parseCheckpoint(Buffer.from(bytes).toString("utf8"));
  const line = parsed?.ok === true ? (parsed.value.extensions[0] ?? "") : "";
  const opening = line.startsWith(openingWord) ? parseDecimal(line.slice(openingWord.length)) : null;
  if (parsed?.ok === true && parsed.value.origin === origin && opening !== null) {
    return { checkpoint: { ...parsed.value, extensions: [] }, opening };
  }
  const what = bytes === null ? "is missing" : "is damaged, or of another log";
  throw new SallyportError("ledger.keys", "gateway", `The note of the newest checkpoint, ${newestFile}, ${what}.`, {
    nextStep: `Restore ${path} from the newest copy: without it nobody can tell an older log from the newest.`,
  });
}

/** Notes a checkpoint. Durable when this returns. */
export async function writeNewest(store: KeyStore, { checkpoint, opening }: Newest): Promise<void> {
  const text = formatCheckpoint({ ...checkpoint, extensions: [`${openingWord}${opening}`] });
  await writeDurably(store, store.directory, newestFile, Buffer.from(text, "utf8"));
}

/** A log's directory as it was found. */
export interface FoundLog {
  readonly place: LogPlace;
  readonly signer: NoteSigner;
  /** The published tree. */
  readonly edge: TreeEdge;
  readonly pending: readonly Pending[];
}

/**
 * Checks that the log reaches the noted checkpoint: with its own checkpoint, or with the entries that follow it.
 * @throws SallyportError `ledger.corrupt` for an older copy, or another log than the one that was signed.
 */
export async function assertReaches(found: FoundLog, { checkpoint: noted }: Newest): Promise<void> {
  const { place, edge, pending } = found;
  const reached = edge.size + pending.length;
  if (reached < noted.size) {
    throw foreign(
      place,
      `it is an older copy, of ${reached} entries, and this node has signed a tree of ${noted.size}`,
    );
  }
  if (!equalBytes(await rootAt(found, noted.size), noted.root)) {
    throw foreign(place, `its first ${noted.size} entries are not the ones that this node has signed`);
  }
}

async function rootAt({ place, signer, edge, pending }: FoundLog, size: number): Promise<Uint8Array> {
  if (size < edge.size) {
    return rootWithin(place, size, edge.size);
  }
  if (size === edge.size) {
    return edge.root();
  }
  // A tree of its own: the one at hand goes on from where it is published.
  const ahead = await loadTree(place, signer);
  for (const { entry } of pending.slice(0, size - ahead.size)) {
    ahead.append(entry);
  }
  return ahead.root();
}

/** The root of the first `size` leaves of a published tree; the keys are then from an older copy than the log. */
async function rootWithin(place: LogPlace, size: number, treeSize: number): Promise<Uint8Array> {
  // A first run with a placeholder finds which nodes are needed; the second has their tiles.
  const needed = new Map<string, TileName>();
  treeRoot(size, (level, index) => {
    const { tile } = placeOfNode(level, index, treeSize);
    needed.set(formatTilePath(tile), tile);
    return new Uint8Array(hashBytes);
  });
  const tiles = new Map<string, Uint8Array>();
  for (const [path, tile] of needed) {
    tiles.set(path, await readTreeFile(place, tile));
  }
  return treeRoot(size, (level, index) => {
    const found = placeOfNode(level, index, treeSize);
    return hashOfPlace(tiles.get(formatTilePath(found.tile)) ?? new Uint8Array(0), found);
  });
}
