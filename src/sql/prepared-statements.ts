/**
 * PREPARE, EXECUTE and DEALLOCATE in SQL (PostgreSQL documentation, "PREPARE"). They share their names with the statements of the
 * extended protocol, so what a name stands for is the session's to know; here it is only said which name is meant.
 */
import type { DeallocateStmt, ExecuteStmt, Node, PrepareStmt } from "libpg-query";
import type { NamedStatement } from "./analysis.ts";
import { resolveAll } from "./grammar.ts";
import { childScope } from "./namespace.ts";
import { refuseUnsupported } from "./refused.ts";
import type { StatementState } from "./statement-state.ts";
import { isNameReading } from "./name-reading.ts";
import { resolveType } from "./types.ts";

/** What a statement does with a name; the query that PREPARE holds is given back to be analysed as any other. */
export interface Named {
  readonly named: NamedStatement;
  readonly query: Node | null;
}

/** Analyses PREPARE, EXECUTE and DEALLOCATE; null when the statement is of another kind. */
export function analyzeNamedStatement(node: Node, state: StatementState): Named | null {
  if ("PrepareStmt" in node) {
    return prepare(node.PrepareStmt, state);
  }
  if ("ExecuteStmt" in node) {
    return execute(node.ExecuteStmt, state);
  }
  if ("DeallocateStmt" in node) {
    return deallocate(node.DeallocateStmt);
  }
  return null;
}

function prepare(statement: PrepareStmt, state: StatementState): Named {
  const scope = childScope(state, null);
  for (const argument of statement.argtypes ?? []) {
    state.claim(argument);
    if (!("TypeName" in argument)) {
      refuseUnsupported("a parameter's type has an unknown form", "Name a type.");
    }
    const type = resolveType(argument.TypeName, scope);
    if (isNameReading(state.context.catalog, type.oid)) {
      // EXECUTE's text would be read as a name, and answer whether it exists.
      refuseUnsupported("a parameter has a type that reads names", "Declare it as text or oid.");
    }
  }
  const { query } = statement;
  if (query === undefined) {
    return refuseUnsupported("PREPARE without a query is not supported", "Prepare a query.");
  }
  state.claim(query);
  return { named: { action: "prepare", name: nameOf(statement.name) }, query };
}

/** The arguments are expressions without tables; that they can be given as parameters is checked by PostgreSQL. */
function execute(statement: ExecuteStmt, state: StatementState): Named {
  resolveAll(statement.params, childScope(state, null));
  return { named: { action: "execute", name: nameOf(statement.name) }, query: null };
}

function deallocate(statement: DeallocateStmt): Named {
  if (statement.isall === true) {
    return { named: { action: "deallocate-all" }, query: null };
  }
  return { named: { action: "deallocate", name: nameOf(statement.name) }, query: null };
}

function nameOf(name: string | undefined): string {
  if (name === undefined || name === "") {
    return refuseUnsupported("a prepared statement in SQL needs a name", "Give it one.");
  }
  return name;
}
