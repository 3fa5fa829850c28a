/** Servers that do not play by the rules. What a real PostgreSQL does is in `test/e2e/postgres-handshake.test.ts`. */
import { randomBytes } from "node:crypto";
import { createServer, type Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { limits } from "#domain/limits.ts";
import { challengeClient, makeVerifier, verifyClient } from "#identity/scram.ts";
import { FrameWriter } from "#protocols/postgres/codec.ts";
import { FrameReader, StartupReader } from "#protocols/postgres/frames.ts";
import { socketStream } from "#protocols/postgres/handshake-stream.ts";
import { connectUpstream, sendCancel, type UpstreamConnection } from "#protocols/postgres/handshake-upstream.ts";
import {
  encodeAuthenticationOk,
  encodeAuthenticationSasl,
  encodeAuthenticationSaslContinue,
  encodeAuthenticationSaslFinal,
  encodeBackendKeyData,
  encodeNoticeResponse,
  encodeParameterStatus,
  encodeReadyForQuery,
} from "#protocols/postgres/messages-encode.ts";
import { decodeSaslInitialResponse, decodeStartupParameters } from "#protocols/postgres/messages-frontend.ts";
import { authenticationFrameBytesMax, backendTypes } from "#protocols/postgres/messages-types.ts";
import { dataRow } from "./conversation-bytes.ts";

const signal = AbortSignal.timeout(20_000);
const verifier = makeVerifier("pencil", Buffer.alloc(16, 1), 4096);

const utf8 = encodeParameterStatus("client_encoding", "UTF8");
const key = encodeBackendKeyData(41, -42);
const ready = encodeReadyForQuery("idle");
const ok = encodeAuthenticationOk();
const notice = encodeNoticeResponse({ severity: "WARNING", sqlState: "01000", message: "mind the collation" });

/** What a scripted server sees and says. */
class ScriptedServer {
  readonly parameters = new Map<string, string>();
  readonly #socket: Socket;
  readonly #frames = new FrameReader({ direction: "frontend", bytesMax: authenticationFrameBytesMax });

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  async start(): Promise<void> {
    const startup = new StartupReader();
    for (;;) {
      const packet = startup.next();
      if (packet === null) {
        startup.push(await this.#read());
        continue;
      }
      if (packet.kind === "startup") {
        for (const [name, value] of decodeStartupParameters(packet.body)) {
          this.parameters.set(name, value);
        }
      }
      return;
    }
  }

  say(...frames: readonly Buffer[]): void {
    this.#socket.write(Buffer.concat(frames));
  }

  hangUp(): void {
    this.#socket.end();
  }

  /** SCRAM up to the client's proof; returns the server-final that would be right. */
  async takeProof(): Promise<string> {
    this.say(encodeAuthenticationSasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]));
    const initial = decodeSaslInitialResponse(await this.#body());
    const challenge = challengeClient(initial.data.toString(), verifier, "server");
    this.say(encodeAuthenticationSaslContinue(challenge.message));
    return verifyClient(challenge, (await this.#body()).toString()) ?? "wrong";
  }

  async #body(): Promise<Buffer> {
    for (;;) {
      const frame = this.#frames.next();
      if (frame !== null) {
        return frame.body;
      }
      this.#frames.push(await this.#read());
    }
  }

  async #read(): Promise<Buffer> {
    const stream = socketStream(this.#socket);
    const chunk = await stream.read(signal);
    stream.detach();
    return chunk ?? Promise.reject(new Error("the gateway hung up"));
  }
}

/** Logs in to a server that follows `script`; the socket is closed at the end. */
async function logIn(
  script: (server: ScriptedServer) => Promise<void> | void,
): Promise<{ readonly connection: UpstreamConnection; readonly asked: ReadonlyMap<string, string> }> {
  let asked: ReadonlyMap<string, string> = new Map();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    const scripted = new ScriptedServer(socket);
    asked = scripted.parameters;
    // A script whose client has gone has nothing more to do.
    scripted
      .start()
      .then(() => script(scripted))
      .catch(() => socket.destroy());
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  const port = address !== null && typeof address === "object" ? address.port : 0;
  const login = { host: "127.0.0.1", port, database: "db", user: "gw", password: "pencil" };
  try {
    const settings = new Map([
      ["client_encoding", "LATIN1"],
      ["TimeZone", "UTC"],
    ]);
    const connection = await connectUpstream({ ...login, settings }, { randomBytes, signal });
    connection.socket.destroy();
    return { connection, asked };
  } finally {
    server.close();
    for (const socket of sockets) {
      socket.destroy();
    }
  }
}

function failure(code: string, words: string): unknown {
  const message: unknown = expect.stringContaining(words);
  return expect.objectContaining({ code, whose: "upstream", message });
}

describe("a server that proves itself", () => {
  test("gives a session, with what it sent behind ReadyForQuery still to read", async () => {
    const early = dataRow(["early"]);
    const { connection, asked } = await logIn(async (server) => {
      server.say(notice);
      server.say(encodeAuthenticationSaslFinal(await server.takeProof()), ok, utf8, notice, key, ready, early);
    });
    expect(connection).toMatchObject({ processId: 41, secretKey: -42, authentication: "scram-sha-256" });
    expect(connection.notices.map((frame) => frame.bytes)).toEqual([notice, notice]);
    expect(connection.reader.next()?.bytes).toEqual(early);
    expect(Object.fromEntries(asked)).toEqual({ user: "gw", database: "db", client_encoding: "UTF8", TimeZone: "UTC" });
  });

  test("one that trusts us gives a session that says so", async () => {
    const { connection } = await logIn((server) => server.say(ok, utf8, key, ready));
    expect(connection.authentication).toBe("trust");
  });
});

describe("a server that does not prove itself", () => {
  test("accepts our proof without one of its own: refused", async () => {
    const attempt = logIn(async (server) => {
      await server.takeProof();
      server.say(ok, utf8, key, ready);
    });
    await expect(attempt).rejects.toThrow(failure("upstream.authentication", "without having proved"));
  });

  test("signs wrongly, or before it was asked: refused", async () => {
    const wrong = logIn(async (server) => {
      const right = await server.takeProof();
      server.say(encodeAuthenticationSaslFinal(right.replace(/^v=./, "v=!")), ok, utf8, key, ready);
    });
    await expect(wrong).rejects.toThrow(failure("upstream.authentication", "signature"));
    const unasked = logIn((server) => server.say(encodeAuthenticationSaslFinal("v="), ok, utf8, key, ready));
    await expect(unasked).rejects.toThrow(failure("upstream.authentication", "signature"));
  });

  test.each([
    [
      "offers other mechanisms only",
      encodeAuthenticationSasl(["SCRAM-SHA-256-PLUS", "OAUTHBEARER"]),
      "offers no SCRAM-SHA-256",
    ],
    [
      "asks for a cleartext password",
      new FrameWriter(backendTypes.authentication).int32(3).finish(),
      "cleartext-password",
    ],
    [
      "asks for an MD5 password",
      new FrameWriter(backendTypes.authentication).int32(5).int32(1).finish(),
      "md5-password",
    ],
    ["asks for Kerberos", new FrameWriter(backendTypes.authentication).int32(2).finish(), "method 2"],
    ["asks for GSSAPI", new FrameWriter(backendTypes.authentication).int32(7).finish(), "method 7"],
  ])("%s: refused", async (_name, request, words) => {
    await expect(logIn((server) => server.say(request))).rejects.toThrow(failure("upstream.authentication", words));
  });
});

describe("a server that breaks the protocol", () => {
  test.each([
    ["continues a SASL exchange that was not begun", [encodeAuthenticationSaslContinue("r=a,s=b,i=1")]],
    ["sends rows before it knows us", [dataRow(["x"])]],
    ["is ready before it knows us", [ready]],
    ["reports parameters before it knows us", [utf8]],
    ["sends rows in the login", [ok, utf8, dataRow(["x"])]],
    ["is ready without a cancel key", [ok, utf8, ready]],
    ["speaks another encoding", [ok, encodeParameterStatus("client_encoding", "LATIN1"), key, ready]],
    ["does not say its encoding", [ok, key, ready]],
    ["accepts the login twice and is not what it was", [ok, encodeAuthenticationSaslContinue("")]],
    ["sends a message that does not exist", [Buffer.from([0x21, 0, 0, 0, 4])]],
    ["sends a length that does not exist", [Buffer.from([0x52, 0, 0, 0, 3])]],
    ["sends notices without end", Array.from({ length: limits.loginNoticesMax + 1 }, () => notice)],
  ])("%s: the login ends", async (_name, frames) => {
    await expect(logIn((server) => server.say(...frames))).rejects.toThrow(
      expect.objectContaining({ code: "protocol.violation", whose: "upstream" }),
    );
  });

  test("sends an oversized message: the login ends at its header", async () => {
    await expect(logIn((server) => server.say(Buffer.from([0x53, 0x7f, 0, 0, 0])))).rejects.toThrow(
      expect.objectContaining({ code: "limit.exceeded", whose: "upstream" }),
    );
  });

  test("refuses in an encoding that cannot be read: the refusal is still one", async () => {
    const error = new FrameWriter(backendTypes.errorResponse)
      .bytes(Buffer.from("SFATAL\0C3D000\0M\xe4\0\0", "latin1"))
      .finish();
    await expect(logIn((server) => server.say(error))).rejects.toThrow(failure("upstream.refused", "cannot be read"));
  });

  test("hangs up at any step: unreachable", async () => {
    await expect(logIn((server) => server.hangUp())).rejects.toThrow(failure("upstream.unreachable", "closed"));
    const later = logIn(async (server) => {
      await server.takeProof();
      server.hangUp();
    });
    await expect(later).rejects.toThrow(failure("upstream.unreachable", "closed"));
  });
});

test("no failure tells the password", async () => {
  const errors = await Promise.all(
    [
      (server: ScriptedServer) => server.say(dataRow(["x"])),
      (server: ScriptedServer) => server.hangUp(),
      async (server: ScriptedServer) => {
        await server.takeProof();
        server.say(ok);
      },
    ].map((script) =>
      logIn(script).then(
        () => "no failure",
        (error: unknown) => `${String(error)} ${JSON.stringify(error)}`,
      ),
    ),
  );
  for (const error of errors) {
    expect(error).toContain("SallyportError");
    expect(error).not.toContain("pencil");
  }
});

test("a cancel request to a server that never closes is given up by the signal", async () => {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.resume();
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  const port = address !== null && typeof address === "object" ? address.port : 0;
  const stop = AbortSignal.timeout(50);
  const attempt = sendCancel({ host: "127.0.0.1", port }, { processId: 1, secretKey: 2 }, stop);
  await expect(attempt).rejects.toThrow(expect.objectContaining({ name: "TimeoutError" }));
  server.close();
  for (const socket of sockets) {
    socket.destroy();
  }
});
