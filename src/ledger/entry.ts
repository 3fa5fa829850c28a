/**
 * The entry format. An entry is canonical JSON (RFC 8785) of `{v, type, at, mono, …}`: one leaf of the log, at most 65,535 bytes.
 * No personal data: principals are opaque ids, objects are schema names; texts and values are payloads (see `payloads.ts`),
 * and the entry holds a salted commitment to each.
 */
import type { Cause } from "#domain/cause.ts";
import type {
  CallId,
  ChangeId,
  CommandId,
  CredentialId,
  DecisionId,
  GrantId,
  PrincipalId,
  ResourceId,
  RunId,
  SessionId,
  TaskId,
} from "#domain/ids.ts";
import type { Outcome, PayloadFields } from "#domain/outcome.ts";

/** The version of the entry format; a reader refuses any other. */
export const entryVersion = 1;

/** The ids that a command's entries repeat, and the index of the `session.opened` that holds the rest. */
export interface EntrySession {
  readonly id: SessionId;
  readonly entry: number;
  readonly principal: PrincipalId;
  readonly onBehalfOf: PrincipalId | null;
  readonly grant: GrantId;
  readonly task: TaskId;
  readonly resource: ResourceId;
}

export interface EntryDecision {
  readonly id: DecisionId;
  readonly effect: "allow" | "deny";
  readonly policies: readonly string[];
  readonly policySet: string;
  readonly obligations: readonly string[];
  /** Only for a denial: the stable code. */
  readonly code?: string;
}

/** What a statement touches: schema names, never values. */
export interface EntryEffect {
  readonly verb: "select" | "insert" | "update" | "delete" | "call" | "define" | "session" | "transaction";
  /** `schema.name`, a function's name, or a setting's name. */
  readonly object: string;
  readonly columns: readonly string[];
}

/** A person, a program or the gateway itself, as the maker of a change. */
export type EntryActor =
  | { readonly kind: "principal"; readonly id: PrincipalId }
  | { readonly kind: "control"; readonly credential: string }
  | { readonly kind: "config" }
  | { readonly kind: "gateway" };

export type ChangeKind =
  | "principal.add"
  | "principal.update"
  | "principal.disable"
  | "resource.add"
  | "resource.update"
  | "resource.remove"
  | "policy.set"
  | "mask.set"
  | "grant.add"
  | "grant.revoke"
  | "grant.expire"
  | "credential.issue"
  | "credential.end"
  | "run.start"
  | "run.end"
  | "session.kill"
  | "setting.danger";

