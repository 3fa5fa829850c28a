/**
 * One side's socket: chunks in, buffers out, both bounded. Reading is paused while chunks wait; writing resolves when the socket
 * takes more. There is no way to write but through the conversation.
 */
import type { Socket } from "node:net";

/** Chunks that wait to be read before the socket is paused. */
const waitingBytesMax = 256 * 1024;

/** A client that has sent nothing for so long has finished what it was sending. */
const quietMs = 50;

export class Channel {
  readonly #socket: Socket;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #ended = false;
  #wake: (() => void) | null = null;
  #dropping = false;
  #unsent: Buffer[] = [];
  #unsentBytes = 0;
  #drain: Promise<void> | null = null;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => {
      if (this.#dropping) {
        return;
      }
      this.#chunks.push(chunk);
      this.#bytes += chunk.length;
      if (this.#bytes > waitingBytesMax) {
        socket.pause();
      }
      this.#notify();
    });
    const end = (): void => {
      this.#ended = true;
      this.#notify();
    };
    socket.on("end", end);
    socket.on("close", end);
    // The reason is of no use to anyone: a connection that broke has ended.
    socket.on("error", end);
    if (socket.destroyed || socket.readableEnded) {
      this.#ended = true;
    }
    socket.resume();
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Wakes a reader without data, so that it looks at its own state. */
  nudge(): void {
    this.#notify();
  }

  /** The chunks that have come; empty after a nudge; null when the other side has gone and everything was read. */
  async read(): Promise<Buffer[] | null> {
    if (this.#chunks.length === 0 && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#chunks.length === 0) {
      return this.#ended ? null : [];
    }
    const chunks = this.#chunks;
    this.#chunks = [];
    if (this.#bytes > waitingBytesMax) {
      this.#socket.resume();
    }
    this.#bytes = 0;
    return chunks;
  }

  /**
   * Queues bytes; resolves when the socket takes more, or is gone (then the reader finds out). What is written in one turn goes
   * out together: a system call for each small message would cost more than everything else that is done with it.
   */
  write(bytes: Buffer): Promise<void> | null {
    const socket = this.#socket;
    if (bytes.length === 0 || socket.destroyed || !socket.writable) {
      return null;
    }
    if (this.#unsent.length === 0) {
      process.nextTick(() => {
        this.#flush();
      });
    }
    this.#unsent.push(bytes);
    this.#unsentBytes += bytes.length;
    if (this.#unsentBytes >= socket.writableHighWaterMark) {
      this.#flush();
    }
    if (!socket.writableNeedDrain) {
      return null;
    }
    this.#drain ??= this.#drained();
    return this.#drain;
  }

  #flush(): void {
    const [first] = this.#unsent;
    if (first === undefined) {
      return;
    }
    const bytes = this.#unsent.length === 1 ? first : Buffer.concat(this.#unsent, this.#unsentBytes);
    this.#unsent = [];
    this.#unsentBytes = 0;
    if (this.#socket.writable) {
      this.#socket.write(bytes);
    }
  }

  /**
   * Sends a last message, if any, and closes: when the other side has, or after `graceMs`. What still comes is read and dropped, and
   * the end is sent once nothing comes any more: a client in the middle of a long message reads its answer only then, and unread
   * bytes would turn the close into a reset, which takes the last message with it.
   */
  async close(last: Buffer | null, graceMs: number): Promise<void> {
    const socket = this.#socket;
    this.#ended = true;
    this.#notify();
    this.#flush();
    if (socket.destroyed) {
      return;
    }
    this.#chunks = [];
    this.#dropping = true;
    socket.resume();
    await new Promise<void>((resolve) => {
      const closed = (): void => {
        clearTimeout(timer);
        clearTimeout(quiet);
        resolve();
      };
      const timer = setTimeout(() => {
        socket.destroy();
        closed();
      }, graceMs);
      let quiet = setTimeout(() => socket.end(), last === null ? 0 : quietMs);
      socket.once("close", closed);
      if (last !== null) {
        socket.write(last);
        socket.on("data", () => {
          clearTimeout(quiet);
          quiet = setTimeout(() => socket.end(), quietMs);
        });
      }
    });
  }

  destroy(): void {
    this.#ended = true;
    this.#socket.destroy();
    this.#notify();
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#socket.off("drain", done);
        this.#socket.off("close", done);
        this.#drain = null;
        resolve();
      };
      this.#socket.on("drain", done);
      this.#socket.on("close", done);
    });
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}
