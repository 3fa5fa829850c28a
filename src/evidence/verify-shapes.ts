/** Form of a single entry: canonical bytes, known version, and exactly the fields of its type. */
import { canonicalJson, entryVersion } from "#ledger/entry.ts";
import type { Entry, EntryHead, EntryPayload, EntryType } from "#ledger/entry.ts";

/** A check of one value; `?` in a field's name of kinds below means that null is allowed. */
type Check = (value: unknown) => boolean;
type Shape = { readonly [name: string]: Check };

const isString: Check = (value) => typeof value === "string";
const isBoolean: Check = (value) => typeof value === "boolean";
const isInteger: Check = (value) => Number.isSafeInteger(value);
const isCount: Check = (value) => typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
const isHash: Check = (value) => typeof value === "string" && /^[A-Za-z0-9_-]{43}$/.test(value);
const isTime: Check = (value) =>
  typeof value === "string" &&
  /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(value) &&
  !Number.isNaN(Date.parse(value)) &&
  new Date(value).toISOString() === value;
const orNull =
  (check: Check): Check =>
  (value) =>
    value === null || check(value);
const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check);
const oneOf =
  (...values: readonly string[]): Check =>
  (value) =>
    typeof value === "string" && values.includes(value);
const isDetail: Check = (value) =>
  isRecord(value) &&
  Object.values(value).every(
    (member) =>
      member === null || isString(member) || isBoolean(member) || isInteger(member) || listOf(isString)(member),
  );

