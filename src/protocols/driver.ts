/**
 * What a protocol gives the gateway, and what the gateway's laws ask of it. `gateway/` knows this file and no concrete driver.
 *
 * A `Unit` is what arrives in one piece and is decided as one (a Query with its statements, a Parse, a Bind); a `Reply` is a
 * run of bytes from the resource that belongs to one command. The signatures carry laws 1 and 2: see `gateway/relay.ts`.
 */
import type { Allow, AllowPure, Deny, DenyCode, Obligation } from "#domain/decision.ts";
import type { Effect, StatementKind } from "#domain/effect.ts";
import type { CommandId, DecisionId } from "#domain/ids.ts";
import type { Socket } from "node:net";

import type { Scope, ScramVerifier } from "#domain/grant.ts";
import type { ColumnLabel, Resource } from "#domain/resource.ts";
import type { CompiledScope } from "#domain/scope.ts";
import type { Outcome, PayloadFields } from "#domain/outcome.ts";
import type { Enqueued, Recorded } from "#ledger/recorded.ts";
import type { MaskCodec, MaskPlan, Masked } from "#mask/masker.ts";
import type { Catalog } from "#sql/catalog.ts";

/** Permission to forward: the record is durable, or it is a pure read whose record is being written. */
export type Pass = Recorded<Allow> | Enqueued<AllowPure>;

/** What is known of one command before it is decided. */
export interface CommandFacts {
  readonly id: CommandId;
  readonly kind: StatementKind;
  readonly effects: readonly Effect[];
  readonly pure: boolean;
  /** The text that is forwarded differs from the one that arrived. */
  readonly rewritten: boolean;
  /** Masked columns behind its results: what an allow obliges to. */
  readonly obligations: readonly Obligation[];
  /** Goes into the encrypted payload: statement, rewritten statement, bind values. */
  readonly payload: PayloadFields;
  /** Which command of its unit, from 1. */
  readonly ordinal: number;
}

/** Why a unit cannot pass, found before policy is asked. */
export interface UnitRefusal {
  readonly code: DenyCode;
  readonly reason: string;
  readonly nextStep: string;
  readonly effects: readonly Effect[];
  readonly ordinal: number;
  readonly payload: PayloadFields;
}

/**
 * What arrives in one piece and is decided as one.
 * `run`: its commands run when it is forwarded. `prepare`: it is only made ready (a Parse); each later run has an intent of its own.
 */
export interface Unit {
  readonly stage: "run" | "prepare";
  /** Index of the `command.prepared` that a run binds; null when there is none. */
  readonly prepared: number | null;
  /** At least one, unless `refusal` is set. */
  readonly commands: readonly CommandFacts[];
  /** How many commands the unit has, also when it is refused. */
  readonly size: number;
  readonly refusal: UnitRefusal | null;
}

/** What came from the client, in order. */
export type Arrival<U extends Unit, Control> =
  | { readonly kind: "unit"; readonly unit: U }
  /** One more part of a command whose pass was given before (an Execute of a bound portal). */
  | { readonly kind: "continue"; readonly unit: U; readonly pass: Pass }
  | { readonly kind: "control"; readonly control: Control };

/** What a command has done so far; one object from forwarding to completion, owned by the conversation. */
export interface Progress {
  readonly pass: Pass;
  readonly command: CommandId;
  /** Which Execute of the portal, from 1. */
  readonly execution: number;
  readonly startedUs: number;
}

/** Something that came from the resource, in order. */
export interface Answer<Reply> {
  readonly reply: Reply;
  readonly plan: MaskPlan;
  /** Length on the wire, for bounds and outcomes. */
  readonly bytes: number;
  /** The command that it belongs to; null for what belongs to none. */
  readonly progress: Progress | null;
  /** Set when it completes the command. `rows` and `bytes` are of the whole execution. */
  readonly completion: Omit<Outcome, "durationUs" | "redactions"> | null;
  /** Set when a transaction ended with it. */
  readonly transaction: TransactionEnd | null;
}

