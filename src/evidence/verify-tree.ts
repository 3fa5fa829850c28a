/**
 * The tree in the files against the signed root. Each stored tile is compared with what lies below it: the entries of
 * its bundle, or the tiles of the level below. Where the two differ, the hash one level up (in the end the signed root)
 * says which of them is wrong.
 */
import { setImmediate as nextTurn } from "node:timers/promises";

import type { Checkpoint } from "#tlog/checkpoint.ts";
import { equalBytes, hashBytes, leafHash } from "#tlog/hash.ts";
import {
  bundleReader,
  formatTilePath,
  hashesAtLevel,
  hashesOfTile,
  tileLevels,
  tilesOfLevel,
  tileWidth,
} from "#tlog/tile.ts";
import type { BundleEntry, TileName } from "#tlog/tile.ts";
import { rootOfHashes } from "#tlog/tree.ts";

import type { LogFiles } from "./verify-files.ts";
import { firstDifference } from "./verify-findings.ts";
import type { Findings } from "./verify-findings.ts";

/** A leaf as it was read from its bundle. */
export interface ReadLeaf {
  readonly index: number;
  readonly bytes: Uint8Array;
  readonly file: string;
  readonly byte: number;
}

export interface TreeParts {
  readonly files: LogFiles;
  readonly findings: Findings;
  readonly checkpoint: Checkpoint;
  /** Called for every leaf, in order; null stands for one that is damaged or missing, which is reported already. */
  readonly onLeaf: (index: number, leaf: ReadLeaf | null) => void;
}

/** A tile as stored, and as what lies below it says. */
interface TileVersions {
  readonly name: TileName;
  readonly stored: readonly Uint8Array[];
  readonly computed: readonly Uint8Array[];
  /** Reports what is wrong below this tile; called when what lies below is not proven right. */
  readonly blameBelow: () => void;
  /** Hands on the entries: all of them, or those that have the stored hash. */
  readonly deliver: (which: "all" | "matching") => void;
}

/** The unfinished tile of each level, as proven or as well as is known: what further entries would be added to. */
export type TreeEdges = readonly (readonly Uint8Array[])[];

/** Reads all entries and tiles that the checkpoint covers and finds what does not belong to its root. */
export async function verifyTree(parts: TreeParts): Promise<TreeEdges> {
  const walk = new TreeWalk(parts);
  const levels = tileLevels(parts.checkpoint.size);
  const edges: TileVersions[] = [];
  let below: readonly Uint8Array[] = [];
  for (let level = 0; level < levels; level++) {
    const hashes: Uint8Array[] = [];
    for (const name of tilesOfLevel(level, parts.checkpoint.size)) {
      const versions = level === 0 ? walk.leafTile(name) : walk.upperTile(name, below);
      if (name.width < tileWidth) {
        edges[level] = versions;
      } else {
        hashes.push(walk.settle(versions));
      }
      if (level === 0) {
        await nextTurn();
      }
    }
    below = hashes;
  }
  return walk.settleEdges(edges, levels);
}

const emptyHash = new Uint8Array(hashBytes);

class TreeWalk {
  readonly #parts: TreeParts;
  #parent: { readonly path: string; readonly bytes: Uint8Array | null } | null = null;

  constructor(parts: TreeParts) {
    this.#parts = parts;
  }

  /** A tile of level 0 with the hashes of its bundle's entries. */
  leafTile(name: TileName): TileVersions {
    const bundle: TileName = { level: "entries", index: name.index, width: name.width };
    const file = formatTilePath(bundle);
    const leaves = this.#readBundle(bundle, file);
    const first = name.index * tileWidth;
    const stored = this.#readTile(name);
    const computed: Uint8Array[] = [];
    for (let i = 0; i < name.width; i++) {
      const leaf = leaves[i];
      computed.push(leaf === undefined ? (stored?.[i] ?? emptyHash) : leafHash(leaf.entry));
    }
    const tile = stored ?? computed;
    const isOther = (i: number): boolean => !equalBytes(computed[i] ?? emptyHash, tile[i] ?? emptyHash);
    const blameBelow = (): void => {
      this.#blameEntries({ file, first, leaves, others: computed.map((_, i) => i).filter(isOther) });
    };
    const deliver = (which: "all" | "matching"): void => {
      for (let i = 0; i < name.width; i++) {
        const leaf = leaves[i];
        const isGood = leaf !== undefined && (which === "all" || !isOther(i));
        this.#parts.onLeaf(first + i, isGood ? { index: first + i, bytes: leaf.entry, file, byte: leaf.offset } : null);
      }
    };
    return { name, stored: tile, computed, blameBelow, deliver };
  }

