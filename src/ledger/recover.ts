/** What a log's directory holds when it is opened: the published tree, and the durable entries that are not in it yet. */
import { join } from "node:path";

import { SallyportError } from "#domain/errors.ts";
import { openCheckpoint } from "#tlog/checkpoint.ts";
import type { Checkpoint } from "#tlog/checkpoint.ts";
import { equalBytes } from "#tlog/hash.ts";
import { parseVerifierKey } from "#tlog/note.ts";
import type { NoteSigner } from "#tlog/note.ts";
import { formatTilePath } from "#tlog/tile.ts";

import { canonicalJson } from "./entry.ts";
import { TreeEdge } from "./edge.ts";
import { writeWhole } from "./files.ts";
import type { Files } from "./files.ts";
import { decodeSegment, payloadFrameBytes, payloadFrames } from "./frame.ts";
import type { Pending } from "./frame.ts";
import {
  checkpointFile,
  logFormat,
  metadataFile,
  parsePayloadFileName,
  parseSegmentName,
  payloadDirectory,
  payloadFileName,
  segmentDirectory,
  segmentName,
} from "./layout.ts";
import type { PayloadPosition } from "./publish.ts";

/** A log's directory and how to reach it. */
export interface LogPlace {
  readonly directory: string;
  readonly files: Files;
}

function corrupt(what: string, cause?: unknown): SallyportError {
  return new SallyportError("ledger.corrupt", "gateway", `The ledger cannot be continued: ${what}.`, {
    cause,
    nextStep: "Run `sallyport ledger verify` to see where it is damaged, and restore the directory from a copy.",
  });
}

/** The content of `log.json`: it says what the directory is, and a verifier can derive every byte of it. */
export function logMetadata(origin: string): Uint8Array {
  return Buffer.from(`${canonicalJson({ format: logFormat, origin })}\n`, "utf8");
}

/** Whether a log was begun in this directory. */
export async function hasCheckpoint({ directory, files }: LogPlace): Promise<boolean> {
  return (await files.read(join(directory, checkpointFile))) !== null;
}

/**
 * Makes the directories of a log and its `log.json`. Until there is a checkpoint it is all made again, since a process
 * that was killed may have left names and content that the next power cut would take away.
 * @throws SallyportError `ledger.corrupt` when the directory is another log's.
 */
export async function prepareDirectory(place: LogPlace, origin: string, isNew: boolean): Promise<void> {
  const { directory, files } = place;
  await files.makeDirectory(join(directory, segmentDirectory));
  if (isNew) {
    await writeWhole(files, join(directory, metadataFile), "replace", [logMetadata(origin)]);
  } else {
    const metadata = await files.read(join(directory, metadataFile));
    if (metadata === null || !equalBytes(metadata, logMetadata(origin))) {
      throw corrupt(`${metadataFile} is not that of a log named ${origin}`);
    }
  }
  // A crash before this leaves a directory without a checkpoint, which is begun anew.
  await files.syncDirectory(directory);
}

/**
 * Reads the published tree: the checkpoint, checked with the log's own key, and the edge that has its root.
 * @throws SallyportError `ledger.corrupt` when they do not fit.
 */
export async function loadTree(place: LogPlace, signer: NoteSigner): Promise<TreeEdge> {
  const checkpoint = await loadCheckpoint(place, signer);
  if (checkpoint === null) {
    return TreeEdge.load(0, async () => new Uint8Array(0));
  }
  const read = async (name: Parameters<typeof formatTilePath>[0]): Promise<Uint8Array> => {
    const bytes = await place.files.read(join(place.directory, formatTilePath(name)));
    if (bytes === null) {
      throw corrupt(`${formatTilePath(name)} is missing`);
    }
    return bytes;
  };
  const edge = await TreeEdge.load(checkpoint.size, read);
  if (!equalBytes(edge.root(), checkpoint.root)) {
    throw corrupt("the newest tiles do not have the root that the checkpoint names");
  }
  return edge;
}

async function loadCheckpoint({ directory, files }: LogPlace, signer: NoteSigner): Promise<Checkpoint | null> {
  const bytes = await files.read(join(directory, checkpointFile));
  if (bytes === null) {
    return null;
  }
  const key = parseVerifierKey(signer.verifierKey);
  const checkpoint = key.ok ? openCheckpoint(bytes, key.value) : key;
  if (!checkpoint.ok) {
    throw corrupt(`its checkpoint was refused: ${checkpoint.reason}`);
  }
  return checkpoint.value;
}

