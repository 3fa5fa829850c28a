/**
 * The control endpoint as data: method, path and shapes of every route, for the server, the client and the documents alike.
 * A route that changes something names the ledger entry that it makes; one without does not compile.
 */
import { z } from "zod";
import type {
  AddGrantInput,
  AddedGrant,
  CloseCallInput,
  ConnectionDetails,
  GrantView,
  LedgerView,
  OpenCallInput,
  ResourceView,
  RunEvent,
  SessionView,
  StartRunInput,
  StartedRun,
  StatusView,
} from "#domain/control.ts";
import type { GrantState } from "#domain/grant.ts";
import { type IdPrefix, type IdTypes, parseId } from "#domain/ids.ts";
import { limits } from "#domain/limits.ts";
import type { ChangeKind, EntryType } from "#ledger/entry.ts";

/** The entry that a changing route makes: a change of the control plane by its kind, or an entry type of its own. */
export type RouteEntry =
  | { readonly type: "change.intent"; readonly kind: ChangeKind }
  | { readonly type: Exclude<EntryType, "change.intent" | "change.outcome"> };

interface RouteBase {
  /** `:name` stands for a parameter of `params`. */
  readonly path: `/v1/${string}`;
  readonly params: z.ZodObject;
  readonly query: z.ZodObject;
  readonly body: z.ZodObject;
  /** `stream`: NDJSON, one value of `response` a line, for as long as both sides stay. */
  readonly answer: "object" | "stream";
  readonly response: z.ZodType;
}

/** Changes nothing. */
export interface ReadRoute extends RouteBase {
  readonly method: "GET";
  readonly changes: false;
}

/** Changes something, and says how that is recorded. A stream whose end ends something is one too. */
export interface ChangeRoute extends RouteBase {
  readonly method: "GET" | "POST";
  readonly changes: true;
  readonly entry: RouteEntry;
}

export type Route = ReadRoute | ChangeRoute;

function id<P extends IdPrefix>(prefix: P): z.ZodType<IdTypes[P], string> {
  return z.string().transform((text, context) => {
    const parsed = parseId(prefix, text);
    if (parsed === null) {
      context.addIssue({ code: "custom", message: `not an id that starts with ${prefix}_` });
      return z.NEVER;
    }
    return parsed;
  });
}

const name = z.string().min(1).max(63);
const epochMs = z.int().min(0);
const count = z.int().min(0);
const place = z.object({ host: z.string(), port: z.int().min(0).max(65_535) });

const tableGrantShape = {
  schema: name,
  table: name,
  verbs: z
    .array(z.enum(["select", "insert", "update", "delete"]))
    .min(1)
    .max(4),
  columns: z.union([z.literal("all"), z.array(name).min(1).max(limits.columnsMax)]),
};
/** What comes in must be known to the last key; what goes out loses what is not. */
const tableGrantInput = z.strictObject(tableGrantShape);
const tableGrant = z.object(tableGrantShape);

const grantStates = ["pending", "active", "ended"] as const satisfies readonly GrantState[];

const grantView: z.ZodType<GrantView> = z.object({
  id: id("grt"),
  principal: z.string(),
  principalId: id("prn"),
  resource: z.string(),
  resourceId: id("res"),
  task: z.string(),
  tables: z.array(tableGrant),
  createdAtMs: epochMs,
  expiresAtMs: epochMs,
  state: z.enum(grantStates),
  end: z
    .object({ how: z.enum(["expired", "revoked", "failed", "removed"]), reason: z.string(), atMs: epochMs })
    .nullable(),
  liveSessions: count,
  source: z.enum(["config", "api"]),
});

const connectionDetails: z.ZodType<ConnectionDetails> = z.object({
  host: z.string(),
  port: z.int(),
  database: z.string(),
  user: z.string(),
  password: z.string(),
  expiresAtMs: epochMs,
});

const addedGrant: z.ZodType<AddedGrant> = z.object({ grant: grantView, connection: connectionDetails });

const sessionView: z.ZodType<SessionView> = z.object({
  id: id("ses"),
  principal: z.string(),
  grantId: id("grt"),
  resource: z.string(),
  task: z.string(),
  runId: id("run").nullable(),
  client: z.string(),
  openedAtMs: epochMs,
  deadlineMs: epochMs,
  commands: count,
  denied: count,
  rows: count,
  maskedCells: count,
  state: z.enum(["live", "ended"]),
});

const resourceView: z.ZodType<ResourceView> = z.object({
  id: id("res"),
  name: z.string(),
  kind: z.literal("postgres"),
  target: z.string(),
  state: z.enum(["ready", "unavailable"]),
  findings: z.array(z.string()),
});

const ledgerView: z.ZodType<LedgerView> = z.object({
  origin: z.string(),
  directory: z.string(),
  size: count,
  checkpointSize: count,
  rootHex: z.string(),
  verifierKey: z.string(),
  state: z.enum(["open", "failed", "closed"]),
  failure: z.string().nullable(),
});

