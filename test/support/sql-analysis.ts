/** Short ways to ask the analyzer about one statement, in tests. */
import type { StatementAnalysis } from "#sql/analysis.ts";
import { type AnalysisContext, createAnalyzer } from "#sql/analyze.ts";
import { applySplices } from "#sql/splice.ts";
import { syntheticCatalog } from "./sql-catalog.ts";
import { sqlWorldScope } from "./sql-world.ts";

const analyzer = await createAnalyzer();

export const syntheticContext: AnalysisContext = { catalog: syntheticCatalog, scope: sqlWorldScope };

export const analyze = analyzer.analyze;

/** The only statement of an accepted text. */
export function accepted(text: string, context: AnalysisContext = syntheticContext): StatementAnalysis {
  const result = analyzer.analyze(text, context);
  if (result.refused) {
    throw new Error(`refused: ${result.code}: ${result.reason}: ${text}`);
  }
  const [statement, ...more] = result.statements;
  if (statement === undefined || more.length > 0) {
    throw new Error(`${result.statements.length} statements: ${text}`);
  }
  return statement;
}

/** `accepted`, or the code of the denial. */
export function verdictOf(text: string, context: AnalysisContext = syntheticContext): string {
  const result = analyzer.analyze(text, context);
  return result.refused ? result.code : "accepted";
}

/** Outputs as `name<masked column, …>`. */
export function outputsOf(text: string, context: AnalysisContext = syntheticContext): readonly string[] {
  return (accepted(text, context).outputs ?? []).map(({ name, masked }) =>
    masked.length === 0
      ? name
      : `${name}<${masked.map(({ relation, column }) => `${relation.replace("public.", "")}.${column}`).join(", ")}>`,
  );
}

/** The text as it is forwarded. */
export function rewritten(text: string, context: AnalysisContext = syntheticContext): string {
  return applySplices(Buffer.from(text, "utf8"), accepted(text, context).splices).toString("utf8");
}
