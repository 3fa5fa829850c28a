/** How other gateways failed on the wire, each as a test. */
import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { limits } from "#domain/limits.ts";
import { FrameReader, StartupReader } from "#protocols/postgres/frames.ts";
import { greetClient } from "#protocols/postgres/handshake-client.ts";
import { decodeBackend } from "#protocols/postgres/messages-backend.ts";
import {
  encodeBind,
  encodeCancelRequest,
  encodeExecute,
  encodeParse,
  encodeQuery,
  encodeSslRequest,
  encodeStartup,
  encodeSync,
} from "#protocols/postgres/messages-encode.ts";
import { decodeFrontend } from "#protocols/postgres/messages-frontend.ts";
import { backendFrameBytesMax, frontendFrameBytesMax, isKnownType } from "#protocols/postgres/messages-types.ts";
import { backendMessages, functionCall } from "./conversation-bytes.ts";
import { pipe } from "./scripted-stream.ts";

function frontendReader(): FrameReader {
  return new FrameReader({ direction: "frontend", bytesMax: frontendFrameBytesMax });
}

function decodeAll(reader: FrameReader): ReturnType<typeof decodeFrontend>[] {
  const messages: ReturnType<typeof decodeFrontend>[] = [];
  for (let frame = reader.next(); frame !== null; frame = reader.next()) {
    messages.push(decodeFrontend(frame));
  }
  return messages;
}

