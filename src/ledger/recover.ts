/** What a log's directory holds when it is opened: the published tree, and the durable entries that are not in it yet. */
import type { KeyObject } from "node:crypto";
import { join } from "node:path";

import { SallyportError } from "#domain/errors.ts";
import { openCheckpoint } from "#tlog/checkpoint.ts";
import type { Checkpoint } from "#tlog/checkpoint.ts";
import { equalBytes } from "#tlog/hash.ts";
import { parseVerifierKey } from "#tlog/note.ts";
import type { NoteSigner } from "#tlog/note.ts";
import { formatTilePath } from "#tlog/tile.ts";
import type { TileName } from "#tlog/tile.ts";

import { canonicalJson } from "./entry.ts";
import { TreeEdge } from "./edge.ts";
import { writeWhole } from "./files.ts";
import type { Files } from "./files.ts";
import { decodeSegment, payloadFrameBytes, payloadFrames } from "./frame.ts";
import type { Pending, Segment } from "./frame.ts";
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
  const edge = await TreeEdge.load(checkpoint.size, (name) => readTreeFile(place, name));
  if (!equalBytes(edge.root(), checkpoint.root)) {
    throw corrupt("the newest tiles do not have the root that the checkpoint names");
  }
  return edge;
}

/**
 * A tile or bundle of the published tree.
 * @throws SallyportError `ledger.corrupt` when it is not there.
 */
export async function readTreeFile({ directory, files }: LogPlace, name: TileName): Promise<Uint8Array> {
  const bytes = await files.read(join(directory, formatTilePath(name)));
  if (bytes === null) {
    throw corrupt(`${formatTilePath(name)} is missing`);
  }
  return bytes;
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

/** An unfinished write at the end of a segment. */
interface TornEnd {
  readonly path: string;
  /** Where what is whole ends. */
  readonly wholeBytes: number;
}

/** Durable entries after the checkpoint. */
export interface Tail {
  readonly pending: readonly Pending[];
  /** Bytes of an unfinished write that are to be cut off. */
  readonly tornBytes: number;
  readonly torn: readonly TornEnd[];
  /** The segments read, by number: the ones to remove once `pending` is published. */
  readonly segments: readonly number[];
}

/** What is known from outside the log's directory of what its segments can be. */
export interface TailTrust {
  readonly key: KeyObject;
  /** The newest opening of the ledger that there has been. */
  readonly opening: number;
}

/**
 * Reads the write-ahead segments. Nothing is changed: that comes when everything was found in order.
 * @throws SallyportError `ledger.corrupt` when an entry that was once durable is damaged or missing, or was not written by
 * this node; `ledger.keys` when the keys are older than the log.
 */
export async function loadTail(place: LogPlace, publishedSize: number, trust: TailTrust): Promise<Tail> {
  const { directory, files } = place;
  const segments: number[] = [];
  const pending: Pending[] = [];
  const torn: TornEnd[] = [];
  let tornBytes = 0;
  for (const name of await files.list(join(directory, segmentDirectory))) {
    const sequence = parseSegmentName(name);
    if (sequence === null) {
      throw corrupt(`${segmentDirectory}/${name} is not a segment`);
    }
    const path = join(directory, segmentDirectory, name);
    const bytes = (await files.read(path)) ?? new Uint8Array(0);
    const segment = decodeSegment(bytes, trust.key);
    checkSegment(place, `${segmentDirectory}/${name}`, segment);
    if (tornBytes > 0 && segment.pending.length > 0) {
      throw corrupt(`a write before ${segmentDirectory}/${name} is unfinished`);
    }
    const past = segment.pending.filter((entry) => entry.index >= publishedSize);
    if (segment.head !== null) {
      checkHead(place, `${segmentDirectory}/${name}`, {
        head: segment.head,
        sequence,
        opening: trust.opening,
        isAllPublished: past.length === 0,
      });
    }
    if (segment.end === "torn") {
      tornBytes += bytes.length - segment.wholeBytes;
      torn.push({ path, wholeBytes: segment.wholeBytes });
    }
    segments.push(sequence);
    pending.push(...past);
  }
  pending.forEach((entry, i) => {
    if (entry.index !== publishedSize + i) {
      throw corrupt(`entry ${publishedSize + i} is missing from the write-ahead segments`);
    }
  });
  return { pending, tornBytes, torn, segments };
}

function checkSegment(place: LogPlace, file: string, { end, wholeBytes }: Segment): void {
  if (end === "corrupt") {
    throw corrupt(`${file} is damaged at byte ${wholeBytes}`);
  }
  if (end === "forged") {
    throw foreign(place, `${file} holds entries from byte ${wholeBytes} on that this node did not write`);
  }
}

function checkHead(
  place: LogPlace,
  file: string,
  found: {
    readonly head: NonNullable<Segment["head"]>;
    readonly sequence: number;
    readonly opening: number;
    readonly isAllPublished: boolean;
  },
): void {
  const { head, sequence, opening, isAllPublished } = found;
  if (head.sequence !== sequence) {
    throw foreign(place, `${file} is another segment under its name`);
  }
  if (head.opening > opening) {
    throw new SallyportError(
      "ledger.keys",
      "gateway",
      `The directory of keys is older than the log: ${file} is newer.`,
      {
        nextStep: "Restore the newest copy of the directory of keys.",
      },
    );
  }
  if (head.opening < opening && !isAllPublished) {
    // A start publishes all that it finds before it begins its opening, so this was not there then.
    throw foreign(place, `${file} is of an older copy: the last start did not find the entries in it`);
  }
}

/** Somebody else has written in the log's directory. */
export function foreign({ directory }: LogPlace, what: string): SallyportError {
  return new SallyportError("ledger.corrupt", "gateway", `The ledger cannot be continued: ${what}.`, {
    nextStep: `${directory} was changed or replaced by something other than this node: keep a copy of it as evidence, and restore the newest one that this node wrote.`,
  });
}

/** Cuts off unfinished writes, of which nobody was told. */
export async function cutTornEnds({ files }: LogPlace, { torn }: Tail): Promise<void> {
  for (const { path, wholeBytes } of torn) {
    const file = await files.open(path, "append");
    await file.truncate(wholeBytes);
    await file.sync();
    // A crash here leaves the segment without its unfinished write.
    await file.close();
  }
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
