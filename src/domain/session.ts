import type { CredentialId, GrantId, PrincipalId, ResourceId, RunId, SessionId, TaskId } from "./ids.ts";

/** One authenticated, granted conversation. It exists only after both. */
export interface Session {
  readonly id: SessionId;
  readonly principalId: PrincipalId;
  readonly onBehalfOfId: PrincipalId | null;
  readonly grantId: GrantId;
  readonly taskId: TaskId;
  readonly resourceId: ResourceId;
  readonly credentialId: CredentialId;
  readonly runId: RunId | null;
  readonly openedAtMs: number;
  /** Absolute deadline: the earliest of grant, credential and principal. */
  readonly deadlineMs: number;
  /** Index of `session.opened` in the ledger; a command's entries carry it. */
  readonly entryIndex: number;
}
