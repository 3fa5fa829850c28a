/**
 * Bytes of the write-ahead segments and of the payload files.
 *
 * Segment: a head, then batches. The head says which segment this is, and by which opening of the ledger it was made:
 *
 *     `SPWAL002` | sequence u64 | opening u64 | mac (32) | crc32 of all before u32
 *
 * A batch is what one write and one sync made durable together:
 *
 *     magic u32 | body length u32 | first index u64 | records u32 | crc32 of the 20 bytes before u32 | records
 *     | mac (32) | crc32 of the mac u32
 *
 * A record: `crc32 of all that follows in it u32 | entry length u32 | payload length u32 | entry | payload`.
 *
 * The checksums tell an unfinished write from a whole one. The macs (HMAC-SHA-256 with a key that lies apart from the log)
 * tell who wrote it: nothing signs these entries yet, and whoever can write to the disk can make a checksum. A head's mac
 * covers the 24 bytes before it, a batch's the mac before it, then its header and its records: so within its segment a
 * batch cannot be changed, dropped, moved or put in from elsewhere. (That the last batches of a log were cut off together
 * is not in these bytes; `newest.ts` says how much of that can be noticed.)
 *
 * Payload file: frames of `entry index u64 | length u32 | ciphertext`; the hash in the entry is the ciphertext's checksum.
 * All numbers are big-endian.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { crc32 } from "node:zlib";

/** One entry on its way into the tree. */
export interface Pending {
  readonly index: number;
  readonly entry: Uint8Array;
  readonly payload: Uint8Array | null;
}

const segmentMagic = Buffer.from("SPWAL002", "latin1");
const headMacOffset = 24;
/** Begins with a byte that no UTF-8 text has, so that no entry can be taken for a batch. */
const batchMagic = 0xff504231;
const batchHeaderBytes = 24;
const batchChecksumOffset = 20;
const recordHeaderBytes = 12;
const checksumBytes = 4;
const macBytes = 32;
const segmentHeadBytes = headMacOffset + macBytes + checksumBytes;
const batchTrailerBytes = macBytes + checksumBytes;
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

/** Which segment it is. */
export interface SegmentHead {
  /** As in its name. */
  readonly sequence: number;
  /** Counts the openings of the ledger: a segment of an earlier one was part of the log before a recovery. */
  readonly opening: number;
}

/** Where a segment's chain of macs stands: what the next batch is bound to. */
export interface SegmentChain {
  readonly key: KeyObject;
  readonly previous: Uint8Array;
}

/** A segment's head, and the chain that begins with it. */
export function encodeSegmentHead(
  head: SegmentHead,
  key: KeyObject,
): { readonly bytes: Uint8Array; readonly chain: SegmentChain } {
  const bytes = Buffer.alloc(segmentHeadBytes);
  segmentMagic.copy(bytes);
  bytes.writeBigUInt64BE(BigInt(head.sequence), 8);
  bytes.writeBigUInt64BE(BigInt(head.opening), 16);
  const mac = createHmac("sha256", key).update(bytes.subarray(0, headMacOffset)).digest();
  mac.copy(bytes, headMacOffset);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, headMacOffset + macBytes)), headMacOffset + macBytes);
  return { bytes, chain: { key, previous: mac } };
}

function batchMac({ key, previous }: SegmentChain, batch: Uint8Array): Buffer {
  return createHmac("sha256", key).update(previous).update(batch).digest();
}

/** A batch with its bytes. */
export interface EncodedBatch {
  readonly bytes: Uint8Array;
  /** Entries and payloads are views of `bytes`. */
  readonly pending: readonly Pending[];
  /** For the batch that follows it. */
  readonly chain: SegmentChain;
}

/** One batch, bound to what stands before it in its segment. */
export function encodeBatch(firstIndex: number, records: readonly Unframed[], chain: SegmentChain): EncodedBatch {
  const bodyBytes = records.reduce((sum, record) => sum + recordBytes(record), 0);
  const bodyEnd = batchHeaderBytes + bodyBytes;
  const bytes = Buffer.allocUnsafe(bodyEnd + batchTrailerBytes);
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
  const mac = batchMac(chain, bytes.subarray(0, bodyEnd));
  mac.copy(bytes, bodyEnd);
  bytes.writeUInt32BE(crc32(mac), bodyEnd + macBytes);
  return { bytes, pending, chain: { key: chain.key, previous: mac } };
}

