/**
 * Bytes of the write-ahead segments and of the payload files.
 *
 * Segment: `SPWAL001`, then batches. A batch is what one write and one sync made durable together:
 *
 *     magic u32 | body length u32 | first index u64 | records u32 | crc32 of the 20 bytes before u32 | records
 *
 * A record: `crc32 of all that follows in it u32 | entry length u32 | payload length u32 | entry | payload`.
 * Payload file: frames of `entry index u64 | length u32 | ciphertext`; the hash in the entry is the ciphertext's checksum.
 * All numbers are big-endian.
 */
import { crc32 } from "node:zlib";

/** One entry on its way into the tree. */
export interface Pending {
  readonly index: number;
  readonly entry: Uint8Array;
  readonly payload: Uint8Array | null;
}

export const segmentMagic = Buffer.from("SPWAL001", "latin1");
/** Begins with a byte that no UTF-8 text has, so that no entry can be taken for a batch. */
const batchMagic = 0xff504231;
const batchHeaderBytes = 24;
const batchChecksumOffset = 20;
const recordHeaderBytes = 12;
const checksumBytes = 4;
const payloadHeaderBytes = 12;

/** What a batch is made of before it has bytes: the entry still as text. */
export interface Unframed {
  readonly entryText: string;
  readonly entryBytes: number;
  readonly payload: Uint8Array | null;
}

/** Bytes that a record takes in a batch. */
export function recordBytes(unframed: Unframed): number {
  return recordHeaderBytes + unframed.entryBytes + (unframed.payload?.length ?? 0);
}

/** One batch. The returned entries and payloads are views of its bytes. */
export function encodeBatch(
  firstIndex: number,
  records: readonly Unframed[],
): { readonly bytes: Uint8Array; readonly pending: readonly Pending[] } {
  const bodyBytes = records.reduce((sum, record) => sum + recordBytes(record), 0);
  const bytes = Buffer.allocUnsafe(batchHeaderBytes + bodyBytes);
  bytes.writeUInt32BE(batchMagic, 0);
  bytes.writeUInt32BE(bodyBytes, 4);
  bytes.writeBigUInt64BE(BigInt(firstIndex), 8);
  bytes.writeUInt32BE(records.length, 16);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, batchChecksumOffset)), batchChecksumOffset);
  const pending: Pending[] = [];
  let offset = batchHeaderBytes;
  let index = firstIndex;
  for (const record of records) {
    const entryStart = offset + recordHeaderBytes;
    const payloadStart = entryStart + record.entryBytes;
    const end = payloadStart + (record.payload?.length ?? 0);
    bytes.writeUInt32BE(record.entryBytes, offset + 4);
    bytes.writeUInt32BE(end - payloadStart, offset + 8);
    bytes.write(record.entryText, entryStart, "utf8");
    if (record.payload !== null) {
      bytes.set(record.payload, payloadStart);
    }
    bytes.writeUInt32BE(crc32(bytes.subarray(offset + checksumBytes, end)), offset);
    pending.push({
      index,
      entry: bytes.subarray(entryStart, payloadStart),
      payload: record.payload === null ? null : bytes.subarray(payloadStart, end),
    });
    index++;
    offset = end;
  }
  return { bytes, pending };
}

/** A whole segment as read back. */
export interface Segment {
  readonly pending: readonly Pending[];
  /** Where the whole batches end. */
  readonly wholeBytes: number;
  /**
   * `clean`: nothing follows. `torn`: an unfinished last write follows, which nobody was told of.
   * `corrupt`: something that was once whole no longer is, since whole batches follow it.
   */
  readonly end: "clean" | "torn" | "corrupt";
}

