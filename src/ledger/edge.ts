/**
 * The right edge of the tree in memory: the unfinished tile of each level and the unfinished entry bundle.
 * From these alone come the root, and every file that new entries complete or change. Pure.
 */
import { hashBytes, leafHash } from "#tlog/hash.ts";
import { bundleLength, hashesAtLevel, hashesOfTile, tileWidth } from "#tlog/tile.ts";
import type { TileName } from "#tlog/tile.ts";
import { rootOfHashes } from "#tlog/tree.ts";

/** A file of the tree with its content. */
export interface TreeFile {
  readonly name: TileName;
  readonly bytes: Uint8Array;
}

interface EdgeTile {
  readonly bytes: Buffer;
  /** Hashes in it, fewer than 256. */
  width: number;
  /** The level's tile index. */
  index: number;
  /** Whether it holds hashes that no file has yet. */
  isDirty: boolean;
}

/** The tree's right edge. Owned by the publisher; nothing else changes it. */
export class TreeEdge {
  #size = 0;
  readonly #levels: EdgeTile[] = [];
  /** The unfinished bundle, in pieces: its beginning, then a length and an entry for each that came since. */
  #bundle: Uint8Array[] = [];

  /**
   * Reads the edge of a tree of `size` leaves through `read`, which gives a file's whole content.
   * @throws RangeError when a file has another length than its name says, or the bundle does not match its tile.
   */
  static async load(size: number, read: (name: TileName) => Promise<Uint8Array>): Promise<TreeEdge> {
    const edge = new TreeEdge();
    edge.#size = size;
    for (let level = 0; hashesAtLevel(level, size) > 0; level++) {
      const hashes = hashesAtLevel(level, size);
      const width = hashes % tileWidth;
      const tile = edge.#level(level);
      tile.index = Math.floor(hashes / tileWidth);
      tile.width = width;
      if (width > 0) {
        const bytes = await read({ level, index: tile.index, width });
        if (bytes.length !== width * hashBytes) {
          throw new RangeError(`a tile of ${bytes.length} bytes where ${width} hashes were expected`);
        }
        tile.bytes.set(bytes);
      }
    }
    if (size % tileWidth > 0) {
      const name = { level: "entries", index: Math.floor(size / tileWidth), width: size % tileWidth } as const;
      edge.#bundle = [await read(name)];
    }
    return edge;
  }

  get size(): number {
    return this.#size;
  }

  /** The root of the whole tree. Each level's unfinished tile, and on its right what the levels below do not fill. */
  root(): Uint8Array {
    let rest: Uint8Array | null = null;
    for (const tile of this.#levels) {
      const hashes: readonly Uint8Array[] = hashesOfTile(tile.bytes, 0, tile.width);
      if (tile.width > 0 || rest !== null) {
        rest = rootOfHashes(rest === null ? hashes : [...hashes, rest]);
      }
    }
    return rest ?? rootOfHashes([]);
  }

  /** Adds an entry; returns the files that it completes. */
  append(entry: Uint8Array): readonly TreeFile[] {
    const files: TreeFile[] = [];
    this.#bundle.push(bundleLength(entry), entry);
    this.#size += 1;
    if (this.#size % tileWidth === 0) {
      const name = { level: "entries", index: this.#size / tileWidth - 1, width: tileWidth } as const;
      files.push({ name, bytes: Buffer.concat(this.#bundle) });
      this.#bundle = [];
    }
    let hash = leafHash(entry);
    for (let level = 0; ; level++) {
      const tile = this.#level(level);
      tile.bytes.set(hash, tile.width * hashBytes);
      tile.width += 1;
      tile.isDirty = true;
      if (tile.width < tileWidth) {
        return files;
      }
      const bytes = Uint8Array.from(tile.bytes);
      files.push({ name: { level, index: tile.index, width: tileWidth }, bytes });
      hash = rootOfHashes(hashesOfTile(bytes, 0, tileWidth));
      tile.index += 1;
      tile.width = 0;
      tile.isDirty = false;
    }
  }

  /** The unfinished tiles and bundle that changed since the last call, for a tree that ends here. */
  partialFiles(): readonly TreeFile[] {
    const files: TreeFile[] = [];
    const width = this.#size % tileWidth;
    if (width > 0 && this.#levels[0]?.isDirty === true) {
      // One buffer from here on, so that the entries do not keep the batches alive that they were framed in.
      this.#bundle = [Buffer.concat(this.#bundle)];
      const name = { level: "entries", index: Math.floor(this.#size / tileWidth), width } as const;
      files.push(...this.#bundle.map((bytes) => ({ name, bytes })));
    }
    this.#levels.forEach((tile, level) => {
      if (tile.isDirty && tile.width > 0) {
        const bytes = Uint8Array.from(tile.bytes.subarray(0, tile.width * hashBytes));
        files.push({ name: { level, index: tile.index, width: tile.width }, bytes });
        tile.isDirty = false;
      }
    });
    return files;
  }

  #level(level: number): EdgeTile {
    const existing = this.#levels[level];
    if (existing !== undefined) {
      return existing;
    }
    const tile = { bytes: Buffer.alloc(tileWidth * hashBytes), width: 0, index: 0, isDirty: false };
    this.#levels[level] = tile;
    return tile;
  }
}
