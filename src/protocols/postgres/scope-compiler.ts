/**
 * Compiles a scope against one picture of a database: which columns are open, which are masked and how, where reads and writes go.
 * Pure; `scope-compiler-tables.ts` reads the picture, `scope-sql.ts` says what it takes in SQL.
 *
 * Refused, because what it would show cannot be derived yet: materialized views, foreign tables, tables with row-level security,
 * and views other than simple ones: read-only, over tables of the same database without labels and without row-level security,
 * with PostgreSQL's own non-volatile functions only.
 */
import { createHash } from "node:crypto";

import { InvariantError, SallyportError } from "#domain/errors.ts";
import type { Scope, TableGrant, TableVerb } from "#domain/grant.ts";
import type { ColumnLabel, Mask, MaskOperator } from "#domain/resource.ts";
import type { CompiledScope, MaskedColumn, QualifiedName, ScopedRelation, ScopedWrite } from "#domain/scope.ts";
import { relationKey } from "#domain/scope.ts";
import { maskExpression } from "./mask-expression.ts";
import type { LabelledColumn, ScopeTables, TableDefinition } from "./scope-compiler-tables.ts";

/** Schemas whose names begin so are the gateway's own; nothing in them can be granted. */
export const ownSchemaPrefix = "sallyport_";

/** Holds the filtered catalogs, one schema a database. */
export const shadowSchema = "sallyport_shadow";

/** The rule that a redaction record names when a labelled column has no mask for its label. */
export const defaultRuleId = "default.redact";

/** Changes when the same scope is to be made in another way, so that a newer gateway does not take an older one's views for its own. */
const formatVersion = 2;

/** A compiled scope with the definitions that it was compiled against. */
export interface ScopePlan {
  readonly scope: CompiledScope;
  readonly unicode: boolean;
  readonly tables: readonly PlannedTable[];
}

export interface PlannedTable {
  readonly definition: TableDefinition;
  readonly relation: ScopedRelation;
}

/** A relation before its views have names, which come from the hash of all of them. */
interface DraftTable extends PlannedTable {
  /** The table has labelled columns: writes go through a view that has no right to read them. */
  readonly guardedWrites: boolean;
}

/**
 * @throws SallyportError `scope.unknown-table`, `scope.unknown-column`, `scope.unknown-label`, `scope.unsupported-relation`,
 * `scope.ambiguous-name` or `scope.empty`, each with what to do about it.
 */
export function compileScope(scope: Scope, labels: readonly ColumnLabel[], picture: ScopeTables): ScopePlan {
  checkLabels(labels, picture.labelled);
  const merged = mergeGrants(scope.tables);
  const drafts = merged.map((grant) => {
    const definition = findTable(picture.tables, grant);
    checkRelation(definition, grant, picture.labelled);
    const masked = maskedColumns(definition, picture, scope.masks);
    return draftRelation(definition, grant, masked);
  });
  return planScope(drafts, picture);
}

/**
 * The plan of a scope that was compiled before, against the definitions as they are now.
 * @throws SallyportError `scope.changed` when a table is no longer what it was when the scope was compiled.
 */
export function replanScope(scope: CompiledScope, picture: ScopeTables): ScopePlan {
  const drafts: DraftTable[] = [];
  for (const relation of scope.relations.values()) {
    const definition = picture.tables.find(
      ({ schema, name }) => schema === relation.base.schema && name === relation.base.name,
    );
    if (definition === undefined) {
      throw changed();
    }
    drafts.push({ definition, relation, guardedWrites: relation.write !== null && relation.write.view !== null });
  }
  const plan = planScope(drafts, picture);
  if (plan.scope.hash !== scope.hash) {
    throw changed();
  }
  return plan;
}

function changed(): SallyportError {
  return new SallyportError("scope.changed", "upstream", "a granted table has changed since the scope was compiled", {
    nextStep: "Compile the scope again.",
  });
}

/** What one grant says about one table, its entries taken together. */
interface MergedGrant extends QualifiedName {
  readonly columns: ReadonlyMap<TableVerb, "all" | ReadonlySet<string>>;
}