/** Reads a segment. Entries and payloads are views of `bytes`. */
export function decodeSegment(bytes: Uint8Array): Segment {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < segmentMagic.length || !buffer.subarray(0, segmentMagic.length).equals(segmentMagic)) {
    const isCorrupt = buffer.length >= segmentMagic.length && hasBatchAfter(buffer, 0);
    return { pending: [], wholeBytes: 0, end: isCorrupt ? "corrupt" : "torn" };
  }
  const pending: Pending[] = [];
  let offset = segmentMagic.length;
  while (offset < buffer.length) {
    const batch = decodeBatch(buffer, offset);
    if (batch === null) {
      // One write is in flight at a time, so only the last batch can be unfinished.
      return { pending, wholeBytes: offset, end: hasBatchAfter(buffer, offset + 1) ? "corrupt" : "torn" };
    }
    pending.push(...batch.pending);
    offset = batch.end;
  }
  return { pending, wholeBytes: offset, end: "clean" };
}

function isBatchHeader(buffer: Buffer, offset: number): boolean {
  return (
    buffer.length - offset >= batchHeaderBytes &&
    buffer.readUInt32BE(offset) === batchMagic &&
    buffer.readUInt32BE(offset + batchChecksumOffset) === crc32(buffer.subarray(offset, offset + batchChecksumOffset))
  );
}

/** Whether a batch header stands anywhere from `offset` on. No text in an entry can imitate one. */
function hasBatchAfter(buffer: Buffer, offset: number): boolean {
  const magic = Buffer.alloc(4);
  magic.writeUInt32BE(batchMagic);
  for (let at = buffer.indexOf(magic, offset); at >= 0; at = buffer.indexOf(magic, at + 1)) {
    if (isBatchHeader(buffer, at)) {
      return true;
    }
  }
  return false;
}

function decodeBatch(buffer: Buffer, start: number): { pending: readonly Pending[]; end: number } | null {
  if (!isBatchHeader(buffer, start)) {
    return null;
  }
  const end = start + batchHeaderBytes + buffer.readUInt32BE(start + 4);
  const firstIndex = Number(buffer.readBigUInt64BE(start + 8));
  const count = buffer.readUInt32BE(start + 16);
  if (end > buffer.length) {
    return null;
  }
  const pending: Pending[] = [];
  let offset = start + batchHeaderBytes;
  while (offset < end) {
    if (end - offset < recordHeaderBytes) {
      return null;
    }
    const entryStart = offset + recordHeaderBytes;
    const payloadStart = entryStart + buffer.readUInt32BE(offset + 4);
    const next = payloadStart + buffer.readUInt32BE(offset + 8);
    if (next > end || buffer.readUInt32BE(offset) !== crc32(buffer.subarray(offset + checksumBytes, next))) {
      return null;
    }
    pending.push({
      index: firstIndex + pending.length,
      entry: buffer.subarray(entryStart, payloadStart),
      payload: next === payloadStart ? null : buffer.subarray(payloadStart, next),
    });
    offset = next;
  }
  return pending.length === count ? { pending, end } : null;
}

/** The head of a payload's frame; the ciphertext follows it. */
export function encodePayloadHeader(index: number, payload: Uint8Array): Uint8Array {
  const header = Buffer.allocUnsafe(payloadHeaderBytes);
  header.writeBigUInt64BE(BigInt(index), 0);
  header.writeUInt32BE(payload.length, 8);
  return header;
}

/** Bytes that a payload takes in a payload file. */
export function payloadFrameBytes(payload: Uint8Array): number {
  return payloadHeaderBytes + payload.length;
}

/** A payload as it stands in a payload file, and where its frame ends. */
export interface PayloadFrame {
  readonly index: number;
  readonly payload: Uint8Array;
  readonly end: number;
}

/** The frames of a payload file, up to the first that is not whole. */
export function* payloadFrames(bytes: Uint8Array): Generator<PayloadFrame> {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = 0;
  while (buffer.length - offset >= payloadHeaderBytes) {
    const start = offset + payloadHeaderBytes;
    const end = start + buffer.readUInt32BE(offset + 8);
    if (end > buffer.length) {
      return;
    }
    yield { index: Number(buffer.readBigUInt64BE(offset)), payload: buffer.subarray(start, end), end };
    offset = end;
  }
}
