/**
 * What the resource says: strict decoders of the backend messages (PostgreSQL documentation, 54.7). Each consumes its
 * body exactly; each throws SallyportError `protocol.violation` (whose: upstream), or `statement.encoding` for text that
 * is not UTF-8. What these refuse, the gateway does not pass on.
 */
import { limits } from "#domain/limits.ts";
import { BodyReader, protocolViolation } from "./codec.ts";
import type { Frame } from "./frames.ts";
import { backendTypes } from "./messages-types.ts";

/** One column of a RowDescription. */
export interface FieldDescription {
  readonly name: string;
  /** 0 when the column is not one of a table. */
  readonly tableOid: number;
  /** Attribute number in that table; 0 when it is not one of a table. */
  readonly attribute: number;
  readonly typeOid: number;
  /** Bytes of the type; negative for variable width. */
  readonly typeSize: number;
  readonly typeModifier: number;
  /** 0 text, 1 binary; in the Describe of a statement always 0. */
  readonly format: number;
}

/** Fields of an ErrorResponse or NoticeResponse by their one-letter code (54.8): `C` is the SQLSTATE, `M` the message. */
export type ReportFields = ReadonlyMap<string, string>;

export type AuthenticationMessage = { readonly kind: "authentication" } & (
  | { readonly method: "ok" }
  | { readonly method: "cleartext-password" }
  | { readonly method: "md5-password"; readonly salt: Buffer }
  | { readonly method: "sasl"; readonly mechanisms: readonly string[] }
  | { readonly method: "sasl-continue"; readonly data: Buffer }
  | { readonly method: "sasl-final"; readonly data: Buffer }
  /** Kerberos, GSSAPI, SSPI, SCM: never answered. */
  | { readonly method: "other"; readonly code: number }
);

export type TransactionStatus = "idle" | "in-transaction" | "failed";

export interface CopyResponse {
  readonly binary: boolean;
  readonly columnFormats: readonly number[];
}

export type BackendMessage =
  | AuthenticationMessage
  | { readonly kind: "backend-key-data"; readonly processId: number; readonly secretKey: number }
  | CommandCompleteMessage
  | ({ readonly kind: "copy-in" | "copy-out" | "copy-both" } & CopyResponse)
  | { readonly kind: "copy-data"; readonly data: Buffer }
  | { readonly kind: "data-row"; readonly cells: readonly (Buffer | null)[] }
  | { readonly kind: "error" | "notice"; readonly fields: ReportFields }
  | { readonly kind: "function-call-response"; readonly value: Buffer | null }
  | {
      readonly kind: "negotiate-protocol-version";
      /** The newest version that the server speaks, major in the upper half. */
      readonly version: number;
      readonly unknownOptions: readonly string[];
    }
  | {
      readonly kind: "notification";
      readonly processId: number;
      readonly channel: string;
      readonly payload: string;
    }
  | { readonly kind: "parameter-description"; readonly types: readonly number[] }
  | { readonly kind: "parameter-status"; readonly name: string; readonly value: string }
  | { readonly kind: "ready-for-query"; readonly status: TransactionStatus }
  | { readonly kind: "row-description"; readonly fields: readonly FieldDescription[] }
  | { readonly kind: EmptyReplyKind };

type EmptyReplyKind =
  | "bind-complete"
  | "close-complete"
  | "copy-done"
  | "empty-query"
  | "no-data"
  | "parse-complete"
  | "portal-suspended";

/** Decodes any backend frame. */
export function decodeBackend(frame: Frame): BackendMessage {
  const body = frame.body;
  switch (frame.type) {
    case backendTypes.dataRow:
      return { kind: "data-row", cells: decodeDataRow(body) };
    case backendTypes.rowDescription:
      return { kind: "row-description", fields: decodeRowDescription(body) };
    case backendTypes.commandComplete:
      return decodeCommandComplete(body);
    case backendTypes.readyForQuery:
      return { kind: "ready-for-query", status: decodeReadyForQuery(body) };
    case backendTypes.errorResponse:
      return { kind: "error", fields: decodeReport(body, "ErrorResponse") };
    case backendTypes.noticeResponse:
      return { kind: "notice", fields: decodeReport(body, "NoticeResponse") };
    case backendTypes.parameterStatus:
      return { kind: "parameter-status", ...decodeParameterStatus(body) };
    case backendTypes.parameterDescription:
      return { kind: "parameter-description", types: decodeParameterDescription(body) };
    case backendTypes.notificationResponse:
      return decodeNotification(body);
    case backendTypes.authentication:
      return decodeAuthentication(body);
    case backendTypes.backendKeyData:
      return decodeBackendKeyData(body);
    case backendTypes.negotiateProtocolVersion:
      return decodeNegotiateProtocolVersion(body);
    case backendTypes.copyData:
      return { kind: "copy-data", data: body };
    case backendTypes.copyInResponse:
      return { kind: "copy-in", ...decodeCopyResponse(body, "CopyInResponse") };
    case backendTypes.copyOutResponse:
      return { kind: "copy-out", ...decodeCopyResponse(body, "CopyOutResponse") };
    case backendTypes.copyBothResponse:
      return { kind: "copy-both", ...decodeCopyResponse(body, "CopyBothResponse") };
    case backendTypes.functionCallResponse:
      return decodeFunctionCallResponse(body);
    default:
      return decodeEmptyReply(frame.type, body);
  }
}

