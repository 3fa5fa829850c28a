/** Realistic conversations as bytes, and the slow, obvious way to cut them into frames. */
import { FrameWriter } from "#protocols/postgres/codec.ts";
import {
  encodeAuthenticationOk,
  encodeBackendKeyData,
  encodeBind,
  encodeBindComplete,
  encodeClose,
  encodeCloseComplete,
  encodeCommandComplete,
  encodeDescribe,
  encodeErrorResponse,
  encodeExecute,
  encodeFlush,
  encodeNoData,
  encodeNoticeResponse,
  encodeParameterStatus,
  encodeParse,
  encodeParseComplete,
  encodePortalSuspended,
  encodeQuery,
  encodeReadyForQuery,
  encodeSync,
  encodeTerminate,
} from "#protocols/postgres/messages-encode.ts";
import { backendTypes, frontendTypes } from "#protocols/postgres/messages-types.ts";
import type { FieldDescription } from "#protocols/postgres/messages-backend.ts";

export function rowDescription(fields: readonly FieldDescription[]): Buffer {
  const writer = new FrameWriter(backendTypes.rowDescription).int16(fields.length);
  for (const field of fields) {
    writer.cstring(field.name).uint32(field.tableOid).int16(field.attribute).uint32(field.typeOid);
    writer.int16(field.typeSize).int32(field.typeModifier).int16(field.format);
  }
  return writer.finish();
}

export function dataRow(cells: readonly (Uint8Array | string | null)[]): Buffer {
  const writer = new FrameWriter(backendTypes.dataRow).int16(cells.length);
  for (const cell of cells) {
    writer.value(typeof cell === "string" ? Buffer.from(cell, "utf8") : cell);
  }
  return writer.finish();
}

export function notification(processId: number, channel: string, payload: string): Buffer {
  return new FrameWriter(backendTypes.notificationResponse).int32(processId).cstring(channel).cstring(payload).finish();
}

export function parameterDescription(types: readonly number[]): Buffer {
  const writer = new FrameWriter(backendTypes.parameterDescription).int16(types.length);
  for (const type of types) {
    writer.uint32(type);
  }
  return writer.finish();
}

export function copyResponse(type: number, binary: boolean, formats: readonly number[]): Buffer {
  const writer = new FrameWriter(type).uint8(binary ? 1 : 0).int16(formats.length);
  for (const format of formats) {
    writer.int16(format);
  }
  return writer.finish();
}

export function functionCall(oid: number, values: readonly (Uint8Array | null)[]): Buffer {
  const writer = new FrameWriter(frontendTypes.functionCall).uint32(oid).int16(1).int16(1).int16(values.length);
  for (const value of values) {
    writer.value(value);
  }
  return writer.int16(1).finish();
}

export const textField: FieldDescription = {
  name: "n\u00e4me",
  tableOid: 4_000_000_000,
  attribute: 2,
  typeOid: 25,
  typeSize: -1,
  typeModifier: -1,
  format: 0,
};

/** What a client sends, after its login: every message that the protocol has. */
export const frontendMessages: readonly Buffer[] = [
  encodeQuery("begin"),
  encodeQuery(""),
  encodeParse({
    statement: "",
    text: "select * from t where a = $1 and n = $2 -- \u00e4\u{1f600}",
    parameterTypes: [23, 0],
  }),
  encodeBind({
    portal: "",
    statement: "",
    parameterFormats: [1, 0],
    values: [Buffer.from([0, 0, 0, 0]), null],
    resultFormats: [0],
  }),
  encodeDescribe("portal", ""),
  encodeExecute("", 100),
  encodeFlush(),
  encodeParse({ statement: "s1", text: "select 1", parameterTypes: [] }),
  encodeBind({ portal: "p1", statement: "s1", parameterFormats: [], values: [], resultFormats: [] }),
  encodeDescribe("statement", "s1"),
  encodeExecute("p1", 0),
  encodeClose("statement", "s1"),
  encodeClose("portal", "p1"),
  encodeSync(),
  functionCall(1598, [Buffer.from("x"), null]),
  new FrameWriter(frontendTypes.copyData).bytes(Buffer.from("1\ttwo\n")).finish(),
  new FrameWriter(frontendTypes.copyDone).finish(),
  new FrameWriter(frontendTypes.copyFail).cstring("stop").finish(),
  new FrameWriter(frontendTypes.password).bytes(Buffer.from("c=biws,r=x,p=y")).finish(),
  encodeQuery(`select '${"long ".repeat(200)}'`),
  encodeTerminate(),
];

/** What PostgreSQL sends: every message that the protocol has. */
export const backendMessages: readonly Buffer[] = [
  encodeAuthenticationOk(),
  encodeParameterStatus("TimeZone", "Europe/Paris"),
  encodeBackendKeyData(-7, -2_147_483_648),
  encodeReadyForQuery("idle"),
  rowDescription([textField, { ...textField, name: "", format: 1, typeSize: 4 }]),
  dataRow(["one", null]),
  dataRow(["", Buffer.from([0, 1, 2, 255])]),
  dataRow([]),
  encodeCommandComplete("SELECT 3"),
  encodeParseComplete(),
  parameterDescription([23, 4_000_000_000]),
  encodeBindComplete(),
  encodeNoData(),
  encodePortalSuspended(),
  encodeCloseComplete(),
  encodeNoticeResponse({ severity: "WARNING", sqlState: "01000", message: "careful" }),
  encodeErrorResponse({ severity: "ERROR", sqlState: "42601", message: "syntax \u00e4", hint: "no", position: "3" }),
  notification(42, "channel", "payload"),
  copyResponse(backendTypes.copyInResponse, false, [0, 0]),
  copyResponse(backendTypes.copyOutResponse, true, [1]),
  copyResponse(backendTypes.copyBothResponse, false, []),
  new FrameWriter(backendTypes.copyData).bytes(Buffer.from("1\n")).finish(),
  new FrameWriter(backendTypes.copyDone).finish(),
  new FrameWriter(backendTypes.emptyQueryResponse).finish(),
  new FrameWriter(backendTypes.functionCallResponse).value(Buffer.from("v")).finish(),
  new FrameWriter(backendTypes.negotiateProtocolVersion).int32(196_608).int32(1).cstring("_pq_.x").finish(),
  encodeReadyForQuery("failed"),
];

/** The slow, obvious way: all bytes at hand, lengths believed. */
export function cutNaively(bytes: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  for (let at = 0; at + 5 <= bytes.length;) {
    const end = at + 1 + bytes.readUInt32BE(at + 1);
    if (end > bytes.length) {
      break;
    }
    frames.push(bytes.subarray(at, end));
    at = end;
  }
  return frames;
}

/** `bytes` in pieces that end at `cuts` (sorted offsets). */
export function splitAt(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const ends = [...cuts, bytes.length];
  return ends.map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end));
}
