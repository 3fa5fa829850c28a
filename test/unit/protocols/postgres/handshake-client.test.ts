import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import type { ScramVerifier } from "#domain/grant.ts";
import { answerServer, encodeNonce, makeVerifier, startClient } from "#identity/scram.ts";
import { FrameWriter } from "#protocols/postgres/codec.ts";
import { FrameReader } from "#protocols/postgres/frames.ts";
import { greetClient, welcomeClient, type ClientHandshake } from "#protocols/postgres/handshake-client.ts";
import { decodeBackend, type BackendMessage } from "#protocols/postgres/messages-backend.ts";
import {
  encodeCancelRequest,
  encodeQuery,
  encodeSaslInitialResponse,
  encodeSaslResponse,
  encodeSslRequest,
  encodeStartup,
  encodeSync,
} from "#protocols/postgres/messages-encode.ts";
import { backendFrameBytesMax, frontendTypes } from "#protocols/postgres/messages-types.ts";
import { limits } from "#domain/limits.ts";
import { pipe, type Pipe } from "./scripted-stream.ts";

const verifier = makeVerifier("pencil", Buffer.alloc(16, 3), 4096);
const gssRequest = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]);
const billing = new Map([
  ["user", "ada"],
  ["database", "billing"],
  ["application_name", "tests"],
]);

interface Options {
  readonly pieceBytes?: number;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly findVerifier?: (login: string) => Promise<ScramVerifier | null>;
}

/** Runs the gateway's side against a client's script. */
async function meet(
  script: (client: ScriptedClient) => Promise<void>,
  options: Options = {},
): Promise<{ readonly result: ClientHandshake; readonly told: readonly BackendMessage[]; readonly pipe: Pipe }> {
  const connection = pipe(options.pieceBytes ?? Number.POSITIVE_INFINITY);
  const client = new ScriptedClient(connection);
  const gateway = greetClient({
    stream: connection.stream,
    findVerifier: options.findVerifier ?? (async (login) => (login === "ada" ? verifier : null)),
    randomBytes,
    mockKey: Buffer.alloc(32, 9),
    signal: options.signal ?? new AbortController().signal,
    timeoutMs: options.timeoutMs ?? 5000,
  }).finally(() => connection.finish());
  const [result] = await Promise.all([gateway, script(client)]);
  return { result, told: client.told, pipe: connection };
}

class ScriptedClient {
  readonly told: BackendMessage[] = [];
  readonly #pipe: Pipe;
  readonly #reader = new FrameReader({ direction: "backend", bytesMax: backendFrameBytesMax });

  constructor(connection: Pipe) {
    this.#pipe = connection;
  }

  send(...bytes: readonly Buffer[]): void {
    this.#pipe.send(Buffer.concat(bytes));
  }

  end(): void {
    this.#pipe.end();
  }