/** @throws SallyportError also when the count is negative or over `columnsMax`. */
export function decodeRowDescription(body: Buffer): readonly FieldDescription[] {
  const reader = new BodyReader(body, "backend", "RowDescription");
  const count = columnCount(reader);
  const fields: FieldDescription[] = [];
  for (let i = 0; i < count; i++) {
    const name = reader.cstring();
    const tableOid = reader.uint32();
    const attribute = reader.int16();
    const typeOid = reader.uint32();
    const typeSize = reader.int16();
    const typeModifier = reader.int32();
    const [format = 0] = reader.formats(1);
    fields.push({ name, tableOid, attribute, typeOid, typeSize, typeModifier, format });
  }
  reader.end();
  return fields;
}

/** The cells of a DataRow: views, null for SQL NULL. */
export function decodeDataRow(body: Buffer): readonly (Buffer | null)[] {
  const reader = new BodyReader(body, "backend", "DataRow");
  const count = columnCount(reader);
  const cells: (Buffer | null)[] = [];
  for (let i = 0; i < count; i++) {
    cells.push(reader.value());
  }
  reader.end();
  return cells;
}

/**
 * The number of cells of the DataRow whose body is `chunk[start..end)`. It walks the lengths, so that a row is known to
 * be well formed, and allocates nothing: this runs once a row.
 * @throws SallyportError `protocol.violation`.
 */
export function countCells(chunk: Buffer, start = 0, end = chunk.length): number {
  if (end - start < 2) {
    throw protocolViolation("backend", "DataRow: the message ends before its contents do");
  }
  const count = chunk.readInt16BE(start);
  if (count < 0 || count > limits.columnsMax) {
    throw protocolViolation("backend", `DataRow: there are ${count} columns`);
  }
  let offset = start + 2;
  for (let i = 0; i < count; i++) {
    if (end - offset < 4) {
      throw protocolViolation("backend", "DataRow: the message ends before its contents do");
    }
    const length = chunk.readInt32BE(offset);
    offset += 4;
    if (length === -1) {
      continue;
    }
    if (length < 0 || length > end - offset) {
      throw protocolViolation("backend", `DataRow: a value has the length ${length}`);
    }
    offset += length;
  }
  if (offset !== end) {
    throw protocolViolation("backend", `DataRow: ${end - offset} bytes are left over`);
  }
  return count;
}

export interface CommandCompleteMessage {
  readonly kind: "command-complete";
  /** Such as `UPDATE 3` or `INSERT 0 1`. */
  readonly tag: string;
  /** The number at the end of the tag; null when it has none. */
  readonly rows: number | null;
}

export function decodeCommandComplete(body: Buffer): CommandCompleteMessage {
  const reader = new BodyReader(body, "backend", "CommandComplete");
  const tag = reader.cstring();
  reader.end();
  const digits = / (\d{1,15})$/.exec(tag)?.[1];
  return { kind: "command-complete", tag, rows: digits === undefined ? null : Number(digits) };
}

/** @throws SallyportError also when a field comes twice or severity, SQLSTATE or message is missing. */
export function decodeReport(body: Buffer, message: "ErrorResponse" | "NoticeResponse"): ReportFields {
  const reader = new BodyReader(body, "backend", message);
  const fields = new Map<string, string>();
  for (;;) {
    const code = reader.uint8();
    if (code === 0) {
      break;
    }
    const name = String.fromCharCode(code);
    if (fields.has(name)) {
      throw reader.violation("a field comes twice");
    }
    fields.set(name, reader.cstring());
  }
  reader.end();
  if (!fields.has("S") || !fields.has("C") || !fields.has("M")) {
    throw reader.violation("severity, SQLSTATE or message is missing");
  }
  return fields;
}

export function decodeReadyForQuery(body: Buffer): TransactionStatus {
  const reader = new BodyReader(body, "backend", "ReadyForQuery");
  const status = reader.uint8();
  reader.end();
  switch (status) {
    case 0x49: // I
      return "idle";
    case 0x54: // T
      return "in-transaction";
    case 0x45: // E
      return "failed";
    default:
      throw reader.violation("the transaction status does not exist");
  }
}