/** Durable entries after the checkpoint. */
export interface Tail {
  readonly pending: readonly Pending[];
  /** Bytes of an unfinished write that were cut off. */
  readonly tornBytes: number;
  /** The segments read, by number: the ones to remove once `pending` is published. */
  readonly segments: readonly number[];
}

/**
 * Reads the write-ahead segments and cuts off an unfinished last write.
 * @throws SallyportError `ledger.corrupt` when an entry that was once durable is damaged or missing.
 */
export async function loadTail(place: LogPlace, publishedSize: number): Promise<Tail> {
  const { directory, files } = place;
  const segments: number[] = [];
  const pending: Pending[] = [];
  let tornBytes = 0;
  for (const name of await files.list(join(directory, segmentDirectory))) {
    const sequence = parseSegmentName(name);
    if (sequence === null) {
      throw corrupt(`${segmentDirectory}/${name} is not a segment`);
    }
    const path = join(directory, segmentDirectory, name);
    const bytes = (await files.read(path)) ?? new Uint8Array(0);
    const segment = decodeSegment(bytes);
    if (segment.end === "corrupt" || (tornBytes > 0 && segment.pending.length > 0)) {
      throw corrupt(`${segmentDirectory}/${name} is damaged at byte ${segment.wholeBytes}`);
    }
    if (segment.end === "torn") {
      tornBytes += bytes.length - segment.wholeBytes;
      const file = await files.open(path, "append");
      await file.truncate(segment.wholeBytes);
      await file.sync();
      // A crash here leaves the segment without its unfinished write, which nobody was told of.
      await file.close();
    }
    segments.push(sequence);
    pending.push(...segment.pending.filter((entry) => entry.index >= publishedSize));
  }
  pending.forEach((entry, i) => {
    if (entry.index !== publishedSize + i) {
      throw corrupt(`entry ${publishedSize + i} is missing from the write-ahead segments`);
    }
  });
  return { pending, tornBytes, segments };
}

/** Removes segments. A crash in here leaves some: the checkpoint covers their entries, and the next start removes them. */
export async function removeSegments({ directory, files }: LogPlace, segments: readonly number[]): Promise<void> {
  for (const sequence of segments) {
    await files.remove(join(directory, segmentDirectory, segmentName(sequence)));
  }
  await files.syncDirectory(join(directory, segmentDirectory));
}

/**
 * Finds where the payload files end for a tree of `publishedSize` leaves, and cuts off what a crashed publication left
 * past it. Such leftovers are copies of payloads in `pending`, which is checked before anything is cut.
 * @throws SallyportError `ledger.corrupt` when there is more past the end than `pending` accounts for.
 */
export async function trimPayloads(
  place: LogPlace,
  publishedSize: number,
  pending: readonly Pending[],
): Promise<PayloadPosition | null> {
  const { directory, files } = place;
  const names = await files.list(join(directory, payloadDirectory));
  const indexes = names.map(parsePayloadFileName).filter((index) => index !== null);
  for (const firstIndex of indexes.filter((index) => index >= publishedSize)) {
    if (pending[firstIndex - publishedSize] === undefined) {
      throw corrupt(`${payloadDirectory}/${payloadFileName(firstIndex)} is not of this log`);
    }
    await files.remove(join(directory, payloadDirectory, payloadFileName(firstIndex)));
  }
  const last = indexes.findLast((index) => index < publishedSize);
  if (last === undefined) {
    return null;
  }
  const path = join(directory, payloadDirectory, payloadFileName(last));
  const bytes = (await files.read(path)) ?? new Uint8Array(0);
  let end = 0;
  for (const frame of payloadFrames(bytes)) {
    if (frame.index >= publishedSize) {
      break;
    }
    end = frame.end;
  }
  const leftover = bytes.length - end;
  const accounted = pending.reduce(
    (sum, entry) => sum + (entry.payload === null ? 0 : payloadFrameBytes(entry.payload)),
    0,
  );
  if (leftover > accounted) {
    throw corrupt(`${payloadDirectory}/${payloadFileName(last)} is damaged after byte ${end}`);
  }
  if (leftover > 0) {
    const file = await files.open(path, "append");
    await file.truncate(end);
    await file.sync();
    // A crash here leaves the payload file as the checkpoint covers it.
    await file.close();
  }
  return { firstIndex: last, bytes: end };
}
