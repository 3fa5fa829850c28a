import { Readable } from "node:stream";
import fc from "fast-check";
import { parse } from "pg-protocol";
import { describe, expect, test } from "vitest";
import { InvariantError, SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import { FrameWriter } from "#protocols/postgres/codec.ts";
import { FrameReader, type Frame } from "#protocols/postgres/frames.ts";
import {
  countCells,
  decodeBackend,
  decodeDataRow,
  type FieldDescription,
} from "#protocols/postgres/messages-backend.ts";
import {
  encodeAuthenticationOk,
  encodeAuthenticationSasl,
  encodeAuthenticationSaslContinue,
  encodeAuthenticationSaslFinal,
  encodeBackendKeyData,
  encodeBindComplete,
  encodeCloseComplete,
  encodeCommandComplete,
  encodeEmptyQueryResponse,
  encodeErrorResponse,
  encodeNegotiateProtocolVersion,
  encodeNoData,
  encodeNoticeResponse,
  encodeParameterStatus,
  encodeParseComplete,
  encodePortalSuspended,
  encodeReadyForQuery,
} from "#protocols/postgres/messages-encode.ts";
import { backendFrameBytesMax, backendTypes } from "#protocols/postgres/messages-types.ts";
import {
  backendMessages,
  copyResponse,
  dataRow,
  notification,
  parameterDescription,
  rowDescription,
  textField,
} from "./conversation-bytes.ts";

function frameOf(bytes: Buffer): Frame {
  const reader = new FrameReader({ direction: "backend", bytesMax: backendFrameBytesMax });
  reader.push(bytes);
  const frame = reader.next();
  if (frame === null || reader.bufferedBytes > 0) {
    throw new Error("not one frame");
  }
  return frame;
}

function decode(bytes: Buffer): ReturnType<typeof decodeBackend> {
  return decodeBackend(frameOf(bytes));
}

/** What pg-protocol makes of the bytes, as plain objects. */
async function parsed(bytes: Buffer): Promise<Record<string, unknown>[]> {
  const messages: Record<string, unknown>[] = [];
  await parse(Readable.from([bytes]), (message) => {
    messages.push({ ...message, message: "message" in message ? message.message : undefined });
  });
  return messages;
}

const violation: unknown = expect.objectContaining({ code: "protocol.violation", whose: "upstream" });
const text = fc.string({ unit: "binary", maxLength: 30 }).map((value) => value.replaceAll("\0", ""));
const int32 = fc.integer({ min: -2_147_483_648, max: 2_147_483_647 });
const int16 = fc.integer({ min: -32_768, max: 32_767 });
const oid = fc.integer({ min: 0, max: 0xffffffff });

describe("what we write, pg-protocol reads", () => {
  test("the messages of a login", async () => {
    const messages = await parsed(
      Buffer.concat([
        encodeAuthenticationSasl(["SCRAM-SHA-256"]),
        encodeAuthenticationSaslContinue("r=a,s=b,i=4096"),
        encodeAuthenticationSaslFinal("v=x"),
        encodeAuthenticationOk(),
        encodeParameterStatus("client_encoding", "UTF8"),
        encodeBackendKeyData(5, -6),
        encodeReadyForQuery("idle"),
      ]),
    );
    expect(messages).toMatchObject([
      { name: "authenticationSASL", mechanisms: ["SCRAM-SHA-256"] },
      { name: "authenticationSASLContinue", data: "r=a,s=b,i=4096" },
      { name: "authenticationSASLFinal", data: "v=x" },
      { name: "authenticationOk" },
      { name: "parameterStatus", parameterName: "client_encoding", parameterValue: "UTF8" },
      { name: "backendKeyData", processID: 5, secretKey: -6 },
      { name: "readyForQuery", status: "I" },
    ]);
  });

  test("completions and transaction states", async () => {
    const messages = await parsed(
      Buffer.concat([
        encodeParseComplete(),
        encodeBindComplete(),
        encodeCloseComplete(),
        encodeNoData(),
        encodePortalSuspended(),
        encodeEmptyQueryResponse(),
        encodeCommandComplete("UPDATE 3"),
        encodeReadyForQuery("in-transaction"),
        encodeReadyForQuery("failed"),
      ]),
    );
    expect(messages.map((message) => message["name"])).toEqual([
      "parseComplete",
      "bindComplete",
      "closeComplete",
      "noData",
      "portalSuspended",
      "emptyQuery",
      "commandComplete",
      "readyForQuery",
      "readyForQuery",
    ]);
    expect(messages.slice(6)).toMatchObject([{ text: "UPDATE 3" }, { status: "T" }, { status: "E" }]);
  });

  test("errors and notices, whatever text they hold", async () => {
    await fc.assert(
      fc.asyncProperty(
        text,
        fc.option(text, { nil: null }),
        fc.option(text, { nil: null }),
        async (message, detail, hint) => {
          const report = { severity: "ERROR", sqlState: "42501", message, detail, hint } as const;
          const expected = {
            severity: "ERROR",
            code: "42501",
            message,
            detail: detail || undefined,
            hint: hint || undefined,
          };
          expect(await parsed(encodeErrorResponse(report))).toMatchObject([{ name: "error", ...expected }]);
          expect(await parsed(encodeNoticeResponse(report))).toMatchObject([{ name: "notice", ...expected }]);
        },
      ),
      { numRuns: 50 },
    );
  });
});

describe("what PostgreSQL writes, we and pg-protocol read alike", () => {
  test("RowDescription", async () => {
    const field: fc.Arbitrary<FieldDescription> = fc.record({
      name: text,
      tableOid: oid,
      attribute: int16,
      typeOid: oid,
      typeSize: int16,
      typeModifier: int32,
      format: fc.constantFrom(0, 1),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(field, { maxLength: 10 }), async (fields) => {
        expect(decode(rowDescription(fields))).toEqual({ kind: "row-description", fields });
        const [message] = await parsed(rowDescription(fields));
        expect(message?.["fields"]).toMatchObject(
          fields.map((each) => ({
            name: each.name,
            tableID: each.tableOid,
            columnID: each.attribute,
            dataTypeID: each.typeOid,
            dataTypeSize: each.typeSize,
            dataTypeModifier: each.typeModifier,
            format: each.format === 0 ? "text" : "binary",
          })),
        );
      }),
      { numRuns: 50 },
    );
  });

  test("DataRow; and its cells are counted without being made", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.option(text, { nil: null }), { maxLength: 20 }), async (cells) => {
        const bytes = dataRow(cells);
        const body = frameOf(bytes).body;
        expect(decodeDataRow(body).map((cell) => cell?.toString("utf8") ?? null)).toEqual(cells);
        expect(countCells(body)).toBe(cells.length);
        const [message] = await parsed(bytes);
        expect(message?.["fields"]).toEqual(cells);
      }),
      { numRuns: 50 },
    );
  });

  test("the rest", async () => {
    const messages = [
      notification(9, "c", "p\u00e4yload"),
      parameterDescription([1, 4_000_000_000]),
      copyResponse(backendTypes.copyInResponse, false, [0, 1]),
      copyResponse(backendTypes.copyOutResponse, true, [1]),
    ];
    expect(messages.map(decode)).toEqual([
      { kind: "notification", processId: 9, channel: "c", payload: "p\u00e4yload" },
      { kind: "parameter-description", types: [1, 4_000_000_000] },
      { kind: "copy-in", binary: false, columnFormats: [0, 1] },
      { kind: "copy-out", binary: true, columnFormats: [1] },
    ]);
    expect(await parsed(Buffer.concat(messages))).toMatchObject([
      { processId: 9, channel: "c", payload: "p\u00e4yload" },
      { dataTypeIDs: [1, 4_000_000_000] },
      { binary: false, columnTypes: [0, 1] },
      { binary: true, columnTypes: [1] },
    ]);
  });

  test("what we write ourselves comes back as it went", () => {
    expect(decode(encodeNegotiateProtocolVersion(["_pq_.a", "_pq_.b"]))).toEqual({
      kind: "negotiate-protocol-version",
      version: 196_608,
      unknownOptions: ["_pq_.a", "_pq_.b"],
    });
    expect(decode(encodeBackendKeyData(1, 2))).toEqual({ kind: "backend-key-data", processId: 1, secretKey: 2 });
    expect(decode(encodeReadyForQuery("failed"))).toEqual({ kind: "ready-for-query", status: "failed" });
    const error = decode(
      encodeErrorResponse({
        severity: "FATAL",
        sqlState: "28P01",
        message: "m",
        detail: "d",
        hint: "h",
        position: "4",
      }),
    );
    expect(error.kind === "error" && [...error.fields]).toEqual([
      ["S", "FATAL"],
      ["V", "FATAL"],
      ["C", "28P01"],
      ["M", "m"],
      ["D", "d"],
      ["H", "h"],
      ["P", "4"],
    ]);
  });

  test("the row count of a command tag", () => {
    const tags = [
      ["INSERT 0 12", 12],
      ["SELECT 0", 0],
      ["BEGIN", null],
      ["CREATE TABLE", null],
      ["COPY 18014398509481984", null],
    ] as const;
    for (const [tag, rows] of tags) {
      expect(decode(encodeCommandComplete(tag))).toEqual({ kind: "command-complete", tag, rows });
    }
  });
});

