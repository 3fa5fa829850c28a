/** PostgreSQL as a protocol of the gateway: from an accepted socket to a conversation that the relay can carry. */
import type { Socket } from "node:net";

import { SallyportError } from "#domain/errors.ts";
import type { ScramVerifier } from "#domain/grant.ts";
import type { IdSource } from "#domain/ids.ts";
import type { Accepted, ClosingWords, Driver, Opened, SessionTarget } from "#protocols/driver.ts";
import { Channel } from "./channel.ts";
import { PostgresConversation } from "./conversation.ts";
import { greetClient, turnAway, welcomeClient } from "./handshake-client.ts";
import type { AuthenticatedClient } from "./handshake-client.ts";
import { socketStream } from "./handshake-stream.ts";
import type { SocketHandshakeStream } from "./handshake-stream.ts";
import { connectUpstream, sendCancel } from "./handshake-upstream.ts";
import type { UpstreamConnection } from "./handshake-upstream.ts";
import type { PostgresControl } from "./intake.ts";
import { encodeBackendKeyData, encodeParameterStatus, encodeReadyForQuery } from "./messages-encode.ts";
import { isExpectedParameter, isReportedParameter } from "./reply.ts";
import type { PostgresReply } from "./reply.ts";
import type { Analyze, PostgresUnit } from "./units.ts";

export interface PostgresDriverParts {
  readonly analyze: Analyze;
  readonly ids: IdSource;
  readonly randomBytes: (length: number) => Uint8Array;
  /** A secret of the node, for the verifiers of logins that do not exist. */
  readonly mockKey: Uint8Array;
  readonly nowUs: () => number;
  /** Aborts every handshake when the node stops. */
  readonly signal: AbortSignal;
}

export type PostgresDriver = Driver<PostgresUnit, PostgresControl, PostgresReply>;

/** How long a client that is refused may take to read why. */
const refusalMs = 2000;
/** `application_name` in the record is what the client says of itself: no longer than PostgreSQL keeps it. */
const clientNameCharacters = 63;

export function postgresDriver(parts: PostgresDriverParts): PostgresDriver {
  return {
    protocol: "postgres",
    accept: (socket, verifierOf) => accept(parts, socket, verifierOf),
  };
}

async function accept(
  parts: PostgresDriverParts,
  socket: Socket,
  verifierOf: (login: string) => Promise<ScramVerifier | null>,
): Promise<Accepted<PostgresUnit, PostgresControl, PostgresReply>> {
  const stream = socketStream(socket);
  const { randomBytes, mockKey, signal } = parts;
  const greeted = await greetClient({ stream, findVerifier: verifierOf, randomBytes, mockKey, signal });
  const refuse = (words: ClosingWords): Promise<void> => turnAwayAndClose(stream, socket, words);
  switch (greeted.kind) {
    case "gone":
      socket.destroy();
      return { kind: "gone" };
    case "cancel":
      return {
        kind: "cancel",
        key: { processId: greeted.processId, secretKey: greeted.secretKey },
        done: () => {
          socket.destroy();
        },
      };
    case "failed":
      return {
        kind: "failed",
        code: greeted.code,
        reason: greeted.reason,
        nextStep: greeted.nextStep,
        login: greeted.login,
        refuse,
      };
    case "authenticated":
      return {
        kind: "authenticated",
        login: greeted.login,
        resource: greeted.database,
        client: clientName(greeted.parameters.get("application_name") ?? ""),
        refuse,
        open: (target) => open(parts, { greeted, stream, socket }, target),
      };
    default:
      return greeted satisfies never;
  }
}

interface Client {
  readonly greeted: AuthenticatedClient;
  readonly stream: SocketHandshakeStream;
  readonly socket: Socket;
}

async function open(
  parts: PostgresDriverParts,
  client: Client,
  target: SessionTarget,
): Promise<Opened<PostgresUnit, PostgresControl, PostgresReply>> {
  const { host, port, database, role } = target;
  const { randomBytes, signal } = parts;
  let upstream: UpstreamConnection;
  try {
    upstream = await connectUpstream(
      { host, port, database, user: role.role, password: role.password, settings: client.greeted.parameters },
      { randomBytes, signal },
    );
  } catch (error) {
    throw new SallyportError("resource.unavailable", "upstream", "the resource cannot be reached", {
      cause: error,
      nextStep: "Try again; if it lasts, tell the gateway's operator.",
    });
  }
  try {
    for (const name of ["standard_conforming_strings", "client_encoding", "is_superuser"]) {
      const value = upstream.parameters.get(name);
      if (value === undefined || !isExpectedParameter(name, value)) {
        throw new SallyportError(
          "resource.unavailable",
          "upstream",
          `the resource starts sessions with another ${name}`,
          {
            nextStep: "Tell the gateway's operator.",
          },
        );
      }
    }
    const cancelKey = cancelKeyOf(randomBytes(8));
    await welcomeClient(client.stream, client.greeted, signal);
    await client.stream.write(greeting(upstream, cancelKey), signal);
    client.stream.detach();
    const conversation = new PostgresConversation({
      client: new Channel(client.socket),
      clientReader: client.greeted.reader,
      resource: new Channel(upstream.socket),
      resourceReader: upstream.reader,
      analyze: parts.analyze,
      context: () => ({ catalog: target.catalog(), scope: target.scope }),
      ids: parts.ids,
      nowUs: parts.nowUs,
    });
    const upstreamKey = { processId: upstream.processId, secretKey: upstream.secretKey };
    return {
      conversation,
      cancelKey,
      cancel: () => sendCancel({ host, port }, upstreamKey, signal),
      resourceProcessId: upstream.processId,
    };
  } catch (error) {
    upstream.socket.destroy();
    throw error;
  }
}

/** ParameterStatus as far as a client may know, a cancel key of ours, and ReadyForQuery. */
function greeting(upstream: UpstreamConnection, cancelKey: { processId: number; secretKey: number }): Buffer {
  const frames: Buffer[] = [];
  for (const [name, value] of upstream.parameters) {
    if (isReportedParameter(name)) {
      frames.push(encodeParameterStatus(name, value));
    }
  }
  frames.push(encodeBackendKeyData(cancelKey.processId, cancelKey.secretKey), encodeReadyForQuery("idle"));
  return Buffer.concat(frames);
}

function cancelKeyOf(random: Uint8Array): { processId: number; secretKey: number } {
  const bytes = Buffer.from(random);
  // A process id is positive; clients print it.
  return { processId: bytes.readUInt32BE(0) >>> 1 || 1, secretKey: bytes.readInt32BE(4) };
}

async function turnAwayAndClose(stream: SocketHandshakeStream, socket: Socket, words: ClosingWords): Promise<void> {
  try {
    await turnAway(stream, { ...words, id: words.decision }, AbortSignal.timeout(refusalMs));
  } catch {
    // The client did not wait to read why; the record has it.
  }
  // What it sent and nobody read would turn the close into a reset, and a reset takes the last message with it.
  stream.detach();
  socket.resume();
  socket.end();
  setTimeout(() => {
    socket.destroy();
  }, 50).unref();
}

/** Printable and short: it goes into the record. */
function clientName(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, clientNameCharacters);
}
