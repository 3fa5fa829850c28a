/**
 * Diagnostics for operators, never the record. A line holds a message that is written in the source and fields from the list
 * below; nothing else gets in, so that a credential, a statement or a row cannot.
 */
import { type DestinationStream, pino } from "pino";
import { SallyportError } from "#domain/errors.ts";

/** What a line may carry besides its message. Everything here is a name of ours, an id, a number or a time. */
export const logFieldNames = [
  "code",
  "whose",
  "decision",
  "session",
  "grant",
  "principal",
  "resource",
  "run",
  "call",
  "command",
  "request",
  "entry",
  "method",
  "route",
  "status",
  "host",
  "port",
  "count",
  "bytes",
  "durationMs",
  "version",
  "directory",
  "state",
  "signal",
] as const;

export type LogFieldName = (typeof logFieldNames)[number];

/** Fields of one line. `error` is taken apart: see `describeError`. */
export type LogFields = { readonly [Name in LogFieldName]?: string | number | boolean | null | undefined } & {
  readonly error?: unknown;
};

export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";

/** Where diagnostics go. The message is a constant of the source; what varies goes into fields. */
export interface Log {
  readonly debug: (message: string, fields?: LogFields) => void;
  readonly info: (message: string, fields?: LogFields) => void;
  readonly warn: (message: string, fields?: LogFields) => void;
  readonly error: (message: string, fields?: LogFields) => void;
}

/** A field is an id, a path or a number; a longer text is something that should not be here. */
const fieldCharactersMax = 300;
/** Causes of causes. */
const causeDepthMax = 4;

/** Makes a log of JSON lines (pino), to standard error unless a stream is given. */
export function createLog(options: { readonly level: LogLevel; readonly stream?: DestinationStream }): Log {
  const stream = options.stream ?? pino.destination({ fd: 2, sync: true });
  const logger = pino({ level: options.level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream);
  const write =
    (level: Exclude<LogLevel, "silent">) =>
    (message: string, fields: LogFields = {}): void => {
      logger[level](allowedFields(fields), message);
    };
  return { debug: write("debug"), info: write("info"), warn: write("warn"), error: write("error") };
}

/** Copies the allowed fields and nothing else; also what a caller without types passes. */
function allowedFields(fields: LogFields): Record<string, unknown> {
  const allowed: Record<string, unknown> = {};
  for (const name of logFieldNames) {
    const value = fields[name];
    if (typeof value === "string") {
      allowed[name] = value.slice(0, fieldCharactersMax);
    } else if (typeof value === "number" || typeof value === "boolean" || value === null) {
      allowed[name] = value;
    }
  }
  if (fields.error !== undefined) {
    allowed["error"] = describeError(fields.error, 0);
  }
  return allowed;
}

/**
 * An error without what it may quote. Our own messages are written not to hold values; a message of PostgreSQL or of a library
 * may repeat a row or a URL, so of those only name, code and places in the source are kept.
 */
function describeError(error: unknown, depth: number): Record<string, unknown> {
  if (!(error instanceof Error)) {
    return { name: typeof error };
  }
  const places = (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  const code = "code" in error && typeof error.code === "string" ? error.code.slice(0, fieldCharactersMax) : undefined;
  return {
    name: error.name,
    code,
    ...(error instanceof SallyportError ? { whose: error.whose, message: error.message } : {}),
    stack: places.slice(0, 12).map((line) => line.trim()),
    ...(error.cause === undefined || depth >= causeDepthMax ? {} : { cause: describeError(error.cause, depth + 1) }),
  };
}
