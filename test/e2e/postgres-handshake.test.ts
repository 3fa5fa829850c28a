import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SallyportError } from "#domain/errors.ts";
import type { ScramVerifier } from "#domain/grant.ts";
import { idSource } from "#domain/ids.ts";
import { makeVerifier, verifierToPostgres } from "#identity/scram.ts";
import { greetClient, turnAway, welcomeClient, type ClientHandshake } from "#protocols/postgres/handshake-client.ts";
import { socketStream } from "#protocols/postgres/handshake-stream.ts";
import {
  connectUpstream,
  sendCancel,
  type UpstreamConnection,
  type UpstreamLogin,
} from "#protocols/postgres/handshake-upstream.ts";
import { decodeBackend, type BackendMessage } from "#protocols/postgres/messages-backend.ts";
import {
  encodeBackendKeyData,
  encodeCommandComplete,
  encodeParameterStatus,
  encodeQuery,
  encodeReadyForQuery,
} from "#protocols/postgres/messages-encode.ts";
import { decodeFrontend } from "#protocols/postgres/messages-frontend.ts";
import { runSql, startPostgres, type TestPostgres } from "../support/postgres.ts";

const parts = { randomBytes, signal: new AbortController().signal };
let postgres: TestPostgres;

beforeAll(async () => {
  postgres = await startPostgres();
});

afterAll(async () => {
  await postgres.stop();
});

function loginTo(server: TestPostgres, changes: Partial<UpstreamLogin> = {}): UpstreamLogin {
  const { host, port, user, password, database } = server;
  return { host, port, user, password, database, settings: new Map(), ...changes };
}

/** An `upstream.refused` that tells the server's SQLSTATE. */
function refusedWith(sqlState: string): unknown {
  const message: unknown = expect.stringContaining(`(${sqlState})`);
  return expect.objectContaining({ code: "upstream.refused", whose: "upstream", message });
}

/** Sends a Query and reads up to ReadyForQuery. */
async function ask(connection: UpstreamConnection, sql: string): Promise<BackendMessage[]> {
  connection.socket.write(encodeQuery(sql));
  const messages: BackendMessage[] = [];
  const stream = socketStream(connection.socket);
  for (;;) {
    const frame = connection.reader.next();
    if (frame === null) {
      const chunk = await stream.read(AbortSignal.timeout(10_000));
      if (chunk === null) {
        throw new Error("the server closed the connection");
      }
      connection.reader.push(chunk);
      continue;
    }
    const message = decodeBackend(frame);
    messages.push(message);
    if (message.kind === "ready-for-query") {
      stream.detach();
      return messages;
    }
  }
}

function cellsOf(messages: readonly BackendMessage[]): (string | null)[][] {
  return messages.flatMap((message) =>
    message.kind === "data-row" ? [message.cells.map((cell) => cell?.toString("utf8") ?? null)] : [],
  );
}

