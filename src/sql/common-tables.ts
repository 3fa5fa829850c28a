/** WITH: which names are visible where (parse_cte.c), and what the columns of each are computed from. */
import type { CommonTableExpr, WithClause } from "libpg-query";
import { type QueryScope, type RangeColumn, childScope, unite, uniteAll } from "./namespace.ts";
import { analyzeCommonQuery, analyzeSelect } from "./grammar.ts";
import { quoted, refuse, refuseUnsupported } from "./refused.ts";
import { namesOf } from "./tree.ts";

/** One name of a WITH. */
export interface Cte {
  readonly name: string;
  /** Its columns; analysed when first asked for. While it is being analysed these are what a recursive reference sees. */
  columns(): readonly RangeColumn[];
}

/** Rounds after which a recursive query's columns are taken to depend on one another. */
const roundsMax = 4;

/** Adds the names of a WITH to a level, each seeing only what PostgreSQL lets it see, and analyses all of them. */
export function analyzeCommonTables(clause: WithClause, scope: QueryScope): void {
  const running: string[] = [];
  const tables = (clause.ctes ?? []).map((node) => {
    scope.state.claim(node);
    if (!("CommonTableExpr" in node)) {
      return refuseUnsupported("WITH has an unknown form", "Write WITH name AS (…).");
    }
    return commonTable(node.CommonTableExpr, clause.recursive === true, running, scope);
  });
  const names = new Set(tables.map((table) => table.name));
  if (names.size !== tables.length) {
    refuse("name.ambiguous", "a name in WITH is given twice", "Give each query of WITH a name of its own.");
  }
  if (clause.recursive === true) {
    // All see all; which one is analysed first follows from who asks whom.
    for (const table of tables) {
      scope.commonTables.set(table.name, table);
    }
  }
  for (const table of tables) {
    table.columns();
    // Without RECURSIVE a name is visible after its own query only.
    scope.commonTables.set(table.name, table);
  }
}

/** The query of WITH that a bare name means here; null when none has it. */
export function findCommonTable(scope: QueryScope, name: string): Cte | null {
  for (let level: QueryScope | null = scope; level !== null; level = level.parent) {
    const found = level.commonTables.get(name);
    if (found !== undefined) {
      return found;
    }
  }
  return null;
}

type Progress =
  | { readonly kind: "waiting" }
  | { readonly kind: "running"; readonly provisional: readonly RangeColumn[] | null }
  | { readonly kind: "done"; readonly columns: readonly RangeColumn[] };

/** `running`: the names of this WITH that are being analysed, innermost last. */
function commonTable(expression: CommonTableExpr, recursive: boolean, running: string[], scope: QueryScope): Cte {
  const name = expression.ctename ?? "";
  const aliases = namesOf(expression.aliascolnames, scope.state);
  let progress: Progress = { kind: "waiting" };
  let referred = false;
  const setProvisional = (columns: readonly RangeColumn[] | null): void => {
    progress = { kind: "running", provisional: columns };
  };
  const columns = (): readonly RangeColumn[] => {
    if (progress.kind === "done") {
      return progress.columns;
    }
    if (progress.kind === "running") {
      referred = true;
      if (running.at(-1) !== name) {
        refuseUnsupported(`${quoted(name)} and another name of WITH refer to each other`, "Write one recursive query.");
      }
      return (
        progress.provisional ??
        refuseUnsupported(`${quoted(name)} refers to itself where it cannot`, "Write it as base UNION ALL recursion.")
      );
    }
    setProvisional(null);
    running.push(name);
    const found = recursive
      ? analyzeRecursive(expression, aliases, scope, setProvisional, () => referred)
      : renamed(analyzeOnce(expression, scope), aliases);
    running.pop();
    progress = { kind: "done", columns: found };
    return found;
  };
  return { name, columns };
}

function analyzeOnce(expression: CommonTableExpr, scope: QueryScope): readonly RangeColumn[] {
  const query = expression.ctequery;
  if (query === undefined) {
    return refuseUnsupported("WITH has a name without a query", "Write WITH name AS (…).");
  }
  return analyzeCommonQuery(query, childScope(scope.state, scope)).columns;
}

/**
 * A recursive query is analysed until its columns' sources grow no more: each round a recursive reference sees what the round
 * before found. It ends, since there are only so many masked columns; past `roundsMax` every column is taken to have all sources.
 */
function analyzeRecursive(
  expression: CommonTableExpr,
  aliases: readonly string[],
  scope: QueryScope,
  setProvisional: (columns: readonly RangeColumn[] | null) => void,
  isRecursive: () => boolean,
): readonly RangeColumn[] {
  const query = expression.ctequery;
  const select = query !== undefined && "SelectStmt" in query ? query.SelectStmt : null;
  if (select === null || select.op !== "SETOP_UNION" || select.larg === undefined) {
    return renamed(analyzeOnce(expression, scope), aliases);
  }
  // The base names the columns. With a WITH of its own inside, the base may need it: then it is analysed without recursion.
  if (select.withClause !== undefined) {
    return renamed(analyzeOnce(expression, scope), aliases);
  }
  let columns = renamed(analyzeSelect(select.larg, childScope(scope.state, scope)).columns, aliases);
  for (let round = 1; ; round++) {
    setProvisional(columns);
    const found = renamed(analyzeOnce(expression, scope), aliases);
    const grown = columns.map((column, i) => merged(column, found[i] ?? column));
    const stable = !isRecursive() || grown.every((column, i) => column.lineage.size === columns[i]?.lineage.size);
    columns = grown;
    if (stable) {
      return columns.map((column, i) => ({ ...(found[i] ?? column), lineage: column.lineage, origins: [] }));
    }
    if (round >= roundsMax) {
      const everything = uniteAll(columns.map((column) => column.lineage));
      columns = columns.map((column) => ({ ...column, lineage: everything }));
    }
  }
}

function merged(a: RangeColumn, b: RangeColumn): RangeColumn {
  return { ...a, lineage: unite(a.lineage, b.lineage), origins: [] };
}

/** Gives the first columns other names. */
export function renamed(columns: readonly RangeColumn[], aliases: readonly string[]): readonly RangeColumn[] {
  if (aliases.length > columns.length) {
    refuse("statement.syntax", "there are more column names than columns", "Name as many columns as there are.");
  }
  return columns.map((column, i) => ({ ...column, name: aliases[i] ?? column.name }));
}