/** A table may be listed more than once: `select` on all columns and `update` on one of them are two entries. */
function mergeGrants(grants: readonly TableGrant[]): readonly MergedGrant[] {
  const merged = new Map<string, QualifiedName & { readonly columns: Map<TableVerb, "all" | Set<string>> }>();
  for (const grant of grants) {
    const identity = JSON.stringify([grant.schema, grant.table]);
    const entry = merged.get(identity) ?? {
      schema: grant.schema,
      name: grant.table,
      columns: new Map<TableVerb, "all" | Set<string>>(),
    };
    merged.set(identity, entry);
    for (const verb of grant.verbs) {
      const before = entry.columns.get(verb);
      if (before === "all" || grant.columns === "all") {
        entry.columns.set(verb, "all");
      } else {
        entry.columns.set(verb, new Set([...(before ?? []), ...grant.columns]));
      }
    }
  }
  const list = [...merged.values()].filter((entry) => entry.columns.size > 0);
  if (list.length === 0) {
    throw new SallyportError("scope.empty", "client", "the scope grants nothing", {
      nextStep: "Name at least one table with at least one verb.",
    });
  }
  const keys = new Set(list.map(relationKey));
  if (keys.size < list.length) {
    throw new SallyportError(
      "scope.ambiguous-name",
      "client",
      "two granted tables have the same name once written with a dot",
      {
        nextStep: "Rename one of the tables, or grant only one of them.",
      },
    );
  }
  return list;
}

/** A label that names nothing hides nothing: a renamed column would be shown. */
function checkLabels(labels: readonly ColumnLabel[], labelled: readonly LabelledColumn[]): void {
  const given = new Set(
    labelled
      .filter((column) => column.origin === "given")
      .map((column) => JSON.stringify([column.schema, column.table, column.column, column.label])),
  );
  for (const { schema, table, column, label } of labels) {
    if (!given.has(JSON.stringify([schema, table, column, label]))) {
      throw new SallyportError(
        "scope.unknown-label",
        "client",
        `the label ${label} is on ${schema}.${table}.${column}, which the database does not have`,
        { nextStep: "Correct the resource's labels: a label on a renamed column hides nothing." },
      );
    }
  }
}

function findTable(tables: readonly TableDefinition[], grant: MergedGrant): TableDefinition {
  const found = tables.find(({ schema, name }) => schema === grant.schema && name === grant.name);
  if (found === undefined || grant.schema.startsWith(ownSchemaPrefix)) {
    throw new SallyportError("scope.unknown-table", "client", `the database has no table ${relationKey(grant)}`, {
      nextStep: "Check the schema and the name; names are compared exactly, capitals included.",
    });
  }
  for (const columns of grant.columns.values()) {
    for (const column of columns === "all" ? [] : columns) {
      if (!found.columns.some(({ name }) => name === column)) {
        throw new SallyportError("scope.unknown-column", "client", `${relationKey(grant)} has no column ${column}`, {
          nextStep: `It has: ${found.columns.map(({ name }) => name).join(", ")}.`,
        });
      }
    }
  }
  return found;
}

