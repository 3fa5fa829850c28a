/** Encoders of the messages that the gateway itself makes (PostgreSQL documentation, 54.7). */
import { FrameWriter } from "./codec.ts";
import { startupCodes } from "./frames.ts";
import type { TransactionStatus } from "./messages-backend.ts";
import { backendTypes, frontendTypes } from "./messages-types.ts";

/** What a client reads of an error or a notice. */
export interface Report {
  readonly severity: "ERROR" | "FATAL" | "PANIC" | "WARNING" | "NOTICE" | "INFO" | "LOG" | "DEBUG";
  readonly sqlState: string;
  readonly message: string;
  readonly detail?: string | null;
  readonly hint?: string | null;
  /** Where in the client's own text, in characters from 1. */
  readonly position?: string | null;
}

export function encodeErrorResponse(report: Report): Buffer {
  return encodeReport(backendTypes.errorResponse, report);
}

export function encodeNoticeResponse(report: Report): Buffer {
  return encodeReport(backendTypes.noticeResponse, report);
}

/** Text of a report may quote what a peer sent; a NUL in it would end the field and begin another. */
function encodeReport(type: number, report: Report): Buffer {
  const writer = new FrameWriter(type);
  const field = (code: string, value: string): void => {
    writer.uint8(code.charCodeAt(0)).cstring(value.replaceAll("\0", "\u{fffd}"));
  };
  field("S", report.severity);
  field("V", report.severity);
  field("C", report.sqlState);
  field("M", report.message);
  if (report.detail) {
    field("D", report.detail);
  }
  if (report.hint) {
    field("H", report.hint);
  }
  if (report.position) {
    field("P", report.position);
  }
  return writer.uint8(0).finish();
}

export function encodeReadyForQuery(status: TransactionStatus): Buffer {
  const code = { idle: 0x49, "in-transaction": 0x54, failed: 0x45 }[status];
  return new FrameWriter(backendTypes.readyForQuery).uint8(code).finish();
}

export function encodeAuthenticationOk(): Buffer {
  return new FrameWriter(backendTypes.authentication).int32(0).finish();
}

export function encodeAuthenticationSasl(mechanisms: readonly string[]): Buffer {
  const writer = new FrameWriter(backendTypes.authentication).int32(10);
  for (const mechanism of mechanisms) {
    writer.cstring(mechanism);
  }
  return writer.uint8(0).finish();
}

export function encodeAuthenticationSaslContinue(data: string): Buffer {
  return new FrameWriter(backendTypes.authentication).int32(11).bytes(Buffer.from(data, "utf8")).finish();
}

export function encodeAuthenticationSaslFinal(data: string): Buffer {
  return new FrameWriter(backendTypes.authentication).int32(12).bytes(Buffer.from(data, "utf8")).finish();
}

export function encodeParameterStatus(name: string, value: string): Buffer {
  return new FrameWriter(backendTypes.parameterStatus).cstring(name).cstring(value).finish();
}

/** Both numbers are signed 32-bit. */
export function encodeBackendKeyData(processId: number, secretKey: number): Buffer {
  return new FrameWriter(backendTypes.backendKeyData).int32(processId).int32(secretKey).finish();
}

/**
 * Says that 3.0 is the newest version spoken, and which protocol options are not known. The version field is the whole
 * version number, as PostgreSQL sends it, not the minor alone.
 */
export function encodeNegotiateProtocolVersion(unknownOptions: readonly string[]): Buffer {
  const writer = new FrameWriter(backendTypes.negotiateProtocolVersion)
    .int32(startupCodes.version3)
    .int32(unknownOptions.length);
  for (const option of unknownOptions) {
    writer.cstring(option);
  }
  return writer.finish();
}

export function encodeParseComplete(): Buffer {
  return new FrameWriter(backendTypes.parseComplete).finish();
}

export function encodeBindComplete(): Buffer {
  return new FrameWriter(backendTypes.bindComplete).finish();
}

export function encodeCloseComplete(): Buffer {
  return new FrameWriter(backendTypes.closeComplete).finish();
}

export function encodeNoData(): Buffer {
  return new FrameWriter(backendTypes.noData).finish();
}

