/**
 * The write-ahead segments: entries that are durable and not in the signed tree yet. This is a decoder of its own, from
 * the format's description in `ledger/frame.ts`, so that an error of the writer's is not shared by what checks it.
 * Their macs need a key that only the node has: here they are checked for damage, and not for who made them.
 */
import { crc32 } from "node:zlib";

import type { LogFiles } from "./verify-files.ts";
import { firstDifference } from "./verify-findings.ts";
import type { Findings } from "./verify-findings.ts";

const magic = Buffer.from("SPWAL002", "latin1");
const macBytes = 32;
const headMacOffset = 24;
const headBytes = headMacOffset + macBytes + 4;
const trailerBytes = macBytes + 4;
const batchMagic = 0xff504231;
const batchHeaderBytes = 24;
const recordHeaderBytes = 12;

/** A record of a segment. */
export interface TailRecord {
  readonly index: number;
  readonly entry: Uint8Array;
  readonly payload: Uint8Array | null;
  readonly file: string;
  readonly byte: number;
}

/** Reads the segments in order, up to the first that is damaged, and reports what is wrong with their form. */
export function readTail(files: LogFiles, findings: Findings): readonly TailRecord[] {
  const records: TailRecord[] = [];
  for (const file of files.paths.filter(isSegmentPath)) {
    findings.cover(file);
    const bytes = files.read(file);
    if (bytes === null) {
      findings.missing(file, "the segment is missing");
      continue;
    }
    const segment = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (!checkHead(file, segment, findings)) {
      continue;
    }
    let offset = headBytes;
    while (offset < segment.length) {
      const end = readBatch({ file, segment, start: offset }, findings, records);
      if (end === null) {
        break;
      }
      offset = end;
    }
  }
  return records;
}

function sequenceOf(path: string): number {
  return Number(path.slice("wal/".length, -".wal".length));
}

/** Segments are numbered from 1, as far as numbers are exact. */
function isSegmentPath(path: string): boolean {
  return /^wal\/[0-9]{16}\.wal$/.test(path) && Number.isSafeInteger(sequenceOf(path)) && sequenceOf(path) > 0;
}

/** Whether a segment has the head that its name asks for. */
function checkHead(file: string, segment: Buffer, findings: Findings): boolean {
  const head = segment.subarray(0, headBytes);
  const byte = firstDifference(head, magic);
  if (byte < Math.min(head.length, magic.length)) {
    findings.broken(file, "the segment does not begin as a segment does", { byte });
    return false;
  }
  if (head.length < headBytes) {
    findings.missing(file, "the segment is cut short in its head: nothing was acknowledged of what it was to hold", {
      byte: head.length,
    });
    return false;
  }
  if (head.readUInt32BE(headBytes - 4) !== crc32(head.subarray(0, headBytes - 4))) {
    findings.broken(file, "the head of the segment is damaged: its checksum does not match", { byte: magic.length });
    return false;
  }
  if (head.readBigUInt64BE(magic.length) !== BigInt(sequenceOf(file))) {
    findings.broken(file, "this is another segment under its name", { byte: magic.length });
    return false;
  }
  return true;
}

interface BatchPlace {
  readonly file: string;
  readonly segment: Buffer;
  readonly start: number;
}

/** Reads a batch into `records`. Returns where it ends; null when the rest of the segment cannot be read. */
function readBatch({ file, segment, start }: BatchPlace, findings: Findings, records: TailRecord[]): number | null {
  const unfinished = "the last write is unfinished: nothing in it was acknowledged, and the next start cuts it off";
  if (segment.length - start < batchHeaderBytes) {
    findings.missing(file, unfinished, { byte: start });
    return null;
  }
  if (
    segment.readUInt32BE(start) !== batchMagic ||
    segment.readUInt32BE(start + 20) !== crc32(segment.subarray(start, start + 20))
  ) {
    findings.broken(file, "the head of this batch is damaged: its checksum does not match", { byte: start });
    return null;
  }
  const bodyEnd = start + batchHeaderBytes + segment.readUInt32BE(start + 4);
  const firstIndex = Number(segment.readBigUInt64BE(start + 8));
  const count = segment.readUInt32BE(start + 16);
  const batchEnd = bodyEnd + trailerBytes;
  if (batchEnd > segment.length) {
    findings.missing(file, unfinished, { byte: start, entry: firstIndex });
    return null;
  }
  if (segment.readUInt32BE(batchEnd - 4) !== crc32(segment.subarray(bodyEnd, batchEnd - 4))) {
    findings.broken(file, "the mac of this batch is damaged: its checksum does not match", { byte: bodyEnd });
  }
  let offset = start + batchHeaderBytes;
  for (let i = 0; i < count; i++) {
    const place = { byte: offset, entry: firstIndex + i };
    const entryStart = offset + recordHeaderBytes;
    const payloadStart = entryStart + (entryStart <= bodyEnd ? segment.readUInt32BE(offset + 4) : 0);
    const end = payloadStart + (entryStart <= bodyEnd ? segment.readUInt32BE(offset + 8) : 0);
    if (entryStart > bodyEnd || end > bodyEnd) {
      findings.broken(file, `the record of entry ${firstIndex + i} is longer than its batch`, place);
      return batchEnd;
    }
    if (segment.readUInt32BE(offset) !== crc32(segment.subarray(offset + 4, end))) {
      findings.broken(file, `the record of entry ${firstIndex + i} is damaged: its checksum does not match`, place);
    }
    records.push({
      index: firstIndex + i,
      entry: segment.subarray(entryStart, payloadStart),
      payload: end === payloadStart ? null : segment.subarray(payloadStart, end),
      file,
      byte: offset,
    });
    offset = end;
  }
  if (offset !== bodyEnd) {
    findings.broken(file, "the batch goes on after its last record", { byte: offset });
  }
  return batchEnd;
}
