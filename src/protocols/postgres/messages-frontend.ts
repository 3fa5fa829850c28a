/**
 * What a client says: strict decoders of the frontend messages (PostgreSQL documentation, 54.7). Each consumes its body
 * exactly; each throws SallyportError `protocol.violation`, or `statement.encoding` for text that is not UTF-8.
 */
import { SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import { BodyReader, protocolViolation } from "./codec.ts";
import type { Frame } from "./frames.ts";
import { frontendTypes } from "./messages-types.ts";

export interface QueryMessage {
  readonly kind: "query";
  readonly text: string;
  /** The text's UTF-8 bytes, without the NUL: splices are at byte positions. A view. */
  readonly textBytes: Buffer;
}

export interface ParseMessage {
  readonly kind: "parse";
  /** Empty for the unnamed statement. */
  readonly statement: string;
  readonly text: string;
  readonly textBytes: Buffer;
  /** Type OIDs that the client fixes; 0 leaves one to the server. */
  readonly parameterTypes: readonly number[];
}

export interface BindMessage {
  readonly kind: "bind";
  readonly portal: string;
  readonly statement: string;
  /** None (all text), one for all, or one a value. */
  readonly parameterFormats: readonly number[];
  /** Views of the message; null is SQL NULL. */
  readonly values: readonly (Buffer | null)[];
  /** None (all text), one for all, or one a column. */
  readonly resultFormats: readonly number[];
}

export interface DescribeMessage {
  readonly kind: "describe";
  readonly target: "statement" | "portal";
  readonly name: string;
}

export interface CloseMessage {
  readonly kind: "close";
  readonly target: "statement" | "portal";
  readonly name: string;
}

export interface ExecuteMessage {
  readonly kind: "execute";
  readonly portal: string;
  /** 0 means no limit. */
  readonly rowsMax: number;
}

export interface FunctionCallMessage {
  readonly kind: "function-call";
  readonly functionOid: number;
  readonly argumentFormats: readonly number[];
  readonly values: readonly (Buffer | null)[];
  readonly resultFormat: number;
}

export interface CopyDataMessage {
  readonly kind: "copy-data";
  readonly data: Buffer;
}

export interface CopyFailMessage {
  readonly kind: "copy-fail";
  readonly reason: string;
}

/** A message of type `p`; what its body is depends on what was asked (`decodeSaslInitialResponse`). */
export interface PasswordMessage {
  readonly kind: "password";
  readonly body: Buffer;
}

export type FrontendMessage =
  | QueryMessage
  | ParseMessage
  | BindMessage
  | DescribeMessage
  | CloseMessage
  | ExecuteMessage
  | FunctionCallMessage
  | CopyDataMessage
  | CopyFailMessage
  | PasswordMessage
  | { readonly kind: "copy-done" | "flush" | "sync" | "terminate" };

/** Decodes any frontend frame. */
export function decodeFrontend(frame: Frame): FrontendMessage {
  switch (frame.type) {
    case frontendTypes.query:
      return decodeQuery(frame.body);
    case frontendTypes.parse:
      return decodeParse(frame.body);
    case frontendTypes.bind:
      return decodeBind(frame.body);
    case frontendTypes.describe:
      return { kind: "describe", ...decodeTarget(frame.body, "Describe") };
    case frontendTypes.close:
      return { kind: "close", ...decodeTarget(frame.body, "Close") };
    case frontendTypes.execute:
      return decodeExecute(frame.body);
    case frontendTypes.functionCall:
      return decodeFunctionCall(frame.body);
    case frontendTypes.copyData:
      return { kind: "copy-data", data: frame.body };
    case frontendTypes.copyFail:
      return decodeCopyFail(frame.body);
    case frontendTypes.password:
      return { kind: "password", body: frame.body };
    case frontendTypes.copyDone:
      return decodeEmpty(frame.body, "copy-done");
    case frontendTypes.flush:
      return decodeEmpty(frame.body, "flush");
    case frontendTypes.sync:
      return decodeEmpty(frame.body, "sync");
    case frontendTypes.terminate:
      return decodeEmpty(frame.body, "terminate");
    default:
      throw protocolViolation("frontend", `no message has the type byte 0x${frame.type.toString(16)}`);
  }
}

/** @throws SallyportError also `statement.too-large`. */
export function decodeQuery(body: Buffer): QueryMessage {
  const reader = new BodyReader(body, "frontend", "Query");
  const textBytes = reader.cstringBytes();
  reader.end();
  return { kind: "query", text: statementText(reader, textBytes), textBytes };
}

/** @throws SallyportError also `statement.too-large`. */
export function decodeParse(body: Buffer): ParseMessage {
  const reader = new BodyReader(body, "frontend", "Parse");
  const statement = reader.cstring();
  const textBytes = reader.cstringBytes();
  const count = reader.uint16();
  const parameterTypes: number[] = [];
  for (let i = 0; i < count; i++) {
    parameterTypes.push(reader.uint32());
  }
  reader.end();
  return { kind: "parse", statement, text: statementText(reader, textBytes), textBytes, parameterTypes };
}

export function decodeBind(body: Buffer): BindMessage {
  const reader = new BodyReader(body, "frontend", "Bind");
  const portal = reader.cstring();
  const statement = reader.cstring();
  const parameterFormats = reader.formats(reader.uint16());
  const values = readValues(reader, parameterFormats.length);
  const resultFormats = readResultFormats(reader);
  reader.end();
  return { kind: "bind", portal, statement, parameterFormats, values, resultFormats };
}

export function decodeExecute(body: Buffer): ExecuteMessage {
  const reader = new BodyReader(body, "frontend", "Execute");
  const portal = reader.cstring();
  const rowsMax = reader.int32();
  reader.end();
  if (rowsMax < 0) {
    throw reader.violation(`the row limit is ${rowsMax}`);
  }
  return { kind: "execute", portal, rowsMax };
}

export function decodeFunctionCall(body: Buffer): FunctionCallMessage {
  const reader = new BodyReader(body, "frontend", "FunctionCall");
  const functionOid = reader.uint32();
  const argumentFormats = reader.formats(reader.uint16());
  const values = readValues(reader, argumentFormats.length);
  const [resultFormat = 0] = reader.formats(1);
  reader.end();
  return { kind: "function-call", functionOid, argumentFormats, values, resultFormat };
}

export interface SaslInitialResponse {
  readonly mechanism: string;
  /** A view. */
  readonly data: Buffer;
}

/** The first `p` after AuthenticationSASL. A response with no data, which SCRAM never is, is a violation. */
export function decodeSaslInitialResponse(body: Buffer): SaslInitialResponse {
  const reader = new BodyReader(body, "frontend", "SASLInitialResponse");
  const mechanism = reader.cstring();
  const data = reader.value();
  reader.end();
  if (data === null) {
    throw reader.violation("there is no initial response");
  }
  return { mechanism, data };
}

/** A cleartext PasswordMessage. */
export function decodePassword(body: Buffer): string {
  const reader = new BodyReader(body, "frontend", "PasswordMessage");
  const password = reader.cstring();
  reader.end();
  return password;
}

/**
 * The name-value pairs of a StartupMessage, in order (54.7: pairs of strings, then one NUL). Names that differ in case
 * only count as the same: PostgreSQL compares settings so, and two readings of one packet are not to exist.
 * @throws SallyportError `protocol.violation` also when a name comes twice.
 */
export function decodeStartupParameters(body: Buffer): ReadonlyMap<string, string> {
  const reader = new BodyReader(body, "frontend", "StartupMessage");
  const parameters = new Map<string, string>();
  const seen = new Set<string>();
  for (;;) {
    const name = reader.cstring();
    if (name === "") {
      break;
    }
    if (seen.has(name.toLowerCase())) {
      throw reader.violation("a parameter comes twice");
    }
    seen.add(name.toLowerCase());
    parameters.set(name, reader.cstring());
  }
  reader.end();
  return parameters;
}

function statementText(reader: BodyReader, textBytes: Buffer): string {
  if (textBytes.length > limits.statementBytesMax) {
    throw new SallyportError(
      "statement.too-large",
      "client",
      `a statement of ${textBytes.length} bytes is over the limit of ${limits.statementBytesMax}`,
      { nextStep: "Send a shorter statement; pass long values as parameters." },
    );
  }
  return reader.decode(textBytes);
}

function readValues(reader: BodyReader, formatsCount: number): readonly (Buffer | null)[] {
  const count = reader.uint16();
  if (formatsCount > 1 && formatsCount !== count) {
    throw reader.violation(`there are ${formatsCount} formats for ${count} values`);
  }
  const values: (Buffer | null)[] = [];
  for (let i = 0; i < count; i++) {
    values.push(reader.value());
  }
  return values;
}

function readResultFormats(reader: BodyReader): readonly number[] {
  const count = reader.uint16();
  if (count > limits.columnsMax) {
    throw reader.violation(`there are formats for ${count} columns`);
  }
  return reader.formats(count);
}

function decodeTarget(body: Buffer, message: string): { target: "statement" | "portal"; name: string } {
  const reader = new BodyReader(body, "frontend", message);
  const code = reader.uint8();
  const name = reader.cstring();
  reader.end();
  switch (code) {
    case 0x53: // S
      return { target: "statement", name };
    case 0x50: // P
      return { target: "portal", name };
    default:
      throw reader.violation("it names neither a statement nor a portal");
  }
}

function decodeCopyFail(body: Buffer): CopyFailMessage {
  const reader = new BodyReader(body, "frontend", "CopyFail");
  const reason = reader.cstring();
  reader.end();
  return { kind: "copy-fail", reason };
}

function decodeEmpty<Kind extends string>(body: Buffer, kind: Kind): { readonly kind: Kind } {
  if (body.length !== 0) {
    throw protocolViolation("frontend", `${kind} carries ${body.length} bytes; it has no contents`);
  }
  return { kind };
}