export interface TransactionEnd {
  readonly how: "commit" | "rollback";
  readonly explicit: boolean;
  /** Index of the first intent in it. */
  readonly first: number;
  readonly commands: number;
}

/** Towards the resource. */
export interface Upstream<U extends Unit, Control> {
  /**
   * Forwards a unit; `passes` has one pass for each of its commands.
   * Resolves when the socket takes more (backpressure).
   */
  send(unit: U, passes: readonly Pass[]): Promise<void>;
  /** Frames that carry no command: Sync, Flush, Close, Describe, Terminate. */
  control(control: Control): Promise<void>;
}

/** Towards the client. */
export interface Downstream<U extends Unit, Reply> {
  /** Releases bytes of a command's result; `done` is the durable outcome when the reply completes the command. */
  release(reply: Masked<Reply>, record: Recorded<Allow>, done: Recorded<Outcome> | null): Promise<void>;
  /** Releases what belongs to no command (ReadyForQuery, ParameterStatus, the answer to a denied unit). */
  pass(reply: Masked<Reply>): Promise<void>;
  /** Answers a denied unit in its place, in the protocol's own words, and makes the upstream's transaction fail with it. */
  refuse(unit: U, denial: Recorded<Deny>): Promise<void>;
}

/** One client's conversation in a protocol, as the relay sees it. */
export interface Conversation<U extends Unit, Control, Reply> {
  readonly upstream: Upstream<U, Control>;
  readonly downstream: Downstream<U, Reply>;
  readonly codec: MaskCodec<Reply>;
  /**
   * What has arrived since, read frame by frame as it is iterated; null when the client has gone. Iterating throws as well.
   * @throws SallyportError (whose: client) on a frame that breaks the protocol or a limit.
   */
  arrivals(): Promise<Iterable<Arrival<U, Control>> | null>;
  /** What the resource has answered since; null when it has gone. */
  answers(): Promise<Iterable<Answer<Reply>> | null>;
  /** Commands that were forwarded and have not been completed, for the record when the conversation breaks. */
  unfinished(): readonly Progress[];
  /**
   * Ends the resource's side at once (taking rights away waits for nothing). What was under way is answered with `words`; from
   * then on every unit must be denied, and `refuse` answers by itself, so that the client lives on and reads why.
   */
  endUpstream(words: ClosingWords): void;
  /** Ends the client's side with a last error in the protocol's own words, and closes everything. */
  close(last: ClosingWords | null): Promise<void>;
}

/** The last thing a client reads. */
export interface ClosingWords {
  readonly code: DenyCode;
  readonly reason: string;
  readonly nextStep: string;
  readonly decision: DecisionId;
}

/** Where a granted session is to go, and what it may see there. */
export interface SessionTarget {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly role: GrantRole;
  readonly scope: CompiledScope;
  /** Changes when the resource's catalog is reloaded. */
  readonly catalog: () => Catalog;
}

/** A conversation that has both its sides. */
export interface Opened<U extends Unit, Control, Reply> {
  readonly conversation: Conversation<U, Control, Reply>;
  /** What the client was given to cancel with. */
  readonly cancelKey: CancelKey;
  /** Asks the resource to cancel what this conversation runs now. */
  cancel(): Promise<void>;
  /** The resource's own name for this connection, to end it by. */
  readonly resourceProcessId: number;
}

export interface CancelKey {
  readonly processId: number;
  readonly secretKey: number;
}

/** What a new connection turned out to be. */
export type Accepted<U extends Unit, Control, Reply> =
  | { readonly kind: "cancel"; readonly key: CancelKey; done(): void }
  /** Nothing to answer: the client went away, or said nothing in time. */
  | { readonly kind: "gone" }
  /** The handshake failed; `refuse` says why to the client and closes. */
  | {
      readonly kind: "failed";
      readonly code: DenyCode;
      readonly reason: string;
      readonly nextStep: string;
      readonly login: string | null;
      refuse(words: ClosingWords): Promise<void>;
    }
  | {
      readonly kind: "authenticated";
      readonly login: string;
      /** The resource that the client named. */
      readonly resource: string;
      /** Its `application_name`, shortened; empty when it gave none. */
      readonly client: string;
      refuse(words: ClosingWords): Promise<void>;
      /**
       * Connects to the resource and tells the client that it may begin.
       * @throws SallyportError `resource.unavailable`; then `refuse` is still possible.
       */
      open(target: SessionTarget): Promise<Opened<U, Control, Reply>>;
    };