describe("what the resource gets wrong is refused", () => {
  test("every message cut short by one byte or more, and every message with a byte too many", () => {
    const free = new Set<number>([backendTypes.copyData]);
    for (const bytes of backendMessages) {
      const { type, body } = frameOf(bytes);
      if (free.has(type)) {
        continue;
      }
      for (let length = 0; length < body.length; length++) {
        expect(() => decode(new FrameWriter(type).bytes(body.subarray(0, length)).finish())).toThrow(violation);
      }
      expect(() => decode(new FrameWriter(type).bytes(body).uint8(0).finish())).toThrow(violation);
    }
  });

  test("negative, excessive and lying counts and lengths", () => {
    const row = (): FrameWriter => new FrameWriter(backendTypes.dataRow);
    const wrong = [
      row().int16(-1),
      row().int16(limits.columnsMax + 1),
      row().int16(2).int32(-1),
      row().int16(1).int32(-2),
      row().int16(1).int32(2_147_483_647),
      row().int16(1).int32(2).bytes(Buffer.from("abc")),
      new FrameWriter(backendTypes.rowDescription).int16(-1),
      new FrameWriter(backendTypes.rowDescription).int16(limits.columnsMax + 1),
      new FrameWriter(backendTypes.parameterDescription).int16(-1),
      new FrameWriter(backendTypes.copyOutResponse).uint8(2).int16(0),
      new FrameWriter(backendTypes.copyOutResponse).uint8(0).int16(-1),
      new FrameWriter(backendTypes.functionCallResponse).int32(-2),
      new FrameWriter(backendTypes.negotiateProtocolVersion).int32(196_608).int32(-1),
      new FrameWriter(backendTypes.negotiateProtocolVersion).int32(196_608).int32(2_147_483_647),
      new FrameWriter(backendTypes.readyForQuery).uint8(0x58),
    ];
    for (const writer of wrong) {
      expect(() => decode(writer.finish())).toThrow(violation);
    }
  });

  test("counting refuses exactly what decoding refuses", () => {
    const rows = fc.array(fc.option(text, { nil: null }), { maxLength: 6 }).map(dataRow);
    fc.assert(
      fc.property(
        rows,
        fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 3 }),
        fc.nat(3),
        (bytes, pokes, cut) => {
          const body = Buffer.from(bytes.subarray(5, bytes.length - cut));
          for (const [at, byte] of pokes) {
            if (at < body.length) {
              body[at] = byte;
            }
          }
          const outcome = (read: () => number): number | string => {
            try {
              return read();
            } catch (error) {
              expect(error).toBeInstanceOf(SallyportError);
              return "refused";
            }
          };
          const padded = Buffer.concat([Buffer.from("before"), body, Buffer.from("after")]);
          const counted = outcome(() => countCells(padded, 6, 6 + body.length));
          expect(counted).toBe(outcome(() => decodeDataRow(body).length));
        },
      ),
      { numRuns: 1000 },
    );
  });

  test("an error with a field twice, or without SQLSTATE, and text that is not UTF-8", () => {
    const error = (fields: string): Buffer =>
      new FrameWriter(backendTypes.errorResponse).bytes(Buffer.from(fields, "latin1")).finish();
    expect(decode(error("SERROR\0C42601\0Mx\0\0")).kind).toBe("error");
    expect(() => decode(error("SERROR\0C42601\0Mx\0My\0\0"))).toThrow(violation);
    expect(() => decode(error("SERROR\0Mx\0\0"))).toThrow(violation);
    expect(() => decode(error("SERROR\0C42601\0M\xe4\0\0"))).toThrow(
      expect.objectContaining({ code: "statement.encoding", whose: "upstream" }),
    );
    expect(() => decode(rowDescription([textField]).fill(0xff, 9, 10))).toThrow(SallyportError);
  });
});

describe("encoders", () => {
  test("a NUL in a report's text cannot begin another field", () => {
    const error = decode(encodeErrorResponse({ severity: "ERROR", sqlState: "42601", message: "a\0Hforged\0" }));
    expect(error.kind === "error" && error.fields.get("M")).toBe("a\u{fffd}Hforged\u{fffd}");
    expect(error.kind === "error" && error.fields.has("H")).toBe(false);
  });

  test("a NUL in any other string is a broken invariant", () => {
    expect(() => encodeParameterStatus("a\0b", "c")).toThrow(InvariantError);
  });

  test("messages of every length come out whole: the writer grows at each of its fields", () => {
    for (let length = 0; length < 600; length++) {
      const payload = "x".repeat(length);
      expect(decode(notification(1, payload, payload))).toEqual({
        kind: "notification",
        processId: 1,
        channel: payload,
        payload,
      });
      expect(decode(parameterDescription(Array.from({ length }, () => 1)))).toMatchObject({
        kind: "parameter-description",
      });
    }
  });
});
