/** A ledger in a directory of its own, with a clock and randomness that a test can repeat. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { openLedger } from "#ledger/append.ts";
import type { LedgerOptions, OpenLedger } from "#ledger/append.ts";
import type { Draft, EntrySession } from "#ledger/entry.ts";
import { idSource } from "#domain/ids.ts";

/** Bytes that are the same in every run and do not repeat within one. */
export function seededBytes(seed: string): (length: number) => Uint8Array {
  let counter = 0;
  return (length) => {
    const blocks: Buffer[] = [];
    for (let bytes = 0; bytes < length; bytes += 32) {
      blocks.push(createHash("sha256").update(`${seed} ${counter++}`).digest());
    }
    return Buffer.concat(blocks).subarray(0, length);
  };
}

export interface LedgerFixture {
  readonly root: string;
  readonly directory: string;
  readonly keysDirectory: string;
  readonly options: LedgerOptions;
  open(changes?: Partial<LedgerOptions>): Promise<OpenLedger>;
  remove(): void;
}

export function ledgerFixture(): LedgerFixture {
  const root = mkdtempSync(join(tmpdir(), "ledger-unit-"));
  let nowMs = 1_767_225_600_000;
  let opened = 0;
  const options: LedgerOptions = {
    directory: join(root, "log"),
    keysDirectory: join(root, "keys"),
    origin: "unit.example/log",
    clock: { nowMs: () => (nowMs += 3), monotonicUs: () => nowMs % 1_000_000_000 },
    randomBytes: seededBytes(root),
    tuning: { integrateAfterMs: 3_600_000 },
  };
  return {
    root,
    directory: options.directory,
    keysDirectory: options.keysDirectory,
    options,
    open: (changes = {}) => {
      opened += 1;
      const claimant = { name: `${opened}-test`, isAlive: () => false };
      return openLedger({ ...options, claimant, randomBytes: seededBytes(`${root} ${opened}`), ...changes });
    },
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
}

export const ids = idSource(seededBytes("ids"));

/** A plain entry with a name, and a payload when `text` is given. */
export function note(name: string, text?: string): Draft {
  const entry = { type: "node.stopped", reason: name } as const;
  return text === undefined ? { entry } : { entry, payload: { key: "node", fields: { text } } };
}

/** Records a session and one command in it, intent and outcome. Returns the index of the intent. */
export async function recordCommand(ledger: OpenLedger, hasOutcome: boolean): Promise<number> {
  const session = ids("ses");
  const shared = {
    principal: ids("prn"),
    onBehalfOf: null,
    grant: ids("grt"),
    task: ids("tsk"),
    resource: ids("res"),
  };
  await ledger.openDataKey(session);
  const opened = await ledger.record(
    {
      entry: {
        type: "session.opened",
        session,
        ...shared,
        principalKind: "agent",
        owner: ids("prn"),
        actors: [],
        authentication: { method: "scram-sha-256", credential: ids("crd") },
        client: "psql",
        run: null,
        deadline: 1_800_000_000_000,
        provisioning: "role",
        publicRights: [],
      },
      payload: { key: session, fields: { address: "127.0.0.1:5000" } },
    },
    "session",
  );
  const entrySession: EntrySession = { id: session, entry: opened.index, ...shared };
  const command = ids("cmd");
  const intent = await ledger.record(
    {
      entry: {
        type: "command.intent",
        session: entrySession,
        command,
        prepared: null,
        cause: { strength: "exclusive", calls: [ids("call")] },
        kind: "select",
        effects: [{ verb: "select", object: "public.customers", columns: ["id", "email"] }],
        decision: {
          id: ids("dec"),
          effect: "allow",
          policies: ["grant"],
          policySet: "ab".repeat(32),
          obligations: ["mask pii.email"],
        },
        pure: true,
        rewritten: true,
        statement: 1,
        statements: 1,
      },
      payload: { key: session, fields: { statement: "select id, email from customers where id = $1", binds: '["7"]' } },
    },
    "intent",
  );
  if (hasOutcome) {
    await ledger.record(
      {
        entry: {
          type: "command.outcome",
          session: entrySession,
          command,
          intent: intent.index,
          execution: 1,
          outcome: {
            status: "ok",
            rows: 1,
            bytes: 40,
            tag: "SELECT 1",
            sqlState: null,
            durationUs: 812,
            redactions: [],
          },
        },
      },
      "outcome",
    );
  }
  return intent.index;
}
