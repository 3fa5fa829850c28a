/**
 * The files of a log's directory, for reading only. The log may be growing meanwhile: what is seen is one moment of it,
 * made of the checkpoint, the names and sizes of the files, and the content of the write-ahead segments.
 */
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";

import { equalBytes } from "#tlog/hash.ts";
import { formatTilePath, parseTilePath, tileWidth } from "#tlog/tile.ts";
import type { TileName } from "#tlog/tile.ts";

/** A log's directory as it was found. */
export interface LogFiles {
  /** Every file, relative to the directory, with `/` between the parts, sorted. */
  readonly paths: readonly string[];
  /** Links, devices and the like: nothing that a log has. */
  readonly strangers: readonly string[];
  /** A file's content, at most as long as the file was when it was listed; null when it is not there. */
  read(path: string): Uint8Array | null;
  /** A tile or bundle; when a growing log has removed this partial one meanwhile, a wider one, which begins the same. */
  readTile(name: TileName): { readonly bytes: Uint8Array; readonly isWider: boolean } | null;
}

interface Listing {
  readonly sizes: ReadonlyMap<string, number>;
  readonly strangers: readonly string[];
}

/** How often the first look is repeated when the log published in the midst of it. */
const attemptsMax = 100;

/**
 * Takes a look at a log.
 * @throws Error when the directory cannot be read.
 */
export function openLogFiles(directory: string): LogFiles {
  const read = (path: string): Buffer | null => {
    try {
      return lstatSync(join(directory, path)).isFile() ? readFileSync(join(directory, path)) : null;
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") {
        return null;
      }
      throw error;
    }
  };
  for (let attempt = 1; ; attempt++) {
    const checkpoint = read("checkpoint");
    const listing = list(directory);
    const names = [...listing.sizes.keys()].filter((path) => path.startsWith("wal/"));
    const segments = new Map(names.map((path) => [path, read(path)]));
    const after = read("checkpoint");
    const isOneMoment = checkpoint === null || after === null ? checkpoint === after : equalBytes(checkpoint, after);
    if (isOneMoment || attempt === attemptsMax) {
      return view(directory, listing, read, new Map([["checkpoint", checkpoint], ...segments]));
    }
  }
}

function list(directory: string): Listing {
  const sizes = new Map<string, number>();
  const strangers: string[] = [];
  for (const item of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    const full = join(item.parentPath, item.name);
    const path = relative(directory, full).split(sep).join("/");
    const status = lstatSync(full, { throwIfNoEntry: false });
    if (status?.isFile() === true) {
      sizes.set(path, status.size);
    } else if (status !== undefined && !status.isDirectory()) {
      strangers.push(path);
    }
  }
  return { sizes, strangers: strangers.toSorted() };
}

function view(
  directory: string,
  listing: Listing,
  read: (path: string) => Buffer | null,
  kept: ReadonlyMap<string, Buffer | null>,
): LogFiles {
  const paths = [...listing.sizes.keys()].toSorted();
  return {
    paths,
    strangers: listing.strangers,
    read(path) {
      const content = kept.get(path);
      return content === undefined ? (read(path)?.subarray(0, listing.sizes.get(path)) ?? null) : content;
    },
    readTile(name) {
      const exact = read(formatTilePath(name));
      if (exact !== null) {
        return { bytes: exact, isWider: false };
      }
      const full = formatTilePath({ ...name, width: tileWidth });
      const wider = [full, ...partialsOf(directory, full)].filter(
        (path) => (parseTilePath(path)?.width ?? 0) > name.width,
      );
      const bytes = wider.map(read).find((content) => content !== null);
      return bytes === undefined ? null : { bytes, isWider: true };
    },
  };
}

function partialsOf(directory: string, full: string): readonly string[] {
  try {
    return readdirSync(join(directory, `${full}.p`)).map((width) => `${full}.p/${width}`);
  } catch {
    // There is no such directory: the tile has no partial ones.
    return [];
  }
}
