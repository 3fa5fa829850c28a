/** What is known of one statement while it is analysed. One object a statement; the analysis owns it. */
import type { ColumnRef, RangeVar } from "libpg-query";
import type { Effect } from "#domain/effect.ts";
import { type CompiledScope, type RelationKey, type ScopedRelation, relationKey } from "#domain/scope.ts";
import type { OutputSource, StatementAnalysis } from "./analysis.ts";
import type { Catalog, CatalogRelation } from "./catalog.ts";
import type { Grammar } from "./grammar.ts";
import { mayReadNames } from "./name-reading.ts";
import { type GrantedUse, type Lineage, type ShadowUse, type Use, noLineage } from "./namespace.ts";
import { refuse } from "./refused.ts";
import type { ShadowedRelation } from "./shadowed.ts";

/** Against what a statement is analysed. */
export interface AnalysisContext {
  readonly catalog: Catalog;
  readonly scope: CompiledScope;
}

type BoundSetting = StatementAnalysis["boundSettings"][number];

interface Write {
  readonly verb: "insert" | "update" | "delete";
  readonly relation: RelationKey;
  readonly columns: Set<string>;
}

/** Nodes that may be looked at in one statement; recursive queries are looked at several times. */
const visitsMax = 400_000;

export class StatementState {
  readonly context: AnalysisContext;
  readonly grammar: Grammar;
  readonly uses = new Map<RangeVar, Use>();
  readonly calls = new Set<string>();
  readonly settings = new Map<string, "read" | "write">();
  readonly writes = new Map<RangeVar, Write>();
  /** `schema.table.column` references, with the use that they mean. */
  readonly qualifiedReferences = new Map<ColumnRef, Use>();
  readonly #boundSettings = new Map<string, BoundSetting>();
  parameters = 0;
  /** Set once anything is seen that is not pure. */
  impure = false;
  /** Set once a value is seen that is of a type that reads names, or has one inside. */
  readsNames = false;
  readonly #seen = new Set<object>();
  readonly #sources = new Map<string, OutputSource>();
  #visits = 0;

  constructor(context: AnalysisContext, grammar: Grammar) {
    this.context = context;
    this.grammar = grammar;
  }

  /** Marks a node of the parse tree as understood; one that never is denies the statement. */
  claim(node: object): void {
    this.#seen.add(node);
    this.#visits++;
    if (this.#visits > visitsMax) {
      refuse("statement.too-large", "the statement is too large to be understood", "Split the statement.");
    }
  }

  /** Writes down that a value of this type takes part. */
  noteType(type: number | null): void {
    this.readsNames ||= mayReadNames(this.context.catalog, type);
  }

  get boundSettings(): readonly BoundSetting[] {
    return [...this.#boundSettings.values()];
  }

  bindSetting(setting: BoundSetting): void {
    this.#boundSettings.set(`${setting.nameParameter} ${setting.valueParameter}`, setting);
  }

  isClaimed(node: object): boolean {
    return this.#seen.has(node);
  }

  /** The masked column's one object, so that lineages are sets. */
  source(scoped: ScopedRelation, column: string): Lineage {
    const masked = scoped.maskedColumns.find((candidate) => candidate.column === column);
    if (masked === undefined) {
      return noLineage;
    }
    const relation = relationKey(scoped.base);
    const key = JSON.stringify([scoped.base, column]);
    const known = this.#sources.get(key) ?? { relation, column, label: masked.label, ruleId: masked.ruleId };
    this.#sources.set(key, known);
    return new Set([known]);
  }

  useGranted(range: RangeVar, scoped: ScopedRelation, relation: CatalogRelation, target: boolean): GrantedUse {
    const known = this.uses.get(range);
    if (known?.kind === "granted") {
      return known;
    }
    const visible = new Set(scoped.visibleColumns);
    const use: GrantedUse = {
      kind: "granted",
      range,
      scoped,
      relation,
      columns: new Set(),
      hidden: new Set(relation.columns.map((column) => column.name).filter((name) => !visible.has(name))),
      shape: false,
      isOutgrown: scoped.wholeOpen && relation.columns.some((column) => !visible.has(column.name)),
      target,
    };
    this.uses.set(range, use);
    return use;
  }

  useShadow(range: RangeVar, shadow: ShadowedRelation, relation: CatalogRelation): ShadowUse {
    const known = this.uses.get(range);
    if (known?.kind === "shadow") {
      return known;
    }
    const use: ShadowUse = { kind: "shadow", range, shadow, relation, columns: new Set() };
    this.uses.set(range, use);
    return use;
  }

  /** True when a relation with masked columns takes part. */
  touchesMasked(): boolean {
    return [...this.uses.values()].some((use) => use.kind === "granted" && use.scoped.maskedColumns.length > 0);
  }

  /** Reads of the same relation in several places are one effect. Sorted, so that equal statements have equal effects. */
  effects(): readonly Effect[] {
    const reads = new Map<RelationKey, Set<string>>();
    const catalogs = new Set<RelationKey>();
    for (const use of this.uses.values()) {
      if (use.kind === "shadow") {
        catalogs.add(relationKey(use.shadow));
      } else if (!use.target || use.columns.size > 0) {
        const columns = reads.get(relationKey(use.scoped.base)) ?? new Set();
        reads.set(relationKey(use.scoped.base), columns.union(use.columns));
      }
    }
    return [
      ...sorted(reads.keys()).map((relation): Effect => ({
        kind: "read",
        relation,
        columns: sorted(reads.get(relation) ?? []),
      })),
      ...sorted(catalogs).map((relation): Effect => ({ kind: "catalog", relation })),
      ...[...this.writes.values()].map(({ verb, relation, columns }): Effect => ({
        kind: "write",
        verb,
        relation,
        columns: sorted(columns),
      })),
      ...sorted(this.calls).map((name): Effect => ({ kind: "call", function: name })),
      ...sorted(this.settings.keys()).map((name): Effect => ({
        kind: "setting",
        name,
        access: this.settings.get(name) ?? "read",
      })),
    ];
  }
}

function sorted(names: Iterable<string>): readonly string[] {
  return [...names].toSorted();
}
