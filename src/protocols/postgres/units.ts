/** From a client's message to a unit that can be decided: what its statements touch, and the bytes that would be forwarded. */
import type { DenyCode, Obligation } from "#domain/decision.ts";
import { SallyportError } from "#domain/errors.ts";
import type { IdSource } from "#domain/ids.ts";
import type { CompiledScope } from "#domain/scope.ts";
import type { MaskedOutput, MaskPlan } from "#mask/masker.ts";
import type { CommandFacts, Pass, Unit, UnitRefusal } from "#protocols/driver.ts";
import type { AnalysisResult, StatementAnalysis } from "#sql/analysis.ts";
import type { Catalog } from "#sql/catalog.ts";
import type { BindMessage } from "./messages-frontend.ts";
import type { NameChange } from "./names.ts";

/** A prepared statement as the gateway knows it. */
export interface Prepared {
  readonly text: string;
  readonly statement: StatementAnalysis;
  readonly plan: MaskPlan;
  /** The catalog that it was decided against. */
  catalogVersion: string;
  /** The record of its Parse; set when it was forwarded. */
  pass: Pass | null;
}

/** A bound portal: one command, executed in one or more parts. */
export interface Portal {
  readonly facts: CommandFacts;
  readonly prepared: Prepared;
  readonly plan: MaskPlan;
  pass: Pass | null;
  executions: number;
}

/** One message of the client that is decided as one. */
export type PostgresUnit = Unit &
  (
    | {
        readonly message: "query";
        readonly plans: readonly MaskPlan[];
        readonly statements: readonly StatementAnalysis[];
        /** PREPARE and DEALLOCATE in SQL: what happens to a name when it is forwarded. */
        readonly named: { readonly prepared: Prepared | null; readonly change: () => NameChange } | null;
        readonly bytes: Buffer;
      }
    | { readonly message: "parse"; readonly name: string; readonly statement: Prepared; readonly bytes: Buffer }
    | { readonly message: "bind"; readonly name: string; readonly portal: Portal; readonly bytes: Buffer }
    | { readonly message: "execute"; readonly portal: Portal; readonly bytes: Buffer }
    /** What cannot be forwarded; `cycle` says whether it ends with a ReadyForQuery of its own. */
    | { readonly message: "refused"; readonly cycle: "simple" | "extended" }
  );

/** What statements are analysed against; one object a grant, replaced when the catalog is reloaded. */
export interface StatementContext {
  readonly catalog: Catalog;
  readonly scope: CompiledScope;
}

/** The gate: analyses a text, remembering what it found. */
export type Analyze = (text: string, context: StatementContext) => AnalysisResult;

/** A unit that is refused before policy is asked. */
export function refusedUnit(cycle: "simple" | "extended", refusal: UnitRefusal, size = 1): PostgresUnit {
  return { message: "refused", cycle, stage: "run", prepared: null, commands: [], size, refusal };
}

/** A refusal by the protocol itself. */
export function refusal(code: DenyCode, reason: string, nextStep: string): UnitRefusal {
  return { code, reason, nextStep, effects: [], ordinal: 1, payload: {} };
}

/**
 * What a failed decode means: text that is not UTF-8, or a statement over the limit, is a denial in place; anything else breaks
 * the protocol and is thrown on.
 */
export function refusalOfFailure(error: unknown): UnitRefusal {
  if (error instanceof SallyportError) {
    if (error.code === "statement.encoding" || error.code === "statement.too-large") {
      return refusal(error.code, error.message, error.nextStep ?? "Send the statement as valid UTF-8.");
    }
  }
  throw error;
}

/** How a statement arrives at the session. */
export interface Arriving {
  readonly text: string;
  /** What is forwarded instead; null when that is the text itself. */
  readonly rewritten: string | null;
  /** A SERIALIZABLE transaction may be open: its reads take part in conflicts that others see, so none of them is pure. */
  readonly serializable: boolean;
}

