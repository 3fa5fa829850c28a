/** Lines of newline-delimited JSON-RPC (MCP's stdio transport), kept as the bytes that came. */

export type Line =
  /** A whole line with its newline. */
  | { readonly kind: "line"; readonly bytes: Uint8Array }
  /** Dropped while it came in. What is left of it: its first and last bytes, to find out whose it was. */
  | { readonly kind: "too-long"; readonly lengthBytes: number; readonly head: Uint8Array; readonly tail: Uint8Array }
  /** The stream ended inside a line. */
  | { readonly kind: "unterminated"; readonly lengthBytes: number };

const newline = 0x0a;
/** Enough of a dropped line for its id, which real clients put first or last. */
const edgeBytes = 1024;
const firstCapacityBytes = 4096;

/** Cuts a stream of bytes into lines, whatever its pieces. Holds at most one line of `lineBytesMax`. */
export class LineDecoder {
  readonly #lineBytesMax: number;
  /** The line that has begun: `#held` bytes of `#buffer`. */
  #buffer = Buffer.alloc(0);
  #held = 0;
  /** Set while a line that is too long passes. */
  #dropping: { lengthBytes: number; readonly head: Uint8Array; tail: Uint8Array } | null = null;

  /** @param lineBytesMax length of the longest line, without its newline. */
  constructor(lineBytesMax: number) {
    this.#lineBytesMax = lineBytesMax;
  }

  /** The lines that `chunk` completes. They may share its memory: it must not be changed afterwards. */
  push(chunk: Uint8Array): readonly Line[] {
    const lines: Line[] = [];
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(newline, start);
      if (end === -1) {
        break;
      }
      lines.push(this.#complete(chunk.subarray(start, end + 1)));
      start = end + 1;
    }
    if (start < chunk.length) {
      this.#hold(chunk.subarray(start));
    }
    return lines;
  }

  /** What the end of the stream leaves unfinished. */
  end(): Line | null {
    const lengthBytes = this.#dropping?.lengthBytes ?? this.#held;
    this.#held = 0;
    this.#dropping = null;
    return lengthBytes === 0 ? null : { kind: "unterminated", lengthBytes };
  }

  /** @param last the rest of the line, with its newline. */
  #complete(last: Uint8Array): Line {
    if (this.#dropping === null && this.#held + last.length - 1 > this.#lineBytesMax) {
      this.#drop();
    }
    if (this.#dropping !== null) {
      this.#passBy(last);
      const { lengthBytes, head, tail } = this.#dropping;
      this.#dropping = null;
      return { kind: "too-long", lengthBytes, head, tail };
    }
    if (this.#held === 0) {
      return { kind: "line", bytes: last };
    }
    this.#append(last);
    const bytes = this.#buffer.subarray(0, this.#held);
    // Handed out, so not written to again.
    this.#buffer = Buffer.alloc(0);
    this.#held = 0;
    return { kind: "line", bytes };
  }

  #hold(piece: Uint8Array): void {
    if (this.#dropping === null && this.#held + piece.length > this.#lineBytesMax) {
      this.#drop();
    }
    if (this.#dropping === null) {
      this.#append(piece);
    } else {
      this.#passBy(piece);
    }
  }

  #drop(): void {
    const line = this.#buffer.subarray(0, this.#held);
    this.#dropping = { lengthBytes: 0, head: new Uint8Array(0), tail: new Uint8Array(0) };
    this.#buffer = Buffer.alloc(0);
    this.#held = 0;
    this.#passBy(line);
  }

  #passBy(piece: Uint8Array): void {
    if (this.#dropping !== null) {
      const { lengthBytes, head, tail } = this.#dropping;
      this.#dropping = {
        lengthBytes: lengthBytes + piece.length,
        head: head.length < edgeBytes ? Buffer.concat([head, piece.subarray(0, edgeBytes - head.length)]) : head,
        tail: Buffer.from(Buffer.concat([tail, piece.subarray(-edgeBytes)]).subarray(-edgeBytes)),
      };
    }
  }

  /** Doubles the buffer when it is full, so that a line costs its length, in however many pieces it comes. */
  #append(piece: Uint8Array): void {
    const needed = this.#held + piece.length;
    if (needed > this.#buffer.length) {
      const larger = Buffer.alloc(Math.max(needed, this.#buffer.length * 2, firstCapacityBytes));
      larger.set(this.#buffer.subarray(0, this.#held));
      this.#buffer = larger;
    }
    this.#buffer.set(piece, this.#held);
    this.#held = needed;
  }
}
