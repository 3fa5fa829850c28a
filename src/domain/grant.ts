import type { CredentialId, GrantId, PrincipalId, ResourceId, RunId, TaskId } from "./ids.ts";
import type { Mask } from "./resource.ts";

/** Why: what a grant is for. */
export interface Task {
  readonly id: TaskId;
  readonly title: string;
  readonly purpose: string | null;
  readonly ticket: string | null;
}

export type TableVerb = "select" | "insert" | "update" | "delete";

/** What a grant allows on one table. `columns: "all"` means every column that the table has when the scope is compiled. */
export interface TableGrant {
  readonly schema: string;
  readonly table: string;
  readonly verbs: readonly TableVerb[];
  readonly columns: "all" | readonly string[];
}

/** What is reachable: tables with verbs and columns, and the masks of the labels in force. */
export interface Scope {
  readonly tables: readonly TableGrant[];
  readonly masks: readonly Mask[];
}

export type GrantState = "pending" | "active" | "ended";
export type GrantEnd = "expired" | "revoked" | "failed" | "removed";

/** The time-bounded permission of one principal, for one task, on one resource. */
export interface Grant {
  readonly id: GrantId;
  readonly principalId: PrincipalId;
  readonly onBehalfOfId: PrincipalId | null;
  readonly resourceId: ResourceId;
  readonly task: Task;
  readonly scope: Scope;
  readonly createdAtMs: number;
  /** Absolute, epoch milliseconds. No session outlives it. */
  readonly expiresAtMs: number;
  readonly state: GrantState;
  readonly end: { readonly how: GrantEnd; readonly reason: string; readonly atMs: number } | null;
  /** `config`: declared in the configuration file; `api`: made through the control endpoint. */
  readonly source: "config" | "api";
}

/** SCRAM-SHA-256 verifier, base64 fields (RFC 5802 section 3). It lets a server check a password and not learn it. */
export interface ScramVerifier {
  readonly iterations: number;
  readonly saltBase64: string;
  readonly storedKeyBase64: string;
  readonly serverKeyBase64: string;
}

/** What a client logs in with. The login is its user name on the wire; the password exists nowhere after it was shown. */
export interface Credential {
  readonly id: CredentialId;
  readonly login: string;
  readonly grantId: GrantId;
  /** Set when the credential was minted for one run of `sallyport run`, so that its commands can be linked to calls. */
  readonly runId: RunId | null;
  readonly verifier: ScramVerifier;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
  readonly status: "active" | "ended";
}
