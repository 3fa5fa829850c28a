/** Why something of a run does not pass, in the words that the client and the model read. */
import { SallyportError } from "#domain/errors.ts";
import type { CallId } from "#domain/ids.ts";
import { limits } from "#domain/limits.ts";
import { type RpcId, errorLine } from "#protocols/mcp/message.ts";

export interface Obstacle {
  /** Stable, such as `mcp.ambiguous` or `gateway.unavailable`. */
  readonly code: string;
  readonly reason: string;
  readonly nextStep: string;
}

/** JSON-RPC error codes of our own, in the range that the specification leaves to implementations. */
export const rpcCodes = { refused: -32001, unavailable: -32002, ended: -32003 } as const;

/** The method under which a refused line stands in the record. */
export const refusedMethod = "sallyport/refused";

/** The error response that tells an obstacle; `callId` names its record. */
export function obstacleLine(id: RpcId | null, rpcCode: number, obstacle: Obstacle, callId: CallId | null): Uint8Array {
  const { code, reason, nextStep } = obstacle;
  const reference = callId === null ? {} : { call: callId };
  const message = `Sallyport: ${reason}.${nextStep === "" ? "" : ` Next: ${nextStep}.`}`;
  return errorLine(id, { rpcCode, message, data: { code, reason, nextStep, ...reference } });
}

/** What a failure of the gateway tells the client. Only our own errors are quoted. */
export function describeFailure(error: unknown): Obstacle {
  return error instanceof SallyportError
    ? { code: error.code, reason: error.message, nextStep: error.nextStep ?? "" }
    : {
        code: "gateway.unavailable",
        reason: "the gateway did not confirm that the call is recorded",
        nextStep: "start it with `sallyport up`, or see `sallyport doctor`",
      };
}

export const duplicateId: Obstacle = {
  code: "mcp.duplicate-id",
  reason: "a request with this id has not been answered yet",
  nextStep: "give each request an id of its own",
};

export const tooManyCalls: Obstacle = {
  code: "limit.exceeded",
  reason: `more than ${limits.callsInFlightMax} requests would be in flight`,
  nextStep: "wait for answers before sending more",
};

export const tooManyBytes: Obstacle = {
  code: "limit.exceeded",
  reason: "too many bytes wait for earlier requests",
  nextStep: "wait for answers before sending more",
};

export const parametersTooLong: Obstacle = {
  code: "limit.exceeded",
  reason: `the parameters of one request may have at most ${limits.callParametersBytesMax} bytes`,
  nextStep: "send less in one request",
};

export const unknownNotification: Obstacle = {
  code: "mcp.invalid",
  reason: "MCP has no such notification for a client to send, and nothing would record what the server makes of it",
  nextStep: "send it as a request, with an id",
};

/** A line of the client that was dropped for its length. */
export function lineTooLong(lengthBytes: number): Obstacle {
  return {
    code: "limit.exceeded",
    reason: `the line has ${lengthBytes} bytes, and at most ${limits.rpcLineBytesMax} may pass`,
    nextStep: "send less in one message",
  };
}

/** A line of the server that was dropped for its length. */
export function answerTooLong(lengthBytes: number): Obstacle {
  return {
    code: "limit.exceeded",
    reason: `the server's answer has ${lengthBytes} bytes, and at most ${limits.rpcLineBytesMax} may pass`,
    nextStep: "ask for less, such as with LIMIT",
  };
}

export const serverGone: Obstacle = {
  code: "mcp.server-ended",
  reason: "the server no longer reads",
  nextStep: "start it again",
};

export const unaskedAnswer: Obstacle = {
  code: "mcp.invalid",
  reason: "the server answered it together with something that nobody asked",
  nextStep: "report it to the server's makers",
};
