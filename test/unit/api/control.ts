/** A control plane that notes what it was asked, for tests of the endpoint in front of it. */
import type { AddedGrant, ControlPlane, GrantView, RunEvent, SessionView, StatusView } from "#domain/control.ts";
import { type IdPrefix, type IdTypes, parseId } from "#domain/ids.ts";

export function id<P extends IdPrefix>(prefix: P, tail: string): IdTypes[P] {
  const parsed = parseId(prefix, `${prefix}_${tail}`);
  if (parsed === null) {
    throw new Error(`not an id: ${tail}`);
  }
  return parsed;
}

export const grantView: GrantView = {
  id: id("grt", "a1b2c3"),
  principal: "support-copilot",
  principalId: id("prn", "c0"),
  resource: "billing",
  resourceId: id("res", "b1"),
  task: "T-88 charged twice",
  tables: [{ schema: "public", table: "customers", verbs: ["select"], columns: ["id", "name"] }],
  createdAtMs: 1_800_000_000_000,
  expiresAtMs: 1_800_001_800_000,
  state: "active",
  end: null,
  liveSessions: 1,
  source: "api",
};

export const addedGrant: AddedGrant = {
  grant: grantView,
  connection: {
    host: "127.0.0.1",
    port: 7432,
    database: "billing",
    user: "grt-a1b2c3",
    password: "shown-once",
    expiresAtMs: 1_800_001_800_000,
  },
};

export const sessionView: SessionView = {
  id: id("ses", "s1"),
  principal: "support-copilot",
  grantId: grantView.id,
  resource: "billing",
  task: "T-88 charged twice",
  runId: null,
  client: "psql",
  openedAtMs: 1_800_000_000_000,
  deadlineMs: 1_800_001_800_000,
  commands: 3,
  denied: 1,
  rows: 20,
  maskedCells: 40,
  state: "live",
};

export const statusView: StatusView = {
  version: "0.1.0",
  startedAtMs: 1_800_000_000_000,
  postgres: { host: "127.0.0.1", port: 7432 },
  control: { host: "127.0.0.1", port: 7400 },
  resources: [
    {
      id: id("res", "b1"),
      name: "billing",
      kind: "postgres",
      target: "127.0.0.1:5432/billing",
      state: "ready",
      findings: [],
    },
  ],
  principals: 2,
  activeGrants: 1,
  liveSessions: 1,
  ledger: {
    origin: "sallyport.test/node",
    directory: "/var/ledger",
    size: 12,
    checkpointSize: 12,
    rootHex: "00".repeat(32),
    verifierKey: "sallyport.test/node+00000000+AA==",
    state: "open",
    failure: null,
  },
};

export interface NotingControl extends ControlPlane {
  /** Method and arguments, in order. */
  readonly asked: (readonly unknown[])[];
  /** How many event streams have been told to end. */
  readonly streamsEnded: () => number;
  /** When set, the next call throws it. */
  fail: Error | null;
  /** Sent to every stream that is open. */
  readonly send: (event: RunEvent) => void;
}

export function notingControl(): NotingControl {
  const asked: (readonly unknown[])[] = [];
  const readers = new Set<(event: RunEvent) => void>();
  let ended = 0;
  const note = async <T>(name: string, input: readonly unknown[], answer: T): Promise<T> => {
    asked.push([name, ...input]);
    const failure = control.fail;
    control.fail = null;
    if (failure !== null) {
      throw failure;
    }
    return answer;
  };
  const control: NotingControl = {
    asked,
    fail: null,
    streamsEnded: () => ended,
    send: (event) => readers.forEach((reader) => reader(event)),
    status: () => note("status", [], statusView),
    addGrant: (input) => note("addGrant", [input], addedGrant),
    listGrants: (filter) => note("listGrants", [filter], [grantView]),
    revokeGrant: (grant, reason) => note("revokeGrant", [grant, reason], { ...grantView, state: "ended" as const }),
    listSessions: () => note("listSessions", [], [sessionView]),
    startRun: (input) =>
      note("startRun", [input], { runId: id("run", "r1"), grantId: grantView.id, connection: addedGrant.connection }),
    openCall: (run, input) => note("openCall", [run, input], { callId: id("call", "k1") }),
    closeCall: (run, call, input) => note("closeCall", [run, call, input], undefined),
    endRun: (run, reason) => note("endRun", [run, reason], undefined),
    async *runEvents(run, signal) {
      await note("runEvents", [run], undefined);
      const waiting: RunEvent[] = [{ kind: "hello", runId: run }];
      let wake = (): void => {};
      const reader = (event: RunEvent): void => {
        waiting.push(event);
        wake();
      };
      readers.add(reader);
      signal.addEventListener("abort", () => wake());
      try {
        while (!signal.aborted) {
          const event = waiting.shift();
          if (event !== undefined) {
            yield event;
            continue;
          }
          await new Promise<void>((settle) => {
            wake = settle;
          });
        }
      } finally {
        readers.delete(reader);
        ended += 1;
      }
    },
  };
  return control;
}