function checkRelation(table: TableDefinition, grant: MergedGrant, labelled: readonly LabelledColumn[]): void {
  const refuse = (reason: string, nextStep: string): never => {
    throw new SallyportError("scope.unsupported-relation", "client", `${relationKey(table)} ${reason}`, { nextStep });
  };
  if (table.schema === "pg_catalog" || table.schema === "information_schema") {
    refuse("belongs to PostgreSQL itself", "Catalogs need no grant: a session sees what it was granted.");
  }
  if (table.rowSecurity) {
    refuse("has row-level security, which is not supported yet", "Grant a table without row-level security.");
  }
  if (table.kind === "m" || table.kind === "f") {
    refuse(`is a ${table.kind === "m" ? "materialized view" : "foreign table"}`, "Grant the tables that it reads.");
  }
  if (table.kind !== "v") {
    return;
  }
  if ([...grant.columns.keys()].some((verb) => verb !== "select")) {
    refuse("is a view, and views can be granted for reading only", "Grant the write on the table below it.");
  }
  for (const source of table.readsThrough) {
    const name = source.kind === "function" ? source.name : relationKey(source);
    if (source.kind === "function") {
      refuse(`is a view that uses ${name}`, "Grant the tables that it reads.");
    }
    if (!["r", "p", "v"].includes(source.relationKind) || source.rowSecurity || isSystem(source.schema)) {
      refuse(`is a view over ${name}, which cannot be granted`, "Grant the tables that it reads.");
    }
    if (
      labelled.some(({ schema, table: labelledTable }) => schema === source.schema && labelledTable === source.name)
    ) {
      refuse(`is a view over ${name}, which has labelled columns`, "Grant the labelled table itself; it is masked.");
    }
  }
}

function isSystem(schema: string): boolean {
  return schema === "pg_catalog" || schema === "information_schema";
}

/** The masks of a table's labelled columns, by column. */
function maskedColumns(
  table: TableDefinition,
  picture: ScopeTables,
  masks: readonly Mask[],
): ReadonlyMap<string, MaskedColumn> {
  const found = new Map<string, MaskedColumn>();
  for (const column of table.columns) {
    const all = picture.labelled.filter(
      (labelled) =>
        labelled.schema === table.schema && labelled.table === table.name && labelled.column === column.name,
    );
    const given = all.filter((labelled) => labelled.origin === "given");
    const chosen = given.length > 0 ? given : all;
    const first = chosen[0];
    if (first === undefined) {
      continue;
    }
    const mask = chooseMask(chosen, masks);
    const { operator } = maskExpression(mask.operator, {
      column: column.name,
      type: column.type,
      notNull: column.notNull,
      virtual: column.generated === "virtual",
      unicode: picture.unicode,
    });
    found.set(column.name, { column: column.name, label: first.label, ruleId: mask.ruleId, operator });
  }
  return found;
}

/** One label: its mask. Several labels, or a computed value: the mask only if all say the same, and `redact` otherwise. */
function chooseMask(
  labelled: readonly LabelledColumn[],
  masks: readonly Mask[],
): { readonly ruleId: string; readonly operator: MaskOperator } {
  const found = labelled.map(({ label }) => masks.find((mask) => mask.label === label));
  const ruleId = found[0]?.ruleId ?? defaultRuleId;
  const operators = found.map((mask): MaskOperator => mask?.operator ?? { kind: "redact" });
  const computed = labelled.some(({ origin }) => origin === "computed");
  const [operator] = operators;
  const agreed = operators.every((other) => JSON.stringify(other) === JSON.stringify(operator));
  return { ruleId, operator: operator === undefined || !agreed || computed ? { kind: "redact" } : operator };
}

function draftRelation(
  table: TableDefinition,
  grant: MergedGrant,
  masked: ReadonlyMap<string, MaskedColumn>,
): DraftTable {
  const select = grant.columns.get("select");
  const visible = table.columns
    .filter(({ name }) => select !== undefined && includes(select, name))
    .map(({ name }) => name);
  const open = visible.filter((name) => !masked.has(name));
  const relation: ScopedRelation = {
    base: { schema: table.schema, name: table.name },
    openColumns: open,
    maskedColumns: visible.flatMap((name) => masked.get(name) ?? []),
    visibleColumns: visible,
    wholeOpen: select !== undefined && open.length === table.columns.length,
    view: null,
    write: draftWrite(table, grant, masked),
  };
  return { definition: table, relation, guardedWrites: masked.size > 0 };
}