/** One protocol. */
export interface Driver<U extends Unit, Control, Reply> {
  readonly protocol: "postgres";
  /** Serves a new connection up to authenticated. Never throws for what a client does. */
  accept(
    socket: Socket,
    verifierOf: (login: string) => Promise<ScramVerifier | null>,
  ): Promise<Accepted<U, Control, Reply>>;
}

/** How the gateway's own SQL is recorded: intent before it runs, outcome after (law 1 holds for us too). */
export interface ProvisionJournal {
  /**
   * Records the intent and resolves when it is durable; the returned function records the outcome.
   * `statements` is the SQL text with credentials taken out (a SCRAM verifier is one).
   */
  begin(
    action: "catalog" | "scope.create" | "scope.drop" | "grant-role.create" | "grant-role.drop" | "sweep",
    object: string,
    statements: readonly string[],
  ): Promise<
    (result: {
      readonly status: "ok" | "failed";
      readonly sqlState: string | null;
      readonly attested: boolean | null;
    }) => Promise<void>
  >;
}

/** What the trial of a resource found. */
export interface ResourceReadiness {
  readonly serverVersion: string;
  /** What PUBLIC may still do there (`TEMP on database billing`, …); empty when hardened. */
  readonly publicRights: readonly string[];
}

/** A grant's own login at the resource: opaque name, a password that only the gateway knows. */
export interface GrantRole {
  readonly role: string;
  readonly password: string;
}

/**
 * Makes and retires rights at a resource. Every call journals its SQL first, is idempotent and can be run again after a kill.
 * @throws SallyportError `resource.unavailable`, `resource.rights` (with the SQL that would give them), `scope.unknown-table`, …
 */
export interface Provisioner {
  /** Proves by a trial what the resource allows; makes the shadow catalogs and the view owner. */
  prepare(): Promise<ResourceReadiness>;
  /** Resolves a scope against the catalog as it is now. Pure but for reading the catalog. */
  compile(scope: Scope, labels: readonly ColumnLabel[]): Promise<CompiledScope>;
  /** Makes the scope role with its rights and views, if it is not there whole. */
  createScope(scope: CompiledScope): Promise<void>;
  /** Makes the grant's login as a member of the scope role, with pinned settings and `VALID UNTIL`. */
  createGrantRole(input: {
    readonly role: string;
    readonly password: string;
    readonly scope: CompiledScope;
    readonly validUntilMs: number;
    readonly connectionsMax: number;
    /** No verb but select: `default_transaction_read_only`. */
    readonly readOnly: boolean;
  }): Promise<void>;
  /** NOLOGIN, ends the role's sessions, drops it, reads the catalog: true when nothing of it is left. */
  dropGrantRole(role: string): Promise<boolean>;
  /** Drops a scope role and its schemas that no grant role is a member of; true when nothing of it is left. */
  dropScope(scope: { readonly hash: string; readonly role: string }): Promise<boolean>;
  /** Ends one backend of a grant role at once. */
  terminate(role: string, processId: number): Promise<void>;
  close(): Promise<void>;
}

/** A resource as this node reaches it: one object for each. */
export interface ResourceAccess {
  readonly resource: Resource;
  readonly provisioner: Provisioner;
  /** Proves what the resource allows and loads its catalog, once; later calls return what was found. @throws SallyportError */
  ready(): Promise<ResourceReadiness>;
  /** What was found; null before `ready` has succeeded. */
  readonly found: () => ResourceReadiness | null;
  /** The catalog as last loaded. */
  readonly catalog: SessionTarget["catalog"];
  /** Loads the catalog again when it has changed. */
  refresh(): Promise<void>;
  close(): Promise<void>;
}
