/**
 * Cutting a byte stream into frames. Headers are read where they lie; a frame that came in one piece is a view of its
 * chunk, and only a frame that was split is put together in a buffer of its own.
 */
import { SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import { protocolViolation } from "./codec.ts";
import type { Direction } from "./codec.ts";
import { frontendTypes, headerBytes, isKnownType } from "./messages-types.ts";

/** One message as it came. The buffers are views: who keeps a frame keeps its chunk. */
export interface Frame {
  /** ASCII code of the type byte. */
  readonly type: number;
  /** The whole frame, header included. */
  readonly bytes: Buffer;
  /** What follows the header. */
  readonly body: Buffer;
}

class FrameView implements Frame {
  readonly type: number;
  readonly bytes: Buffer;

  constructor(type: number, bytes: Buffer) {
    this.type = type;
    this.bytes = bytes;
  }

  /** Made when asked for: most frames are forwarded without a look inside. */
  get body(): Buffer {
    return this.bytes.subarray(headerBytes);
  }
}

/** Frames of one type that lie one after another in one chunk. */
export interface FrameRun {
  readonly frames: number;
  /** All of them, headers included: one view. */
  readonly bytes: Buffer;
}

/** A split frame's buffer starts at this and doubles as bytes come: a length that is only claimed costs nothing. */
const assemblyBytesMin = 64 * 1024;

export interface FrameReaderOptions {
  /** Who sends the frames. */
  readonly direction: Direction;
  /** The cap on a whole frame of a type, header included. Asked once a frame, when its header is visible. */
  readonly bytesMax: (type: number) => number;
}

/**
 * Cuts the frames out of the chunks of a stream. It owns the chunks that are pushed: they must not be written to again.
 * It holds the unread chunks and at most one split frame. After an error it stays failed: a stream that lost its
 * framing has no next frame.
 */
export class FrameReader {
  readonly #direction: Direction;
  readonly #bytesMax: (type: number) => number;
  #chunks: Buffer[] = [];
  #head = 0;
  #offset = 0;
  #unreadBytes = 0;
  /** The split frame, when there is one: `#assembled` bytes of `#total`; `#total` is 0 until the header is complete. */
  #assembly: Buffer | null = null;
  #assembled = 0;
  #total = 0;
  #failure: SallyportError | null = null;

  constructor(options: FrameReaderOptions) {
    this.#direction = options.direction;
    this.#bytesMax = options.bytesMax;
  }

  /** Bytes that were pushed and have not been returned in a frame. */
  get bufferedBytes(): number {
    return this.#unreadBytes + this.#assembled;
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0 || this.#failure !== null) {
      return;
    }
    this.#chunks.push(chunk);
    this.#unreadBytes += chunk.length;
  }

  /**
   * The next frame, or null until more is pushed.
   * @throws SallyportError as soon as a header is visible that has an unknown type, a length below 4 (both
   * `protocol.violation`) or a length over the cap (`statement.too-large` for Query and Parse, else `limit.exceeded`).
   */
  next(): Frame | null {
    for (;;) {
      const chunk = this.#currentChunk();
      if (chunk === null) {
        return null;
      }
      const frame = this.#assembly === null ? this.#cut(chunk) : this.#assemble(chunk, this.#assembly);
      if (frame !== null) {
        return frame;
      }
    }
  }

  /**
   * Takes the frames of `type` that follow one another, whole, in the current chunk: up to `bytesMax` bytes, but at
   * least one. `inspect` sees each one's body as a range of the chunk, before anything is taken; when it throws, nothing
   * has been. Null when the next frame is of another type or is not whole in the chunk: then ask `next`.
   * @throws SallyportError as `next` does, and what `inspect` throws.
   */
  nextRun(
    type: number,
    bytesMax: number,
    inspect: (chunk: Buffer, start: number, end: number) => void,
  ): FrameRun | null {
    const chunk = this.#currentChunk();
    if (chunk === null || this.#assembly !== null) {
      return null;
    }
    const start = this.#offset;
    let end = start;
    let frames = 0;
    while (chunk.length - end >= headerBytes && chunk[end] === type) {
      const total = this.#checkedTotal(type, chunk.readUInt32BE(end + 1));
      if (chunk.length - end < total || (frames > 0 && end + total - start > bytesMax)) {
        break;
      }
      inspect(chunk, end + headerBytes, end + total);
      end += total;
      frames++;
    }
    if (frames === 0) {
      return null;
    }
    this.#consume(end - start);
    return { frames, bytes: chunk.subarray(start, end) };
  }

  #currentChunk(): Buffer | null {
    if (this.#failure !== null) {
      throw this.#failure;
    }
    for (;;) {
      const chunk = this.#chunks[this.#head];
      if (chunk === undefined) {
        this.#chunks = [];
        this.#head = 0;
        return null;
      }
      if (this.#offset < chunk.length) {
        return chunk;
      }
      this.#head++;
      this.#offset = 0;
      // References to read chunks are dropped when they are half of all: rarely, and at a cost that adds up to linear.
      if (this.#head >= 64 && this.#head * 2 > this.#chunks.length) {
        this.#chunks.splice(0, this.#head);
        this.#head = 0;
      }
    }
  }

  /** A frame that starts in `chunk`: a view when it also ends there, else the start of an assembly. */
  #cut(chunk: Buffer): Frame | null {
    const start = this.#offset;
    const available = chunk.length - start;
    const type = chunk[start] ?? 0;
    if (available < headerBytes) {
      this.#checkType(type);
      this.#assembly = Buffer.allocUnsafe(headerBytes);
      this.#total = 0;
      this.#take(chunk, this.#assembly, available);
      return null;
    }
    const total = this.#checkedTotal(type, chunk.readUInt32BE(start + 1));
    if (available < total) {
      this.#assembly = Buffer.allocUnsafe(Math.min(total, Math.max(assemblyBytesMin, available)));
      this.#total = total;
      this.#take(chunk, this.#assembly, available);
      return null;
    }
    this.#consume(total);
    return new FrameView(type, chunk.subarray(start, start + total));
  }

  /** Moves bytes of `chunk` into the assembly; the frame when that completes it. */
  #assemble(chunk: Buffer, assembly: Buffer): Frame | null {
    const available = chunk.length - this.#offset;
    const target = this.#total === 0 ? headerBytes : this.#total;
    const wanted = Math.min(available, target - this.#assembled);
    const buffer = this.#grown(assembly, this.#assembled + wanted, target);
    this.#take(chunk, buffer, wanted);
    if (this.#assembled < target) {
      return null;
    }
    const type = buffer[0] ?? 0;
    if (this.#total === 0) {
      this.#total = this.#checkedTotal(type, buffer.readUInt32BE(1));
    }
    if (this.#assembled < this.#total) {
      return null;
    }
    this.#assembly = null;
    this.#assembled = 0;
    return new FrameView(type, buffer);
  }

  /** The assembly with room for `needed` bytes, at least doubled when it grows, never past `target`. */
  #grown(assembly: Buffer, needed: number, target: number): Buffer {
    if (needed <= assembly.length) {
      return assembly;
    }
    const size = Math.min(target, Math.max(needed, assemblyBytesMin, assembly.length * 2));
    const grown = Buffer.allocUnsafe(size);
    assembly.copy(grown, 0, 0, this.#assembled);
    this.#assembly = grown;
    return grown;
  }

  #take(chunk: Buffer, into: Buffer, length: number): void {
    chunk.copy(into, this.#assembled, this.#offset, this.#offset + length);
    this.#assembled += length;
    this.#consume(length);
  }

  #consume(length: number): void {
    this.#offset += length;
    this.#unreadBytes -= length;
  }

  #checkType(type: number): void {
    if (!isKnownType(this.#direction, type)) {
      throw this.#fail(protocolViolation(this.#direction, `no message has the type byte 0x${type.toString(16)}`));
    }
  }

  /** The size of the whole frame, once type and length have been found good. */
  #checkedTotal(type: number, length: number): number {
    this.#checkType(type);
    if (length < 4) {
      throw this.#fail(protocolViolation(this.#direction, `a message has the length ${length}`));
    }
    const bytesMax = this.#bytesMax(type);
    if (length + 1 > bytesMax) {
      throw this.#fail(tooLarge(this.#direction, type, length + 1, bytesMax));
    }
    return length + 1;
  }

  #fail(failure: SallyportError): SallyportError {
    this.#failure = failure;
    this.#chunks = [];
    this.#assembly = null;
    this.#assembled = 0;
    this.#unreadBytes = 0;
    return failure;
  }
}

