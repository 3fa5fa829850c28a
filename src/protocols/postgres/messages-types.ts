/** The type bytes of protocol 3.0 and the caps on each kind of frame. */
import { limits } from "#domain/limits.ts";
import type { Direction } from "./codec.ts";

/** ASCII codes of the messages that a client sends. */
export const frontendTypes = {
  bind: 0x42, // B
  close: 0x43, // C
  copyData: 0x64, // d
  copyDone: 0x63, // c
  copyFail: 0x66, // f
  describe: 0x44, // D
  execute: 0x45, // E
  flush: 0x48, // H
  functionCall: 0x46, // F
  parse: 0x50, // P
  password: 0x70, // p: PasswordMessage, SASLInitialResponse, SASLResponse, GSSResponse
  query: 0x51, // Q
  sync: 0x53, // S
  terminate: 0x58, // X
} as const;

/** ASCII codes of the messages that PostgreSQL sends. */
export const backendTypes = {
  authentication: 0x52, // R
  backendKeyData: 0x4b, // K
  bindComplete: 0x32, // 2
  closeComplete: 0x33, // 3
  commandComplete: 0x43, // C
  copyBothResponse: 0x57, // W
  copyData: 0x64, // d
  copyDone: 0x63, // c
  copyInResponse: 0x47, // G
  copyOutResponse: 0x48, // H
  dataRow: 0x44, // D
  emptyQueryResponse: 0x49, // I
  errorResponse: 0x45, // E
  functionCallResponse: 0x56, // V
  negotiateProtocolVersion: 0x76, // v
  noData: 0x6e, // n
  noticeResponse: 0x4e, // N
  notificationResponse: 0x41, // A
  parameterDescription: 0x74, // t
  parameterStatus: 0x53, // S
  parseComplete: 0x31, // 1
  portalSuspended: 0x73, // s
  readyForQuery: 0x5a, // Z
  rowDescription: 0x54, // T
} as const;

const knownTypes: { readonly [D in Direction]: ReadonlySet<number> } = {
  frontend: new Set(Object.values(frontendTypes)),
  backend: new Set(Object.values(backendTypes)),
};

/** Whether protocol 3.0 has a message of this type in this direction. */
export function isKnownType(direction: Direction, type: number): boolean {
  return knownTypes[direction].has(type);
}

/** Type byte and length. */
export const headerBytes = 5;

/** Names and type OIDs around a statement: the most that Parse can carry besides its text. */
const parseExtraBytes = 4 * limits.bindParametersMax + limits.smallMessageBytesMax;

/** The cap on a whole frame, header included, that an authenticated client sends. */
export function frontendFrameBytesMax(type: number): number {
  switch (type) {
    case frontendTypes.query:
      return headerBytes + limits.statementBytesMax + 1;
    case frontendTypes.parse:
      return headerBytes + limits.statementBytesMax + 1 + parseExtraBytes;
    case frontendTypes.bind:
    case frontendTypes.functionCall:
    case frontendTypes.copyData:
      return limits.frontendMessageBytesMax;
    default:
      return limits.smallMessageBytesMax;
  }
}

/** The cap on a whole frame that a client sends while it authenticates. */
export function authenticationFrameBytesMax(): number {
  return limits.authenticationMessageBytesMax;
}

/** The cap on a whole frame, header included, that the resource sends. */
export function backendFrameBytesMax(type: number): number {
  switch (type) {
    case backendTypes.dataRow:
    case backendTypes.rowDescription:
    case backendTypes.copyData:
    case backendTypes.functionCallResponse:
    case backendTypes.errorResponse:
    case backendTypes.noticeResponse:
    case backendTypes.notificationResponse:
      return limits.backendMessageBytesMax;
    case backendTypes.parameterDescription:
      return headerBytes + 2 + 4 * limits.bindParametersMax;
    default:
      return limits.smallReplyBytesMax;
  }
}
