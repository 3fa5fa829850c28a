/** Statements that no grant allows, in the words of whoever tried one. */
import type { Node } from "libpg-query";
import { refuse, refuseUnsupported } from "./refused.ts";

/** What a statement is called, by its node. */
const words: ReadonlyMap<string, string> = new Map(
  Object.entries({
    SelectStmt: "SELECT INTO, which creates a table",
    DropStmt: "DROP",
    TruncateStmt: "TRUNCATE",
    CreateStmt: "CREATE TABLE",
    CreateTableAsStmt: "CREATE TABLE AS",
    ViewStmt: "CREATE VIEW",
    IndexStmt: "CREATE INDEX",
    AlterTableStmt: "ALTER TABLE",
    RenameStmt: "ALTER … RENAME",
    GrantStmt: "GRANT or REVOKE",
    GrantRoleStmt: "GRANT or REVOKE",
    CreateRoleStmt: "CREATE ROLE",
    AlterRoleStmt: "ALTER ROLE",
    AlterRoleSetStmt: "ALTER ROLE",
    DropRoleStmt: "DROP ROLE",
    CreateFunctionStmt: "CREATE FUNCTION",
    AlterFunctionStmt: "ALTER FUNCTION",
    CreateSchemaStmt: "CREATE SCHEMA",
    CreateTrigStmt: "CREATE TRIGGER",
    RuleStmt: "CREATE RULE",
    CreateExtensionStmt: "CREATE EXTENSION",
    CommentStmt: "COMMENT",
    AlterSystemStmt: "ALTER SYSTEM",
    RefreshMatViewStmt: "REFRESH MATERIALIZED VIEW",
    VacuumStmt: "VACUUM or ANALYZE",
    ReindexStmt: "REINDEX",
    ClusterStmt: "CLUSTER",
    DropOwnedStmt: "DROP OWNED",
    ReassignOwnedStmt: "REASSIGN OWNED",
    CreatedbStmt: "CREATE DATABASE",
    DropdbStmt: "DROP DATABASE",
  }),
);

/** Refused because of what they are, not because of rights. */
const advice: ReadonlyMap<string, readonly [what: string, nextStep: string]> = new Map(
  Object.entries({
    CopyStmt: ["COPY is not supported", "Use SELECT or INSERT."],
    DoStmt: ["DO runs code that cannot be understood beforehand", "Send the statements themselves."],
    CallStmt: ["CALL runs code that cannot be understood beforehand", "Send the statements themselves."],
    MergeStmt: ["MERGE is not supported", "Use INSERT, UPDATE and DELETE."],
    ListenStmt: ["LISTEN is not supported", "Ask again instead of listening."],
    UnlistenStmt: ["UNLISTEN is not supported", "Leave it out: nothing is listened to."],
    NotifyStmt: ["NOTIFY is not supported", "Leave it out."],
    LockStmt: ["LOCK is not supported", "Read and write without locking tables."],
    DeclareCursorStmt: ["DECLARE CURSOR is not supported", "Use LIMIT, or the driver's row limits."],
    FetchStmt: ["FETCH is not supported", "Use LIMIT, or the driver's row limits."],
    ClosePortalStmt: ["CLOSE is not supported", "Leave it out: there are no SQL cursors."],
    DiscardStmt: ["DISCARD is not supported", "Use RESET ALL."],
    ConstraintsSetStmt: ["SET CONSTRAINTS is not supported", "Leave it out."],
    LoadStmt: ["LOAD is not supported", "Leave it out."],
    CheckPointStmt: ["CHECKPOINT is not supported", "Leave it out."],
  } satisfies Record<string, readonly [string, string]>),
);

/**
 * Refuses a statement that is neither a query nor about the session.
 * @throws StatementRefused always
 */
export function refuseStatement(node: Node): never {
  const kind = Object.keys(node)[0] ?? "";
  const [what, nextStep] = advice.get(kind) ?? [null, null];
  if (what !== null) {
    refuseUnsupported(what, nextStep);
  }
  const word =
    words.get(kind) ??
    kind
      .replace(/Stmt$/, "")
      .replaceAll(/([a-z])([A-Z])/g, "$1 $2")
      .toUpperCase();
  refuse("grant.no-verb", `no grant allows ${word}`, "Grants allow SELECT, INSERT, UPDATE and DELETE on their tables.");
}