function tooLarge(direction: Direction, type: number, bytes: number, bytesMax: number): SallyportError {
  const statement = direction === "frontend" && (type === frontendTypes.query || type === frontendTypes.parse);
  return new SallyportError(
    statement ? "statement.too-large" : "limit.exceeded",
    direction === "frontend" ? "client" : "upstream",
    `a message of ${bytes} bytes is over the limit of ${bytesMax}`,
    { nextStep: statement ? "Send a shorter statement; pass long values as parameters." : "Send less at once." },
  );
}

/** The first packet of a connection, which has no type byte (PostgreSQL documentation, 54.2.1). */
export type StartupPacket =
  | { readonly kind: "ssl-request" }
  | { readonly kind: "gss-request" }
  | { readonly kind: "cancel"; readonly processId: number; readonly secretKey: number }
  | {
      readonly kind: "startup";
      /** Minor version of protocol 3. */
      readonly minor: number;
      /** The name-value pairs as sent, undecoded body after the version; `decodeStartupParameters` reads it. */
      readonly body: Buffer;
    };

export const startupCodes = {
  /** Major 3, minor 0. */
  version3: 196_608,
  cancelRequest: 80_877_102,
  sslRequest: 80_877_103,
  gssEncryptionRequest: 80_877_104,
} as const;

