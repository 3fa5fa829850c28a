/**
 * Reading and writing the fields of protocol 3.0 messages (PostgreSQL documentation, 54.7 "Message Formats"):
 * integers are big-endian, strings end in one NUL and are UTF-8, everything is bounded by its message.
 */
import { isUtf8 } from "node:buffer";

import { InvariantError, SallyportError } from "#domain/errors.ts";

/** Who sent a frame: the client (`frontend`) or the resource (`backend`). */
export type Direction = "frontend" | "backend";

/** The error of a peer that broke the protocol: code `protocol.violation`, at the fault of whoever sends in `direction`. */
export function protocolViolation(direction: Direction, message: string): SallyportError {
  return new SallyportError("protocol.violation", direction === "frontend" ? "client" : "upstream", message);
}

/**
 * A cursor over one message body. Every read is checked against the end of the body, never the end of the chunk that
 * the body is a view of.
 */
export class BodyReader {
  readonly #body: Buffer;
  readonly #direction: Direction;
  readonly #message: string;
  #offset = 0;

  /** `message` is the message's name, for errors. */
  constructor(body: Buffer, direction: Direction, message: string) {
    this.#body = body;
    this.#direction = direction;
    this.#message = message;
  }

  get remaining(): number {
    return this.#body.length - this.#offset;
  }

  /** @throws SallyportError `protocol.violation` when the body ends first; so do all the reads below. */
  uint8(): number {
    return this.#body.readUInt8(this.#advance(1));
  }

  uint16(): number {
    return this.#body.readUInt16BE(this.#advance(2));
  }

  int16(): number {
    return this.#body.readInt16BE(this.#advance(2));
  }

  uint32(): number {
    return this.#body.readUInt32BE(this.#advance(4));
  }

  int32(): number {
    return this.#body.readInt32BE(this.#advance(4));
  }

  /** A view of the next `length` bytes. */
  bytes(length: number): Buffer {
    const start = this.#advance(length);
    return this.#body.subarray(start, start + length);
  }

  /** A view of all that is left. */
  rest(): Buffer {
    return this.bytes(this.remaining);
  }

  /** A length-prefixed value: a view, or null for the length -1. */
  value(): Buffer | null {
    const length = this.int32();
    if (length === -1) {
      return null;
    }
    if (length < 0) {
      throw this.violation(`a value has the length ${length}`);
    }
    return this.bytes(length);
  }

  /** `count` format codes, each 0 (text) or 1 (binary). */
  formats(count: number): readonly number[] {
    const formats: number[] = [];
    for (let i = 0; i < count; i++) {
      const format = this.int16();
      if (format !== 0 && format !== 1) {
        throw this.violation(`the format code ${format} does not exist`);
      }
      formats.push(format);
    }
    return formats;
  }

  /** A view of a NUL-terminated string, without its NUL. */
  cstringBytes(): Buffer {
    const start = this.#offset;
    const end = this.#body.indexOf(0, start);
    if (start >= this.#body.length || end === -1) {
      throw this.violation("a string has no end");
    }
    this.#offset = end + 1;
    return this.#body.subarray(start, end);
  }

  /**
   * A NUL-terminated string.
   * @throws SallyportError `statement.encoding` when it is not UTF-8.
   */
  cstring(): string {
    return this.decode(this.cstringBytes());
  }

  /** @throws SallyportError `statement.encoding` when `bytes` is not UTF-8. */
  decode(bytes: Buffer): string {
    if (!isUtf8(bytes)) {
      throw new SallyportError(
        "statement.encoding",
        this.#direction === "frontend" ? "client" : "upstream",
        `${this.#message}: a string is not valid UTF-8`,
        { nextStep: "Send text as UTF-8; the gateway speaks no other encoding." },
      );
    }
    return bytes.toString("utf8");
  }

  /** Ends the read. @throws SallyportError `protocol.violation` when bytes are left. */
  end(): void {
    if (this.remaining !== 0) {
      throw this.violation(`${this.remaining} bytes are left over`);
    }
  }

  violation(reason: string): SallyportError {
    return protocolViolation(this.#direction, `${this.#message}: ${reason}`);
  }

  #advance(length: number): number {
    const start = this.#offset;
    // A negative length would move the cursor back.
    if (length < 0 || length > this.#body.length - start) {
      throw this.violation("the message ends before its contents do");
    }
    this.#offset = start + length;
    return start;
  }
}

const initialBytes = 128;

/** Builds one message; `finish` fills in the length. */
export class FrameWriter {
  readonly #lengthAt: number;
  #bytes = Buffer.allocUnsafe(initialBytes);
  #used: number;

  /** `type` is the ASCII code of the type byte; null for the untyped packets of the startup phase. */
  constructor(type: number | null) {
    this.#lengthAt = type === null ? 0 : 1;
    if (type !== null) {
      this.#bytes[0] = type;
    }
    this.#used = this.#lengthAt + 4;
  }

  uint8(value: number): this {
    const at = this.#room(1);
    this.#used = this.#bytes.writeUInt8(value, at);
    return this;
  }

  int16(value: number): this {
    const at = this.#room(2);
    this.#used = this.#bytes.writeInt16BE(value, at);
    return this;
  }

  uint16(value: number): this {
    const at = this.#room(2);
    this.#used = this.#bytes.writeUInt16BE(value, at);
    return this;
  }

  int32(value: number): this {
    const at = this.#room(4);
    this.#used = this.#bytes.writeInt32BE(value, at);
    return this;
  }

  uint32(value: number): this {
    const at = this.#room(4);
    this.#used = this.#bytes.writeUInt32BE(value, at);
    return this;
  }

  bytes(value: Uint8Array): this {
    const at = this.#room(value.length);
    this.#bytes.set(value, at);
    this.#used = at + value.length;
    return this;
  }

  /** A length-prefixed value; null is the length -1. */
  value(value: Uint8Array | null): this {
    return value === null ? this.int32(-1) : this.int32(value.length).bytes(value);
  }

  /** A string, or the UTF-8 bytes of one, and its NUL. @throws InvariantError when it holds a NUL itself. */
  cstring(value: string | Uint8Array): this {
    const bytes = typeof value === "string" ? Buffer.from(value, "utf8") : value;
    if (bytes.includes(0)) {
      throw new InvariantError("a string of the wire cannot hold a NUL");
    }
    return this.bytes(bytes).uint8(0);
  }

  /** The finished message. The writer is not used afterwards. */
  finish(): Buffer {
    this.#bytes.writeInt32BE(this.#used - this.#lengthAt, this.#lengthAt);
    return this.#bytes.subarray(0, this.#used);
  }

  /** Makes room and says where. Asked before `#bytes` is named: growing replaces it. */
  #room(length: number): number {
    const needed = this.#used + length;
    if (needed > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(needed, this.#bytes.length * 2));
      this.#bytes.copy(grown, 0, 0, this.#used);
      this.#bytes = grown;
    }
    return this.#used;
  }
}
