/**
 * What a line of JSON-RPC 2.0 is, found without making values of it: the line itself is what is forwarded. A line is refused
 * when it is neither request, notification nor response, or when two readers could take it for two different things (a key twice or in another
 * case, a key that no one looks at, an id that loses digits as a floating-point number).
 *
 * Sources: JSON-RPC 2.0; MCP 2025-03-26 (batches) and 2025-11-25, "Base protocol" and "Transports".
 */
import {
  type JsonFault,
  type JsonMember,
  type JsonSpan,
  elementsOf,
  findFault,
  membersOf,
  rootOf,
  stringOf,
  textOf,
} from "./json.ts";

/** The id of a request. Two ids are the same request when their keys are equal. */
export interface RpcId {
  readonly key: string;
  /** As it was sent. */
  readonly literal: string;
}

export interface RpcRequest {
  readonly kind: "request";
  readonly id: RpcId;
  readonly method: string;
  /** The tool's name for `tools/call`; null otherwise. */
  readonly tool: string | null;
  /** `params` as it was sent; empty when there was none. */
  readonly parameters: string;
}

export interface RpcNotification {
  readonly kind: "notification";
  readonly method: string;
  /** The request that a `notifications/cancelled` names. */
  readonly cancels: RpcId | null;
}

export interface RpcResponse {
  readonly kind: "response";
  /** Null: an error about a message whose id its reader could not tell. */
  readonly id: RpcId | null;
  readonly status: "ok" | "error" | "tool-error";
  readonly lengthBytes: number;
}

export type RpcMessage = RpcRequest | RpcNotification | RpcResponse;

/** JSON-RPC's own error codes. */
export type RpcErrorCode = -32700 | -32600 | -32602;

export interface RpcRefusal {
  readonly kind: "refused";
  readonly rpcCode: RpcErrorCode;
  /** Stable. */
  readonly code: "mcp.syntax" | "mcp.ambiguous" | "mcp.invalid" | "mcp.too-deep" | "mcp.encoding";
  readonly reason: string;
  /** Ids of the requests in it, as far as they can be told. */
  readonly ids: readonly RpcId[];
}

export type RpcLine =
  | { readonly kind: "blank" }
  | { readonly kind: "single"; readonly message: RpcMessage }
  | { readonly kind: "batch"; readonly messages: readonly RpcMessage[] }
  | RpcRefusal;

export interface RpcLimits {
  readonly rpcDepthMax: number;
  readonly rpcNameCharactersMax: number;
  readonly rpcIdCharactersMax: number;
  readonly rpcBatchMessagesMax: number;
}

/** What makes a message without an id a notification (MCP, "Notifications"): any other one asks for something. */
const notificationPrefix = "notifications/";

/** The notifications that MCP has clients send: none of them asks its server for data. */
export const clientNotifications: ReadonlySet<string> = new Set([
  "notifications/cancelled",
  "notifications/initialized",
  "notifications/progress",
  "notifications/roots/list_changed",
  "notifications/tasks/status",
]);

const words = ["jsonrpc", "id", "method", "params", "result", "error"] as const;

/** Classifies one line, with or without its newline. */
export function readLine(line: Uint8Array, limits: RpcLimits): RpcLine {
  if (isBlank(line)) {
    return { kind: "blank" };
  }
  const bytes = line.at(-1) === 0x0a ? line.subarray(0, -1) : line;
  const fault = findFault(bytes, limits.rpcDepthMax);
  if (fault !== null) {
    return refuseFault(fault, fault.fault === "encoding" ? [] : guessIds(bytes, limits));
  }
  const root = rootOf(bytes);
  if (root.kind === "object") {
    const message = readMessage(bytes, root, limits);
    return message.kind === "refused" ? message : { kind: "single", message };
  }
  if (root.kind !== "array") {
    return invalid("a message is a JSON object");
  }
  return readBatch(bytes, root, limits);
}

