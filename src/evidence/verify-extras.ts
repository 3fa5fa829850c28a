/**
 * Files that the checkpoint does not name. A publication that was interrupted leaves some: older partial tiles, which
 * begin the ones that replaced them, and tiles of the next tree, which the tail's entries make. Anything else does not
 * belong to the log.
 */
import { encodeBundle, formatTilePath, hashesAtLevel, parseTilePath, tileWidth } from "#tlog/tile.ts";
import type { TileName } from "#tlog/tile.ts";
import { rootOfHashes } from "#tlog/tree.ts";

import type { LogFiles } from "./verify-files.ts";
import { isStartOf } from "./verify-findings.ts";
import type { Findings } from "./verify-findings.ts";
import type { TreeEdges } from "./verify-tree.ts";

export interface ExtrasParts {
  readonly files: LogFiles;
  readonly findings: Findings;
  /** Of the checkpoint. */
  readonly size: number;
  readonly edges: TreeEdges;
  readonly tailLeaves: readonly Uint8Array[];
  readonly tailEntries: readonly Uint8Array[];
  readonly leafAt: (index: number) => Uint8Array | null;
}

/** Checks every file that was not covered yet. Returns those that hold no evidence and are not read. */
export function verifyExtras(parts: ExtrasParts): readonly string[] {
  const { files, findings } = parts;
  const covered = new Set(findings.files);
  const notCovered: string[] = [];
  const levels = levelsWithTail(parts);
  for (const file of files.paths.filter((path) => !covered.has(path))) {
    const name = parseTilePath(file);
    if (/^lock\/[^/]+$/.test(file) || file === "checkpoint.new") {
      notCovered.push(file);
    } else if (name === null) {
      findings.broken(file, "the file does not belong to the log");
    } else {
      checkLeftover(parts, levels, file, name);
    }
  }
  for (const file of files.strangers) {
    findings.broken(file, "this is not a plain file, and does not belong to the log");
  }
  return notCovered;
}

/** The hashes of each level from its unfinished tile on, as the tail's entries continue them. */
function levelsWithTail({ edges, tailLeaves }: ExtrasParts): readonly (readonly Uint8Array[])[] {
  const levels: (readonly Uint8Array[])[] = [];
  let added = tailLeaves;
  for (let level = 0; level === 0 || added.length > 0 || level < edges.length; level++) {
    const hashes = [...(edges[level] ?? []), ...added];
    levels.push(hashes);
    const full = Math.floor(hashes.length / tileWidth);
    added = Array.from({ length: full }, (_, i) => rootOfHashes(hashes.slice(i * tileWidth, (i + 1) * tileWidth)));
  }
  return levels;
}

function checkLeftover(
  parts: ExtrasParts,
  levels: readonly (readonly Uint8Array[])[],
  file: string,
  name: TileName,
): void {
  const { files, findings } = parts;
  const bytes = files.read(file);
  if (bytes === null) {
    return;
  }
  findings.cover(file);
  const expected = expectedContent(parts, levels, name);
  if (expected === null) {
    findings.broken(file, "the log has no such tile: nothing that was recorded makes it");
  } else if (!isStartOf(bytes, expected)) {
    findings.broken(file, "the tile is a leftover of an interrupted publication, and not what the entries make");
  }
}

/** What a tile that the checkpoint does not name has to begin with; null when the entries do not reach so far. */
function expectedContent(
  parts: ExtrasParts,
  levels: readonly (readonly Uint8Array[])[],
  name: TileName,
): Uint8Array | null {
  const { size, leafAt, tailEntries, files } = parts;
  const first = name.index * tileWidth;
  if (name.level === "entries") {
    if (first + name.width > size + tailEntries.length) {
      return null;
    }
    const entries = Array.from({ length: name.width }, (_, i) =>
      first + i < size ? leafAt(first + i) : (tailEntries[first + i - size] ?? null),
    );
    return encodeBundle(entries.filter((entry) => entry !== null));
  }
  const published = hashesAtLevel(name.level, size);
  const edgeStart = Math.floor(published / tileWidth) * tileWidth;
  if (first < edgeStart) {
    return files.read(formatTilePath({ ...name, width: tileWidth }))?.subarray(0, name.width * 32) ?? null;
  }
  const hashes = levels[name.level]?.slice(first - edgeStart, first - edgeStart + name.width) ?? [];
  return hashes.length < name.width ? null : Buffer.concat(hashes);
}