/** Every entry type with its own fields. Integers only; times are epoch milliseconds unless the name says otherwise. */
export type EntryDraft =
  | { readonly type: "node.started"; readonly software: string; readonly runtime: string }
  | { readonly type: "node.stopped"; readonly reason: string }
  | {
      readonly type: "change.intent";
      readonly change: ChangeId;
      readonly kind: ChangeKind;
      readonly object: string;
      readonly by: EntryActor;
      readonly detail: { readonly [key: string]: string | number | boolean | null | readonly string[] };
    }
  | {
      readonly type: "change.outcome";
      readonly change: ChangeId;
      readonly kind: ChangeKind;
      readonly object: string;
      readonly intent: number | null;
      readonly status: "ok" | "failed";
      /** A stable error code when it failed. */
      readonly code: string | null;
      readonly detail: { readonly [key: string]: string | number | boolean | null | readonly string[] };
    }
  | {
      readonly type: "session.opened";
      readonly session: SessionId;
      readonly principal: PrincipalId;
      readonly principalKind: "human" | "agent" | "service";
      readonly owner: PrincipalId | null;
      readonly onBehalfOf: PrincipalId | null;
      readonly actors: readonly PrincipalId[];
      readonly authentication: { readonly method: "scram-sha-256"; readonly credential: CredentialId };
      /** From the client's startup parameters, an allowlisted and shortened `application_name`; empty when it gave none. */
      readonly client: string;
      readonly grant: GrantId;
      readonly task: TaskId;
      readonly resource: ResourceId;
      readonly run: RunId | null;
      readonly deadline: number;
      /** How the scope is enforced: `role` means by the database itself too. */
      readonly provisioning: "role";
      /** What a database that was not hardened still lets PUBLIC do; empty when hardened. */
      readonly publicRights: readonly string[];
    }
  | {
      readonly type: "session.refused";
      readonly decision: DecisionId;
      readonly code: string;
      /** Known only when the login named a credential. */
      readonly credential: CredentialId | null;
      readonly grant: GrantId | null;
      readonly protocol: "postgres";
    }
  | {
      readonly type: "session.closed";
      readonly session: EntrySession;
      readonly how: "client" | "upstream" | "expired" | "revoked" | "killed" | "failed" | "drained";
      readonly code: string | null;
      readonly commands: number;
      readonly denied: number;
      readonly rows: number;
      readonly bytes: number;
    }
  | {
      /** Requests to the control endpoint that were turned away, counted over at most a second. */
      readonly type: "control.refused";
      readonly code: string;
      readonly count: number;
    }
  | {
      readonly type: "command.prepared";
      readonly session: EntrySession;
      readonly command: CommandId;
      readonly cause: Cause;
      readonly kind: string;
      readonly effects: readonly EntryEffect[];
      readonly decision: EntryDecision;
      readonly rewritten: boolean;
    }
  | {
      readonly type: "command.denied";
      readonly session: EntrySession;
      readonly command: CommandId;
      readonly cause: Cause;
      readonly kind: string;
      readonly effects: readonly EntryEffect[];
      readonly decision: EntryDecision;
      /** Which statement of the message, from 1, and how many there were; none of them ran. */
      readonly statement: number;
      readonly statements: number;
    }
  | {
      readonly type: "command.intent";
      readonly session: EntrySession;
      readonly command: CommandId;
      /** Index of the `command.prepared` whose statement is bound here; null for a simple query. */
      readonly prepared: number | null;
      readonly cause: Cause;
      readonly kind: string;
      readonly effects: readonly EntryEffect[];
      readonly decision: EntryDecision;
      readonly pure: boolean;
      readonly rewritten: boolean;
      readonly statement: number;
      readonly statements: number;
    }
  | {
      readonly type: "command.outcome";
      readonly session: EntrySession;
      readonly command: CommandId;
      readonly intent: number;
      /** Which Execute of the portal, from 1. */
      readonly execution: number;
      readonly outcome: Outcome;
    }
  | {
      readonly type: "transaction.ended";
      readonly session: EntrySession;
      readonly how: "commit" | "rollback";
      readonly explicit: boolean;
      /** Index of the first intent in it. */
      readonly first: number;
      readonly commands: number;
    }
  | {
      readonly type: "cancel.requested";
      readonly session: EntrySession | null;
      readonly known: boolean;
      /** Requests with keys that name no session are counted over at most a second. */
      readonly count: number;
    }
  | {
      readonly type: "call.intent";
      readonly call: CallId;
      readonly run: RunId;
      readonly principal: PrincipalId;
      readonly grant: GrantId;
      readonly task: TaskId;
      readonly method: string;
      /** The tool's name for `tools/call`; null otherwise. */
      readonly tool: string | null;
    }
  | {
      readonly type: "call.outcome";
      readonly call: CallId;
      readonly run: RunId;
      readonly intent: number;
      readonly status: "ok" | "error" | "tool-error" | "cancelled" | "lost";
      readonly bytes: number;
      readonly durationUs: number;
    }
  | {
      readonly type: "provision.intent";
      readonly change: ChangeId;
      readonly resource: ResourceId;
      readonly action: "catalog" | "scope.create" | "scope.drop" | "grant-role.create" | "grant-role.drop" | "sweep";
      readonly object: string;
      readonly statements: number;
    }
  | {
      readonly type: "provision.outcome";
      readonly change: ChangeId;
      readonly intent: number;
      readonly status: "ok" | "failed";
      readonly sqlState: string | null;
      /** For a drop: the catalog was read afterwards and holds none of the roles, schemas and views named in the intent. */
      readonly attested: boolean | null;
    };

