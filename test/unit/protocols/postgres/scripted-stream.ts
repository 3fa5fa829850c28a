/** The two ends of a connection in memory, with the client's bytes cut as a test wants. */
import type { HandshakeStream } from "#protocols/postgres/handshake-stream.ts";

/** Bytes are cut into pieces of this many; `Infinity` leaves each write whole. */
export interface Pipe {
  /** The gateway's end. */
  readonly stream: HandshakeStream;
  /** What the client says. */
  send(bytes: Buffer): void;
  /** The client goes. */
  end(): void;
  /** What the gateway has said since the last call; waits until it is something. Null when it will say nothing more. */
  received(): Promise<Buffer | null>;
  /** The gateway has returned. */
  finish(): void;
}

export function pipe(pieceBytes: number): Pipe {
  const toGateway = queue();
  const toClient = queue();
  return {
    stream: {
      read: (signal) => toGateway.take(signal),
      write: async (bytes, signal) => {
        signal.throwIfAborted();
        toClient.put(bytes);
      },
    },
    send: (bytes) => {
      for (let at = 0; at < bytes.length; at += pieceBytes) {
        toGateway.put(bytes.subarray(at, Math.min(bytes.length, at + pieceBytes)));
      }
    },
    end: () => toGateway.close(),
    received: () => toClient.take(AbortSignal.timeout(5000)),
    finish: () => toClient.close(),
  };
}

interface Queue {
  put(bytes: Buffer): void;
  close(): void;
  take(signal: AbortSignal): Promise<Buffer | null>;
}

function queue(): Queue {
  const waiting: Buffer[] = [];
  let closed = false;
  let wake: () => void = () => {};
  return {
    put: (bytes) => {
      waiting.push(bytes);
      wake();
    },
    close: () => {
      closed = true;
      wake();
    },
    take: async (signal) => {
      for (;;) {
        signal.throwIfAborted();
        const bytes = waiting.shift();
        if (bytes !== undefined || closed) {
          return bytes ?? null;
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
      }
    },
  };
}
