/**
 * What the masker reads a reply with. Values of masked columns do not reach this point: the database computed the masks
 * (MASKING.md, L1). What is done here: the shape of every result is held against the lineage (L6), rows are counted for the
 * redaction record, and error and notice texts are cut down to what may leave.
 */
import { InvariantError } from "#domain/errors.ts";
import type { MaskCodec, MaskPlan } from "#mask/masker.ts";
import type { ReportFields } from "./messages-backend.ts";
import { encodeErrorResponse, encodeNoticeResponse } from "./messages-encode.ts";
import type { Report } from "./messages-encode.ts";

/** A run of frames for the client. */
export type PostgresReply =
  /** One or more DataRow frames. `columns` is the number of cells of each. */
  | { readonly kind: "rows"; readonly bytes: Buffer; readonly rows: number; readonly columns: number }
  | { readonly kind: "row-description"; readonly bytes: Buffer; readonly columns: number }
  | {
      readonly kind: "error" | "notice";
      readonly bytes: Buffer;
      readonly fields: ReportFields;
      readonly rewritten: boolean;
    }
  | { readonly kind: "parameter-status"; readonly bytes: Buffer; readonly name: string }
  /** Frames that carry no data of a table: completions, ReadyForQuery, ParameterDescription, and what the gateway made. */
  | { readonly kind: "plain"; readonly bytes: Buffer };

/** Parameters that PostgreSQL reports and a client needs to read what it gets; others say more than a client is told. */
const reportedParameters: ReadonlySet<string> = new Set([
  "application_name",
  "client_encoding",
  "DateStyle",
  "default_transaction_read_only",
  "in_hot_standby",
  "integer_datetimes",
  "IntervalStyle",
  "is_superuser",
  "scram_iterations",
  "server_encoding",
  "server_version",
  "standard_conforming_strings",
  "TimeZone",
]);

/**
 * What must stay as it is for the gate to read a statement as the server does: how strings are quoted and encoded, who asks and
 * where names are looked up. The gate refuses to set them; a report that one has changed means that something got past it.
 */
const pinnedParameters: ReadonlyMap<string, string | null> = new Map([
  ["standard_conforming_strings", "on"],
  ["client_encoding", "UTF8"],
  ["is_superuser", "off"],
  ["session_authorization", null],
  ["search_path", null],
  ["default_transaction_read_only", null],
]);

/** Whether the resource may report this during a session; null in the table stands for any change. */
export function isExpectedParameter(name: string, value: string): boolean {
  const pinned = pinnedParameters.get(name);
  return pinned === undefined || pinned === value;
}

/** Whether a parameter's value may be told to a client. `search_path` and `session_authorization` name the grant's own role. */
export function isReportedParameter(name: string): boolean {
  return reportedParameters.has(name);
}

const nothing = Buffer.alloc(0);

export const replyCodec: MaskCodec<PostgresReply> = {
  inspect: (reply, plan) => {
    switch (reply.kind) {
      case "rows":
        checkColumns(reply.columns, plan);
        return { reply, rows: reply.rows };
      case "row-description":
        checkColumns(reply.columns, plan);
        return { reply, rows: 0 };
      case "error":
        return { reply: plain(encodeErrorResponse(report(reply.fields, plan))), rows: 0 };
      case "notice":
        return { reply: plain(encodeNoticeResponse(report(reply.fields, plan))), rows: 0 };
      case "parameter-status":
        return { reply: isReportedParameter(reply.name) ? reply : plain(nothing), rows: 0 };
      case "plain":
        return { reply, rows: 0 };
      default:
        return reply satisfies never;
    }
  },
};

function plain(bytes: Buffer): PostgresReply {
  return { kind: "plain", bytes };
}

function checkColumns(columns: number, plan: MaskPlan): void {
  if (plan.columns !== null && columns !== plan.columns) {
    throw new InvariantError(`a result has ${columns} columns where its lineage has ${plan.columns}`);
  }
}

/**
 * What a violated constraint is told as (PostgreSQL documentation, appendix A, class 23). The server's own words name the
 * constraint and the table on its other side, which may be outside the grant, and its details quote values.
 */
const constraintWords: ReadonlyMap<string, string> = new Map([
  ["23502", "a column that must have a value would be null"],
  ["23503", "a foreign key has no matching row, or is still referenced"],
  ["23505", "a value that must be unique exists already"],
  ["23514", "a check constraint is violated"],
  ["23P01", "an exclusion constraint is violated"],
]);

/** Classes whose details and hints speak of the statement itself: data exceptions, syntax and names. */
function explainsItself(sqlState: string): boolean {
  return sqlState.startsWith("22") || sqlState.startsWith("42");
}

/**
 * What a client may read of a report: severity, SQLSTATE and message, and detail and hint where they speak of the statement.
 * Context, internal query and source location never leave: they speak of views, functions and files behind the gateway.
 */
function report(fields: ReportFields, plan: MaskPlan): Report {
  const sqlState = fields.get("C") ?? "XX000";
  const severity = severityOf(fields);
  if (sqlState.startsWith("23")) {
    return { severity, sqlState, message: constraintWords.get(sqlState) ?? "a constraint is violated" };
  }
  if (sqlState.startsWith("22") && plan.touchesMasked) {
    const message = "a value in a table with masked columns does not fit; the server's words are withheld";
    return { severity, sqlState, message };
  }
  const message = fields.get("M") ?? "the statement failed";
  if (!explainsItself(sqlState)) {
    return { severity, sqlState, message };
  }
  return { severity, sqlState, message, detail: fields.get("D") ?? null, hint: fields.get("H") ?? null };
}

const severities = ["ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "INFO", "LOG", "DEBUG"] as const;

function severityOf(fields: ReportFields): Report["severity"] {
  const text = fields.get("V") ?? fields.get("S");
  return severities.find((severity) => severity === text) ?? "ERROR";
}
