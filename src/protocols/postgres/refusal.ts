/** How a denial reads in PostgreSQL's own words. */
import type { DenyCode } from "#domain/decision.ts";
import type { DecisionId } from "#domain/ids.ts";
import type { Report } from "./messages-encode.ts";

/**
 * SQLSTATEs (PostgreSQL documentation, appendix A), so that a client that knows PostgreSQL knows what to do: a name that
 * resolves to nothing is 42P01, a right that the grant does not give is 42501, what is not supported is 0A000.
 */
export const denialSqlStates: { readonly [Code in DenyCode]: string } = {
  "statement.syntax": "42601",
  "statement.unsupported": "0A000",
  "statement.too-large": "54000",
  "statement.too-deep": "54001",
  "statement.encoding": "22021",
  "statement.not-prepared": "26000",
  "statement.already-prepared": "42P05",
  "statement.no-portal": "34000",
  "statement.changed": "0A000",
  "protocol.unsupported": "0A000",
  "protocol.violation": "08P01",
  "name.unknown-relation": "42P01",
  "name.unknown-column": "42703",
  "name.unknown-function": "42883",
  "name.ambiguous": "42702",
  "name.unsupported-form": "0A000",
  "grant.no-table": "42501",
  "grant.no-column": "42501",
  "grant.no-verb": "42501",
  "grant.no-function": "42501",
  "grant.masked-read-in-write": "42501",
  "grant.expired": "42501",
  "grant.revoked": "42501",
  "grant.no-session-setting": "42501",
  "principal.disabled": "42501",
  "principal.expired": "42501",
  "credential.invalid": "42501",
  "resource.unknown": "3D000",
  "resource.unavailable": "08006",
  "policy.forbidden": "42501",
  "policy.error": "42501",
  "policy.no-permit": "42501",
  "limit.exceeded": "54000",
  "ledger.unavailable": "58030",
  "gateway.draining": "57P01",
};

/** Where a denial means something else before the session exists than in it. */
const loginSqlStates: { readonly [Code in DenyCode]?: string } = {
  "grant.expired": "28000",
  "grant.revoked": "28000",
  "principal.disabled": "28000",
  "principal.expired": "28000",
  "policy.forbidden": "28000",
  "policy.error": "28000",
  "policy.no-permit": "28000",
  "credential.invalid": "28P01",
  "resource.unavailable": "08001",
  "ledger.unavailable": "57P03",
  "gateway.draining": "57P03",
  "limit.exceeded": "53300",
};

/** What is told of a denial: a `Deny`, or the last words of a session. */
export interface ToldDenial {
  readonly id: DecisionId;
  readonly code: DenyCode;
  readonly reason: string;
  readonly nextStep: string;
  /** Ids of the policies that determined it. */
  readonly policies?: readonly string[];
}

/** `login`: the connection is refused. `session`: one command is. `closing`: the session ends with it. */
export type RefusalMoment = "login" | "session" | "closing";

/**
 * The report of a denial. Some clients show the message alone, so the message carries the decision's id as well as the
 * detail does.
 */
export function refusalFields(deny: ToldDenial, moment: RefusalMoment = "session"): Report {
  const atLogin = moment === "login" ? loginSqlStates[deny.code] : undefined;
  return {
    severity: moment === "session" ? "ERROR" : "FATAL",
    sqlState: moment === "closing" && isTakenAway(deny.code) ? "57P01" : (atLogin ?? denialSqlStates[deny.code]),
    message: `${deny.reason} [${deny.id}]`,
    detail: detailOf(deny),
    hint: deny.nextStep === "" ? null : deny.nextStep,
  };
}

/** Ended from outside, not by what the client did: told as a server does whose administrator ends a session (57P01). */
function isTakenAway(code: DenyCode): boolean {
  return /^(grant|principal|credential|policy|gateway)\./.test(code);
}

function detailOf(deny: ToldDenial): string {
  const policies = deny.policies ?? [];
  const determining = policies.length === 0 ? "" : ` (${policies.join(", ")})`;
  return `Decision ${deny.id}, by rule ${deny.code}${determining}.`;
}