  /** The one byte that answers an encryption request. */
  async encryptionAnswer(): Promise<string | null> {
    return (await this.#pipe.received())?.toString("latin1") ?? null;
  }

  /** The next message of the gateway; null when it has returned. */
  async next(): Promise<BackendMessage | null> {
    for (;;) {
      const frame = this.#reader.next();
      if (frame !== null) {
        const message = decodeBackend(frame);
        this.told.push(message);
        return message;
      }
      const bytes = await this.#pipe.received();
      if (bytes === null) {
        return null;
      }
      this.#reader.push(bytes);
    }
  }

  /** The SASL exchange with a password; `early` is sent right behind its last message. */
  async prove(password: string, early: Buffer = Buffer.alloc(0)): Promise<string> {
    const offered = await this.next();
    expect(offered).toEqual({ kind: "authentication", method: "sasl", mechanisms: ["SCRAM-SHA-256"] });
    const first = startClient(encodeNonce(randomBytes(18)));
    this.send(encodeSaslInitialResponse("SCRAM-SHA-256", first.message));
    const challenge = await this.next();
    const data = challenge !== null && "data" in challenge ? challenge.data.toString() : "";
    const final = await answerServer(first, data, password);
    this.send(encodeSaslResponse(final.message), early);
    return final.expectedServerFinal;
  }
}

describe("a client with the right password", () => {
  test.each([1, 2, 3, 5, 7, 64, Number.POSITIVE_INFINITY])(
    "is known, with its bytes in pieces of %d",
    async (pieceBytes) => {
      let expected = "";
      const { result, pipe: connection } = await meet(
        async (client) => {
          client.send(encodeSslRequest());
          expect(await client.encryptionAnswer()).toBe("N");
          client.send(gssRequest);
          expect(await client.encryptionAnswer()).toBe("N");
          client.send(encodeStartup(billing));
          expected = await client.prove("pencil", encodeQuery("select 1"));
        },
        { pieceBytes },
      );
      expect(result).toMatchObject({ kind: "authenticated", login: "ada", database: "billing" });
      if (result.kind !== "authenticated") {
        return;
      }
      expect([...result.parameters]).toEqual([
        ["client_encoding", "UTF8"],
        ["application_name", "tests"],
      ]);
      expect(result.serverFinal).toBe(expected);
      // Nothing has told the client yet; then both messages that tell it go together.
      const signal = AbortSignal.timeout(1000);
      await welcomeClient(connection.stream, result, signal);
      const welcome = new FrameReader({ direction: "backend", bytesMax: backendFrameBytesMax });
      welcome.push((await connection.received()) ?? Buffer.alloc(0));
      const [final, ok] = [welcome.next(), welcome.next()].map((frame) => frame && decodeBackend(frame));
      expect(final).toEqual({ kind: "authentication", method: "sasl-final", data: Buffer.from(expected) });
      expect(ok).toEqual({ kind: "authentication", method: "ok" });
      // What the client sent early is not lost.
      let frame = result.reader.next();
      while (frame === null) {
        const bytes = await connection.stream.read(signal);
        result.reader.push(bytes ?? Buffer.alloc(0));
        frame = result.reader.next();
      }
      expect(frame.bytes).toEqual(encodeQuery("select 1"));
    },
  );

  test("proves nothing about the gateway to it before it is admitted", async () => {
    const { told } = await meet(async (client) => {
      client.send(encodeStartup(billing));
      await client.prove("pencil");
      expect(await client.next()).toBeNull();
    });
    expect(told.map((message) => "method" in message && message.method)).toEqual(["sasl", "sasl-continue"]);
  });

  test("of protocol 3.2, or with protocol options, is told 3.0 and which options are not known", async () => {
    const startup = encodeStartup(new Map([...billing, ["_pq_.feature", "on"]]));
    startup.writeUInt32BE((3 << 16) | 2, 4);
    const { result, told } = await meet(async (client) => {
      client.send(startup);
      expect((await client.next())?.kind).toBe("negotiate-protocol-version");
      await client.prove("pencil");
    });
    expect(result.kind).toBe("authenticated");
    expect(told[0]).toEqual({
      kind: "negotiate-protocol-version",
      version: 196_608,
      unknownOptions: ["_pq_.feature"],
    });
  });
});

describe("a login that fails", () => {
  test("with a wrong password and with an unknown login looks the same on the wire, time and again", async () => {
    const salts = new Map<string, Set<string>>();
    const results: ClientHandshake[] = [];
    for (const [user, password] of [
      ["ada", "wrong"],
      ["ada", "wrong"],
      ["eve", "pencil"],
      ["eve", "pencil"],
      ["mallory", "pencil"],
    ] as const) {
      const { result, told } = await meet(async (client) => {
        client.send(encodeStartup(new Map([...billing, ["user", user]])));
        await client.prove(password);
        expect(await client.next()).toBeNull();
      });
      expect(told.map((message) => "method" in message && message.method)).toEqual(["sasl", "sasl-continue"]);
      const [, challenge] = told;
      const data = challenge !== undefined && "data" in challenge ? challenge.data.toString() : "";
      const [, nonce, salt, rounds] = /^r=([^,]+),s=([A-Za-z0-9+/]{22}==),i=(\d+)$/.exec(data) ?? [];
      expect([nonce?.length, rounds]).toEqual([48, "4096"]);
      salts.set(user, (salts.get(user) ?? new Set()).add(salt ?? ""));
      results.push(result.kind === "failed" ? { ...result, login: null } : result);
      expect(result).toMatchObject({ kind: "failed", code: "credential.invalid", login: user, database: "billing" });
    }
    // A salt that changed from one try to the next would tell that the login is made up.
    expect([...salts.values()].map((seen) => seen.size)).toEqual([1, 1, 1]);
    expect(new Set([...salts.values()].flatMap((seen) => [...seen])).size).toBe(3);
    for (const result of results) {
      expect(result).toEqual(results[0]);
    }
  });

  test.each<[string, readonly Buffer[], string]>([
    ["bytes behind an SSLRequest", [encodeSslRequest(), encodeStartup(billing)], "protocol.violation"],
    ["bytes behind a GSSENCRequest", [gssRequest, Buffer.from([0])], "protocol.violation"],
    [
      "a replication connection",
      [encodeStartup(new Map([...billing, ["replication", "database"]]))],
      "protocol.unsupported",
    ],
    ["no database", [encodeStartup(new Map([["user", "ada"]]))], "resource.unknown"],
    ["an empty database", [encodeStartup(new Map([...billing, ["database", ""]]))], "resource.unknown"],
    ["no user", [encodeStartup(new Map([["database", "billing"]]))], "credential.invalid"],
    [
      "a setting outside the allowlist",
      [encodeStartup(new Map([...billing, ["session_replication_role", "replica"]]))],
      "grant.no-session-setting",
    ],
    [
      "a user name that is not UTF-8",
      [encodeStartup(new Map([["user", "ad\u00e4"]])).fill(0xff, 15, 16)],
      "statement.encoding",
    ],
    ["an HTTP request", [Buffer.from("GET / HTTP/1.1\r\n\r\n")], "protocol.violation"],
    ["a Query where a SASL response is due", [encodeStartup(billing), encodeQuery("select 1")], "protocol.violation"],
    [
      "a mechanism that was not offered",
      [encodeStartup(billing), encodeSaslInitialResponse("SCRAM-SHA-256-PLUS", "p=x,,n=,r=a")],
      "protocol.violation",
    ],
    [
      "another mechanism with a message that would do",
      [encodeStartup(billing), encodeSaslInitialResponse("SCRAM-SHA-1", "n,,n=,r=abc")],
      "protocol.violation",
    ],
    [
      "channel binding",
      [encodeStartup(billing), encodeSaslInitialResponse("SCRAM-SHA-256", "p=tls-unique,,n=,r=abc")],
      "protocol.violation",
    ],
    ["a cleartext password", [encodeStartup(billing), encodeSaslResponse("pencil\0")], "protocol.violation"],
    [
      "a SASL message over its limit",
      [encodeStartup(billing), Buffer.from([frontendTypes.password, 0, 0, 0x10, 0])],
      "protocol.violation",
    ],
    [
      "a SASL message that is not UTF-8",
      [
        encodeStartup(billing),
        new FrameWriter(frontendTypes.password)
          .cstring("SCRAM-SHA-256")
          .value(Buffer.from([0xff]))
          .finish(),
      ],
      "statement.encoding",
    ],
  ])("%s is refused with its own code", async (_name, bytes, code) => {
    const { result } = await meet(async (client) => {
      client.send(...bytes);
    });
    expect(result).toMatchObject({ kind: "failed", code });
    expect(result.kind === "failed" && [result.reason, result.nextStep].every((words) => words.length > 10)).toBe(true);
  });

  test("encryption asked for twice is refused", async () => {
    const { result } = await meet(async (client) => {
      client.send(encodeSslRequest());
      await client.encryptionAnswer();
      client.send(encodeSslRequest());
    });
    expect(result).toMatchObject({ kind: "failed", code: "protocol.violation", login: null });
  });

  test("a client that stays silent is given up after the limit, at every step", async () => {
    const steps: ((client: ScriptedClient) => Promise<void>)[] = [
      async () => {},
      async (client) => client.send(encodeStartup(billing).subarray(0, 20)),
      async (client) => client.send(encodeStartup(billing)),
    ];
    for (const step of steps) {
      const { result } = await meet(step, { timeoutMs: 30 });
      expect(result).toMatchObject({ kind: "failed", code: "limit.exceeded" });
    }
    expect(limits.handshakeMs).toBeLessThanOrEqual(10_000);
  });

  test("a client that goes is gone, at every step", async () => {
    const steps: readonly Buffer[] = [Buffer.alloc(0), encodeStartup(billing).subarray(0, 9), encodeStartup(billing)];
    for (const bytes of steps) {
      const { result } = await meet(async (client) => {
        client.send(bytes);
        client.end();
      });
      expect(result).toEqual({ kind: "gone" });
    }
  });

  test("the gateway's own failures are thrown, not told: a lookup that fails, a stop from outside", async () => {
    const lookup = meet(
      async (client) => {
        client.send(encodeStartup(billing));
        await client.prove("pencil").catch(() => {});
      },
      { findVerifier: () => Promise.reject(new Error("the store is down")) },
    );
    await expect(lookup).rejects.toThrow("the store is down");
    await expect(meet(async () => {}, { signal: AbortSignal.abort(new Error("draining")) })).rejects.toThrow(
      "draining",
    );
  });
});

describe("a cancel request", () => {
  test("gives its key, at once or behind a refused encryption", async () => {
    const { result } = await meet(async (client) => client.send(encodeCancelRequest(7, -8)), { pieceBytes: 1 });
    expect(result).toEqual({ kind: "cancel", processId: 7, secretKey: -8 });
    const behind = await meet(async (client) => {
      client.send(encodeSslRequest());
      await client.encryptionAnswer();
      client.send(encodeCancelRequest(7, -8));
    });
    expect(behind.result).toEqual({ kind: "cancel", processId: 7, secretKey: -8 });
  });
});

test("the caps of a session hold only once the client is known", async () => {
  const large = encodeQuery("x".repeat(limits.authenticationMessageBytesMax));
  const { result } = await meet(async (client) => {
    client.send(encodeStartup(billing));
    await client.prove("pencil", Buffer.concat([large, encodeSync()]));
  });
  expect(result.kind === "authenticated" && result.reader.next()?.bytes.equals(large)).toBe(true);
});