describe("on the wire", () => {
  test("a statement longer than the buffer (8 MiB of comment, then DELETE) is refused at its header, before its body", () => {
    const statement = encodeQuery(`/*${" ".repeat(8 * 1024 * 1024)}*/ delete from customers`);
    const reader = frontendReader();
    reader.push(statement.subarray(0, 5));
    expect(() => reader.next()).toThrow(expect.objectContaining({ code: "statement.too-large", whose: "client" }));
    // What follows is not read as if nothing had been.
    reader.push(statement.subarray(5));
    reader.push(encodeQuery("select 1"));
    expect(() => reader.next()).toThrow(expect.objectContaining({ code: "statement.too-large" }));
    expect(reader.bufferedBytes).toBe(0);
  });

  test("a FunctionCall is a message of its own, with its function and values", () => {
    const reader = frontendReader();
    reader.push(functionCall(1598, [Buffer.from([1]), null]));
    expect(decodeAll(reader)).toMatchObject([
      { kind: "function-call", functionOid: 1598, values: [Buffer.from([1]), null] },
    ]);
  });

  test("one Parse with five Bind and Execute is five commands, each with its own values", () => {
    const reader = frontendReader();
    const parts = [encodeParse({ statement: "s", text: "select $1", parameterTypes: [] })];
    for (let i = 0; i < 5; i++) {
      parts.push(
        encodeBind({
          portal: "",
          statement: "s",
          parameterFormats: [],
          values: [Buffer.from(`v${i}`)],
          resultFormats: [],
        }),
        encodeExecute("", 0),
      );
    }
    reader.push(Buffer.concat([...parts, encodeSync()]));
    const messages = decodeAll(reader);
    expect(messages.filter((message) => message.kind === "execute")).toHaveLength(5);
    expect(messages.flatMap((message) => (message.kind === "bind" ? [String(message.values[0])] : []))).toEqual([
      "v0",
      "v1",
      "v2",
      "v3",
      "v4",
    ]);
  });

  test("a second message in one chunk is cut at its own offset", () => {
    const reader = frontendReader();
    reader.push(Buffer.concat([encodeQuery("select 'first one'"), encodeQuery("select 2"), encodeQuery("")]));
    expect(decodeAll(reader).map((message) => message.kind === "query" && message.text)).toEqual([
      "select 'first one'",
      "select 2",
      "",
    ]);
  });

  test("a chunk that is a view into a pooled Buffer is read at its own offset", () => {
    const pool = Buffer.alloc(1024, 0x51);
    const query = encodeQuery("select 'pooled'");
    for (const offset of [1, 3, 100, 1024 - query.length]) {
      query.copy(pool, offset);
      const reader = frontendReader();
      reader.push(pool.subarray(offset, offset + query.length));
      const [message] = decodeAll(reader);
      expect(message).toMatchObject({ kind: "query", text: "select 'pooled'" });
      expect(message?.kind === "query" && message.textBytes.toString()).toBe("select 'pooled'");
      expect(reader.bufferedBytes).toBe(0);
    }
  });

  test("a message never reaches past its end into the next one", () => {
    // A Bind whose value claims the bytes of the Query behind it.
    const bind = encodeBind({
      portal: "",
      statement: "",
      parameterFormats: [],
      values: [Buffer.from("abcd")],
      resultFormats: [],
    });
    bind.writeInt32BE(40, bind.length - 10);
    const reader = frontendReader();
    reader.push(Buffer.concat([bind, encodeQuery("select 'somebody else, and long enough to be claimed'")]));
    expect(() => decodeAll(reader)).toThrow(expect.objectContaining({ code: "protocol.violation" }));
  });

  test("an empty database name does not silently mean the user name", async () => {
    for (const parameters of [
      [["user", "billing"]],
      [
        ["user", "billing"],
        ["database", ""],
      ],
    ] as const) {
      const connection = pipe(Number.POSITIVE_INFINITY);
      connection.send(encodeStartup(new Map(parameters)));
      const result = await greet(connection);
      expect(result).toMatchObject({ kind: "failed", code: "resource.unknown", login: "billing", database: null });
    }
  });

  test("a CancelRequest is understood, and only with a key of the form that was handed out", () => {
    const reader = new StartupReader();
    reader.push(encodeCancelRequest(12, 34));
    expect(reader.next()).toEqual({ kind: "cancel", processId: 12, secretKey: 34 });
  });

  test("COPY data, binary results, notices, notifications and errors each arrive as what they are", () => {
    const reader = new FrameReader({ direction: "backend", bytesMax: backendFrameBytesMax });
    reader.push(Buffer.concat(backendMessages));
    const kinds = new Set<string>();
    for (let frame = reader.next(); frame !== null; frame = reader.next()) {
      const message = decodeBackend(frame);
      kinds.add(message.kind);
      if (message.kind === "row-description") {
        expect(message.fields.map((field) => field.format)).toEqual([0, 1]);
      }
    }
    for (const kind of [
      "copy-data",
      "copy-in",
      "copy-out",
      "copy-both",
      "notice",
      "notification",
      "error",
      "data-row",
    ]) {
      expect(kinds).toContain(kind);
    }
  });

  test("a pipelining client's messages are all there without an answer to the first", () => {
    const reader = frontendReader();
    const unit = [
      encodeParse({ statement: "", text: "select 1", parameterTypes: [] }),
      encodeBind({ portal: "", statement: "", parameterFormats: [], values: [], resultFormats: [] }),
      encodeExecute("", 0),
      encodeSync(),
    ];
    reader.push(Buffer.concat(Array.from({ length: 1000 }, () => unit).flat()));
    expect(decodeAll(reader)).toHaveLength(4000);
  });

  test("an unknown message type has no default arm: it is refused in both directions, at reading and at decoding", () => {
    for (let type = 0; type < 256; type++) {
      const bytes = Buffer.from([type, 0, 0, 0, 4]);
      const frame = { type, bytes, body: bytes.subarray(5) };
      if (!isKnownType("frontend", type)) {
        const reader = frontendReader();
        reader.push(bytes);
        expect(() => reader.next()).toThrow(expect.objectContaining({ code: "protocol.violation" }));
        expect(() => decodeFrontend(frame)).toThrow(expect.objectContaining({ code: "protocol.violation" }));
      }
      if (!isKnownType("backend", type)) {
        expect(() => decodeBackend(frame)).toThrow(expect.objectContaining({ code: "protocol.violation" }));
      }
    }
  });

  test("bytes buffered before the answer to an encryption request never become part of the session", async () => {
    // Whether they come in the same chunk or were cut behind the request by the network.
    const injected = encodeStartup(
      new Map([
        ["user", "eve"],
        ["database", "billing"],
      ]),
    );
    const connection = pipe(Number.POSITIVE_INFINITY);
    connection.send(Buffer.concat([encodeSslRequest(), injected]));
    expect(await greet(connection)).toMatchObject({ kind: "failed", code: "protocol.violation", login: null });
    // It was not even answered.
    connection.finish();
    expect(await connection.received()).toBeNull();
  });

  test("every cap comes from the limits", () => {
    for (let type = 0; type < 256; type++) {
      expect(frontendFrameBytesMax(type)).toBeLessThanOrEqual(limits.frontendMessageBytesMax);
      expect(backendFrameBytesMax(type)).toBeLessThanOrEqual(limits.backendMessageBytesMax);
    }
  });
});

function greet(connection: ReturnType<typeof pipe>): ReturnType<typeof greetClient> {
  return greetClient({
    stream: connection.stream,
    findVerifier: async () => null,
    randomBytes,
    mockKey: Buffer.alloc(32),
    signal: AbortSignal.timeout(5000),
  });
}
