/** The rewrite (MASKING.md, L3): names replaced at their bytes, everything else left as it came, and the result proven. */
import type { Node } from "libpg-query";
import type { QualifiedName } from "#domain/scope.ts";
import type { Splice } from "./analysis.ts";
import { quoteIdentifier, readDottedName } from "./identifier.ts";
import type { GrantedUse, Use } from "./namespace.ts";
import type { Parse, ParsedStatement } from "./parse.ts";
import { InvariantError } from "#domain/errors.ts";
import { StatementRefused, quoted, refuse } from "./refused.ts";
import type { StatementState } from "./statement-state.ts";

/** Where a use must be sent; null when its relation stays as written. */
function destination(use: Use, shadowSchema: string): QualifiedName | null {
  if (use.kind === "shadow") {
    return { schema: shadowSchema, name: use.shadow.name };
  }
  return use.target ? writeDestination(use) : readDestination(use);
}

function readDestination(use: GrantedUse): QualifiedName | null {
  const { scoped } = use;
  if (use.isOutgrown && use.shape) {
    refuseOutgrown(use);
  }
  const usesMasked = scoped.maskedColumns.some(({ column }) => use.columns.has(column));
  if (scoped.wholeOpen || (!use.shape && !usesMasked)) {
    return null;
  }
  if (scoped.view === null) {
    throw new InvariantError(`the scope has no view of ${scoped.base.schema}.${scoped.base.name}`);
  }
  return scoped.view;
}

function writeDestination(use: GrantedUse): QualifiedName | null {
  if (use.isOutgrown && use.shape) {
    refuseOutgrown(use);
  }
  if (use.shape && !use.scoped.wholeOpen) {
    refuse(
      "name.unsupported-form",
      `a write to ${quoted(`${use.scoped.base.schema}.${use.scoped.base.name}`)} depends on columns that the grant does not cover`,
      "Name the columns, each with its table.",
    );
  }
  return use.scoped.write?.view ?? null;
}

/** A wholly open table is read itself and not a view: a star would bring what was added after the grant. */
function refuseOutgrown({ scoped }: GrantedUse): never {
  const columns = scoped.visibleColumns.slice(0, listedMax).map(quoted).join(", ");
  const more = scoped.visibleColumns.length > listedMax ? ", …" : "";
  refuse(
    "grant.no-column",
    `table ${quoted(`${scoped.base.schema}.${scoped.base.name}`)} has columns by now that the grant does not cover, and the statement depends on all of them`,
    `Name the columns, each with its table (${columns}${more}), or ask for a new grant on the table.`,
  );
}

const listedMax = 20;

interface Change {
  readonly splice: Splice;
  /** The node of the parse tree that it changes, and what is to stand there. */
  readonly node: object;
  readonly fields: Readonly<Record<string, unknown>>;
}

/**
 * The splices of one statement. `text` is the whole message; offsets are its bytes.
 * @throws StatementRefused `name.unsupported-form` when a name is written in a way that cannot be replaced with certainty
 */
export function spliceStatement(
  text: string,
  statement: ParsedStatement,
  state: StatementState,
  parse: Parse,
): readonly Splice[] {
  const { shadowSchema } = state.context.scope;
  const moved = [...state.uses.values()].flatMap((use) => {
    const to = destination(use, shadowSchema);
    return to === null ? [] : [{ use, to }];
  });
  if (moved.length === 0) {
    return [];
  }
  const bytes = Buffer.from(text, "utf8");
  const changes = moved.map(({ use, to }) => spliceRelation(bytes, use, to));
  const spliced = new Set(moved.map(({ use }) => use));
  for (const [reference, use] of state.qualifiedReferences) {
    if (spliced.has(use)) {
      changes.push(spliceReference(bytes, reference, use));
    }
  }
  const splices = changes.map((change) => change.splice).toSorted((a, b) => a.start - b.start);
  prove(bytes, statement, changes, splices, parse);
  return splices;
}

