/**
 * C2SP tlog-tiles: a tree as files. A tile of level L holds up to 256 hashes of complete subtrees of 256^L leaves;
 * an entry bundle holds up to 256 entries, each after its length as a big-endian u16.
 */
import { hashBytes } from "./hash.ts";
import { parseDecimal } from "./parsed.ts";
import { rootOfHashes } from "./tree.ts";

/** Hashes in a full tile, and entries in a full bundle. */
export const tileWidth = 256;
/** Tree levels that one tile level spans. */
export const tileHeight = 8;
/** Tiles of 256^l leaves: level 6 is past what a safe integer counts. */
export const tileLevelsMax = 7;

/** A tile or an entry bundle. `width` is 256 when full. */
export interface TileName {
  readonly level: number | "entries";
  readonly index: number;
  readonly width: number;
}

/** `N` in groups of three digits, all but the last after an `x`: 1234067 is `x001/x234/067`. */
function formatIndex(index: number): string {
  const digits = String(index);
  const padded = digits.padStart(Math.ceil(digits.length / 3) * 3, "0");
  const groups = padded.match(/.{3}/g) ?? [];
  return groups.map((group, i) => (i === groups.length - 1 ? group : `x${group}`)).join("/");
}

/** `tile/<L>/<N>[.p/<W>]`, relative to the log's prefix. */
export function formatTilePath(name: TileName): string {
  const path = `tile/${name.level}/${formatIndex(name.index)}`;
  return name.width === tileWidth ? path : `${path}.p/${name.width}`;
}

/** Reads a path that `formatTilePath` makes; null for any other spelling. */
export function parseTilePath(path: string): TileName | null {
  const match = /^tile\/(entries|[0-9]|[1-5][0-9]|6[0-3])\/((?:x[0-9]{3}\/)*[0-9]{3})(?:\.p\/([0-9]{1,3}))?$/.exec(
    path,
  );
  const [, levelText, indexText, widthText] = match ?? [];
  if (levelText === undefined || indexText === undefined) {
    return null;
  }
  const index = parseDecimal(indexText.replaceAll(/[x/]/g, "").replace(/^0+(?=.)/, ""));
  const level: TileName["level"] | null = levelText === "entries" ? "entries" : parseDecimal(levelText);
  const width = widthText === undefined ? tileWidth : parseDecimal(widthText);
  if (index === null || level === null || width === null || width < 1 || width > tileWidth) {
    return null;
  }
  const name: TileName = { level, index, width };
  return formatTilePath(name) === path ? name : null;
}

/** How many hashes level `level` has in a tree of `size` leaves: complete subtrees of 256^level. */
export function hashesAtLevel(level: number, size: number): number {
  return Math.floor(size / tileWidth ** level);
}

/** Every tile of one level (or every entry bundle) that a tree of `size` leaves has, the partial one last. */
export function* tilesOfLevel(level: number | "entries", size: number): Generator<TileName> {
  const hashes = hashesAtLevel(level === "entries" ? 0 : level, size);
  const full = Math.floor(hashes / tileWidth);
  for (let index = 0; index < full; index++) {
    yield { level, index, width: tileWidth };
  }
  if (hashes % tileWidth > 0) {
    yield { level, index: full, width: hashes % tileWidth };
  }
}

/** Tile levels that a tree of `size` leaves has. */
export function tileLevels(size: number): number {
  let levels = 0;
  while (levels < tileLevelsMax && hashesAtLevel(levels, size) > 0) {
    levels++;
  }
  return levels;
}

/** The tile that holds a complete subtree, and which of its hashes make it: `[start, start + count)`. */
export interface TilePlace {
  readonly tile: TileName;
  readonly start: number;
  readonly count: number;
}

/** Where the subtree hash of (`level`, `index`) is found in the tiles of a tree of `size` leaves. */
export function placeOfNode(level: number, index: number, size: number): TilePlace {
  const tileLevel = Math.floor(level / tileHeight);
  const count = 2 ** (level % tileHeight);
  const first = index * count;
  const tileIndex = Math.floor(first / tileWidth);
  const width = Math.min(tileWidth, hashesAtLevel(tileLevel, size) - tileIndex * tileWidth);
  return { tile: { level: tileLevel, index: tileIndex, width }, start: first - tileIndex * tileWidth, count };
}

/** The hashes `[start, start + count)` of a tile's bytes. */
export function hashesOfTile(bytes: Uint8Array, start: number, count: number): readonly Uint8Array[] {
  return Array.from({ length: count }, (_, i) => bytes.subarray((start + i) * hashBytes, (start + i + 1) * hashBytes));
}

/** The subtree hash that a place in a tile stands for. */
export function hashOfPlace(bytes: Uint8Array, place: TilePlace): Uint8Array {
  return rootOfHashes(hashesOfTile(bytes, place.start, place.count));
}

const lengthBytes = 2;
/** Longest entry that a bundle can hold. */
export const entryBytesMax = 0xffff;

/**
 * The length field that precedes an entry in a bundle.
 * @throws RangeError for an entry of more than 65,535 bytes.
 */
export function bundleLength(entry: Uint8Array): Uint8Array {
  if (entry.length > entryBytesMax) {
    throw new RangeError(`an entry of ${entry.length} bytes`);
  }
  const field = Buffer.allocUnsafe(lengthBytes);
  field.writeUInt16BE(entry.length);
  return field;
}

/**
 * A bundle of entries.
 * @throws RangeError for an entry of more than 65,535 bytes.
 */
export function encodeBundle(entries: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(entries.flatMap((entry) => [bundleLength(entry), entry]));
}

/** An entry of a bundle, and the offset of its length field. */
export interface BundleEntry {
  readonly entry: Uint8Array;
  readonly offset: number;
}

/** Reads a bundle in pieces of any size, and holds no more than one entry. Entries are views of the pieces. */
export interface BundleReader {
  /** The entries that this piece completes. */
  push(piece: Uint8Array): readonly BundleEntry[];
  /** Bytes of an entry that has begun and not ended; 0 at a clean end. */
  readonly unfinishedBytes: number;
}

/** A reader for one bundle. */
export function bundleReader(): BundleReader {
  let held: Uint8Array = new Uint8Array(0);
  let consumed = 0;
  return {
    push(piece) {
      const bytes = held.length === 0 ? piece : Buffer.concat([held, piece]);
      const entries: BundleEntry[] = [];
      let offset = 0;
      while (bytes.length - offset >= lengthBytes) {
        const length = (bytes[offset] ?? 0) * 256 + (bytes[offset + 1] ?? 0);
        const end = offset + lengthBytes + length;
        if (end > bytes.length) {
          break;
        }
        entries.push({ entry: bytes.subarray(offset + lengthBytes, end), offset: consumed + offset });
        offset = end;
      }
      held = Uint8Array.from(bytes.subarray(offset));
      consumed += offset;
      return entries;
    },
    get unfinishedBytes() {
      return held.length;
    },
  };
}