/** Reads packets of the startup phase; what follows the last one is for a `FrameReader`. */
export class StartupReader {
  #pending: Buffer[] = [];
  #pendingBytes = 0;

  push(chunk: Buffer): void {
    if (chunk.length > 0) {
      this.#pending.push(chunk);
      this.#pendingBytes += chunk.length;
    }
  }

  get bufferedBytes(): number {
    return this.#pendingBytes;
  }

  /**
   * The next packet, or null until more is pushed.
   * @throws SallyportError `protocol.violation` on a length that no packet has, as soon as it is visible, and on a
   * code that is none of protocol 3's.
   */
  next(): StartupPacket | null {
    if (this.#pendingBytes < 4) {
      return null;
    }
    const length = this.#joined(4).readUInt32BE(0);
    if (length < 8 || length > limits.startupBytesMax) {
      throw protocolViolation("frontend", `a startup packet of ${length} bytes is not one of PostgreSQL's`);
    }
    if (this.#pendingBytes < length) {
      return null;
    }
    const joined = this.#joined(length);
    const packet = joined.subarray(0, length);
    this.#pending =
      joined.length > length ? [joined.subarray(length), ...this.#pending.slice(1)] : this.#pending.slice(1);
    this.#pendingBytes -= length;
    return decodeStartupPacket(packet);
  }

  /** Takes what has been pushed and not read. */
  takeRest(): Buffer {
    const rest = this.#pending.length === 1 ? this.#joined(0) : Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    return rest;
  }

  /** The first chunk, joined with as many others as it takes to hold `length` bytes. */
  #joined(length: number): Buffer {
    const first = this.#pending[0] ?? Buffer.alloc(0);
    if (first.length >= length) {
      return first;
    }
    const joined = Buffer.concat(this.#pending);
    this.#pending = [joined];
    return joined;
  }
}

function decodeStartupPacket(packet: Buffer): StartupPacket {
  const code = packet.readUInt32BE(4);
  switch (code) {
    case startupCodes.sslRequest:
    case startupCodes.gssEncryptionRequest:
      if (packet.length !== 8) {
        throw protocolViolation("frontend", "an encryption request carries extra bytes");
      }
      return { kind: code === startupCodes.sslRequest ? "ssl-request" : "gss-request" };
    case startupCodes.cancelRequest:
      if (packet.length !== 16) {
        throw protocolViolation("frontend", "a cancel request has a key that this gateway does not hand out");
      }
      return { kind: "cancel", processId: packet.readInt32BE(8), secretKey: packet.readInt32BE(12) };
    default:
      if (code >>> 16 !== 3) {
        throw protocolViolation("frontend", `protocol ${code >>> 16}.${code & 0xffff} is not spoken here`);
      }
      return { kind: "startup", minor: code & 0xffff, body: packet.subarray(8) };
  }
}