const statusView: z.ZodType<StatusView> = z.object({
  version: z.string(),
  startedAtMs: epochMs,
  postgres: place,
  control: place,
  resources: z.array(resourceView),
  principals: count,
  activeGrants: count,
  liveSessions: count,
  ledger: ledgerView,
});

const startedRun: z.ZodType<StartedRun> = z.object({
  runId: id("run"),
  grantId: id("grt"),
  connection: connectionDetails,
});

const runEvent: z.ZodType<RunEvent> = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("hello"), runId: id("run") }),
  z.object({ kind: z.literal("ended"), reason: z.string() }),
]);

const reason = z.strictObject({ reason: z.string().trim().min(1).max(500) });

const addGrantInput = z.strictObject({
  principal: name,
  onBehalfOf: name.optional(),
  resource: name,
  task: z.strictObject({
    title: z.string().trim().min(1).max(200),
    purpose: z.string().trim().min(1).max(2000).optional(),
    ticket: z.string().trim().min(1).max(200).optional(),
  }),
  tables: z.array(tableGrantInput).min(1).max(200),
  lifetimeMs: z.int().min(1000).max(limits.grantLifetimeMsMax),
}) satisfies z.ZodType<AddGrantInput>;

const startRunInput = z.strictObject({
  principal: name,
  resource: name,
  task: z.string().trim().min(1).max(200),
  command: z.string().max(1000),
}) satisfies z.ZodType<StartRunInput>;

const openCallInput = z.strictObject({
  method: z.string().min(1).max(200),
  tool: z.string().max(500).nullable(),
  parameters: z.string().max(limits.payloadBytesMax),
}) satisfies z.ZodType<OpenCallInput>;

const closeCallInput = z.strictObject({
  status: z.enum(["ok", "error", "tool-error", "cancelled", "lost"]),
  bytes: count,
}) satisfies z.ZodType<CloseCallInput>;

const nothing = z.strictObject({});
const ofRun = z.object({ run: id("run") });

/** Every route there is. */
export const routes = {
  status: {
    method: "GET",
    path: "/v1/status",
    changes: false,
    params: nothing,
    query: nothing,
    body: nothing,
    answer: "object",
    response: statusView,
  },
  addGrant: {
    method: "POST",
    path: "/v1/grants",
    changes: true,
    entry: { type: "change.intent", kind: "grant.add" },
    params: nothing,
    query: nothing,
    body: addGrantInput,
    answer: "object",
    response: addedGrant,
  },
  listGrants: {
    method: "GET",
    path: "/v1/grants",
    changes: false,
    params: nothing,
    query: z.strictObject({ state: z.enum(grantStates).optional() }),
    body: nothing,
    answer: "object",
    response: z.object({ grants: z.array(grantView) }),
  },
  revokeGrant: {
    method: "POST",
    path: "/v1/grants/:grant/revoke",
    changes: true,
    entry: { type: "change.intent", kind: "grant.revoke" },
    params: z.object({ grant: id("grt") }),
    query: nothing,
    body: reason,
    answer: "object",
    response: grantView,
  },
  listSessions: {
    method: "GET",
    path: "/v1/sessions",
    changes: false,
    params: nothing,
    query: nothing,
    body: nothing,
    answer: "object",
    response: z.object({ sessions: z.array(sessionView) }),
  },
  startRun: {
    method: "POST",
    path: "/v1/runs",
    changes: true,
    entry: { type: "change.intent", kind: "run.start" },
    params: nothing,
    query: nothing,
    body: startRunInput,
    answer: "object",
    response: startedRun,
  },
  openCall: {
    method: "POST",
    path: "/v1/runs/:run/calls",
    changes: true,
    entry: { type: "call.intent" },
    params: ofRun,
    query: nothing,
    body: openCallInput,
    answer: "object",
    response: z.object({ callId: id("call") }),
  },
  closeCall: {
    method: "POST",
    path: "/v1/runs/:run/calls/:call/close",
    changes: true,
    entry: { type: "call.outcome" },
    params: z.object({ run: id("run"), call: id("call") }),
    query: nothing,
    body: closeCallInput,
    answer: "object",
    response: nothing,
  },
  runEvents: {
    method: "GET",
    path: "/v1/runs/:run/events",
    // When the reader goes, the run ends.
    changes: true,
    entry: { type: "change.intent", kind: "run.end" },
    params: ofRun,
    query: nothing,
    body: nothing,
    answer: "stream",
    response: runEvent,
  },
  endRun: {
    method: "POST",
    path: "/v1/runs/:run/end",
    changes: true,
    entry: { type: "change.intent", kind: "run.end" },
    params: ofRun,
    query: nothing,
    body: reason,
    answer: "object",
    response: nothing,
  },
} as const satisfies Record<string, Route>;

export type RouteName = keyof typeof routes;
