import type { DecisionId } from "./ids.ts";

/** What an allow requires. */
export interface Obligation {
  readonly kind: "mask";
  readonly label: string;
  readonly ruleId: string;
  /** `schema.table.column` of the source. */
  readonly source: string;
}

interface DecisionBase {
  readonly id: DecisionId;
  /** Ids of the policies that determined it, sorted; empty for a denial by the gate itself. */
  readonly policies: readonly string[];
  /** Hex SHA-256 of the policy set in force. */
  readonly policySetHash: string;
}

export interface Allow extends DecisionBase {
  readonly effect: "allow";
  readonly pure: boolean;
  readonly obligations: readonly Obligation[];
}

/** An allow whose command can change nothing (DESIGN.md, "Pure"): the one kind that may overlap with its record. */
export interface AllowPure extends Allow {
  readonly pure: true;
}

/** A denial in plain words: the rule, the reason, the next step. */
export interface Deny extends DecisionBase {
  readonly effect: "deny";
  /** Stable, such as `grant.no-table`. See `denyCodes`. */
  readonly code: DenyCode;
  readonly reason: string;
  readonly nextStep: string;
}

export type Decision = Allow | Deny;

/** Every way to be denied. Each has one SQLSTATE in `protocols/postgres/refusal.ts`. */
export const denyCodes = [
  "statement.syntax",
  "statement.unsupported",
  "statement.too-large",
  "statement.too-deep",
  "statement.encoding",
  "statement.not-prepared",
  "statement.already-prepared",
  "statement.no-portal",
  "statement.changed",
  "protocol.unsupported",
  "protocol.violation",
  "name.unknown-relation",
  "name.unknown-column",
  "name.unknown-function",
  "name.ambiguous",
  "name.unsupported-form",
  "grant.no-table",
  "grant.no-column",
  "grant.no-verb",
  "grant.no-function",
  "grant.masked-read-in-write",
  "grant.expired",
  "grant.revoked",
  "grant.no-session-setting",
  "principal.disabled",
  "principal.expired",
  "credential.invalid",
  "resource.unknown",
  "resource.unavailable",
  "policy.forbidden",
  "policy.error",
  "policy.no-permit",
  "limit.exceeded",
  "ledger.unavailable",
  "gateway.draining",
] as const;
export type DenyCode = (typeof denyCodes)[number];
