/** A grant as Cedar policies. */
import { SallyportError } from "#domain/errors.ts";
import type { Grant, TableGrant, TableVerb } from "#domain/grant.ts";
import { relationKey, type RelationKey } from "#domain/scope.ts";
import { cedarString, type PolicyText } from "./text.ts";

/** What a grant allows with one verb on one table, all its lines for that table taken together. */
export interface VerbRight {
  readonly relation: RelationKey;
  readonly verb: TableVerb;
  /** Null means every column. Sorted. */
  readonly columns: readonly string[] | null;
}

/**
 * The rights of a grant, one for each table and verb, in the order of the grant.
 * @throws SallyportError `grant.unsupported-name` for a schema or table with a dot in its name: `a.b.c` could be either of two
 *   relations.
 */
export function verbRights(tables: readonly TableGrant[]): readonly VerbRight[] {
  const merged = new Map<string, { relation: RelationKey; verb: TableVerb; columns: Set<string> | null }>();
  for (const table of tables) {
    if (table.schema.includes(".") || table.table.includes(".")) {
      throw new SallyportError(
        "grant.unsupported-name",
        "principal",
        `the name "${table.schema}"."${table.table}" contains a dot, which a grant cannot hold`,
        { nextStep: "Grant a view with a name without dots." },
      );
    }
    const relation = relationKey({ schema: table.schema, name: table.table });
    for (const verb of table.verbs) {
      const key = `${verb} ${relation}`;
      const columns = table.columns === "all" ? null : new Set(table.columns);
      const known = merged.get(key);
      merged.set(key, {
        relation,
        verb,
        columns: known === undefined ? columns : unionOf(known.columns, columns),
      });
    }
  }
  return [...merged.values()].map(({ relation, verb, columns }) => ({
    relation,
    verb,
    columns: columns === null ? null : [...columns].toSorted(),
  }));
}

function unionOf(left: Set<string> | null, right: Set<string> | null): Set<string> | null {
  return left === null || right === null ? null : left.union(right);
}

/**
 * One permit for each table and verb: the columns must all be among the granted ones, and the time before the grant's expiry.
 * The ids are stable: `grant:grt_…:public.customers:select`.
 */
export function grantPolicies(
  grant: Pick<Grant, "id" | "expiresAtMs">,
  rights: readonly VerbRight[],
): readonly PolicyText[] {
  return rights.map(({ relation, verb, columns }) => {
    const conditions = [`context.now < ${grant.expiresAtMs}`];
    if (columns !== null) {
      // Cedar has no literal for the empty set.
      conditions.push(
        columns.length === 0
          ? "context.columns.isEmpty()"
          : `[${columns.map(cedarString).join(", ")}].containsAll(context.columns)`,
      );
    }
    return {
      id: `grant:${grant.id}:${relation}:${verb}`,
      text:
        `permit(principal in Grant::${cedarString(grant.id)}, action == Action::"${verb}", ` +
        `resource == Table::${cedarString(relation)}) when { ${conditions.join(" && ")} };`,
    };
  });
}
