/**
 * The payload files: for each entry with a payload, in order, `index u64 | length u32 | ciphertext`, where the entry
 * itself gives the length and the ciphertext's hash. So every byte of these files is accounted for.
 */
import { hash } from "node:crypto";

import type { EntryPayload } from "#ledger/entry.ts";

import type { LogFiles } from "./verify-files.ts";
import { isStartOf } from "./verify-findings.ts";
import type { Findings } from "./verify-findings.ts";
import type { TailRecord } from "./verify-tail.ts";

const headerBytes = 12;

interface OpenFile {
  readonly file: string;
  readonly bytes: Buffer;
  offset: number;
}

/** A payload that is not where it should be; no fault once its data key's destruction is found on record. */
interface Absent {
  readonly file: string;
  readonly index: number;
  readonly byte: number | null;
  readonly key: string;
}

/** The SHA-256 of a ciphertext as an entry has it. */
export function hashOfCiphertext(ciphertext: Uint8Array): string {
  return hash("sha256", ciphertext, "base64url");
}

/** Walks the payload files alongside the entries. */
export class PayloadWalk {
  readonly #files: LogFiles;
  readonly #findings: Findings;
  /** Files with the index in their name, in order; those not opened yet. */
  readonly #ahead: { readonly file: string; readonly first: number }[];
  #open: OpenFile | null = null;
  readonly #absent: Absent[] = [];

  constructor(files: LogFiles, findings: Findings) {
    this.#files = files;
    this.#findings = findings;
    this.#ahead = files.paths
      .filter((path) => /^payload\/[0-9]{16}\.payload$/.test(path))
      .map((file) => ({ file, first: Number(file.slice("payload/".length, -".payload".length)) }));
  }

  /** The next entry that has a payload. */
  next(index: number, payload: EntryPayload): void {
    while ((this.#ahead[0]?.first ?? Infinity) <= index) {
      this.#finishFile();
      this.#openNext();
    }
    const open = this.#open;
    if (open === null || open.offset >= open.bytes.length) {
      this.#absent.push({ file: open?.file ?? "payload", index, byte: open?.offset ?? null, key: payload.key });
      return;
    }
    const start = open.offset + headerBytes;
    const end = start + payload.bytes;
    const place = { entry: index, byte: open.offset };
    const isHead = open.bytes.length >= start && this.#headIs(open, index, payload.bytes);
    const isBody = open.bytes.length >= end && hashOfCiphertext(open.bytes.subarray(start, end)) === payload.hash;
    if (isHead && isBody) {
      open.offset = end;
    } else if (isBody) {
      this.#findings.broken(open.file, `the head of entry ${index}'s payload is damaged`, place);
      open.offset = end;
    } else if (open.bytes.length < end && (isHead || open.bytes.length < start)) {
      this.#findings.missing(open.file, `the payload of entry ${index} is cut short`, place);
      open.offset = open.bytes.length;
    } else if (!isHead && this.#isLater(open, index)) {
      this.#absent.push({ file: open.file, index, byte: open.offset, key: payload.key });
    } else {
      this.#findings.broken(open.file, `the payload of entry ${index} is not the one that was recorded`, place);
      open.offset = Math.min(end, open.bytes.length);
    }
  }

  /** The next entry is damaged or missing, so nobody knows whether it has a payload: if one stands here, it is passed. */
  skip(index: number): void {
    while ((this.#ahead[0]?.first ?? Infinity) <= index) {
      this.#finishFile();
      this.#openNext();
    }
    const open = this.#open;
    if (open !== null && open.bytes.length >= open.offset + headerBytes) {
      const end = open.offset + headerBytes + open.bytes.readUInt32BE(open.offset + 8);
      if (open.bytes.readBigUInt64BE(open.offset) === BigInt(index) && end <= open.bytes.length) {
        open.offset = end;
      }
    }
  }

  #headIs(open: OpenFile, index: number, bytes: number): boolean {
    return (
      open.bytes.readBigUInt64BE(open.offset) === BigInt(index) && open.bytes.readUInt32BE(open.offset + 8) === bytes
    );
  }

  /** Whether a whole frame of a later entry stands here, so that this entry's is absent rather than damaged. */
  #isLater(open: OpenFile, index: number): boolean {
    const start = open.offset + headerBytes;
    return (
      open.bytes.length >= start &&
      open.bytes.readBigUInt64BE(open.offset) > BigInt(index) &&
      start + open.bytes.readUInt32BE(open.offset + 8) <= open.bytes.length &&
      open.bytes.readBigUInt64BE(open.offset) < BigInt(this.#ahead[0]?.first ?? Number.MAX_SAFE_INTEGER)
    );
  }

  #openNext(): void {
    const next = this.#ahead.shift();
    if (next !== undefined) {
      const bytes = this.#files.read(next.file) ?? new Uint8Array(0);
      this.#findings.cover(next.file);
      this.#open = { file: next.file, bytes: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset: 0 };
    }
  }

  #finishFile(): void {
    const open = this.#open;
    if (open !== null && open.offset < open.bytes.length) {
      this.#findings.broken(open.file, "the file goes on after the last payload that an entry accounts for", {
        byte: open.offset,
      });
    }
    this.#open = null;
  }

  /**
   * After the last entry of the tree. What follows in the files can only be copies of the tail's payloads, from a
   * publication that was interrupted. Returns how many payloads are rightly gone.
   */
  finish(tail: readonly TailRecord[], destroyedKeys: ReadonlySet<string>): number {
    const frames = (from: number): Buffer =>
      Buffer.concat(
        tail.filter((record) => record.index >= from && record.payload !== null).flatMap((record) => frameOf(record)),
      );
    const open = this.#open;
    if (open !== null && open.offset < open.bytes.length && isStartOf(open.bytes.subarray(open.offset), frames(0))) {
      open.offset = open.bytes.length;
    }
    this.#finishFile();
    for (let next = this.#ahead[0]; next !== undefined; next = this.#ahead[0]) {
      this.#openNext();
      const bytes = this.#files.read(next.file) ?? new Uint8Array(0);
      if (!isStartOf(bytes, frames(next.first))) {
        this.#findings.broken(next.file, "the file is not of this log: no entry accounts for it", { byte: 0 });
      }
    }
    const lost = this.#absent.filter((absent) => !destroyedKeys.has(absent.key));
    for (const { file, index, byte } of lost) {
      this.#findings.missing(
        file,
        `the payload of entry ${index} is missing, and no record says that it was destroyed`,
        {
          entry: index,
          byte,
        },
      );
    }
    return this.#absent.length - lost.length;
  }
}

function frameOf(record: TailRecord): readonly Uint8Array[] {
  const head = Buffer.alloc(headerBytes);
  head.writeBigUInt64BE(BigInt(record.index), 0);
  head.writeUInt32BE(record.payload?.length ?? 0, 8);
  return [head, record.payload ?? head.subarray(0, 0)];
}
