/** The bytes of a connection while it is being set up: a chunk at a time, asked for one by one, so that nothing is read ahead. */
import type { Socket } from "node:net";

/** What a handshake needs of a connection. */
export interface HandshakeStream {
  /**
   * The next chunk; null when the peer has ended.
   * @throws what the connection failed with, or the reason of `signal` once it aborts.
   */
  read(signal: AbortSignal): Promise<Buffer | null>;
  /** Resolves when the connection takes more. @throws as `read` does. */
  write(bytes: Buffer, signal: AbortSignal): Promise<void>;
}

/** A handshake over a socket. `detach` gives the socket back, with whatever it holds still unread. */
export interface SocketHandshakeStream extends HandshakeStream {
  detach(): void;
}

/** Reads `socket` in paused mode. Nobody else listens for its data until `detach`. */
export function socketStream(socket: Socket): SocketHandshakeStream {
  // An error that comes while nobody waits is met at the next read or write, or by the next owner as `close`. Without a
  // listener it would end the process, so this one stays.
  socket.on("error", () => {});
  // From here on the socket reads only as far as its own buffer reaches.
  const onReadable = (): void => {};
  socket.on("readable", onReadable);
  return {
    read: async (signal) => {
      for (;;) {
        signal.throwIfAborted();
        const chunk: unknown = socket.read();
        if (Buffer.isBuffer(chunk)) {
          return chunk;
        }
        if (socket.errored !== null) {
          throw socket.errored;
        }
        if (socket.readableEnded || socket.destroyed) {
          return null;
        }
        await once(socket, ["readable", "end", "close", "error"], signal);
      }
    },
    write: async (bytes, signal) => {
      signal.throwIfAborted();
      if (socket.errored !== null) {
        throw socket.errored;
      }
      if (!socket.write(bytes)) {
        await once(socket, ["drain", "close", "error"], signal);
      }
    },
    detach: () => {
      socket.off("readable", onReadable);
    },
  };
}

/**
 * Waits for the first of `events`. What happened is for the caller to see in the socket's state.
 * @throws the reason of `signal` when that aborts first.
 */
export async function once(socket: Socket, events: readonly string[], signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const finish = (): void => {
      for (const event of events) {
        socket.off(event, finish);
      }
      signal.removeEventListener("abort", finish);
      resolve();
    };
    for (const event of events) {
      socket.on(event, finish);
    }
    signal.addEventListener("abort", finish);
    if (signal.aborted) {
      finish();
    }
  });
  signal.throwIfAborted();
}