function readBatch(bytes: Uint8Array, root: JsonSpan, limits: RpcLimits): RpcLine {
  const elements = elementsOf(bytes, root);
  if (elements.length === 0) {
    return invalid("a batch holds at least one message");
  }
  if (elements.length > limits.rpcBatchMessagesMax) {
    return invalid(`a batch holds at most ${limits.rpcBatchMessagesMax} messages, and this one has ${elements.length}`);
  }
  const messages: RpcMessage[] = [];
  const ids: RpcId[] = [];
  let refusal: RpcRefusal | null = null;
  for (const element of elements) {
    const message =
      element.kind === "object" ? readMessage(bytes, element, limits) : invalid("a message is a JSON object");
    if (message.kind === "refused") {
      refusal ??= message;
      ids.push(...message.ids);
    } else {
      messages.push(message);
      if (message.kind === "request") {
        ids.push(message.id);
      }
    }
  }
  if (refusal !== null) {
    return { ...refusal, ids };
  }
  if (new Set(ids.map((id) => id.key)).size !== ids.length) {
    return { ...invalid("two requests of one batch have the same id", ids), code: "mcp.ambiguous" };
  }
  return { kind: "batch", messages };
}

function readMessage(bytes: Uint8Array, object: JsonSpan, limits: RpcLimits): RpcMessage | RpcRefusal {
  const members = new Map<string, JsonMember>();
  for (const member of membersOf(bytes, object)) {
    members.set(member.key, member);
  }
  const idMember = members.get("id");
  const id = idMember === undefined ? null : readId(bytes, idMember, limits);
  const ids = id === null ? [] : [id];
  for (const key of members.keys()) {
    const word = words.find((known) => known === fold(key));
    if (word !== key) {
      return word === undefined
        ? invalid("the message has a member that JSON-RPC does not know", ids)
        : ambiguous(`the message spells "${word}" in another way, which some readers take for the same`, ids);
    }
  }
  const version = members.get("jsonrpc");
  if (version?.kind !== "string" || stringOf(bytes, version) !== "2.0") {
    return invalid('"jsonrpc" has to be "2.0"', ids);
  }
  if (idMember !== undefined && idMember.kind !== "null" && id === null) {
    return invalid(
      `"id" has to be a whole number of at most 15 digits or a string of at most ${limits.rpcIdCharactersMax} characters`,
    );
  }
  const method = members.get("method");
  return method === undefined
    ? readResponse(bytes, object, members, id, ids)
    : readCall(bytes, members, method, id, limits);
}

function readCall(
  bytes: Uint8Array,
  members: ReadonlyMap<string, JsonMember>,
  methodMember: JsonMember,
  id: RpcId | null,
  limits: RpcLimits,
): RpcRequest | RpcNotification | RpcRefusal {
  const ids = id === null ? [] : [id];
  if (members.has("result") || members.has("error")) {
    return ambiguous("the message is both a request and a response", ids);
  }
  const method = readName(bytes, methodMember, limits);
  // ASCII without spaces: what a reader trims or folds would be another method to it.
  if (method === null || !/^[!-~]+$/.test(method)) {
    const charactersMax = limits.rpcNameCharactersMax;
    return invalid(`"method" has to be a string of 1 to ${charactersMax} visible ASCII characters`, ids);
  }
  const parameters = members.get("params") ?? null;
  if (parameters !== null && parameters.kind !== "object" && parameters.kind !== "array") {
    return invalid('"params" has to be an object', ids);
  }
  if (members.has("id")) {
    return id === null
      ? invalid('"id" of a request may not be null')
      : readRequest(bytes, { id, method, parameters }, limits);
  }
  // A server that dispatches on the method alone would do the work of a call that no record stands for.
  if (!method.startsWith(notificationPrefix) || method === notificationPrefix) {
    return invalid(
      `a message without "id" has to be a notification, and its method to begin with "${notificationPrefix}"`,
    );
  }
  return {
    kind: "notification",
    method,
    cancels: method === "notifications/cancelled" ? readCancelled(bytes, parameters, limits) : null,
  };
}