export function encodeEmptyQueryResponse(): Buffer {
  return new FrameWriter(backendTypes.emptyQueryResponse).finish();
}

export function encodePortalSuspended(): Buffer {
  return new FrameWriter(backendTypes.portalSuspended).finish();
}

export function encodeCommandComplete(tag: string): Buffer {
  return new FrameWriter(backendTypes.commandComplete).cstring(tag).finish();
}

/** A statement as text, or as the bytes of one (no NUL): bytes are taken as they are. */
export type StatementText = string | Uint8Array;

export function encodeQuery(text: StatementText): Buffer {
  return new FrameWriter(frontendTypes.query).cstring(text).finish();
}

export interface ParseFields {
  readonly statement: string;
  readonly text: StatementText;
  readonly parameterTypes: readonly number[];
}

export function encodeParse(fields: ParseFields): Buffer {
  const writer = new FrameWriter(frontendTypes.parse)
    .cstring(fields.statement)
    .cstring(fields.text)
    .uint16(fields.parameterTypes.length);
  for (const type of fields.parameterTypes) {
    writer.uint32(type);
  }
  return writer.finish();
}

export interface BindFields {
  readonly portal: string;
  readonly statement: string;
  readonly parameterFormats: readonly number[];
  readonly values: readonly (Uint8Array | null)[];
  readonly resultFormats: readonly number[];
}

export function encodeBind(fields: BindFields): Buffer {
  const writer = new FrameWriter(frontendTypes.bind).cstring(fields.portal).cstring(fields.statement);
  writeFormats(writer, fields.parameterFormats);
  writer.uint16(fields.values.length);
  for (const value of fields.values) {
    writer.value(value);
  }
  writeFormats(writer, fields.resultFormats);
  return writer.finish();
}

export function encodeDescribe(target: "statement" | "portal", name: string): Buffer {
  return new FrameWriter(frontendTypes.describe).uint8(targetCode(target)).cstring(name).finish();
}

export function encodeClose(target: "statement" | "portal", name: string): Buffer {
  return new FrameWriter(frontendTypes.close).uint8(targetCode(target)).cstring(name).finish();
}

/** `rowsMax` 0 means no limit. */
export function encodeExecute(portal: string, rowsMax: number): Buffer {
  return new FrameWriter(frontendTypes.execute).cstring(portal).int32(rowsMax).finish();
}

export function encodeSync(): Buffer {
  return new FrameWriter(frontendTypes.sync).finish();
}

export function encodeFlush(): Buffer {
  return new FrameWriter(frontendTypes.flush).finish();
}

export function encodeTerminate(): Buffer {
  return new FrameWriter(frontendTypes.terminate).finish();
}

export function encodeCopyFail(reason: string): Buffer {
  return new FrameWriter(frontendTypes.copyFail).cstring(reason).finish();
}

/** Protocol 3.0. `user` is one of the parameters. */
export function encodeStartup(parameters: ReadonlyMap<string, string>): Buffer {
  const writer = new FrameWriter(null).int32(startupCodes.version3);
  for (const [name, value] of parameters) {
    writer.cstring(name).cstring(value);
  }
  return writer.uint8(0).finish();
}

export function encodeSslRequest(): Buffer {
  return new FrameWriter(null).int32(startupCodes.sslRequest).finish();
}

export function encodeCancelRequest(processId: number, secretKey: number): Buffer {
  return new FrameWriter(null).int32(startupCodes.cancelRequest).int32(processId).int32(secretKey).finish();
}

export function encodeSaslInitialResponse(mechanism: string, data: string): Buffer {
  return new FrameWriter(frontendTypes.password).cstring(mechanism).value(Buffer.from(data, "utf8")).finish();
}

export function encodeSaslResponse(data: string): Buffer {
  return new FrameWriter(frontendTypes.password).bytes(Buffer.from(data, "utf8")).finish();
}

function writeFormats(writer: FrameWriter, formats: readonly number[]): void {
  writer.uint16(formats.length);
  for (const format of formats) {
    writer.int16(format);
  }
}

function targetCode(target: "statement" | "portal"): number {
  return target === "statement" ? 0x53 : 0x50;
}
