/** Statements about the transaction and the session. */
import type { Node, TransactionStmt, VariableSetStmt, VariableShowStmt } from "libpg-query";
import type { StatementKind, TransactionAction } from "#domain/effect.ts";
import { refuseSetting } from "./call-arguments.ts";
import { refuseUnsupported } from "./refused.ts";
import { checkSetting, isReadableSetting, isWritableSetting } from "./settings.ts";
import type { StatementState } from "./statement-state.ts";
import { literalOf } from "./types.ts";

/** What a statement without tables does. */
export interface SessionStatement {
  readonly kind: Extract<StatementKind, "transaction" | "session">;
  readonly transaction: TransactionAction | null;
}

/** Analyses BEGIN, COMMIT, SET, SHOW and their kin; null when the statement is of another kind. */
export function analyzeSessionStatement(node: Node, state: StatementState): SessionStatement | null {
  if ("TransactionStmt" in node) {
    return { kind: "transaction", transaction: analyzeTransaction(node.TransactionStmt, state) };
  }
  if ("VariableSetStmt" in node) {
    analyzeSet(node.VariableSetStmt, state);
    return { kind: "session", transaction: null };
  }
  if ("VariableShowStmt" in node) {
    analyzeShow(node.VariableShowStmt, state);
    return { kind: "session", transaction: null };
  }
  return null;
}

const transactionActions: Readonly<Record<string, TransactionAction>> = {
  TRANS_STMT_BEGIN: "begin",
  TRANS_STMT_START: "begin",
  TRANS_STMT_COMMIT: "commit",
  TRANS_STMT_ROLLBACK: "rollback",
  TRANS_STMT_SAVEPOINT: "savepoint",
  TRANS_STMT_RELEASE: "release",
  TRANS_STMT_ROLLBACK_TO: "rollback-to",
};

function analyzeTransaction(statement: TransactionStmt, state: StatementState): TransactionAction {
  const action = transactionActions[statement.kind ?? ""];
  if (action === undefined) {
    return refuseUnsupported("two-phase commit is not supported", "Use BEGIN and COMMIT.");
  }
  analyzeModes(statement.options, state);
  if (action === "commit") {
    state.impure = true;
  }
  return action;
}

/** Transaction modes. A SERIALIZABLE transaction's reads take part in conflicts that others see: it is not pure. */
function analyzeModes(nodes: readonly Node[] | undefined, state: StatementState): void {
  for (const node of nodes ?? []) {
    state.claim(node);
    if (!("DefElem" in node)) {
      refuseUnsupported("a transaction mode has an unknown form", "Use READ ONLY or an isolation level.");
    }
    const { defname, arg } = node.DefElem;
    if (arg !== undefined) {
      state.claim(arg);
    }
    if (defname === "transaction_isolation") {
      state.impure ||= literalOf(arg) === "serializable";
    } else if (defname !== "transaction_read_only" && defname !== "transaction_deferrable") {
      refuseUnsupported("a transaction mode is not supported", "Use READ ONLY or an isolation level.");
    }
  }
}

function analyzeSet(statement: VariableSetStmt, state: StatementState): void {
  const name = statement.name ?? "";
  state.impure = true;
  switch (statement.kind) {
    case "VAR_SET_VALUE": {
      const value = settingValue(statement.args, state);
      if (value === null || !checkSetting(name, value)) {
        refuseSetting(name, "write");
      }
      break;
    }
    case "VAR_SET_DEFAULT":
    case "VAR_RESET":
      if (!isWritableSetting(name)) {
        refuseSetting(name, "write");
      }
      break;
    case "VAR_SET_MULTI":
      if (name !== "TRANSACTION") {
        refuseUnsupported(`SET ${name} is not supported`, "Give the modes to BEGIN.");
      }
      analyzeModes(statement.args, state);
      break;
    case "VAR_RESET_ALL":
      // The role pins what matters: this takes the session back to it.
      break;
    default:
      refuseUnsupported("SET has an unknown form", "Write SET name TO value.");
  }
  state.settings.set(statement.kind === "VAR_RESET_ALL" ? "all" : name.toLowerCase(), "write");
}

/** The value as PostgreSQL reads it: the parts of a list, joined. Null when it is not made of constants. */
function settingValue(nodes: readonly Node[] | undefined, state: StatementState): string | null {
  const parts = (nodes ?? []).map((node) => {
    state.claim(node);
    if (!("A_Const" in node)) {
      return null;
    }
    const { sval, ival, fval } = node.A_Const;
    return sval !== undefined ? (sval.sval ?? "") : ival !== undefined ? String(ival.ival ?? 0) : (fval?.fval ?? null);
  });
  return parts.includes(null) || parts.length === 0 ? null : parts.join(", ");
}

function analyzeShow(statement: VariableShowStmt, state: StatementState): void {
  const name = statement.name ?? "";
  if (!isReadableSetting(name)) {
    refuseSetting(name, "read");
  }
  state.settings.set(name.toLowerCase(), "read");
}