/** What the ledger itself enters; nobody else can draft these. */
export type LedgerDraft =
  | {
      /** The ledger began (index 0), or was opened after a clean close. */
      readonly type: "ledger.opened";
      readonly origin: string;
      /** Entries before this one. */
      readonly size: number;
    }
  | {
      /** The ledger was opened after a crash. An intent without an outcome before this entry may have run. */
      readonly type: "ledger.recovered";
      /** Entries that the last checkpoint before the crash covered. */
      readonly checkpoint: number;
      /** Whole entries found after it in the write-ahead segments, and kept. */
      readonly entries: number;
      /** Bytes of an unfinished write that were cut off; nothing in them was ever acknowledged. */
      readonly tornBytes: number;
    }
  | {
      /** A data key was destroyed: its payloads can no longer be read, and their absence is no fault. */
      readonly type: "payload.destroyed";
      readonly key: string;
    };

export type EntryType = EntryDraft["type"] | LedgerDraft["type"];

/** Where an entry's payload is and which key opens it. */
export interface EntryPayload {
  readonly key: string;
  /** SHA-256 of the ciphertext, base64url. */
  readonly hash: string;
  /** Length of the ciphertext. */
  readonly bytes: number;
  /** Credentials that were taken out of a field before it was committed to (see `scrub.ts`); absent when there were none. */
  readonly scrubbed?: { readonly [field: string]: number };
}

/** What every entry has besides its own fields. */
export interface EntryHead {
  readonly v: typeof entryVersion;
  /** UTC with milliseconds, as in `2026-01-02T03:04:05.678Z`. */
  readonly at: string;
  /** Monotonic clock of the node, microseconds; it starts anew with every start of the node. */
  readonly mono: number;
  /** A salted commitment (SHA-256, base64url) to each field of the payload; absent without a payload. */
  readonly commitments?: { readonly [field: string]: string };
  readonly payload?: EntryPayload;
}

/** An entry as it stands in the log. */
export type Entry = EntryHead & (EntryDraft | LedgerDraft);

/** What `Ledger.record` takes: an entry without its time, and the texts that belong to it but must not stand in it. */
export interface Draft {
  readonly entry: EntryDraft;
  readonly payload?: {
    /** The data key: a session's, a run's, or `node` for changes of the control plane. */
    readonly key: string;
    readonly fields: PayloadFields;
  };
}

/** Printable ASCII without `"` and `\`: what JSON writes as it is. Nearly every string of an entry is of this kind. */
const plainText = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;

/**
 * Canonical JSON (RFC 8785) of a value that holds nothing but strings, safe integers, booleans, nulls, arrays and plain
 * objects. A property that is `undefined` is left out.
 * @throws RangeError for any other value, a fraction, or a string with a lone surrogate: none of them has one spelling.
 */
export function canonicalJson(value: unknown): string {
  switch (typeof value) {
    case "string":
      return canonicalString(value);
    case "number":
      if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
        throw new RangeError(`an entry holds whole numbers only, not ${value}`);
      }
      return String(value);
    case "boolean":
      return value ? "true" : "false";
    case "object":
      return value === null ? "null" : Array.isArray(value) ? canonicalArray(value) : canonicalObject(value);
    default:
      throw new RangeError(`an entry cannot hold a ${typeof value}`);
  }
}

function canonicalString(text: string): string {
  if (plainText.test(text)) {
    return `"${text}"`;
  }
  if (!text.isWellFormed()) {
    throw new RangeError("a string with a lone surrogate has no canonical form");
  }
  return JSON.stringify(text);
}

function canonicalArray(items: readonly unknown[]): string {
  let text = "[";
  for (let i = 0; i < items.length; i++) {
    text += i === 0 ? canonicalJson(items[i]) : `,${canonicalJson(items[i])}`;
  }
  return `${text}]`;
}

function canonicalObject(value: object): string {
  // Reading by name is what the type `object` does not offer; the names are the object's own.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const members = value as { readonly [name: string]: unknown };
  let text = "";
  // Names sort by UTF-16 code units, which is how `sort` compares without a comparator.
  for (const name of Object.keys(value).sort()) {
    const member = members[name];
    if (member !== undefined) {
      text += `${text === "" ? "{" : ","}${canonicalString(name)}:${canonicalJson(member)}`;
    }
  }
  return text === "" ? "{}" : `${text}}`;
}