/** Whether a statement begins, or makes, a SERIALIZABLE transaction. Said of more rather than fewer. */
export function makesSerializable(statement: StatementAnalysis): boolean {
  if (statement.transaction === "begin") {
    return !statement.pure;
  }
  return statement.effects.some((effect) => effect.kind === "setting" && effect.name === "transaction");
}

/** The facts of each statement, for the decision and the record. */
export function commandFacts(
  statements: readonly StatementAnalysis[],
  arriving: Arriving,
  ids: IdSource,
): CommandFacts[] {
  const { text, rewritten, serializable } = arriving;
  return statements.map((statement, index) => ({
    id: ids("cmd"),
    kind: statement.kind,
    effects: statement.effects,
    pure: statement.pure && !serializable,
    rewritten: statement.splices.length > 0,
    obligations: obligationsOf(statement),
    // The whole text stands with its first statement; the others point to it by their ordinal.
    payload: index === 0 ? (rewritten === null ? { statement: text } : { statement: text, forwarded: rewritten }) : {},
    ordinal: index + 1,
  }));
}

function obligationsOf(statement: StatementAnalysis): Obligation[] {
  const found = new Map<string, Obligation>();
  for (const output of statement.outputs ?? []) {
    for (const source of output.masked) {
      const name = `${source.relation}.${source.column}`;
      found.set(name, { kind: "mask", label: source.label, ruleId: source.ruleId, source: name });
    }
  }
  return [...found.values()];
}

/** What the masker holds a statement's results against. */
export function maskPlan(statement: StatementAnalysis): MaskPlan {
  const outputs: MaskedOutput[] = [];
  for (const [index, output] of (statement.outputs ?? []).entries()) {
    if (output.masked.length > 0) {
      outputs.push({
        output: index + 1,
        sources: output.masked.map((source) => ({
          label: source.label,
          ruleId: source.ruleId,
          source: `${source.relation}.${source.column}`,
        })),
      });
    }
  }
  return { columns: expectedColumns(statement), outputs, touchesMasked: statement.touchesMasked };
}

function expectedColumns(statement: StatementAnalysis): number | null {
  if (statement.outputs !== null) {
    return statement.outputs.length;
  }
  // SHOW and EXPLAIN answer in a shape of their own that holds no table data; anything else returns no rows at all.
  return statement.kind === "session" || statement.kind === "explain" ? null : 0;
}

/** Replaces what the analysis spliced. `textBytes` are the statement's UTF-8 bytes; null when nothing changes. */
export function spliced(textBytes: Buffer, statements: readonly StatementAnalysis[]): Buffer | null {
  const parts: Buffer[] = [];
  let at = 0;
  for (const statement of statements) {
    for (const splice of statement.splices) {
      parts.push(textBytes.subarray(at, splice.start), Buffer.from(splice.text, "utf8"));
      at = splice.start + splice.length;
    }
  }
  if (parts.length === 0) {
    return null;
  }
  parts.push(textBytes.subarray(at));
  return Buffer.concat(parts);
}

/** Bind values as they go into the encrypted payload: text as text, binary as base64. */
export function bindPayload(message: BindMessage): string {
  const values = message.values.map((value, index) => {
    if (value === null) {
      return null;
    }
    const format = formatOf(message, index);
    return format === 0 ? value.toString("utf8") : { base64: value.toString("base64") };
  });
  return JSON.stringify(values);
}

/** The `index`th value, from 0, as text; null when it is NULL, missing, or not in text format. */
export function textValue(message: BindMessage, index: number): string | null {
  const value = message.values[index];
  return value === undefined || value === null || formatOf(message, index) !== 0 ? null : value.toString("utf8");
}

/** Format code of the `index`th value (PostgreSQL documentation, 54.7, Bind): none means text, one is for all. */
function formatOf(message: BindMessage, index: number): number {
  const formats = message.parameterFormats;
  return (formats.length === 1 ? formats[0] : formats[index]) ?? 0;
}