function readRequest(
  bytes: Uint8Array,
  request: { readonly id: RpcId; readonly method: string; readonly parameters: JsonSpan | null },
  limits: RpcLimits,
): RpcRequest | RpcRefusal {
  const { id, method, parameters } = request;
  const text = parameters === null ? "" : textOf(bytes, parameters);
  if (method !== "tools/call") {
    // The one method that is recorded with a tool's name must not be reached under another spelling.
    return fold(method) === "tools/call"
      ? ambiguous('the method spells "tools/call" in another way', [id])
      : { kind: "request", id, method, tool: null, parameters: text };
  }
  const members = parameters?.kind === "object" ? membersOf(bytes, parameters) : [];
  for (const { key } of members) {
    const word = fold(key);
    if (word !== key && (word === "name" || word === "arguments")) {
      return ambiguous(`the parameters spell "${word}" in another way, which some readers take for the same`, [id]);
    }
  }
  const name = members.find((member) => member.key === "name");
  const tool = name === undefined ? null : readName(bytes, name, limits);
  if (tool === null) {
    const reason = `"params.name" has to be a string of 1 to ${limits.rpcNameCharactersMax} printable characters`;
    return { ...invalid(reason, [id]), rpcCode: -32602 };
  }
  return { kind: "request", id, method, tool, parameters: text };
}

function readCancelled(bytes: Uint8Array, parameters: JsonSpan | null, limits: RpcLimits): RpcId | null {
  const members = parameters?.kind === "object" ? membersOf(bytes, parameters) : [];
  const requestId = members.find((member) => member.key === "requestId");
  return requestId === undefined ? null : readId(bytes, requestId, limits);
}

function readResponse(
  bytes: Uint8Array,
  object: JsonSpan,
  members: ReadonlyMap<string, JsonMember>,
  id: RpcId | null,
  ids: readonly RpcId[],
): RpcResponse | RpcRefusal {
  const result = members.get("result");
  const error = members.get("error");
  if ((result === undefined) === (error === undefined) || !members.has("id") || members.has("params")) {
    return invalid("the message is neither a request, a notification nor a response", ids);
  }
  const lengthBytes = object.end - object.start;
  if (error !== undefined) {
    return error.kind === "object"
      ? { kind: "response", id, status: "error", lengthBytes }
      : invalid('"error" has to be an object', ids);
  }
  if (id === null) {
    return invalid('"id" of a result may not be null', ids);
  }
  const isError =
    result?.kind === "object" &&
    membersOf(bytes, result).some((member) => member.key === "isError" && textOf(bytes, member) === "true");
  return { kind: "response", id, status: isError ? "tool-error" : "ok", lengthBytes };
}

/** Numbers only as whole numbers that every reader holds exactly: 15 digits, no sign of zero, no fraction, no exponent. */
const wholeNumber = /^(0|-?[1-9][0-9]{0,14})$/;

function readId(bytes: Uint8Array, span: JsonSpan, limits: RpcLimits): RpcId | null {
  if (span.end - span.start > limits.rpcIdCharactersMax * 6 + 2) {
    return null;
  }
  const literal = textOf(bytes, span);
  if (span.kind === "number") {
    return wholeNumber.test(literal) ? { key: literal, literal } : null;
  }
  if (span.kind !== "string") {
    return null;
  }
  const value = stringOf(bytes, span);
  return value.length <= limits.rpcIdCharactersMax && value.isWellFormed()
    ? { key: JSON.stringify(value), literal }
    : null;
}

/** Names stand in the record in clear: they are short and printable. */
function readName(bytes: Uint8Array, span: JsonSpan, limits: RpcLimits): string | null {
  if (span.kind !== "string" || span.end - span.start > limits.rpcNameCharactersMax * 6 + 2) {
    return null;
  }
  const name = stringOf(bytes, span);
  return name.length <= limits.rpcNameCharactersMax && /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$/u.test(name) ? name : null;
}