function spliceRelation(bytes: Uint8Array, use: Use, to: QualifiedName): Change {
  const { range } = use;
  const names = range.schemaname === undefined ? [range.relname ?? ""] : [range.schemaname, range.relname ?? ""];
  const parts = readDottedName(bytes, range.location ?? -1, names.length);
  if (parts === null || parts.some((part, i) => part.name !== names[i])) {
    return refuseForm(names);
  }
  if (range.inh !== true && use.relation.hasChildren) {
    refuse(
      "name.unsupported-form",
      `ONLY ${quoted(names.join("."))} cannot be kept apart from its children`,
      "Read it without ONLY.",
    );
  }
  const start = parts[0]?.start ?? 0;
  const end = parts.at(-1)?.end ?? start;
  const needsAlias = range.alias === undefined && to.name !== range.relname;
  const alias = needsAlias ? ` AS ${quoteIdentifier(range.relname ?? "")}` : "";
  return {
    splice: { start, length: end - start, text: `${quoteIdentifier(to.schema)}.${quoteIdentifier(to.name)}${alias}` },
    node: range,
    fields: {
      schemaname: to.schema,
      relname: to.name,
      ...(needsAlias ? { alias: { aliasname: range.relname } } : {}),
    },
  };
}

/** `schema.table.column` becomes `"table".column`: the view is in another schema and goes by the table's name. */
function spliceReference(bytes: Uint8Array, reference: { fields?: Node[]; location?: number }, use: Use): Change {
  const fields = reference.fields ?? [];
  const names = fields.slice(0, 2).map((field) => ("String" in field ? (field.String.sval ?? "") : ""));
  const parts = readDottedName(bytes, reference.location ?? -1, 2);
  if (parts === null || parts.some((part, i) => part.name !== names[i]) || names[1] !== use.range.relname) {
    return refuseForm(names);
  }
  const start = parts[0]?.start ?? 0;
  const end = parts[1]?.end ?? start;
  return {
    splice: { start, length: end - start, text: quoteIdentifier(names[1] ?? "") },
    node: reference,
    fields: { fields: fields.slice(1) },
  };
}

function refuseForm(names: readonly string[]): never {
  refuse(
    "name.unsupported-form",
    `the name ${quoted(names.join("."))} is written in a form that cannot be rewritten`,
    'Write it plainly, as customers or "customers".',
  );
}

/** Applies splices to a text's bytes. */
export function applySplices(bytes: Uint8Array, splices: readonly Splice[]): Buffer {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (const { start, length, text } of splices) {
    pieces.push(bytes.subarray(at, start), Buffer.from(text, "utf8"));
    at = start + length;
  }
  pieces.push(bytes.subarray(at));
  return Buffer.concat(pieces);
}

/** Parses the result: exactly the nodes that were meant must differ, and exactly so. */
function prove(
  bytes: Uint8Array,
  statement: ParsedStatement,
  changes: readonly Change[],
  splices: readonly Splice[],
  parse: Parse,
): void {
  const isInside = splices.every(
    ({ start, length }) => start >= statement.start && start + length <= statement.start + statement.length,
  );
  const shifted = splices.map((splice) => ({ ...splice, start: splice.start - statement.start }));
  const original = bytes.subarray(statement.start, statement.start + statement.length);
  const again = isInside ? parseAgain(applySplices(original, shifted).toString("utf8"), parse) : [];
  const expected = new Map(changes.map((change) => [change.node, change.fields]));
  if (again.length !== 1 || !isSame(statement.node, again[0]?.node, expected)) {
    refuse(
      "name.unsupported-form",
      "a name is written in a form that cannot be rewritten",
      'Write tables plainly, as customers or "customers".',
    );
  }
}

/** What cannot be parsed was not spliced rightly: there is nothing to compare it with. */
function parseAgain(text: string, parse: Parse): readonly ParsedStatement[] {
  try {
    return parse(text);
  } catch (error) {
    if (error instanceof StatementRefused) {
      return [];
    }
    throw error;
  }
}

const positions = new Set(["location", "list_start", "list_end", "rexpr_list_start", "rexpr_list_end"]);

function isSame(a: unknown, b: unknown, changed: ReadonlyMap<object, Readonly<Record<string, unknown>>>): boolean {
  if (typeof a !== "object" || a === null || typeof b !== "object" || b === null) {
    return a === b;
  }
  if (Array.isArray(a)) {
    return Array.isArray(b) && a.length === b.length && a.every((item, i) => isSame(item, b[i], changed));
  }
  const expected = { ...a, ...changed.get(a) };
  const left = Object.entries(expected).filter(([key]) => !positions.has(key));
  const right = new Map(Object.entries(b).filter(([key]) => !positions.has(key)));
  return (
    left.length === right.size && left.every(([key, value]) => right.has(key) && isSame(value, right.get(key), changed))
  );
}
