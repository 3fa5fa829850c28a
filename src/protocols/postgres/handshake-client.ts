/**
 * A client's connection up to the point where it has proved its login.
 *
 *   client                              gateway
 *     │ SSLRequest / GSSENCRequest         │
 *     │◀──────────────────────────────── N │   plaintext on loopback; each may be asked once
 *     │ StartupMessage                     │
 *     │◀──────── NegotiateProtocolVersion? │   above 3.0, or with protocol options
 *     │◀──────────────── AuthenticationSASL │
 *     │ SASLInitialResponse                │   the verifier is looked up, or one is made up
 *     │◀──────── AuthenticationSASLContinue │
 *     │ SASLResponse                       │   the proof is checked: `greetClient` returns
 *     ·                                    ·   the session is admitted and recorded
 *     │◀─ AuthenticationSASLFinal, Auth…Ok │   `welcomeClient`, or `turnAway`
 */
import type { DenyCode } from "#domain/decision.ts";
import { SallyportError } from "#domain/errors.ts";
import type { ScramVerifier } from "#domain/grant.ts";
import { limits } from "#domain/limits.ts";
import {
  challengeClient,
  encodeNonce,
  mockVerifier,
  scramMechanism,
  scramNonceBytes,
  verifyClient,
} from "#identity/scram.ts";
import { BodyReader, protocolViolation } from "./codec.ts";
import { FrameReader, StartupReader } from "./frames.ts";
import type { StartupPacket } from "./frames.ts";
import { checkClientParameters } from "./handshake-settings.ts";
import type { ClientParameters } from "./handshake-settings.ts";
import type { HandshakeStream } from "./handshake-stream.ts";
import {
  encodeAuthenticationOk,
  encodeAuthenticationSasl,
  encodeAuthenticationSaslContinue,
  encodeAuthenticationSaslFinal,
  encodeErrorResponse,
  encodeNegotiateProtocolVersion,
} from "./messages-encode.ts";
import { decodeSaslInitialResponse, decodeStartupParameters } from "./messages-frontend.ts";
import { authenticationFrameBytesMax, frontendFrameBytesMax, frontendTypes } from "./messages-types.ts";
import { refusalFields } from "./refusal.ts";
import type { ToldDenial } from "./refusal.ts";

/** What greeting a client needs. */
export interface ClientHandshakeParts {
  readonly stream: HandshakeStream;
  /** The verifier of a login; null when there is none. What it throws, `greetClient` throws. */
  readonly findVerifier: (login: string) => Promise<ScramVerifier | null>;
  readonly randomBytes: (length: number) => Uint8Array;
  /** A secret of the node: it makes up the verifiers of logins that do not exist. */
  readonly mockKey: Uint8Array;
  /** Ends the handshake from outside. */
  readonly signal: AbortSignal;
  /** Default `limits.handshakeMs`. */
  readonly timeoutMs?: number;
}

/** A client that has proved that it knows its login's password. It has not been told so yet. */
export interface AuthenticatedClient {
  readonly kind: "authenticated";
  readonly login: string;
  /** Never empty. */
  readonly database: string;
  /** Settings to start the session at the resource with; `application_name` is the client's software, as it says. */
  readonly parameters: ReadonlyMap<string, string>;
  /** Reads what the client sends from here on; it holds what has come already. */
  readonly reader: FrameReader;
  /** SCRAM's last message, for `welcomeClient`. */
  readonly serverFinal: string;
}

/** A login that failed. It is recorded, then `turnAway` tells the client. */
export interface FailedClient {
  readonly kind: "failed";
  readonly code: DenyCode;
  readonly reason: string;
  readonly nextStep: string;
  /** As far as the client got; what a stranger claims. */
  readonly login: string | null;
  readonly database: string | null;
}

export type ClientHandshake =
  | AuthenticatedClient
  | FailedClient
  | { readonly kind: "cancel"; readonly processId: number; readonly secretKey: number }
  /** The client went without a word, or in the middle of one. */
  | { readonly kind: "gone" };