describe("logging in to PostgreSQL", () => {
  test("a session opens by SCRAM, with its settings, its cancel key and the server's parameters", async () => {
    const connection = await connectUpstream(
      loginTo(postgres, {
        settings: new Map([
          ["application_name", "sallyport"],
          ["TimeZone", "UTC"],
        ]),
      }),
      parts,
    );
    expect(connection.authentication).toBe("scram-sha-256");
    expect(connection.parameters.get("client_encoding")).toBe("UTF8");
    expect(connection.parameters.get("application_name")).toBe("sallyport");
    const answer = await ask(connection, "select pg_backend_pid()::text, current_setting('TimeZone')");
    expect(cellsOf(answer)).toEqual([[String(connection.processId), "UTC"]]);
    connection.socket.destroy();
  });

  test("what came before the socket was handed on is not lost to its next owner", async () => {
    for (const waitMs of [0, 50]) {
      const connection = await connectUpstream(loginTo(postgres), parts);
      connection.socket.write(encodeQuery("select 'handed on'"));
      await delay(waitMs);
      const complete = Promise.withResolvers<void>();
      let received = Buffer.alloc(0);
      connection.socket.on("data", (chunk: Buffer) => {
        received = Buffer.concat([received, chunk]);
        if (received.subarray(-6, -5).toString() === "Z") {
          complete.resolve();
        }
      });
      connection.socket.resume();
      await complete.promise;
      expect(received.includes("handed on")).toBe(true);
      connection.socket.destroy();
    }
  });

  test("a role whose password was set as our verifier lets us in with the password", async () => {
    const password = "correct horse battery staple";
    const verifier = verifierToPostgres(makeVerifier(password, randomBytes(16), 4096));
    await runSql(postgres, `create role verified login password '${verifier}'`);
    const connection = await connectUpstream(loginTo(postgres, { user: "verified", password }), parts);
    expect(cellsOf(await ask(connection, "select current_user"))).toEqual([["verified"]]);
    connection.socket.destroy();
  });

  test.each([
    ["pencil"],
    ["p\u00e4ssw\u00f6rd"],
    ["decomposed a\u0308"],
    ["non-breaking\u00a0space and soft\u00adhyphen"],
    ["\u2168 is nine, \u00aa is a"],
    ["\u0627\u0628"],
    ["mixed \u0627 directions"],
    ["\u0627\u0031"],
    ["grinning \u{1f600} a\u0308"],
    ["control\u0007 a\u0308"],
    ["private \ue000 a\u0308"],
    ["\u00ad"],
    ["\u1806\u200b\u2003end"],
    ["\u0221 unassigned in 3.2, a\u0308"],
  ])("PostgreSQL and we prepare the password %j alike", async (password) => {
    await runSql(postgres, `drop role if exists prepared; create role prepared login password '${password}'`);
    const [row] = await runSql(postgres, "select rolpassword from pg_authid where rolname = 'prepared'");
    const stored = String(row?.["rolpassword"]);
    const saltBase64 = /^SCRAM-SHA-256\$4096:([^$]+)\$/.exec(stored)?.[1] ?? "";
    expect(verifierToPostgres(makeVerifier(password, Buffer.from(saltBase64, "base64"), 4096))).toBe(stored);
    const connection = await connectUpstream(loginTo(postgres, { user: "prepared", password }), parts);
    connection.socket.destroy();
  });

  test("a wrong password, an unknown database and a closed port each fail with their own code", async () => {
    await expect(connectUpstream(loginTo(postgres, { password: "wrong" }), parts)).rejects.toThrow(
      refusedWith("28P01"),
    );
    await expect(connectUpstream(loginTo(postgres, { database: "nowhere" }), parts)).rejects.toThrow(
      refusedWith("3D000"),
    );
    const port = await closedPort();
    await expect(connectUpstream(loginTo(postgres, { port }), parts)).rejects.toMatchObject({
      code: "upstream.unreachable",
      whose: "upstream",
    });
  });

  test("MD5 and cleartext are refused before anything derived from the password is sent", async () => {
    for (const request of [
      Buffer.from("520000000c0000000501020304", "hex"),
      Buffer.from("520000000800000003", "hex"),
    ]) {
      const received: Buffer[] = [];
      const server = await listen((socket) => {
        socket.on("data", (chunk) => received.push(chunk));
        socket.write(request);
      });
      await expect(connectUpstream(loginTo(postgres, { port: portOf(server) }), parts)).rejects.toMatchObject({
        code: "upstream.authentication",
      });
      await closed(server);
      // One packet and no more: the startup packet, whose first four bytes are its length.
      const sent = Buffer.concat(received);
      expect(sent.readUInt32BE(0)).toBe(sent.length);
    }
  });

  test("a server that says nothing is given up after the limit, and one that is slow by the signal", async () => {
    const server = await listen((socket) => socket.resume());
    const login = loginTo(postgres, { port: portOf(server) });
    await expect(connectUpstream(login, { ...parts, timeoutMs: 50 })).rejects.toMatchObject({
      code: "upstream.unreachable",
    });
    const stop = new AbortController();
    const attempt = connectUpstream(login, { ...parts, signal: stop.signal });
    stop.abort(new SallyportError("test.stopped", "gateway", "stopped"));
    await expect(attempt).rejects.toMatchObject({ code: "test.stopped" });
    await closed(server);
  });

  test("a cancel request ends the running statement with 57014 and leaves the session alive", async () => {
    const connection = await connectUpstream(loginTo(postgres), parts);
    const running = ask(connection, "select pg_sleep(30)");
    // A request that comes before the statement has begun cancels nothing, so it is made until one has.
    for (;;) {
      await sendCancel(postgres, connection, parts.signal);
      if (await Promise.race([running.then(() => true), delay(100).then(() => false)])) {
        break;
      }
    }
    const error = (await running).find((message) => message.kind === "error");
    expect(error?.kind === "error" && error.fields.get("C")).toBe("57014");
    expect(cellsOf(await ask(connection, "select 1"))).toEqual([["1"]]);
    connection.socket.destroy();
  });
});

