/** The data that passes between the control plane and whoever asks it something: the API, the CLI, `sallyport run`. */
import type { CallId, GrantId, PrincipalId, ResourceId, RunId, SessionId } from "./ids.ts";
import type { GrantEnd, GrantState, TableGrant } from "./grant.ts";

export interface TaskInput {
  /** Such as `T-88 customer says charged twice`. */
  readonly title: string;
  readonly purpose?: string | undefined;
  readonly ticket?: string | undefined;
}

export interface AddGrantInput {
  /** Names, as in the configuration. */
  readonly principal: string;
  readonly onBehalfOf?: string | undefined;
  readonly resource: string;
  readonly task: TaskInput;
  readonly tables: readonly TableGrant[];
  /** From now; at most `limits.grantLifetimeMsMax`. */
  readonly lifetimeMs: number;
}

export interface GrantView {
  readonly id: GrantId;
  readonly principal: string;
  readonly principalId: PrincipalId;
  readonly resource: string;
  readonly resourceId: ResourceId;
  readonly task: string;
  readonly tables: readonly TableGrant[];
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
  readonly state: GrantState;
  readonly end: { readonly how: GrantEnd; readonly reason: string; readonly atMs: number } | null;
  readonly liveSessions: number;
  readonly source: "config" | "api";
}

/** How a client reaches the gateway with a credential. The password is shown here once and exists nowhere else. */
export interface ConnectionDetails {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string;
  readonly expiresAtMs: number;
}

export interface AddedGrant {
  readonly grant: GrantView;
  readonly connection: ConnectionDetails;
}

export interface SessionView {
  readonly id: SessionId;
  readonly principal: string;
  readonly grantId: GrantId;
  readonly resource: string;
  readonly task: string;
  readonly runId: RunId | null;
  readonly client: string;
  readonly openedAtMs: number;
  readonly deadlineMs: number;
  readonly commands: number;
  readonly denied: number;
  readonly rows: number;
  readonly maskedCells: number;
  readonly state: "live" | "ended";
}

export interface StartRunInput {
  readonly principal: string;
  readonly resource: string;
  /** The task's title or ticket; it must name exactly one active grant of this principal on this resource. */
  readonly task: string;
  /** What is run, without its arguments' values: for the operator's eyes. */
  readonly command: string;
}

export interface StartedRun {
  readonly runId: RunId;
  readonly grantId: GrantId;
  readonly connection: ConnectionDetails;
}

export interface OpenCallInput {
  /** JSON-RPC method. */
  readonly method: string;
  /** The tool's name for `tools/call`. */
  readonly tool: string | null;
  /** The request's `params`, as the client sent them; kept encrypted. */
  readonly parameters: string;
}

export interface CloseCallInput {
  readonly status: "ok" | "error" | "tool-error" | "cancelled" | "lost";
  /** Length of the answer. */
  readonly bytes: number;
}

export type RunEvent =
  | { readonly kind: "hello"; readonly runId: RunId }
  | { readonly kind: "ended"; readonly reason: string };

export interface LedgerView {
  readonly origin: string;
  readonly directory: string;
  readonly size: number;
  readonly checkpointSize: number;
  readonly rootHex: string;
  readonly verifierKey: string;
  readonly state: "open" | "failed" | "closed";
  readonly failure: string | null;
}

export interface ResourceView {
  readonly id: ResourceId;
  readonly name: string;
  readonly kind: "postgres";
  readonly target: string;
  readonly state: "ready" | "unavailable";
  /** Why it is unavailable, or what PUBLIC may still do there. */
  readonly findings: readonly string[];
}

export interface StatusView {
  readonly version: string;
  readonly startedAtMs: number;
  readonly postgres: { readonly host: string; readonly port: number };
  readonly control: { readonly host: string; readonly port: number };
  readonly resources: readonly ResourceView[];
  readonly principals: number;
  readonly activeGrants: number;
  readonly liveSessions: number;
  readonly ledger: LedgerView;
}

/** The port behind every route of the control endpoint. Every failure is a SallyportError with a code. */
export interface ControlPlane {
  status(): Promise<StatusView>;
  addGrant(input: AddGrantInput): Promise<AddedGrant>;
  listGrants(filter: { readonly state?: GrantState | undefined }): Promise<readonly GrantView[]>;
  /** Takes effect at once; resolves when live sessions have ended and roles are dropped (or the attempt is recorded as failed). */
  revokeGrant(id: GrantId, reason: string): Promise<GrantView>;
  listSessions(): Promise<readonly SessionView[]>;
  startRun(input: StartRunInput): Promise<StartedRun>;
  /** Resolves when the call is recorded. */
  openCall(run: RunId, input: OpenCallInput): Promise<{ readonly callId: CallId }>;
  closeCall(run: RunId, call: CallId, input: CloseCallInput): Promise<void>;
  /** Lives as long as the run's process; when the consumer goes, the run ends and its credential with it. */
  runEvents(run: RunId, signal: AbortSignal): AsyncIterable<RunEvent>;
  endRun(run: RunId, reason: string): Promise<void>;
}
