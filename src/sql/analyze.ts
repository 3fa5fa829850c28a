/**
 * The gate's understanding of SQL (MASKING.md, L2 and L3): what each statement of a message does, what it must be rewritten to,
 * and what its outputs are computed from. Anything that is not understood is refused. Pure.
 */
import type { ExplainStmt, Node } from "libpg-query";
import type { StatementKind } from "#domain/effect.ts";
import { relationKey } from "#domain/scope.ts";
import type { AnalysisResult, OutputColumn, OutputSource, Refusal, StatementAnalysis } from "./analysis.ts";
import type { Catalog } from "./catalog.ts";
import { expression } from "./expression.ts";
import type { Grammar } from "./grammar.ts";
import { type RangeColumn, childScope } from "./namespace.ts";
import { type Parse, type ParsedStatement, loadParser } from "./parse.ts";
import { query, select } from "./query.ts";
import { type Named, analyzeNamedStatement } from "./prepared-statements.ts";
import { StatementRefused, quoted, refuse, refuseUnsupported } from "./refused.ts";
import { analyzeSessionStatement } from "./session-statements.ts";
import { checkShape } from "./shapes.ts";
import { spliceStatement } from "./splice.ts";
import { type AnalysisContext, StatementState } from "./statement-state.ts";
import { findUnclaimed } from "./tree.ts";
import { refuseStatement } from "./unsupported.ts";
import { analyzeWrite, commonQuery } from "./write.ts";

export type { AnalysisContext } from "./statement-state.ts";

const grammar: Grammar = { expression, query, select, commonQuery };

export interface Analyzer {
  /** Analyses a message's text. The same text, catalog and scope always give the same result, so that callers may remember it. */
  readonly analyze: (text: string, context: AnalysisContext) => AnalysisResult;
}

/** Loads the grammar and gives the analyzer; one a process is enough. */
export async function createAnalyzer(): Promise<Analyzer> {
  const parse = await loadParser();
  return { analyze: (text, context) => analyzeText(text, context, parse) };
}

function analyzeText(text: string, context: AnalysisContext, parse: Parse): AnalysisResult {
  let statements: readonly ParsedStatement[] = [];
  const done: StatementAnalysis[] = [];
  let state = new StatementState(context, grammar);
  try {
    statements = parse(text);
    refuseUnsafeCatalog(context.catalog);
    for (const statement of statements) {
      state = new StatementState(context, grammar);
      done.push(analyzeStatement(text, statement, state, parse));
    }
  } catch (error) {
    if (error instanceof StatementRefused) {
      return refusalOf(error, { statement: done.length + 1, statements: Math.max(statements.length, 1), state });
    }
    throw error;
  }
  return { refused: false, statements: done.length === 0 ? [emptyStatement(text)] : done };
}

function refusalOf(
  error: StatementRefused,
  at: { readonly statement: number; readonly statements: number; readonly state: StatementState },
): Refusal {
  const { code, reason, nextStep } = error;
  const { statement, statements, state } = at;
  return { refused: true, code, reason, nextStep, statement, statements, effects: state.effects() };
}

/** An implicit cast between built-in types by a function of the database would run it without a trace in the statement. */
function refuseUnsafeCatalog(catalog: Catalog): void {
  for (const cast of catalog.casts.values()) {
    const isBuiltin = (type: number): boolean => catalog.types.get(type)?.schema === "pg_catalog";
    if (!cast.builtin && cast.context !== "explicit" && isBuiltin(cast.source) && isBuiltin(cast.target)) {
      refuseUnsupported(
        "the database casts between built-in types by a function of its own",
        "Ask the owner to drop that cast, or to make it explicit.",
      );
    }
  }
}

function emptyStatement(text: string): StatementAnalysis {
  return {
    kind: "empty",
    named: null,
    transaction: null,
    start: 0,
    length: Buffer.byteLength(text, "utf8"),
    effects: [],
    outputs: null,
    touchesMasked: false,
    pure: true,
    splices: [],
    parameters: 0,
    boundSettings: [],
  };
}

function analyzeStatement(
  text: string,
  statement: ParsedStatement,
  state: StatementState,
  parse: Parse,
): StatementAnalysis {
  const { node } = statement;
  const isKnown = knownStatements.some((kind) => kind in node);
  if (!isKnown || ("SelectStmt" in node && node.SelectStmt.intoClause !== undefined)) {
    refuseStatement(node);
  }
  const { encoding, serverVersion } = state.context.catalog;
  checkShape(node, { serverEncoding: encoding, serverVersion });
  state.claim(node);
  const named = analyzeNamedStatement(node, state);
  const found = analyzeSessionStatement(node, state) ?? analyzeNamed(named) ?? analyzeRows(named?.query ?? node, state);
  const unclaimed = findUnclaimed(node, state);
  if (unclaimed !== null) {
    refuseUnsupported(
      `the statement uses ${unclaimed}, which is not supported here`,
      "Write the statement without it.",
    );
  }
  const splices = spliceStatement(text, statement, state, parse);
  return {
    kind: found.kind,
    named: named?.named ?? null,
    transaction: found.transaction,
    start: statement.start,
    length: statement.length,
    effects: state.effects(),
    outputs: "outputs" in found ? found.outputs : null,
    touchesMasked: state.touchesMasked(),
    pure: !state.impure,
    splices,
    parameters: state.parameters,
    boundSettings: state.boundSettings,
  };
}

