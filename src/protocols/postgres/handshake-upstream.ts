/**
 * The gateway's own login to a resource.
 *
 *   gateway                               PostgreSQL
 *     │ StartupMessage 3.0                  │
 *     │◀──────────────── AuthenticationSASL │
 *     │ SASLInitialResponse                 │
 *     │◀──────── AuthenticationSASLContinue │
 *     │ SASLResponse                        │
 *     │◀─────────── AuthenticationSASLFinal │   checked: the server holds the verifier
 *     │◀────────────────── AuthenticationOk │
 *     │◀─── ParameterStatus*, BackendKeyData│
 *     │◀───────────────────── ReadyForQuery │   `connectUpstream` resolves
 */
import { connect } from "node:net";
import type { Socket } from "node:net";

import { SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import {
  answerServer,
  encodeNonce,
  isServerProven,
  scramMechanism,
  scramNonceBytes,
  startClient,
} from "#identity/scram.ts";
import type { ScramClientFinal, ScramClientFirst } from "#identity/scram.ts";
import { BodyReader, protocolViolation } from "./codec.ts";
import { FrameReader } from "./frames.ts";
import type { Frame } from "./frames.ts";
import { once, socketStream } from "./handshake-stream.ts";
import type { HandshakeStream } from "./handshake-stream.ts";
import { decodeBackend, decodeReport } from "./messages-backend.ts";
import type { AuthenticationMessage } from "./messages-backend.ts";
import {
  encodeCancelRequest,
  encodeSaslInitialResponse,
  encodeSaslResponse,
  encodeStartup,
} from "./messages-encode.ts";
import { backendFrameBytesMax, backendTypes } from "./messages-types.ts";

export interface UpstreamAddress {
  readonly host: string;
  readonly port: number;
}

export interface UpstreamLogin extends UpstreamAddress {
  readonly database: string;
  readonly user: string;
  readonly password: string;
  /** Settings to start with, by PostgreSQL's spelling. `client_encoding` is UTF8 whatever they say. */
  readonly settings: ReadonlyMap<string, string>;
}

export interface UpstreamHandshakeParts {
  readonly randomBytes: (length: number) => Uint8Array;
  /** Ends the attempt from outside. */
  readonly signal: AbortSignal;
  /** Default `limits.upstreamConnectMs`. */
  readonly timeoutMs?: number;
}

/** What a CancelRequest needs. */
export interface CancelKey {
  readonly processId: number;
  readonly secretKey: number;
}

/** A session at the resource, idle, before its first command. The socket is paused; who takes it reads it. */
export interface UpstreamConnection extends CancelKey {
  readonly socket: Socket;
  /** For what the socket sends from here on; it holds what has come already. */
  readonly reader: FrameReader;
  /** What the server reported, in its order. */
  readonly parameters: ReadonlyMap<string, string>;
  /** NoticeResponse frames that came during the login, as they came. */
  readonly notices: readonly Frame[];
  /** `trust`: the server asked for no password, and has proved nothing about itself. */
  readonly authentication: "scram-sha-256" | "trust";
}

/**
 * Opens a session at a resource.
 * @throws SallyportError (whose: upstream): `upstream.unreachable` when there is no connection or no answer in time;
 * `upstream.refused` when the server says no, with its SQLSTATE; `upstream.authentication` when it asks for anything but
 * SCRAM-SHA-256 or fails to prove itself; `protocol.violation`. The reason of `signal` when that aborts.
 */
export async function connectUpstream(
  login: UpstreamLogin,
  parts: UpstreamHandshakeParts,
): Promise<UpstreamConnection> {
  const timeoutMs = parts.timeoutMs ?? limits.upstreamConnectMs;
  const timeout = AbortSignal.timeout(timeoutMs);
  const signal = AbortSignal.any([parts.signal, timeout]);
  const socket = openSocket(login);
  const stream = socketStream(socket);
  try {
    await connected(socket, login, signal);
    const session = await new UpstreamHandshakeRun(login, parts, stream, signal).run();
    stream.detach();
    return { socket, ...session };
  } catch (error) {
    socket.destroy();
    if (timeout.aborted && error === timeout.reason) {
      throw unreachable(login, `no session within ${timeoutMs} ms`, error);
    }
    throw error;
  }
}

/**
 * Asks the server to cancel what a session is running. Resolves when the server has taken the request; whether anything
 * was cancelled, the session alone shows.
 * @throws SallyportError `upstream.unreachable`, or the reason of `signal`.
 */
export async function sendCancel(address: UpstreamAddress, key: CancelKey, signal: AbortSignal): Promise<void> {
  const timeout = AbortSignal.timeout(limits.upstreamConnectMs);
  const either = AbortSignal.any([signal, timeout]);
  const socket = openSocket(address);
  const stream = socketStream(socket);
  try {
    await connected(socket, address, either);
    await stream.write(encodeCancelRequest(key.processId, key.secretKey), either);
    // The server answers by closing, once it has signalled the session.
    while ((await stream.read(either)) !== null) {
      // A server that says something here says nothing that we asked for.
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof SallyportError ? error : unreachable(address, "the cancel request failed", error);
  } finally {
    socket.destroy();
  }
}

function openSocket(address: UpstreamAddress): Socket {
  return connect({ host: address.host, port: address.port, noDelay: true, keepAlive: true });
}

async function connected(socket: Socket, address: UpstreamAddress, signal: AbortSignal): Promise<void> {
  if (socket.connecting) {
    await once(socket, ["connect", "error", "close"], signal);
  }
  if (socket.errored !== null || socket.destroyed) {
    throw unreachable(address, "it does not take connections", socket.errored);
  }
}

function unreachable(address: UpstreamAddress, reason: string, cause: unknown): SallyportError {
  return new SallyportError(
    "upstream.unreachable",
    "upstream",
    `PostgreSQL at ${address.host}:${address.port} cannot be reached: ${reason}`,
    { cause, nextStep: "See that the server runs and that host and port of the resource are right." },
  );
}

/** How far the server has proved itself. */
type Proof =
  | { readonly state: "none" }
  | { readonly state: "first-sent"; readonly first: ScramClientFirst }
  | { readonly state: "final-sent"; readonly final: ScramClientFinal }
  | { readonly state: "proven" }
  | { readonly state: "accepted"; readonly authentication: UpstreamConnection["authentication"] };

class UpstreamHandshakeRun {
  readonly #login: UpstreamLogin;
  readonly #parts: UpstreamHandshakeParts;
  readonly #stream: HandshakeStream;
  readonly #signal: AbortSignal;
  readonly #reader = new FrameReader({ direction: "backend", bytesMax: backendFrameBytesMax });
  readonly #parameters = new Map<string, string>();
  readonly #notices: Frame[] = [];
  #key: CancelKey | null = null;
  #proof: Proof = { state: "none" };

  constructor(login: UpstreamLogin, parts: UpstreamHandshakeParts, stream: HandshakeStream, signal: AbortSignal) {
    this.#login = login;
    this.#parts = parts;
    this.#stream = stream;
    this.#signal = signal;
  }

  async run(): Promise<Omit<UpstreamConnection, "socket">> {
    const { user, database, settings } = this.#login;
    await this.#write(
      encodeStartup(new Map([...settings, ["client_encoding", "UTF8"], ["user", user], ["database", database]])),
    );
    while (!(await this.#step(await this.#nextFrame()))) {
      // Each step takes one frame; the last is ReadyForQuery.
    }
    if (this.#proof.state !== "accepted" || this.#key === null) {
      throw protocolViolation("backend", "the session is ready without a login or a cancel key");
    }
    if (this.#parameters.get("client_encoding") !== "UTF8") {
      throw protocolViolation("backend", "the session does not speak UTF8");
    }
    return {
      ...this.#key,
      reader: this.#reader,
      parameters: this.#parameters,
      notices: this.#notices,
      authentication: this.#proof.authentication,
    };
  }

  /** Takes one frame; true when it was ReadyForQuery. */
  async #step(frame: Frame): Promise<boolean> {
    if (frame.type === backendTypes.errorResponse) {
      throw this.#refused(frame.body);
    }
    if (frame.type === backendTypes.noticeResponse) {
      if (this.#notices.length === limits.loginNoticesMax) {
        throw protocolViolation("backend", "there are too many notices before the session is ready");
      }
      this.#notices.push(frame);
      return false;
    }
    const message = decodeBackend(frame);
    if (message.kind === "authentication") {
      await this.#authenticate(message);
      return false;
    }
    if (this.#proof.state === "accepted") {
      switch (message.kind) {
        case "parameter-status":
          this.#parameters.set(message.name, message.value);
          return false;
        case "backend-key-data":
          this.#key = { processId: message.processId, secretKey: message.secretKey };
          return false;
        case "ready-for-query":
          return true;
        default:
      }
    }
    throw protocolViolation("backend", `${message.kind} has no place in a login`);
  }

  async #authenticate(message: AuthenticationMessage): Promise<void> {
    const proof = this.#proof;
    switch (message.method) {
      case "ok":
        if (proof.state !== "none" && proof.state !== "proven") {
          throw this.#unproven("it accepts the login without having proved that it knows the password");
        }
        this.#proof = { state: "accepted", authentication: proof.state === "none" ? "trust" : "scram-sha-256" };
        return;
      case "sasl":
        if (proof.state !== "none" || !message.mechanisms.includes(scramMechanism)) {
          throw this.#unproven(`it offers no ${scramMechanism}`);
        }
        await this.#sendFirst();
        return;
      case "sasl-continue":
        if (proof.state !== "first-sent") {
          throw protocolViolation("backend", "the SASL exchange is out of order");
        }
        await this.#sendFinal(proof.first, message.data);
        return;
      case "sasl-final":
        if (proof.state !== "final-sent" || !isServerProven(proof.final, saslText(message.data))) {
          throw this.#unproven("its signature is not that of a server that knows the password");
        }
        this.#proof = { state: "proven" };
        return;
      case "cleartext-password":
      case "md5-password":
      case "other":
        throw this.#unproven(`it asks for ${message.method === "other" ? `method ${message.code}` : message.method}`);
      default:
        message satisfies never;
    }
  }

  async #sendFirst(): Promise<void> {
    const first = startClient(encodeNonce(this.#parts.randomBytes(scramNonceBytes)));
    this.#proof = { state: "first-sent", first };
    await this.#write(encodeSaslInitialResponse(scramMechanism, first.message));
  }

  async #sendFinal(first: ScramClientFirst, data: Buffer): Promise<void> {
    const final = await answerServer(first, saslText(data), this.#login.password);
    this.#proof = { state: "final-sent", final };
    await this.#write(encodeSaslResponse(final.message));
  }

  #unproven(reason: string): SallyportError {
    const { host, port } = this.#login;
    return new SallyportError("upstream.authentication", "upstream", `PostgreSQL at ${host}:${port}: ${reason}`, {
      nextStep:
        "Set password_encryption to scram-sha-256, set the login's password anew, and use scram-sha-256 in pg_hba.conf.",
    });
  }

  #refused(body: Buffer): SallyportError {
    const { host, port } = this.#login;
    return new SallyportError(
      "upstream.refused",
      "upstream",
      `PostgreSQL at ${host}:${port} refuses the login: ${reportText(body)}`,
      { nextStep: "See that database, login and password of the resource are right." },
    );
  }

  async #nextFrame(): Promise<Frame> {
    for (;;) {
      const frame = this.#reader.next();
      if (frame !== null) {
        return frame;
      }
      const chunk = await this.#reach(() => this.#stream.read(this.#signal));
      if (chunk === null) {
        throw unreachable(this.#login, "it closed the connection during the login", null);
      }
      this.#reader.push(chunk);
    }
  }

  async #write(bytes: Buffer): Promise<void> {
    await this.#reach(() => this.#stream.write(bytes, this.#signal));
  }

  async #reach<T>(operation: () => Promise<T>): Promise<T> {
    try {
      return await operation();
    } catch (error) {
      this.#signal.throwIfAborted();
      throw unreachable(this.#login, "the connection failed during the login", error);
    }
  }
}

/** SQLSTATE and message. Before a session has its encoding, a server may speak in one that is not UTF-8. */
function reportText(body: Buffer): string {
  try {
    const fields = decodeReport(body, "ErrorResponse");
    return `${fields.get("M") ?? ""} (${fields.get("C") ?? ""})`;
  } catch (error) {
    if (error instanceof SallyportError) {
      return "its reason cannot be read";
    }
    throw error;
  }
}

function saslText(data: Buffer): string {
  return new BodyReader(data, "backend", "SASL message").decode(data);
}