/** An object that is neither null nor an array. */
export function isRecord(value: unknown): value is { readonly [name: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const objectOf =
  (shape: Shape, optional: Shape = {}): Check =>
  (value) =>
    isRecord(value) && misfit(value, shape, optional) === null;

/** The first field that is missing, unknown or of another kind; null when all fit. */
function misfit(value: { readonly [name: string]: unknown }, shape: Shape, optional: Shape): string | null {
  for (const [name, check] of Object.entries(shape)) {
    if (!(name in value) || !check(value[name])) {
      return name;
    }
  }
  for (const [name, member] of Object.entries(value)) {
    if (!(name in shape) && optional[name]?.(member) !== true) {
      return name;
    }
  }
  return null;
}

const isSession = objectOf({
  id: isString,
  entry: isCount,
  principal: isString,
  onBehalfOf: orNull(isString),
  grant: isString,
  task: isString,
  resource: isString,
});
const isDecision = objectOf(
  {
    id: isString,
    effect: oneOf("allow", "deny"),
    policies: listOf(isString),
    policySet: isString,
    obligations: listOf(isString),
  },
  { code: isString },
);
const isEffect = objectOf({ verb: isString, object: isString, columns: listOf(isString) });
const isCause = objectOf({
  strength: oneOf("bound", "exclusive", "declared", "ambiguous", "none"),
  calls: listOf(isString),
});
const isActor: Check = (value) =>
  objectOf({ kind: oneOf("principal"), id: isString })(value) ||
  objectOf({ kind: oneOf("control"), credential: isString })(value) ||
  objectOf({ kind: oneOf("config", "gateway") })(value);
const isOutcome = objectOf({
  status: oneOf("ok", "error", "suspended", "skipped", "cancelled", "may-have-run"),
  rows: isCount,
  bytes: isCount,
  tag: orNull(isString),
  sqlState: orNull(isString),
  durationUs: isCount,
  redactions: listOf(
    objectOf({
      label: isString,
      ruleId: isString,
      source: isString,
      output: isCount,
      cells: isCount,
      layer: oneOf("view", "wire"),
    }),
  ),
});
const isScrubbed: Check = (value) =>
  isRecord(value) &&
  Object.keys(value).length > 0 &&
  Object.values(value).every((count) => isCount(count) && count !== 0);
const isPayload = objectOf({ key: isString, hash: isHash, bytes: isCount }, { scrubbed: isScrubbed });

/** The fields of each type besides its head. The type makes a field that is forgotten here an error of compilation. */
const shapes: {
  readonly [T in EntryType]: {
    readonly [K in Exclude<keyof Extract<Entry, { readonly type: T }>, keyof EntryHead | "type">]: Check;
  };
} = {
  "node.started": { software: isString, runtime: isString },
  "node.stopped": { reason: isString },
  "change.intent": { change: isString, kind: isString, object: isString, by: isActor, detail: isDetail },
  "change.outcome": {
    change: isString,
    kind: isString,
    object: isString,
    intent: orNull(isCount),
    status: oneOf("ok", "failed"),
    code: orNull(isString),
    detail: isDetail,
  },
  "session.opened": {
    session: isString,
    principal: isString,
    principalKind: oneOf("human", "agent", "service"),
    owner: orNull(isString),
    onBehalfOf: orNull(isString),
    actors: listOf(isString),
    authentication: objectOf({ method: isString, credential: isString }),
    client: isString,
    grant: isString,
    task: isString,
    resource: isString,
    run: orNull(isString),
    deadline: isInteger,
    provisioning: isString,
    publicRights: listOf(isString),
  },
  "session.refused": {
    decision: isString,
    code: isString,
    credential: orNull(isString),
    grant: orNull(isString),
    protocol: isString,
  },
  "control.refused": {
    code: isString,
    count: isCount,
  },
  "session.closed": {
    session: isSession,
    how: isString,
    code: orNull(isString),
    commands: isCount,
    denied: isCount,
    rows: isCount,
    bytes: isCount,
  },
  "command.prepared": {
    session: isSession,
    command: isString,
    cause: isCause,
    kind: isString,
    effects: listOf(isEffect),
    decision: isDecision,
    rewritten: isBoolean,
  },
  "command.denied": {
    session: isSession,
    command: isString,
    cause: isCause,
    kind: isString,
    effects: listOf(isEffect),
    decision: isDecision,
    statement: isCount,
    statements: isCount,
  },
  "command.intent": {
    session: isSession,
    command: isString,
    prepared: orNull(isCount),
    cause: isCause,
    kind: isString,
    effects: listOf(isEffect),
    decision: isDecision,
    pure: isBoolean,
    rewritten: isBoolean,
    statement: isCount,
    statements: isCount,
  },
  "command.outcome": {
    session: isSession,
    command: isString,
    intent: isCount,
    execution: isCount,
    outcome: isOutcome,
  },
  "transaction.ended": {
    session: isSession,
    how: oneOf("commit", "rollback"),
    explicit: isBoolean,
    first: isCount,
    commands: isCount,
  },
  "cancel.requested": { session: orNull(isSession), known: isBoolean, count: isCount },
  "call.intent": {
    call: isString,
    run: isString,
    principal: isString,
    grant: isString,
    task: isString,
    method: isString,
    tool: orNull(isString),
  },
  "call.outcome": {
    call: isString,
    run: isString,
    intent: isCount,
    status: oneOf("ok", "error", "tool-error", "cancelled", "lost"),
    bytes: isCount,
    durationUs: isCount,
  },
  "provision.intent": {
    change: isString,
    resource: isString,
    action: isString,
    object: isString,
    statements: isCount,
  },
  "provision.outcome": {
    change: isString,
    intent: isCount,
    status: oneOf("ok", "failed"),
    sqlState: orNull(isString),
    attested: orNull(isBoolean),
  },
  "ledger.opened": { origin: isString, size: isCount },
  "ledger.recovered": { checkpoint: isCount, entries: isCount, tornBytes: isCount },
  "payload.destroyed": { key: isString },
};

const headShape: Shape = { v: (value) => value === entryVersion, at: isTime, mono: isCount, type: isString };

/** What the bytes of a leaf are. */
export type JudgedEntry =
  | { readonly ok: true; readonly entry: Entry }
  /** `payload` is what the entry says of its payload, as far as that can be read: the payload files are walked with it. */
  | { readonly ok: false; readonly reason: string; readonly payload: EntryPayload | null };

/** Checks one leaf: UTF-8, canonical JSON, version, type and fields. */
export function judgeEntry(bytes: Uint8Array): JudgedEntry {
  let value: unknown;
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
  } catch {
    return { ok: false, reason: "it is not JSON in UTF-8", payload: null };
  }
  const reason = faultOf(value, text);
  if (reason === null) {
    // The mint of a verified entry: version, type and every field were checked just above.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    return { ok: true, entry: value as Entry };
  }
  return { ok: false, reason, payload: payloadOf(value) };
}

function payloadOf(value: unknown): EntryPayload | null {
  const payload = isRecord(value) ? value["payload"] : null;
  // The mint of a payload's description out of an entry that is refused for another reason.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return isPayload(payload) ? (payload as EntryPayload) : null;
}

function faultOf(value: unknown, text: string): string | null {
  if (!isRecord(value)) {
    return "it is not a JSON object";
  }
  if (!isCanonical(value, text)) {
    return "it is not in canonical form (RFC 8785)";
  }
  if (value["v"] !== entryVersion) {
    return "its version is not one that this verifier knows";
  }
  const type = value["type"];
  const shape: Shape | undefined = isEntryType(type) ? shapes[type] : undefined;
  if (shape === undefined) {
    return "its type is unknown";
  }
  const optional: Shape = { commitments: isCommitments, payload: isPayload };
  const field = misfit(value, { ...headShape, ...shape }, optional);
  if (field !== null) {
    return `its field ${JSON.stringify(field)} is missing, unknown or malformed`;
  }
  if ("commitments" in value !== "payload" in value) {
    return "it has a payload without commitments, or the reverse";
  }
  return isScrubbedCommitted(value) ? null : "it says of a field that it does not commit to that it was scrubbed";
}

function isScrubbedCommitted({ payload, commitments }: { readonly [name: string]: unknown }): boolean {
  const scrubbed = isRecord(payload) ? payload["scrubbed"] : undefined;
  return !isRecord(scrubbed) || (isRecord(commitments) && Object.keys(scrubbed).every((name) => name in commitments));
}

function isEntryType(type: unknown): type is EntryType {
  return typeof type === "string" && Object.hasOwn(shapes, type);
}

const isCommitments: Check = (value) => isRecord(value) && Object.values(value).every(isHash);

function isCanonical(value: unknown, text: string): boolean {
  try {
    return canonicalJson(value) === text;
  } catch {
    return false;
  }
}
