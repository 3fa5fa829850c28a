/**
 * Counts from the ledger what the demo did, in a process that has seen none of it, and compares with PostgreSQL's own log.
 *
 *     node demo/recount.ts <ledger directory> [<PostgreSQL log>]
 *
 * Prints one JSON object.
 */
import { readFile } from "node:fs/promises";
import { readLedger } from "#ledger/reader.ts";
import { readStatementLog } from "./statement-log.ts";

/** What the ledger says. */
export interface Counts {
  /** Requests `tools/call`. */
  readonly toolCalls: number;
  /** Statements of agents that were forwarded. */
  readonly statements: number;
  readonly allowed: number;
  readonly denied: number;
  readonly maskedCells: number;
  /** Statements that are linked to the one call that caused them. */
  readonly linked: number;
  readonly entries: number;
}

export interface Recount extends Counts {
  /** Null when there was no log to compare with. */
  readonly log: {
    /** Messages with statements that PostgreSQL saw from the grants' own roles, and that the ledger has. */
    readonly seen: number;
    readonly recorded: number;
    /** Statements that were denied and reached PostgreSQL nevertheless. */
    readonly escaped: number;
  } | null;
}

/** Counts a ledger. */
export async function recount(ledgerDirectory: string, logFile: string | null): Promise<Recount> {
  const reader = await readLedger(ledgerDirectory);
  const agents = new Set<string>();
  const roles = new Set<string>();
  const counts = { toolCalls: 0, statements: 0, allowed: 0, denied: 0, maskedCells: 0, linked: 0, messages: 0 };
  for await (const { entry } of reader.entries()) {
    switch (entry.type) {
      case "session.opened":
        if (entry.principalKind === "agent") {
          agents.add(entry.session);
        }
        break;
      case "provision.intent":
        if (entry.action === "grant-role.create") {
          roles.add(entry.object);
        }
        break;
      case "call.intent":
        counts.toolCalls += entry.method === "tools/call" ? 1 : 0;
        break;
      case "command.intent":
        if (agents.has(entry.session.id)) {
          counts.statements += 1;
          counts.allowed += entry.decision.effect === "allow" ? 1 : 0;
          counts.linked += entry.cause.strength === "exclusive" || entry.cause.strength === "bound" ? 1 : 0;
          counts.messages += entry.statement === 1 ? 1 : 0;
        }
        break;
      case "command.denied":
        counts.denied += agents.has(entry.session.id) ? 1 : 0;
        break;
      case "command.outcome":
        counts.maskedCells += entry.outcome.redactions.reduce((sum, redaction) => sum + redaction.cells, 0);
        break;
      default:
      // Everything else counts as an entry only.
    }
  }
  const { messages, ...rest } = counts;
  return { ...rest, entries: reader.size, log: logFile === null ? null : await compare(logFile, roles, messages) };
}

async function compare(logFile: string, roles: ReadonlySet<string>, recorded: number): Promise<Recount["log"]> {
  const logged = readStatementLog(await readFile(logFile, "utf8"), roles);
  const escaped = logged.texts.filter((text) => /\b(drop|payment_methods)\b/i.test(text)).length;
  return { seen: logged.messages, recorded, escaped };
}

if (import.meta.main) {
  const [ledgerDirectory, logFile] = process.argv.slice(2);
  if (ledgerDirectory === undefined) {
    process.stderr.write("usage: node demo/recount.ts <ledger directory> [<PostgreSQL log>]\n");
    process.exitCode = 2;
  } else {
    process.stdout.write(`${JSON.stringify(await recount(ledgerDirectory, logFile ?? null))}\n`);
  }
}
