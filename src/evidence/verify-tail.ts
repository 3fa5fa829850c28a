/**
 * The write-ahead segments: entries that are durable and not in the signed tree yet. This is a decoder of its own, from
 * the format's description in `ledger/frame.ts`, so that an error of the writer's is not shared by what checks it.
 */
import { crc32 } from "node:zlib";

import type { LogFiles } from "./verify-files.ts";
import { firstDifference } from "./verify-findings.ts";
import type { Findings } from "./verify-findings.ts";

const magic = Buffer.from("SPWAL001", "latin1");
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
  for (const file of files.paths.filter((path) => /^wal\/[0-9]{16}\.wal$/.test(path))) {
    findings.cover(file);
    const bytes = files.read(file);
    if (bytes === null) {
      findings.missing(file, "the segment is missing");
      continue;
    }
    const segment = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const head = segment.subarray(0, magic.length);
    if (!head.equals(magic)) {
      const byte = firstDifference(head, magic);
      if (byte < head.length) {
        findings.broken(file, "the segment does not begin as a segment does", { byte });
      } else {
        findings.missing(file, "the segment is cut short in its first bytes", { byte });
      }
      continue;
    }
    let offset = magic.length;
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
  if (bodyEnd > segment.length) {
    findings.missing(file, unfinished, { byte: start, entry: firstIndex });
    return null;
  }
  let offset = start + batchHeaderBytes;
  for (let i = 0; i < count; i++) {
    const place = { byte: offset, entry: firstIndex + i };
    const entryStart = offset + recordHeaderBytes;
    const payloadStart = entryStart + (entryStart <= bodyEnd ? segment.readUInt32BE(offset + 4) : 0);
    const end = payloadStart + (entryStart <= bodyEnd ? segment.readUInt32BE(offset + 8) : 0);
    if (entryStart > bodyEnd || end > bodyEnd) {
      findings.broken(file, `the record of entry ${firstIndex + i} is longer than its batch`, place);
      return bodyEnd;
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
  return bodyEnd;
}