/** What readers that ignore case take a key for: Go's also fold `ſ` and the Kelvin sign. */
function fold(key: string): string {
  return key.normalize("NFKC").toLowerCase();
}

function isBlank(line: Uint8Array): boolean {
  return line.length <= 2 && line.every((byte) => byte === 0x0a || byte === 0x0d);
}

const faults = {
  encoding: { rpcCode: -32700, code: "mcp.encoding", reason: "the line is not UTF-8" },
  syntax: { rpcCode: -32700, code: "mcp.syntax", reason: "the line is not JSON" },
  "duplicate-key": { rpcCode: -32600, code: "mcp.ambiguous", reason: "a key occurs twice in one object" },
  "ambiguous-key": { rpcCode: -32600, code: "mcp.ambiguous", reason: "a key has half of a surrogate pair" },
  "carriage-return": { rpcCode: -32600, code: "mcp.ambiguous", reason: "a carriage return stands inside the line" },
  depth: { rpcCode: -32600, code: "mcp.too-deep", reason: "the line is nested too deeply" },
} as const satisfies Record<
  JsonFault["fault"],
  { readonly rpcCode: RpcErrorCode; readonly code: RpcRefusal["code"]; readonly reason: string }
>;

function refuseFault(fault: JsonFault, ids: readonly RpcId[]): RpcRefusal {
  const { rpcCode, code, reason } = faults[fault.fault];
  return {
    kind: "refused",
    rpcCode,
    code,
    reason: fault.fault === "encoding" ? reason : `${reason} (byte ${fault.at})`,
    ids,
  };
}

function invalid(reason: string, ids: readonly RpcId[] = []): RpcRefusal {
  return { kind: "refused", rpcCode: -32600, code: "mcp.invalid", reason, ids };
}

function ambiguous(reason: string, ids: readonly RpcId[]): RpcRefusal {
  return { kind: "refused", rpcCode: -32600, code: "mcp.ambiguous", reason, ids };
}

const idFirst =
  /^[ \t]*\{[ \t]*(?:"jsonrpc"[ \t]*:[ \t]*"2\.0"[ \t]*,[ \t]*)?"id"[ \t]*:[ \t]*([0-9]{1,15}|"[^"\\\p{Cc}]*")[ \t]*,/u;
const idLast = /,[ \t]*"id"[ \t]*:[ \t]*([0-9]{1,15}|"[^"\\\p{Cc}]*")[ \t]*\}[ \t\r\n]*$/u;

/**
 * The id of a line that cannot be read, from where real clients put it: so that its sender gets its refusal instead of waiting.
 * Only ever used to answer; a guess decides nothing.
 */
export function guessIds(line: Uint8Array, limits: RpcLimits): readonly RpcId[] {
  const edge = (bytes: Uint8Array): string =>
    Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
  const literal = idFirst.exec(edge(line.subarray(0, 1024)))?.[1] ?? idLast.exec(edge(line.subarray(-1024)))?.[1];
  if (literal === undefined || literal.length > limits.rpcIdCharactersMax) {
    return [];
  }
  const number = wholeNumber.test(literal);
  return number || literal.startsWith('"')
    ? [{ key: number ? literal : JSON.stringify(literal.slice(1, -1)), literal }]
    : [];
}

/** A JSON-RPC error response, as a line. */
export function errorLine(
  id: RpcId | null,
  error: { readonly rpcCode: number; readonly message: string; readonly data: Readonly<Record<string, unknown>> },
): Uint8Array {
  const body = JSON.stringify({ code: error.rpcCode, message: error.message, data: error.data });
  return Buffer.from(`{"jsonrpc":"2.0","id":${id === null ? "null" : id.literal},"error":${body}}\n`, "utf8");
}