  /** Entries of one bundle that do not have their hash in the tree. */
  #blameEntries(blame: {
    readonly file: string;
    readonly first: number;
    readonly leaves: readonly BundleEntry[];
    readonly others: readonly number[];
  }): void {
    const { file, first, leaves, others } = blame;
    const [start] = others;
    if (start === undefined) {
      return;
    }
    // A changed length shifts all that follows it: that is one fault, and not as many as there are entries.
    const isShift = others.length > 1 && others.length === leaves.length - start;
    for (const i of isShift ? [start] : others) {
      const after = isShift ? `, and what follows it in this file cannot be told apart` : "";
      const words = `entry ${first + i} is not the one that was recorded: its hash is not the one in the tree${after}`;
      this.#parts.findings.broken(file, words, { entry: first + i, byte: leaves[i]?.offset ?? null });
    }
  }

  #readBundle(name: TileName, file: string): readonly BundleEntry[] {
    const { files, findings } = this.#parts;
    const first = name.index * tileWidth;
    findings.cover(file);
    const found = files.readTile(name);
    if (found === null) {
      findings.missing(file, `the file is missing, and with it the entries ${first} to ${first + name.width - 1}`);
      return [];
    }
    const { bytes, isWider } = found;
    const reader = bundleReader();
    const leaves = reader.push(bytes);
    if (leaves.length < name.width) {
      const place = { entry: first + leaves.length, byte: bytes.length - reader.unfinishedBytes };
      findings.missing(
        file,
        `the file ends before entry ${first + leaves.length} is whole; it should hold ${name.width}`,
        place,
      );
    } else if (!isWider && (leaves.length > name.width || reader.unfinishedBytes > 0)) {
      const byte = leaves[name.width]?.offset ?? bytes.length - reader.unfinishedBytes;
      findings.broken(file, `the file goes on after its last entry`, { byte });
    }
    return leaves.slice(0, name.width);
  }

  /** A tile's hashes; null when there is no whole one. */
  #readTile(name: TileName): readonly Uint8Array[] | null {
    const { files, findings } = this.#parts;
    const file = formatTilePath(name);
    findings.cover(file);
    const found = files.readTile(name);
    if (found === null) {
      findings.missing(file, "the tile is missing");
      return null;
    }
    const { bytes, isWider } = found;
    if (bytes.length < name.width * hashBytes) {
      findings.missing(file, `the tile is cut short: ${bytes.length} of ${name.width * hashBytes} bytes`, {
        byte: bytes.length,
      });
      return null;
    }
    if (bytes.length > name.width * hashBytes && !isWider) {
      findings.broken(file, "the tile goes on after its last hash", { byte: name.width * hashBytes });
    }
    return hashesOfTile(bytes, 0, name.width);
  }

  /** A tile of a higher level with the roots of the tiles below it. */
  upperTile(name: TileName, below: readonly Uint8Array[]): TileVersions {
    const first = name.index * tileWidth;
    const computed = below.slice(first, first + name.width);
    const stored = this.#readTile(name) ?? computed;
    const blameBelow = (): void => {
      for (const [i, hash] of computed.entries()) {
        if (!equalBytes(hash, stored[i] ?? hash)) {
          const child = typeof name.level === "number" ? name.level - 1 : 0;
          const span = tileWidth ** (child + 1);
          const from = (first + i) * span;
          const file = formatTilePath({ level: child, index: first + i, width: tileWidth });
          this.#parts.findings.broken(
            file,
            `the entries ${from} to ${from + span - 1} are not the ones that were recorded`,
            {
              entry: from,
            },
          );
        }
      }
    };
    return { name, stored, computed, blameBelow, deliver: () => undefined };
  }

  /** Decides which version of a full tile is right, and returns its root for the level above. */
  settle(versions: TileVersions): Uint8Array {
    const computed = rootOfHashes(versions.computed);
    if (areEqual(versions)) {
      versions.deliver("all");
      return computed;
    }
    const expected = this.#expectedRoot(versions.name);
    if (expected !== null && equalBytes(computed, expected)) {
      this.#blameTile(versions);
      versions.deliver("all");
      return computed;
    }
    versions.blameBelow();
    versions.deliver("matching");
    const stored = rootOfHashes(versions.stored);
    if (expected !== null && equalBytes(stored, expected)) {
      return stored;
    }
    // Neither is right: both are reported, and what is in the entries goes up.
    this.#blameTile(versions);
    return computed;
  }

  /** What the tile above says of a full tile, as stored; null when it is not there. */
  #expectedRoot(name: TileName): Uint8Array | null {
    const { files, checkpoint } = this.#parts;
    const level = typeof name.level === "number" ? name.level + 1 : 1;
    const index = Math.floor(name.index / tileWidth);
    const width = Math.min(tileWidth, hashesAtLevel(level, checkpoint.size) - index * tileWidth);
    const parent: TileName = { level, index, width };
    const path = formatTilePath(parent);
    if (this.#parent?.path !== path) {
      this.#parent = { path, bytes: width > 0 ? (files.readTile(parent)?.bytes ?? null) : null };
    }
    const at = (name.index % tileWidth) * hashBytes;
    const hash = this.#parent.bytes?.subarray(at, at + hashBytes);
    return hash?.length === hashBytes ? hash : null;
  }

  #blameTile(versions: TileVersions): void {
    const file = formatTilePath(versions.name);
    const byte = firstDifference(Buffer.concat(versions.stored), Buffer.concat(versions.computed));
    this.#parts.findings.broken(file, "the tile does not have the hashes of what it stands for", { byte });
  }

  /** The unfinished tiles together make the root: the signed root decides on all of them. */
  settleEdges(edges: readonly (TileVersions | undefined)[], levels: number): TreeEdges {
    const { checkpoint, findings } = this.#parts;
    const computed = Array.from({ length: levels }, (_, level) => edges[level]?.computed ?? []);
    const stored = Array.from({ length: levels }, (_, level) => edges[level]?.stored ?? []);
    const different = edges.filter((versions) => versions !== undefined).filter((versions) => !areEqual(versions));
    if (equalBytes(rootOfEdges(computed), checkpoint.root)) {
      for (const versions of different) {
        this.#blameTile(versions);
      }
      edges[0]?.deliver("all");
      return computed;
    }
    for (const versions of different) {
      versions.blameBelow();
    }
    edges[0]?.deliver("matching");
    if (equalBytes(rootOfEdges(stored), checkpoint.root)) {
      return stored;
    }
    for (const versions of different) {
      this.#blameTile(versions);
    }
    if (different.length === 0) {
      findings.broken("checkpoint", "the entries and tiles make another tree than the one that was signed");
    }
    return computed;
  }
}

function areEqual(versions: TileVersions): boolean {
  return versions.stored.every((hash, i) => equalBytes(hash, versions.computed[i] ?? hash));
}

/** The root of a tree from the unfinished tile of each of its levels. */
function rootOfEdges(edges: TreeEdges): Uint8Array {
  let rest: Uint8Array | null = null;
  for (const hashes of edges) {
    if (hashes.length > 0 || rest !== null) {
      rest = rootOfHashes(rest === null ? hashes : [...hashes, rest]);
    }
  }
  return rest ?? rootOfHashes([]);
}
