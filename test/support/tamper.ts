/** A resource that lies or dies: a proxy between the gateway and PostgreSQL that a test can turn against it. */
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";

export interface Tamper extends AsyncDisposable {
  readonly address: { readonly host: string; readonly port: number };
  /** Changes what PostgreSQL says from now on; null to leave it alone. */
  set(change: ((chunk: Buffer) => Buffer) | null): void;
  /** Cuts every connection after PostgreSQL has said so many more bytes on it. */
  cutAfter(bytes: number): void;
}

export async function startTamper(target: { readonly host: string; readonly port: number }): Promise<Tamper> {
  let change: ((chunk: Buffer) => Buffer) | null = null;
  let left = Number.POSITIVE_INFINITY;
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(target);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.on("data", (chunk: Buffer) => {
      upstream.write(chunk);
    });
    upstream.on("data", (chunk: Buffer) => {
      const told = change === null ? chunk : change(chunk);
      if (told.length >= left) {
        client.end(told.subarray(0, left));
        upstream.destroy();
        return;
      }
      left -= Number.isFinite(left) ? told.length : 0;
      client.write(told);
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") {
    throw new Error("the proxy has no port");
  }
  return {
    address: { host: "127.0.0.1", port: address.port },
    set: (next) => {
      change = next;
    },
    cutAfter: (bytes) => {
      left = bytes;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) {
        socket.destroy();
      }
      await new Promise<void>((resolve) => {
        server.close(() => {
          resolve();
        });
      });
    },
  };
}