function draftWrite(
  table: TableDefinition,
  grant: MergedGrant,
  masked: ReadonlyMap<string, MaskedColumn>,
): ScopedWrite | null {
  const writable = (verb: "insert" | "update"): readonly string[] => {
    const granted = grant.columns.get(verb);
    return (
      table.columns
        .filter((column) => granted !== undefined && includes(granted, column.name))
        .filter((column) => column.generated === "no" && !column.identityAlways)
        // Whether a value is taken already is told by every engine: no writes to labelled unique columns (MASKING.md, L4).
        .filter((column) => !(column.unique && masked.has(column.name)))
        // A constraint over both answers, update by update, how an open column compares with a masked one of the same row.
        .filter(
          (column) =>
            verb === "insert" || masked.has(column.name) || !column.comparedWith.some((name) => masked.has(name)),
        )
        .map(({ name }) => name)
    );
  };
  const insertColumns = writable("insert");
  const updateColumns = writable("update");
  const deletes = grant.columns.has("delete");
  if (insertColumns.length === 0 && updateColumns.length === 0 && !deletes) {
    return null;
  }
  return { insertColumns, updateColumns, delete: deletes, view: null };
}

function includes(columns: "all" | ReadonlySet<string>, name: string): boolean {
  return columns === "all" || columns.has(name);
}

/** Sorts, hashes and names. */
function planScope(drafts: readonly DraftTable[], picture: ScopeTables): ScopePlan {
  const sorted = drafts.toSorted((a, b) => compare(relationKey(a.relation.base), relationKey(b.relation.base)));
  const canonical = sorted.map((draft) => canonicalTable(draft, picture.unicode));
  const hash = createHash("sha256")
    .update(JSON.stringify([formatVersion, picture.database, canonical]))
    .digest("hex");
  const short = hash.slice(0, 12);
  const schemas = [...new Set(sorted.map(({ relation }) => relation.base.schema))].sort();
  const tables = sorted.map((draft) => {
    const schema = `${ownSchemaPrefix}${short}_${schemas.indexOf(draft.relation.base.schema) + 1}`;
    return { definition: draft.definition, relation: nameViews(draft, schema) };
  });
  return {
    scope: {
      hash,
      role: `sp_scope_${short}`,
      relations: new Map(tables.map(({ relation }) => [relationKey(relation.base), relation])),
      shadowSchema,
    },
    unicode: picture.unicode,
    tables,
  };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function nameViews({ relation, guardedWrites }: DraftTable, schema: string): ScopedRelation {
  const { base, visibleColumns, wholeOpen, write } = relation;
  return {
    ...relation,
    view: wholeOpen || visibleColumns.length === 0 ? null : { schema, name: base.name },
    write:
      write === null ? null : { ...write, view: guardedWrites ? { schema: `${schema}_w`, name: base.name } : null },
  };
}

/** Everything that decides what is made in the database and what is recorded about it, in a fixed order. */
function canonicalTable({ definition, relation, guardedWrites }: DraftTable, unicode: boolean): unknown {
  const { base, openColumns, maskedColumns: masked, visibleColumns, wholeOpen, write } = relation;
  const used = new Set([...visibleColumns, ...(write?.insertColumns ?? []), ...(write?.updateColumns ?? [])]);
  const columns = definition.columns.filter(({ name }) => wholeOpen || used.has(name));
  return [
    [base.schema, base.name, definition.kind],
    columns.map(({ name, type }) => [name, type.sql]),
    openColumns,
    visibleColumns,
    masked.map(({ column, label, ruleId, operator }) => [
      column,
      label,
      ruleId,
      maskedSql(definition, column, operator, unicode),
    ]),
    wholeOpen,
    write === null ? null : [write.insertColumns, write.updateColumns, write.delete, guardedWrites],
    write === null ? [] : definition.sequences.map(({ schema, name }) => [schema, name]),
  ];
}

/**
 * The expression of a masked column.
 * @throws InvariantError when the table has no such column.
 */
export function maskedSql(table: TableDefinition, column: string, operator: MaskOperator, unicode: boolean): string {
  const definition = table.columns.find(({ name }) => name === column);
  if (definition === undefined) {
    throw new InvariantError(`${relationKey(table)} has no column ${column}`);
  }
  const { type, notNull, generated } = definition;
  return maskExpression(operator, { column, type, notNull, virtual: generated === "virtual", unicode }).sql;
}
