/** The recount, over a ledger that was written for it: what it counts, and what it must not count. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { idSource } from "#domain/ids.ts";
import type { Cause } from "#domain/cause.ts";
import { openLedger } from "#ledger/append.ts";
import type { EntryDraft, EntrySession } from "#ledger/entry.ts";
import { findFreePorts } from "../../demo/processes.ts";
import { tamperWithCopy } from "../../demo/proof.ts";

const execFileAsync = promisify(execFile);
const program = join(import.meta.dirname, "../../demo/recount.ts");
const ids = idSource((length) => randomBytes(length));

interface Actor {
  readonly opened: EntryDraft;
  readonly session: EntrySession;
}

function makeActor(kind: "agent" | "service"): Actor {
  const session: EntrySession = {
    id: ids("ses"),
    entry: 0,
    principal: ids("prn"),
    onBehalfOf: null,
    grant: ids("grt"),
    task: ids("tsk"),
    resource: ids("res"),
  };
  const { id, entry: _, ...rest } = session;
  const opened: EntryDraft = {
    type: "session.opened",
    session: id,
    ...rest,
    principalKind: kind,
    owner: ids("prn"),
    actors: [],
    authentication: { method: "scram-sha-256", credential: ids("crd") },
    client: "",
    run: null,
    deadline: 1,
    provisioning: "role",
    publicRights: [],
  };
  return { opened, session };
}

const decision = { id: ids("dec"), policies: [], policySet: "", obligations: [] } as const;
const statement = { kind: "select", effects: [] } as const;

function intent(session: EntrySession, strength: Cause["strength"], ordinal = 1): EntryDraft {
  return {
    type: "command.intent",
    session,
    command: ids("cmd"),
    prepared: null,
    cause: { strength, calls: [] },
    ...statement,
    decision: { ...decision, effect: "allow" },
    pure: true,
    rewritten: false,
    statement: ordinal,
    statements: 2,
  };
}

function outcome(session: EntrySession, cells: number): EntryDraft {
  const redaction = {
    label: "pii.email",
    ruleId: "mask.pii.email",
    source: "public.customers.email",
    layer: "view",
  } as const;
  return {
    type: "command.outcome",
    session,
    command: ids("cmd"),
    intent: 1,
    execution: 1,
    outcome: {
      status: "ok",
      rows: 1,
      bytes: 1,
      tag: null,
      sqlState: null,
      durationUs: 1,
      redactions: [
        { ...redaction, output: 1, cells },
        { ...redaction, output: 2, cells: 1 },
      ],
    },
  };
}

function call(method: string): EntryDraft {
  return {
    type: "call.intent",
    call: ids("call"),
    run: ids("run"),
    principal: ids("prn"),
    grant: ids("grt"),
    task: ids("tsk"),
    method,
    tool: null,
  };
}

describe("the recount", () => {
  let directory: string;
  let ledgerDirectory: string;
  let entries = 0;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "sallyport recount "));
    ledgerDirectory = join(directory, "ledger");
    const ledger = await openLedger({
      directory: ledgerDirectory,
      keysDirectory: join(directory, "keys"),
      origin: "sallyport.local/test",
      clock: { nowMs: () => Date.now(), monotonicUs: () => Math.round(performance.now() * 1000) },
      randomBytes: (length) => randomBytes(length),
    });
    const agent = makeActor("agent");
    const service = makeActor("service");
    const drafts: readonly EntryDraft[] = [
      agent.opened,
      service.opened,
      {
        type: "provision.intent",
        change: ids("chg"),
        resource: ids("res"),
        action: "grant-role.create",
        object: "grant_role",
        statements: 1,
      },
      call("initialize"),
      call("tools/call"),
      call("tools/call"),
      intent(agent.session, "exclusive"),
      intent(agent.session, "bound"),
      intent(agent.session, "exclusive", 2),
      intent(agent.session, "ambiguous"),
      intent(agent.session, "none"),
      intent(service.session, "exclusive"),
      {
        type: "command.denied",
        session: agent.session,
        command: ids("cmd"),
        cause: { strength: "exclusive", calls: [] },
        ...statement,
        decision: { ...decision, effect: "deny", code: "grant.no-table" },
        statement: 1,
        statements: 1,
      },
      outcome(agent.session, 4),
      outcome(agent.session, 2),
    ];
    for (const entry of drafts) {
      await ledger.record({ entry }, null);
    }
    await ledger.close();
    entries = ledger.status().size;
    await writeFile(
      join(directory, "postgres.log"),
      ["select 1", "select 2", "select 3", "select 4"]
        .map((sql) => `2026-11-25 03:02:50 UTC [1] grant_role@billing LOG:  statement: ${sql}\n`)
        .join(""),
    );
  });
  afterAll(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  test("counts what agents did, by the definitions of the demo", async () => {
    const { stdout } = await execFileAsync(process.execPath, [
      program,
      ledgerDirectory,
      join(directory, "postgres.log"),
    ]);
    expect(JSON.parse(stdout)).toEqual({
      toolCalls: 2,
      statements: 5,
      allowed: 5,
      linked: 3,
      denied: 1,
      maskedCells: 8,
      entries,
      log: { seen: 4, recorded: 4, escaped: 0 },
    });
  });

  test("works without a log to compare with", async () => {
    const { stdout } = await execFileAsync(process.execPath, [program, ledgerDirectory]);
    expect(JSON.parse(stdout)).toMatchObject({ statements: 5, log: null });
  });

  test("sees a denied statement that PostgreSQL saw", async () => {
    const log = join(directory, "escaped.log");
    await writeFile(
      log,
      "2026-11-25 03:02:50 UTC [1] grant_role@billing LOG:  statement: select 1; DROP table invoices\n",
    );
    const { stdout } = await execFileAsync(process.execPath, [program, ledgerDirectory, log]);
    expect(JSON.parse(stdout)).toMatchObject({ log: { seen: 1, recorded: 4, escaped: 1 } });
  });

  test("the tampered copy differs from the ledger in one bit, and the ledger is left alone", async () => {
    const copy = join(directory, "tampered");
    const { file, byte } = await tamperWithCopy(ledgerDirectory, copy);
    const { stdout } = await execFileAsync("cmp", ["-l", join(ledgerDirectory, file), join(copy, file)]).catch(
      (error: { stdout: string }) => error,
    );
    expect(stdout.trim().split("\n")).toHaveLength(1);
    expect(Number(stdout.trim().split(/ +/)[0])).toBe(byte + 1);
    const { stdout: others } = await execFileAsync("diff", ["-rq", ledgerDirectory, copy]).catch(
      (error: { stdout: string }) => error,
    );
    expect(others.trim().split("\n")).toHaveLength(1);
  });
});

describe("free ports", () => {
  test("are all different", async () => {
    const ports = await findFreePorts(5);
    expect(new Set(ports).size).toBe(5);
    expect(ports.every((port) => port > 0)).toBe(true);
  });
});