const queryKinds: ReadonlyMap<string, StatementKind> = new Map([
  ["SelectStmt", "select"],
  ["InsertStmt", "insert"],
  ["UpdateStmt", "update"],
  ["DeleteStmt", "delete"],
]);

const knownStatements = [
  ...queryKinds.keys(),
  "ExplainStmt",
  "TransactionStmt",
  "VariableSetStmt",
  "VariableShowStmt",
  "PrepareStmt",
  "ExecuteStmt",
  "DeallocateStmt",
];

/** What EXECUTE and DEALLOCATE do beyond their arguments is known to the session alone. */
function analyzeNamed(named: Named | null): RowsStatement | null {
  return named === null || named.query !== null ? null : { kind: "session", transaction: null, outputs: null };
}

interface RowsStatement {
  readonly kind: StatementKind;
  readonly transaction: null;
  readonly outputs: readonly OutputColumn[] | null;
}

function analyzeRows(node: Node, state: StatementState): RowsStatement {
  if ("ExplainStmt" in node) {
    return analyzeExplain(node.ExplainStmt, state);
  }
  const scope = childScope(state, null);
  const kind = [...queryKinds].find(([name]) => name in node)?.[1];
  if (kind === undefined) {
    return refuseStatement(node);
  }
  const columns = kind === "select" ? query(node, scope).columns : analyzeWrite(node, scope);
  return { kind, transaction: null, outputs: columns?.map(toOutput) ?? null };
}

function toOutput(column: RangeColumn): OutputColumn {
  const key = (source: OutputSource): string => `${source.relation}.${source.column}`;
  return { name: column.name, masked: [...column.lineage].toSorted((a, b) => (key(a) < key(b) ? -1 : 1)) };
}

/** Plans show names and estimates. ANALYZE runs the statement, VERBOSE prints what the views are made of: both are refused. */
function analyzeExplain(explain: ExplainStmt, state: StatementState): RowsStatement {
  let costs = true;
  for (const option of explain.options ?? []) {
    state.claim(option);
    if (!("DefElem" in option)) {
      refuseUnsupported("EXPLAIN has an unknown option", "Use EXPLAIN (COSTS OFF).");
    }
    const { defname = "", arg } = option.DefElem;
    const value = optionValue(arg, state);
    if (defname === "costs") {
      costs = isOn(value);
    } else if (defname !== "format" && defname !== "generic_plan" && (isOn(value) || defname === "serialize")) {
      refuse(
        "statement.unsupported",
        `EXPLAIN with ${defname.toUpperCase()} is not supported`,
        "Use EXPLAIN (COSTS OFF).",
      );
    }
  }
  const explained = explain.query;
  if (explained === undefined || ![...queryKinds.keys()].some((kind) => kind in explained)) {
    return refuseUnsupported("EXPLAIN explains SELECT, INSERT, UPDATE and DELETE only", "Explain a query.");
  }
  state.claim(explained);
  analyzeRows(explained, state);
  checkPlan(costs, state);
  return { kind: "explain", transaction: null, outputs: null };
}

/** A plan names what a relation is made of: nothing may be below the name that was granted. */
function checkPlan(costs: boolean, state: StatementState): void {
  for (const use of state.uses.values()) {
    if (use.kind === "shadow") {
      refuseUnsupported(
        "a plan over the catalog would show what its filters are made of",
        "Explain queries of tables.",
      );
    }
    const { relation, scoped } = use;
    if (relation.kind === "view" || relation.foreign || relation.hasChildren || relation.rowSecurity) {
      refuseUnsupported(
        `a plan would show what ${quoted(relationKey(scoped.base))} is made of`,
        "Explain queries of plain tables.",
      );
    }
    if (costs && !scoped.wholeOpen) {
      // Estimates come from statistics of the real values, and from a size that hidden columns have a part in.
      refuseUnsupported("a plan's estimates would speak of masked or hidden values", "Use EXPLAIN (COSTS OFF).");
    }
  }
}

function optionValue(arg: Node | undefined, state: StatementState): string | null {
  if (arg === undefined) {
    return null;
  }
  state.claim(arg);
  if ("String" in arg) {
    return arg.String.sval ?? "";
  }
  return "Integer" in arg ? String(arg.Integer.ival ?? 0) : "on";
}

function isOn(value: string | null): boolean {
  return value === null || !["off", "false", "0"].includes(value.toLowerCase());
}
