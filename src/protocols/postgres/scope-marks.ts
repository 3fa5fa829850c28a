/**
 * The marks of a scope: which columns of which tables its views stand for. A column that is granted without a right on the table
 * itself (masked, or written through a write view) is shown by the shadow catalogs because its view has a mark for it and the
 * session's scope role has a right on that view. So the mark alone shows nothing, and neither opens anything.
 *
 * The marks are rows of one table of the shadow schema, written and deleted with the scope's views and read by nobody but the view
 * owner, through the shadow catalogs.
 */
import type { ClientBase } from "pg";

import type { QualifiedName } from "#domain/scope.ts";
import { quoteIdentifier } from "#sql/identifier.ts";
import { shadowSchema } from "./scope-compiler.ts";
import type { ScopePlan } from "./scope-compiler.ts";
import { qualify, quoteLiteral } from "./quoting.ts";

/** The name of the table of marks in the shadow schema. */
export const marksName = "scope_marks";

/** The table of marks as SQL names it. */
export const marksTable = `${quoteIdentifier(shadowSchema)}.${quoteIdentifier(marksName)}`;

/** Makes the table; run as the view owner. */
export const createMarksStatement = `CREATE TABLE ${marksTable} (
    scope pg_catalog.text NOT NULL, view pg_catalog.oid NOT NULL, relation pg_catalog.oid NOT NULL,
    number pg_catalog.int2 NOT NULL, PRIMARY KEY (view, relation, number))`;

/** One view with the columns that it stands for. */
export interface PlannedMarks {
  readonly view: QualifiedName;
  readonly base: QualifiedName;
  /** Not empty. */
  readonly columns: readonly string[];
}

/** Every mark of a scope. Open columns have none: their own rights on the table say the same. */
export function scopeMarks(plan: ScopePlan): readonly PlannedMarks[] {
  return plan.tables.flatMap(({ relation: { base, view, maskedColumns, write } }) => {
    const written = new Set([...(write?.insertColumns ?? []), ...(write?.updateColumns ?? [])]);
    return [
      ...(view === null || maskedColumns.length === 0
        ? []
        : [{ view, base, columns: maskedColumns.map(({ column }) => column) }]),
      ...(write === null || write.view === null || written.size === 0
        ? []
        : [{ view: write.view, base, columns: [...written] }]),
    ];
  });
}

/** Writes the marks, when the views are there; run as the view owner. */
export function markStatements(plan: ScopePlan): readonly string[] {
  return scopeMarks(plan).map(({ view, base, columns }) => {
    const names = columns.map(quoteLiteral).join(", ");
    return `INSERT INTO ${marksTable} (scope, view, relation, number)
      SELECT ${quoteLiteral(plan.scope.hash)}, ${regclass(view)}, a.attrelid, a.attnum FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = ${regclass(base)} AND a.attname IN (${names})`;
  });
}

function regclass(name: QualifiedName): string {
  return `CAST(${quoteLiteral(qualify(name))} AS pg_catalog.regclass)`;
}

/** Deletes the marks of a scope. */
export function unmarkStatement(hash: string): string {
  return `DELETE FROM ${marksTable} WHERE scope = ${quoteLiteral(hash)}`;
}

interface MarkRow {
  readonly view_schema: string | null;
  readonly view: string | null;
  readonly schema: string | null;
  readonly name: string | null;
  readonly column: string | null;
}

/** What is gone (a view that somebody dropped, with its table) comes out as nulls. */
const marksSql = `
  SELECT vn.nspname AS view_schema, v.relname AS view, bn.nspname AS schema, b.relname AS name, a.attname AS column
  FROM ${marksTable} m
  LEFT JOIN pg_catalog.pg_class v ON v.oid = m.view
  LEFT JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace
  LEFT JOIN pg_catalog.pg_class b ON b.oid = m.relation
  LEFT JOIN pg_catalog.pg_namespace bn ON bn.oid = b.relnamespace
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = m.relation AND a.attnum = m.number
  WHERE m.scope = $1`;

/** The marks that a scope has, each in one spelling to compare by (`markKey`). */
export async function readMarks(client: ClientBase, hash: string): Promise<readonly string[]> {
  if (!(await hasMarksTable(client))) {
    return [];
  }
  const { rows } = await client.query<MarkRow>(marksSql, [hash]);
  return rows.map((row) => JSON.stringify([row.view_schema, row.view, row.schema, row.name, row.column]));
}

/** The marks that a scope should have, in the same spelling. */
export function markKeys(plan: ScopePlan): readonly string[] {
  return scopeMarks(plan).flatMap(({ view, base, columns }) =>
    columns.map((column) => JSON.stringify([view.schema, view.name, base.schema, base.name, column])),
  );
}

/** There is none before the first `prepare`. */
async function hasMarksTable(client: ClientBase): Promise<boolean> {
  const found = await client.query("SELECT WHERE pg_catalog.to_regclass($1) IS NOT NULL", [marksTable]);
  return found.rows.length > 0;
}
