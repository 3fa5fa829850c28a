/** The socket that clients of one protocol connect to. */
import { createServer } from "node:net";
import type { Socket } from "node:net";

import { SallyportError } from "#domain/errors.ts";
import type { Driver, Unit } from "#protocols/driver.ts";
import type { SessionBook } from "./sessions.ts";

export interface Listener {
  readonly host: string;
  readonly port: number;
  /** Takes no new connections; those that are open stay. */
  close(): Promise<void>;
}

/** Connections that the system holds while the process is busy. */
const backlog = 511;

/**
 * Listens for clients of `driver`. Port 0 takes a free one.
 * @throws SallyportError `listen.port-in-use` or `listen.failed`.
 */
export async function listen<U extends Unit, C, R>(
  address: { readonly host: string; readonly port: number },
  driver: Driver<U, C, R>,
  sessions: SessionBook,
): Promise<Listener> {
  const server = createServer({ noDelay: true, keepAlive: true, pauseOnConnect: false }, (socket: Socket) => {
    sessions.serve(driver, socket);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const inUse = error.code === "EADDRINUSE";
      reject(
        new SallyportError(
          inUse ? "listen.port-in-use" : "listen.failed",
          "gateway",
          `cannot listen for PostgreSQL clients on ${address.host}:${address.port}`,
          {
            cause: error,
            nextStep: inUse
              ? "Another program has the port: stop it, or change listen.postgres in the configuration."
              : "Check listen.postgres in the configuration.",
          },
        ),
      );
    });
    server.listen({ host: address.host, port: address.port, backlog }, resolve);
  });
  const bound = server.address();
  const port = bound !== null && typeof bound === "object" ? bound.port : address.port;
  return {
    host: address.host,
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
      }),
  };
}