/**
 * Takes a client up to its proof. It writes nothing that tells whether the proof was good.
 * @throws the reason of `signal` when that aborts, and what `findVerifier` throws.
 */
export async function greetClient(parts: ClientHandshakeParts): Promise<ClientHandshake> {
  const timeout = AbortSignal.timeout(parts.timeoutMs ?? limits.handshakeMs);
  const handshake = new ClientHandshakeRun(parts, AbortSignal.any([parts.signal, timeout]));
  try {
    return await handshake.run();
  } catch (error) {
    const failed = handshake.failureOf(error, timeout);
    if (failed === null) {
      throw error;
    }
    return failed;
  }
}

/** Tells an admitted client that it is in. ParameterStatus, BackendKeyData and ReadyForQuery are for the session to send. */
export async function welcomeClient(
  stream: HandshakeStream,
  client: AuthenticatedClient,
  signal: AbortSignal,
): Promise<void> {
  await stream.write(
    Buffer.concat([encodeAuthenticationSaslFinal(client.serverFinal), encodeAuthenticationOk()]),
    signal,
  );
}

/** Tells a client why it is not let in: FATAL, in PostgreSQL's own form. The caller closes the connection. */
export async function turnAway(stream: HandshakeStream, deny: ToldDenial, signal: AbortSignal): Promise<void> {
  await stream.write(encodeErrorResponse(refusalFields(deny, "login")), signal);
}

/** The peer has ended: nobody is left to tell. */
class ClientGone extends Error {}

/** What went wrong in a way that the client is told about. */
class LoginRefused extends Error {
  readonly code: DenyCode;
  readonly nextStep: string;

  constructor(code: DenyCode, reason: string, nextStep: string) {
    super(reason);
    this.code = code;
    this.nextStep = nextStep;
  }
}

class ClientHandshakeRun {
  readonly #parts: ClientHandshakeParts;
  readonly #signal: AbortSignal;
  /** What the client says it is, for the record of a failure. */
  #login: string | null = null;
  #database: string | null = null;

  constructor(parts: ClientHandshakeParts, signal: AbortSignal) {
    this.#parts = parts;
    this.#signal = signal;
  }

  async run(): Promise<ClientHandshake> {
    const startup = new StartupReader();
    const packet = await this.#startupPacket(startup);
    if (packet.kind === "cancel") {
      return packet;
    }
    const client = this.#readParameters(packet.body);
    if (packet.minor > 0 || client.unknownOptions.length > 0) {
      await this.#write(encodeNegotiateProtocolVersion(client.unknownOptions));
    }
    // The cap rises once the client is known: until then a message is a few hundred bytes of SASL.
    let known = false;
    const reader = new FrameReader({
      direction: "frontend",
      bytesMax: (type) => (known ? frontendFrameBytesMax(type) : authenticationFrameBytesMax()),
    });
    reader.push(startup.takeRest());
    const serverFinal = await this.#authenticate(reader, client.user);
    known = true;
    return {
      kind: "authenticated",
      login: client.user,
      database: client.database,
      parameters: client.settings,
      reader,
      serverFinal,
    };
  }

