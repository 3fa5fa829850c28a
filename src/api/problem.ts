/** Errors on the wire: RFC 9457 problem details. What is not an error of ours leaves as `internal` and a request id. */
import { z } from "zod";
import { InvariantError, SallyportError, type Whose } from "#domain/errors.ts";

/** Media type of RFC 9457 section 3. */
export const problemMediaType = "application/problem+json";

/** A problem details object. `code` is what programs look at. */
export const problemSchema = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string(),
  whose: z.enum(["client", "principal", "upstream", "gateway"]),
  nextStep: z.string().nullable(),
  requestId: z.string(),
  decisionId: z.string().nullable(),
});

export type Problem = z.output<typeof problemSchema>;

/** A failure that the gateway answered, as its client throws it. */
export class RemoteError extends SallyportError {
  /** Names the request in the gateway's own log. */
  readonly requestId: string;
  /** The recorded decision behind it; null when there is none. */
  readonly decisionId: string | null;

  constructor(problem: Problem) {
    super(problem.code, problem.whose, problem.detail, problem.nextStep === null ? {} : { nextStep: problem.nextStep });
    this.name = "RemoteError";
    this.requestId = problem.requestId;
    this.decisionId = problem.decisionId;
  }
}

/** Codes whose HTTP status says more than whose fault it was. */
const statusOfCode: Readonly<Record<string, number>> = {
  "request.token": 401,
  "request.origin": 403,
  "request.host": 421,
  "request.route": 404,
  "request.method": 405,
  "request.too-large": 413,
  "request.media-type": 415,
  "limit.exceeded": 429,
  "ledger.unavailable": 503,
  "gateway.draining": 503,
};

function statusOf(error: SallyportError): number {
  const known = statusOfCode[error.code];
  if (known !== undefined) {
    return known;
  }
  const last = error.code.split(".").at(-1) ?? "";
  if (last === "unknown" || last === "not-found" || last.startsWith("unknown-")) {
    return 404;
  }
  if (last === "conflict" || last === "exists" || last === "ended" || last === "ambiguous") {
    return 409;
  }
  return statusOfWhose(error.whose);
}

function statusOfWhose(whose: Whose): number {
  switch (whose) {
    case "client":
      return 400;
    case "principal":
      return 403;
    case "upstream":
      return 502;
    case "gateway":
      return 503;
    default:
      return whose satisfies never;
  }
}

const titles: Readonly<Record<Whose, string>> = {
  client: "The request cannot be carried out",
  principal: "Denied",
  upstream: "The resource failed",
  gateway: "The gateway failed",
};

/** Makes the problem of any failure. `internal` is true when its message was withheld: it then belongs in the log. */
export function problemOf(
  error: unknown,
  requestId: string,
): { readonly problem: Problem; readonly internal: boolean } {
  if (!(error instanceof SallyportError) || error instanceof InvariantError) {
    const problem: Problem = {
      type: "urn:sallyport:error:internal",
      title: titles.gateway,
      status: 500,
      detail: "Something that should not happen did. The gateway's log has it under this request id.",
      code: "internal",
      whose: "gateway",
      nextStep: `look for ${requestId} in the gateway's log`,
      requestId,
      decisionId: null,
    };
    return { problem, internal: true };
  }
  const decisionId = "decisionId" in error && typeof error.decisionId === "string" ? error.decisionId : null;
  const problem: Problem = {
    type: `urn:sallyport:error:${error.code}`,
    title: titles[error.whose],
    status: statusOf(error),
    detail: error.message,
    code: error.code,
    whose: error.whose,
    nextStep: error.nextStep,
    requestId,
    decisionId,
  };
  return { problem, internal: false };
}