export function decodeParameterStatus(body: Buffer): { readonly name: string; readonly value: string } {
  const reader = new BodyReader(body, "backend", "ParameterStatus");
  const name = reader.cstring();
  const value = reader.cstring();
  reader.end();
  return { name, value };
}

/** Type OIDs of a statement's parameters. */
export function decodeParameterDescription(body: Buffer): readonly number[] {
  const reader = new BodyReader(body, "backend", "ParameterDescription");
  const count = reader.uint16();
  const types: number[] = [];
  for (let i = 0; i < count; i++) {
    types.push(reader.uint32());
  }
  reader.end();
  return types;
}

function decodeNotification(body: Buffer): BackendMessage {
  const reader = new BodyReader(body, "backend", "NotificationResponse");
  const processId = reader.int32();
  const channel = reader.cstring();
  const payload = reader.cstring();
  reader.end();
  return { kind: "notification", processId, channel, payload };
}

export function decodeAuthentication(body: Buffer): AuthenticationMessage {
  const reader = new BodyReader(body, "backend", "Authentication");
  const message = readAuthentication(reader, reader.int32());
  reader.end();
  return message;
}

function readAuthentication(reader: BodyReader, code: number): AuthenticationMessage {
  switch (code) {
    case 0:
      return { kind: "authentication", method: "ok" };
    case 3:
      return { kind: "authentication", method: "cleartext-password" };
    case 5:
      return { kind: "authentication", method: "md5-password", salt: reader.bytes(4) };
    case 10:
      return { kind: "authentication", method: "sasl", mechanisms: readMechanisms(reader) };
    case 11:
      return { kind: "authentication", method: "sasl-continue", data: reader.rest() };
    case 12:
      return { kind: "authentication", method: "sasl-final", data: reader.rest() };
    default:
      reader.rest();
      return { kind: "authentication", method: "other", code };
  }
}

function readMechanisms(reader: BodyReader): readonly string[] {
  const mechanisms: string[] = [];
  for (;;) {
    const mechanism = reader.cstring();
    if (mechanism === "") {
      return mechanisms;
    }
    mechanisms.push(mechanism);
  }
}

function decodeBackendKeyData(body: Buffer): BackendMessage {
  const reader = new BodyReader(body, "backend", "BackendKeyData");
  const processId = reader.int32();
  const secretKey = reader.int32();
  reader.end();
  return { kind: "backend-key-data", processId, secretKey };
}

function decodeNegotiateProtocolVersion(body: Buffer): BackendMessage {
  const reader = new BodyReader(body, "backend", "NegotiateProtocolVersion");
  const version = reader.int32();
  const count = reader.int32();
  if (count < 0 || count > reader.remaining) {
    throw reader.violation(`there are ${count} options`);
  }
  const unknownOptions: string[] = [];
  for (let i = 0; i < count; i++) {
    unknownOptions.push(reader.cstring());
  }
  reader.end();
  return { kind: "negotiate-protocol-version", version, unknownOptions };
}

function decodeCopyResponse(body: Buffer, message: string): CopyResponse {
  const reader = new BodyReader(body, "backend", message);
  const format = reader.uint8();
  if (format > 1) {
    throw reader.violation(`the copy format ${format} does not exist`);
  }
  const columnFormats = reader.formats(columnCount(reader));
  reader.end();
  return { binary: format === 1, columnFormats };
}

function decodeFunctionCallResponse(body: Buffer): BackendMessage {
  const reader = new BodyReader(body, "backend", "FunctionCallResponse");
  const value = reader.value();
  reader.end();
  return { kind: "function-call-response", value };
}

function decodeEmptyReply(type: number, body: Buffer): BackendMessage {
  const kind = emptyReplies.get(type);
  if (kind === undefined) {
    throw protocolViolation("backend", `no message has the type byte 0x${type.toString(16)}`);
  }
  if (body.length !== 0) {
    throw protocolViolation("backend", `${kind} carries ${body.length} bytes; it has no contents`);
  }
  return { kind };
}

const emptyReplies: ReadonlyMap<number, EmptyReplyKind> = new Map([
  [backendTypes.bindComplete, "bind-complete"],
  [backendTypes.closeComplete, "close-complete"],
  [backendTypes.copyDone, "copy-done"],
  [backendTypes.emptyQueryResponse, "empty-query"],
  [backendTypes.noData, "no-data"],
  [backendTypes.parseComplete, "parse-complete"],
  [backendTypes.portalSuspended, "portal-suspended"],
] as const);

function columnCount(reader: BodyReader): number {
  const count = reader.int16();
  if (count < 0 || count > limits.columnsMax) {
    throw reader.violation(`there are ${count} columns`);
  }
  return count;
}
