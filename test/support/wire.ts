/** A client that speaks frames: for pipelines, lies and order, which a library would not send. */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";

import type { ConnectionDetails } from "#domain/control.ts";
import type { FrameReader } from "#protocols/postgres/frames.ts";
import { connectUpstream } from "#protocols/postgres/handshake-upstream.ts";
import { decodeBackend } from "#protocols/postgres/messages-backend.ts";
import type { BackendMessage } from "#protocols/postgres/messages-backend.ts";

export interface Wire {
  /** Sends bytes as they are. */
  send(...frames: readonly Uint8Array[]): void;
  /** Everything up to and including the next ReadyForQuery; what came so far when the connection ended first. */
  untilReady(): Promise<readonly BackendMessage[]>;
  /** Up to the end of the connection. */
  untilEnd(): Promise<readonly BackendMessage[]>;
  /** What CancelRequest would need. */
  readonly cancelKey: { readonly processId: number; readonly secretKey: number };
  close(): void;
}

/** Logs in and returns the connection, idle. */
export async function openWire(to: ConnectionDetails): Promise<Wire> {
  const { host, port, database, user, password } = to;
  const connection = await connectUpstream(
    { host, port, database, user, password, settings: new Map() },
    { randomBytes, signal: AbortSignal.timeout(10_000) },
  );
  const { socket, reader } = connection;
  socket.on("error", () => {});
  let ended = false;
  socket.on("data", (chunk: Buffer) => {
    reader.push(chunk);
    socket.emit("frames");
  });
  socket.on("close", () => {
    ended = true;
    socket.emit("frames");
  });
  socket.resume();
  const read = async (isLast: (message: BackendMessage) => boolean): Promise<BackendMessage[]> => {
    const messages: BackendMessage[] = [];
    for (;;) {
      const message = nextMessage(reader);
      if (message !== null) {
        messages.push(message);
        if (isLast(message)) {
          return messages;
        }
      } else if (ended) {
        return messages;
      } else {
        await more(socket);
      }
    }
  };
  return {
    send: (...frames) => {
      socket.write(Buffer.concat(frames));
    },
    untilReady: () => read((message) => message.kind === "ready-for-query"),
    untilEnd: () => read(() => false),
    cancelKey: { processId: connection.processId, secretKey: connection.secretKey },
    close: () => {
      socket.destroy();
    },
  };
}

/** Resolves when something has come, or the connection has ended. */
function more(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error("nothing came for ten seconds"));
    }, 10_000);
    socket.once("frames", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

function nextMessage(reader: FrameReader): BackendMessage | null {
  const frame = reader.next();
  return frame === null ? null : decodeBackend(frame);
}

/** The kinds in order, with what tells them apart: `error 42P01`, `ready idle`, `complete SELECT 1`. */
export function summary(messages: readonly BackendMessage[]): string[] {
  return messages.map((message) => {
    switch (message.kind) {
      case "error":
      case "notice":
        return `${message.kind} ${message.fields.get("C") ?? ""}`;
      case "ready-for-query":
        return `ready ${message.status}`;
      case "command-complete":
        return `complete ${message.tag}`;
      case "data-row":
        return `row ${message.cells.map((cell) => cell?.toString("utf8") ?? "NULL").join(",")}`;
      default:
        return message.kind;
    }
  });
}