  /** What a failure is to the client; null when it is not the client's to hear of. */
  failureOf(error: unknown, timeout: AbortSignal): FailedClient | { readonly kind: "gone" } | null {
    const about = { kind: "failed", login: this.#login, database: this.#database } as const;
    if (error instanceof ClientGone) {
      return { kind: "gone" };
    }
    if (error instanceof LoginRefused) {
      return { ...about, code: error.code, reason: error.message, nextStep: error.nextStep };
    }
    if (timeout.aborted && error === timeout.reason) {
      return {
        ...about,
        code: "limit.exceeded",
        reason: "The login was not completed in time.",
        nextStep: "Connect again and answer the password request at once.",
      };
    }
    if (error instanceof SallyportError && error.whose === "client") {
      return {
        ...about,
        code: error.code === "statement.encoding" ? error.code : "protocol.violation",
        reason: `The login breaks the protocol: ${error.message}.`,
        nextStep: error.nextStep ?? "Connect with a PostgreSQL client of protocol 3.0 and without TLS.",
      };
    }
    return null;
  }

  /** The packet that says what the connection is for, after refusing encryption where it is asked for. */
  async #startupPacket(startup: StartupReader): Promise<Extract<StartupPacket, { kind: "startup" | "cancel" }>> {
    const asked = new Set<string>();
    for (;;) {
      const packet = startup.next();
      if (packet === null) {
        startup.push(await this.#read());
        continue;
      }
      if (packet.kind === "startup" || packet.kind === "cancel") {
        return packet;
      }
      if (asked.has(packet.kind)) {
        throw protocolViolation("frontend", "encryption is asked for twice");
      }
      asked.add(packet.kind);
      // What comes before our answer was written by somebody who did not wait for it: the class of CVE-2021-23214.
      if (startup.bufferedBytes > 0) {
        throw protocolViolation("frontend", "bytes follow an encryption request before it is answered");
      }
      await this.#write(Buffer.from("N"));
    }
  }

  #readParameters(body: Buffer): ClientParameters {
    const parameters = decodeStartupParameters(body);
    this.#login = parameters.get("user") || null;
    this.#database = parameters.get("database") || null;
    const checked = checkClientParameters(parameters);
    if ("refused" in checked) {
      throw new LoginRefused(checked.code, checked.reason, checked.nextStep);
    }
    return checked;
  }

  /** The SASL exchange. Returns server-final; whoever is not known goes through the same steps and fails at the last. */
  async #authenticate(reader: FrameReader, login: string): Promise<string> {
    await this.#write(encodeAuthenticationSasl([scramMechanism]));
    const initial = decodeSaslInitialResponse(await this.#saslBody(reader));
    if (initial.mechanism !== scramMechanism) {
      throw protocolViolation("frontend", "the client chose a SASL mechanism that was not offered");
    }
    const stored = await this.#parts.findVerifier(login);
    const challenge = challengeClient(
      saslText(initial.data),
      stored ?? mockVerifier(this.#parts.mockKey, login),
      encodeNonce(this.#parts.randomBytes(scramNonceBytes)),
    );
    await this.#write(encodeAuthenticationSaslContinue(challenge.message));
    const serverFinal = verifyClient(challenge, saslText(await this.#saslBody(reader)));
    if (serverFinal === null || stored === null) {
      throw new LoginRefused(
        "credential.invalid",
        "The login or its password is wrong, or the credential has ended.",
        "Use the credential of an active grant; `sallyport grant add` makes one.",
      );
    }
    return serverFinal;
  }

  async #saslBody(reader: FrameReader): Promise<Buffer> {
    for (;;) {
      const frame = reader.next();
      if (frame === null) {
        reader.push(await this.#read());
        continue;
      }
      if (frame.type !== frontendTypes.password) {
        throw protocolViolation("frontend", "a SASL response was expected");
      }
      return frame.body;
    }
  }

  async #read(): Promise<Buffer> {
    const chunk = await this.#reach(() => this.#parts.stream.read(this.#signal));
    if (chunk === null) {
      throw new ClientGone();
    }
    return chunk;
  }

  async #write(bytes: Buffer): Promise<void> {
    await this.#reach(() => this.#parts.stream.write(bytes, this.#signal));
  }

  /** A connection that fails is a client that has gone, unless we gave up on it ourselves. */
  async #reach<T>(operation: () => Promise<T>): Promise<T> {
    try {
      return await operation();
    } catch (error) {
      this.#signal.throwIfAborted();
      throw new ClientGone("the connection failed", { cause: error });
    }
  }
}

function saslText(data: Buffer): string {
  return new BodyReader(data, "frontend", "SASL message").decode(data);
}