/** A whole segment as read back. */
export interface Segment {
  /** Null when there is no whole head: then there is nothing else either. */
  readonly head: SegmentHead | null;
  readonly pending: readonly Pending[];
  /** Where the whole batches end. */
  readonly wholeBytes: number;
  /**
   * `clean`: nothing follows. `torn`: an unfinished last write follows, which nobody was told of.
   * `corrupt`: something that was once whole no longer is, since whole batches follow it.
   * `forged`: a whole head or batch follows that was not made with the key, or not for this place.
   */
  readonly end: "clean" | "torn" | "corrupt" | "forged";
}

/**
 * Reads a segment. Entries and payloads are views of `bytes`. Without a key nothing is found forged: that is for a reader
 * who shows what is there and vouches for none of it.
 */
export function decodeSegment(bytes: Uint8Array, key: KeyObject | null): Segment {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!isSegmentHead(buffer)) {
    // The head is durable before the first batch is written, so after an unfinished one there is nothing.
    const end = buffer.length > segmentHeadBytes ? "corrupt" : "torn";
    return { head: null, pending: [], wholeBytes: 0, end };
  }
  const head = { sequence: Number(buffer.readBigUInt64BE(8)), opening: Number(buffer.readBigUInt64BE(16)) };
  const expected = key === null ? null : encodeSegmentHead(head, key);
  if (expected !== null && !timingSafeEqual(expected.bytes, buffer.subarray(0, segmentHeadBytes))) {
    return { head, pending: [], wholeBytes: 0, end: "forged" };
  }
  let chain = expected?.chain ?? null;
  const pending: Pending[] = [];
  let offset = segmentHeadBytes;
  while (offset < buffer.length) {
    const batch = decodeBatch(buffer, offset);
    if (batch === null) {
      // One write is in flight at a time, so only the last batch can be unfinished.
      return { head, pending, wholeBytes: offset, end: hasBatchAfter(buffer, offset + 1) ? "corrupt" : "torn" };
    }
    if (chain !== null) {
      const mac = batchMac(chain, buffer.subarray(offset, batch.bodyEnd));
      if (!timingSafeEqual(mac, buffer.subarray(batch.bodyEnd, batch.bodyEnd + macBytes))) {
        return { head, pending, wholeBytes: offset, end: "forged" };
      }
      chain = { key: chain.key, previous: mac };
    }
    pending.push(...batch.pending);
    offset = batch.bodyEnd + batchTrailerBytes;
  }
  return { head, pending, wholeBytes: offset, end: "clean" };
}

function isSegmentHead(buffer: Buffer): boolean {
  return (
    buffer.length >= segmentHeadBytes &&
    buffer.subarray(0, segmentMagic.length).equals(segmentMagic) &&
    buffer.readUInt32BE(headMacOffset + macBytes) === crc32(buffer.subarray(0, headMacOffset + macBytes))
  );
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

function decodeBatch(buffer: Buffer, start: number): { pending: readonly Pending[]; bodyEnd: number } | null {
  if (!isBatchHeader(buffer, start)) {
    return null;
  }
  const bodyEnd = start + batchHeaderBytes + buffer.readUInt32BE(start + 4);
  const firstIndex = Number(buffer.readBigUInt64BE(start + 8));
  const count = buffer.readUInt32BE(start + 16);
  if (bodyEnd + batchTrailerBytes > buffer.length) {
    return null;
  }
  const mac = buffer.subarray(bodyEnd, bodyEnd + macBytes);
  if (buffer.readUInt32BE(bodyEnd + macBytes) !== crc32(mac)) {
    return null;
  }
  const pending: Pending[] = [];
  let offset = start + batchHeaderBytes;
  while (offset < bodyEnd) {
    if (bodyEnd - offset < recordHeaderBytes) {
      return null;
    }
    const entryStart = offset + recordHeaderBytes;
    const payloadStart = entryStart + buffer.readUInt32BE(offset + 4);
    const next = payloadStart + buffer.readUInt32BE(offset + 8);
    if (next > bodyEnd || buffer.readUInt32BE(offset) !== crc32(buffer.subarray(offset + checksumBytes, next))) {
      return null;
    }
    pending.push({
      index: firstIndex + pending.length,
      entry: buffer.subarray(entryStart, payloadStart),
      payload: next === payloadStart ? null : buffer.subarray(payloadStart, next),
    });
    offset = next;
  }
  return pending.length === count ? { pending, bodyEnd } : null;
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
