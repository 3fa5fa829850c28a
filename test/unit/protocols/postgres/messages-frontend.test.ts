import fc from "fast-check";
import { serialize } from "pg-protocol";
import { describe, expect, test } from "vitest";
import { SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import { FrameWriter } from "#protocols/postgres/codec.ts";
import { FrameReader, StartupReader, type Frame } from "#protocols/postgres/frames.ts";
import {
  encodeBind,
  encodeClose,
  encodeDescribe,
  encodeExecute,
  encodeParse,
  encodeQuery,
  encodeSaslInitialResponse,
  encodeSaslResponse,
  encodeStartup,
} from "#protocols/postgres/messages-encode.ts";
import {
  decodeFrontend,
  decodeParse,
  decodePassword,
  decodeQuery,
  decodeSaslInitialResponse,
  decodeStartupParameters,
} from "#protocols/postgres/messages-frontend.ts";
import { frontendTypes } from "#protocols/postgres/messages-types.ts";
import { frontendMessages, functionCall } from "./conversation-bytes.ts";

function frameOf(bytes: Buffer): Frame {
  const reader = new FrameReader({ direction: "frontend", bytesMax: () => limits.frontendMessageBytesMax });
  reader.push(bytes);
  const frame = reader.next();
  if (frame === null || reader.bufferedBytes > 0) {
    throw new Error("not one frame");
  }
  return frame;
}

function decode(bytes: Buffer): ReturnType<typeof decodeFrontend> {
  return decodeFrontend(frameOf(bytes));
}

const violation: unknown = expect.objectContaining({ code: "protocol.violation", whose: "client" });

const name = fc.string({ unit: "binary", maxLength: 20 }).map((text) => text.replaceAll("\0", ""));
const value = fc.option(
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
  { nil: null },
);
const oid = fc.integer({ min: 0, max: 0xffffffff });
const format = fc.constantFrom(0, 1);

describe("what pg-protocol writes, we read", () => {
  test("Query", () => {
    fc.assert(
      fc.property(name, (text) => {
        const message = decode(serialize.query(text));
        expect(message).toMatchObject({ kind: "query", text });
        expect(message.kind === "query" && message.textBytes.toString("utf8")).toBe(text);
      }),
    );
  });

  test("Parse", () => {
    fc.assert(
      fc.property(name, name, fc.array(oid, { maxLength: 5 }), (statement, text, types) => {
        // It takes type OIDs as signed numbers; the bits are the same.
        const bytes = serialize.parse({ name: statement, text, types: types.map((type) => type | 0) });
        expect(decode(bytes)).toMatchObject({ kind: "parse", statement, text, parameterTypes: types });
      }),
    );
  });

  test("Bind, with text and binary values and nulls", () => {
    fc.assert(
      fc.property(
        name,
        name,
        fc.array(fc.oneof(value, name), { maxLength: 6 }),
        fc.boolean(),
        (portal, statement, values, binary) => {
          const message = decode(serialize.bind({ portal, statement, values, binary }));
          expect(message).toMatchObject({
            kind: "bind",
            portal,
            statement,
            parameterFormats: values.map((item) => (Buffer.isBuffer(item) ? 1 : 0)),
            resultFormats: [binary ? 1 : 0],
          });
          expect(message.kind === "bind" && message.values.map((item) => item?.toString("hex") ?? null)).toEqual(
            values.map((item) => (item === null ? null : Buffer.from(item).toString("hex"))),
          );
        },
      ),
    );
  });

  test("Describe, Close, Execute, and the messages without contents", () => {
    expect(decode(serialize.describe({ type: "S", name: "s" }))).toEqual({
      kind: "describe",
      target: "statement",
      name: "s",
    });
    expect(decode(serialize.describe({ type: "P" }))).toEqual({ kind: "describe", target: "portal", name: "" });
    expect(decode(serialize.close({ type: "S", name: "s" }))).toEqual({
      kind: "close",
      target: "statement",
      name: "s",
    });
    expect(decode(serialize.close({ type: "P", name: "p" }))).toEqual({ kind: "close", target: "portal", name: "p" });
    expect(decode(serialize.execute())).toEqual({ kind: "execute", portal: "", rowsMax: 0 });
    expect(decode(serialize.execute({ portal: "p", rows: 7 }))).toEqual({ kind: "execute", portal: "p", rowsMax: 7 });
    expect(decode(serialize.flush())).toEqual({ kind: "flush" });
    expect(decode(serialize.sync())).toEqual({ kind: "sync" });
    expect(decode(serialize.end())).toEqual({ kind: "terminate" });
    expect(decode(serialize.copyDone())).toEqual({ kind: "copy-done" });
    expect(decode(serialize.copyFail("why"))).toEqual({ kind: "copy-fail", reason: "why" });
    expect(decode(serialize.copyData(Buffer.from([1, 0, 2])))).toEqual({
      kind: "copy-data",
      data: Buffer.from([1, 0, 2]),
    });
  });

  test("passwords and SASL responses", () => {
    expect(decodePassword(frameOf(serialize.password("p\u00e4ss")).body)).toBe("p\u00e4ss");
    const initial = decodeSaslInitialResponse(
      frameOf(serialize.sendSASLInitialResponseMessage("SCRAM-SHA-256", "n,,n=*,r=abc")).body,
    );
    expect(initial).toEqual({ mechanism: "SCRAM-SHA-256", data: Buffer.from("n,,n=*,r=abc") });
    expect(decode(serialize.sendSCRAMClientFinalMessage("c=biws"))).toEqual({
      kind: "password",
      body: Buffer.from("c=biws"),
    });
  });

  test("the startup packets", () => {
    const reader = new StartupReader();
    reader.push(
      Buffer.concat([
        serialize.requestSsl(),
        serialize.cancel(17, -4),
        serialize.startup({ user: "ada", database: "b" }),
      ]),
    );
    expect(reader.next()).toEqual({ kind: "ssl-request" });
    expect(reader.next()).toEqual({ kind: "cancel", processId: 17, secretKey: -4 });
    const startup = reader.next();
    expect(startup?.kind === "startup" && [startup.minor, ...decodeStartupParameters(startup.body)]).toEqual([
      0,
      ["user", "ada"],
      ["database", "b"],
      ["client_encoding", "UTF8"],
    ]);
  });
});

describe("what we write and pg-protocol writes is the same, byte for byte", () => {
  test("for the messages that both make", () => {
    expect(encodeQuery("select '\u00e4'")).toEqual(serialize.query("select '\u00e4'"));
    expect(encodeQuery(Buffer.from("select 1"))).toEqual(serialize.query("select 1"));
    expect(encodeParse({ statement: "s", text: "select $1", parameterTypes: [25] })).toEqual(
      serialize.parse({ name: "s", text: "select $1", types: [25] }),
    );
    expect(
      encodeBind({
        portal: "p",
        statement: "s",
        parameterFormats: [0, 1],
        values: [Buffer.from("a"), Buffer.from([1])],
        resultFormats: [1],
      }),
    ).toEqual(serialize.bind({ portal: "p", statement: "s", values: ["a", Buffer.from([1])], binary: true }));
    expect(encodeExecute("p", 5)).toEqual(serialize.execute({ portal: "p", rows: 5 }));
    expect(encodeDescribe("portal", "p")).toEqual(serialize.describe({ type: "P", name: "p" }));
    expect(encodeClose("statement", "s")).toEqual(serialize.close({ type: "S", name: "s" }));
    expect(encodeSaslInitialResponse("SCRAM-SHA-256", "n,,")).toEqual(
      serialize.sendSASLInitialResponseMessage("SCRAM-SHA-256", "n,,"),
    );
    expect(encodeSaslResponse("c=biws")).toEqual(serialize.sendSCRAMClientFinalMessage("c=biws"));
    expect(
      encodeStartup(
        new Map([
          ["user", "ada"],
          ["client_encoding", "UTF8"],
        ]),
      ),
    ).toEqual(serialize.startup({ user: "ada" }));
  });

  test("Bind with one format a value, and many of everything, comes back as it went", () => {
    const formats = fc.oneof(fc.constant([]), fc.tuple(format), fc.constant("each" as const));
    fc.assert(
      fc.property(
        name,
        name,
        fc.array(value, { maxLength: 300 }),
        formats,
        fc.array(format, { maxLength: 20 }),
        (portal, statement, values, chosen, resultFormats) => {
          const parameterFormats = chosen === "each" ? values.map((_, i) => i % 2) : chosen;
          const fields = { portal, statement, parameterFormats, values, resultFormats };
          expect(decode(encodeBind(fields))).toEqual({ kind: "bind", ...fields });
        },
      ),
    );
  });
});

describe("what a client gets wrong is refused", () => {
  test("every message cut short by one byte or more, and every message with a byte too many", () => {
    for (const bytes of frontendMessages) {
      const { type, body } = frameOf(bytes);
      // Their contents have no inner structure: any length is right.
      if (type === frontendTypes.copyData || type === frontendTypes.password) {
        continue;
      }
      for (let length = 0; length < body.length; length++) {
        const short = new FrameWriter(type).bytes(body.subarray(0, length)).finish();
        expect(() => decode(short)).toThrow(SallyportError);
      }
      for (const extra of [Buffer.from([0]), Buffer.from([1]), Buffer.from("; drop table t\0")]) {
        const long = new FrameWriter(type).bytes(body).bytes(extra).finish();
        expect(() => decode(long)).toThrow(violation);
      }
    }
  });

  test("a second text after a Query's first NUL", () => {
    const bytes = new FrameWriter(frontendTypes.query).bytes(Buffer.from("select 1\0; drop table t\0")).finish();
    expect(() => decode(bytes)).toThrow(violation);
  });

  test("text that is not UTF-8, wherever there is text, by its own code", () => {
    const bad = [
      [0xff],
      [0xc0, 0x80],
      [0xed, 0xa0, 0x80],
      [0xf4, 0x90, 0x80, 0x80],
      [0xe2, 0x82],
      [0x27, 0xbf, 0x5c, 0x27],
    ];
    for (const bytes of bad.map((codes) => Buffer.from([...codes, 0]))) {
      const encoding: unknown = expect.objectContaining({ code: "statement.encoding", whose: "client" });
      expect(() => decodeQuery(bytes)).toThrow(encoding);
      expect(() => decodeParse(Buffer.concat([Buffer.from([0]), bytes, Buffer.alloc(2)]))).toThrow(encoding);
      expect(() => decodeParse(Buffer.concat([bytes, Buffer.alloc(3)]))).toThrow(encoding);
    }
  });

  test("a statement over the limit, by its own code, also inside a Parse that is within its own", () => {
    const text = `/*${"x".repeat(limits.statementBytesMax)}*/ delete from t`;
    const tooLarge: unknown = expect.objectContaining({ code: "statement.too-large", whose: "client" });
    expect(() => decode(encodeParse({ statement: "", text, parameterTypes: [] }))).toThrow(tooLarge);
    expect(() => decodeQuery(Buffer.from(`${text}\0`))).toThrow(tooLarge);
    const fitting = "x".repeat(limits.statementBytesMax);
    expect(decodeQuery(Buffer.from(`${fitting}\0`)).text).toBe(fitting);
  });

  test("negative and lying lengths, counts and formats in Bind", () => {
    const bind = (): FrameWriter => new FrameWriter(frontendTypes.bind).cstring("").cstring("");
    const wrong = [
      bind().uint16(0).uint16(1).int32(-2).uint16(0),
      bind().uint16(0).uint16(1).int32(-2_147_483_648).uint16(0),
      bind().uint16(0).uint16(1).int32(2_147_483_647).uint16(0),
      bind().uint16(0).uint16(1).int32(3).bytes(Buffer.from("ab")),
      bind().uint16(0).uint16(65_535).uint16(0),
      bind().uint16(65_535).uint16(0).uint16(0),
      bind().uint16(1).int16(2).uint16(0).uint16(0),
      bind().uint16(1).int16(-1).uint16(0).uint16(0),
      bind().uint16(2).int16(0).int16(0).uint16(1).int32(-1).uint16(0),
      bind().uint16(0).uint16(0).uint16(1).int16(7),
      bind()
        .uint16(0)
        .uint16(0)
        .uint16(limits.columnsMax + 1),
    ];
    for (const writer of wrong) {
      expect(() => decode(writer.finish())).toThrow(violation);
    }
  });

  test("an Execute with a negative row limit, a Describe or Close of neither statement nor portal", () => {
    expect(() => decode(new FrameWriter(frontendTypes.execute).cstring("").int32(-1).finish())).toThrow(violation);
    for (const type of [frontendTypes.describe, frontendTypes.close]) {
      expect(() => decode(new FrameWriter(type).uint8(0x73).cstring("").finish())).toThrow(violation);
    }
  });

  test("a SASL response without data or with a lying length", () => {
    const initial = (length: number, data: string): Buffer =>
      new FrameWriter(frontendTypes.password).cstring("SCRAM-SHA-256").int32(length).bytes(Buffer.from(data)).finish();
    for (const bytes of [initial(-1, ""), initial(3, "ab"), initial(1, "ab"), initial(-2, "")]) {
      expect(() => decodeSaslInitialResponse(frameOf(bytes).body)).toThrow(violation);
    }
  });

  test("startup parameters that come twice, in any case, or have no end", () => {
    const body = (text: string): Buffer => Buffer.from(text);
    expect([...decodeStartupParameters(body("user\0a\0\0"))]).toEqual([["user", "a"]]);
    for (const text of [
      "user\0a\0user\0b\0\0",
      "user\0a\0USER\0b\0\0",
      "user\0a\0",
      "user\0a",
      "user\0\0\0x",
      "\0user\0a\0\0",
      "",
    ]) {
      expect(() => decodeStartupParameters(body(text))).toThrow(violation);
    }
  });

  test("a FunctionCall is read for the record, with its values", () => {
    expect(decode(functionCall(1598, [Buffer.from("x"), null]))).toEqual({
      kind: "function-call",
      functionOid: 1598,
      argumentFormats: [1],
      values: [Buffer.from("x"), null],
      resultFormat: 1,
    });
  });
});
