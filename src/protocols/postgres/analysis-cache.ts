/** Remembers what the gate found out about a text, for one catalog and scope. */
import type { CompiledScope } from "#domain/scope.ts";
import type { AnalysisResult } from "#sql/analysis.ts";
import type { Catalog } from "#sql/catalog.ts";
import type { Analyze, StatementContext } from "./units.ts";

/** Texts longer than this are not kept: they are rarely sent twice. */
const textCharactersMax = 16 * 1024;
const textsMax = 2000;

/**
 * The same answers as `analyze`, from memory where the same text was asked about with the same catalog and scope objects. Both are
 * replaced when they change, so nothing outlives what it was decided against.
 */
export function remembered(analyze: Analyze): Analyze {
  const contexts = new WeakMap<Catalog, WeakMap<CompiledScope, Map<string, AnalysisResult>>>();
  return (text, context) => {
    if (text.length > textCharactersMax) {
      return analyze(text, context);
    }
    const known = textsOf(contexts, context);
    const found = known.get(text);
    if (found !== undefined) {
      // Moved to the end: the oldest key is the one least recently used.
      known.delete(text);
      known.set(text, found);
      return found;
    }
    const result = analyze(text, context);
    known.set(text, result);
    if (known.size > textsMax) {
      const oldest = known.keys().next();
      if (oldest.done !== true) {
        known.delete(oldest.value);
      }
    }
    return result;
  };
}

function textsOf(
  contexts: WeakMap<Catalog, WeakMap<CompiledScope, Map<string, AnalysisResult>>>,
  context: StatementContext,
): Map<string, AnalysisResult> {
  let scopes = contexts.get(context.catalog);
  if (scopes === undefined) {
    scopes = new WeakMap();
    contexts.set(context.catalog, scopes);
  }
  let texts = scopes.get(context.scope);
  if (texts === undefined) {
    texts = new Map();
    scopes.set(context.scope, texts);
  }
  return texts;
}