describe("the pg client logs in to us", () => {
  const verifier = makeVerifier("opensesame", Buffer.alloc(16, 7), 4096);
  const mintId = idSource(randomBytes);

  /** A server of one connection: greets it, and answers one query with a command tag. */
  async function serveOne(
    findVerifier: (login: string) => Promise<ScramVerifier | null>,
  ): Promise<{ server: Server; outcome: Promise<ClientHandshake> }> {
    const { promise, resolve, reject } = Promise.withResolvers<ClientHandshake>();
    const server = await listen((socket) => {
      serve(socket, findVerifier).then(resolve, reject);
    });
    return { server, outcome: promise };
  }

  async function serve(
    socket: Socket,
    findVerifier: (login: string) => Promise<ScramVerifier | null>,
  ): Promise<ClientHandshake> {
    const stream = socketStream(socket);
    const mockKey = Buffer.alloc(32, 1);
    const client = await greetClient({ stream, findVerifier, mockKey, ...parts });
    if (client.kind === "failed") {
      await turnAway(stream, { ...client, id: mintId("dec") }, parts.signal);
      socket.end();
    }
    if (client.kind === "authenticated") {
      await welcomeClient(stream, client, parts.signal);
      socket.write(
        Buffer.concat([
          encodeParameterStatus("client_encoding", "UTF8"),
          encodeBackendKeyData(1, 2),
          encodeReadyForQuery("idle"),
        ]),
      );
      for (;;) {
        const frame = client.reader.next();
        if (frame !== null) {
          if (decodeFrontend(frame).kind === "query") {
            socket.write(Buffer.concat([encodeCommandComplete("SELECT 0"), encodeReadyForQuery("idle")]));
          }
          continue;
        }
        const chunk = await stream.read(parts.signal);
        if (chunk === null) {
          break;
        }
        client.reader.push(chunk);
      }
      socket.end();
    }
    return client;
  }

  test("with the right password it runs a query, and we know what it asked for", async () => {
    const { server, outcome } = await serveOne(async (login) => (login === "ada" ? verifier : null));
    const client = new Client({
      host: "127.0.0.1",
      port: portOf(server),
      user: "ada",
      password: "opensesame",
      database: "billing",
      application_name: "tests",
      options: "-c default_transaction_read_only=on",
    });
    await client.connect();
    await client.query("select 1");
    await client.end();
    const greeted = await outcome;
    expect(greeted).toMatchObject({ kind: "authenticated", login: "ada", database: "billing" });
    expect(greeted.kind === "authenticated" && Object.fromEntries(greeted.parameters)).toEqual({
      application_name: "tests",
      client_encoding: "UTF8",
      default_transaction_read_only: "on",
    });
    await closed(server);
  });

  test("a wrong password and an unknown login read the same error, with the decision's id", async () => {
    const errors: Record<string, unknown>[] = [];
    for (const [user, password] of [
      ["ada", "wrong"],
      ["nobody", "opensesame"],
    ] as const) {
      const { server, outcome } = await serveOne(async (login) => (login === "ada" ? verifier : null));
      const client = new Client({ host: "127.0.0.1", port: portOf(server), user, password, database: "billing" });
      const error: unknown = await client.connect().then(
        () => null,
        (reason: unknown) => reason,
      );
      const { code, severity, message, detail, hint } = error as Record<string, unknown>;
      expect(message).toMatch(/ \[dec_[0-9a-z]+\]$/);
      const withoutId = (text: unknown): string => String(text).replace(/dec_[0-9a-z]+/, "dec_");
      errors.push({ code, severity, hint, message: withoutId(message), detail: withoutId(detail) });
      expect(await outcome).toMatchObject({ kind: "failed", code: "credential.invalid", login: user });
      await closed(server);
    }
    expect(errors[0]).toMatchObject({ code: "28P01", severity: "FATAL" });
    expect(errors[1]).toEqual(errors[0]);
  });
});

async function listen(serve: (socket: Socket) => void): Promise<Server> {
  const server = createServer(serve);
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  return server;
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

async function closed(server: Server): Promise<void> {
  await new Promise((resolve) => {
    server.close(resolve);
  });
}

async function closedPort(): Promise<number> {
  const server = await listen(() => {});
  const port = portOf(server);
  await closed(server);
  return port;
}
