/** Column references: a column, a whole row, or nothing that is granted. */
import type { ColumnRef, Node } from "libpg-query";
import { resolveExpression } from "./grammar.ts";
import {
  type QueryScope,
  type RangeItem,
  columnOf,
  lookUpColumn,
  lookUpItem,
  useColumn,
  useWhole,
} from "./namespace.ts";
import { refuse, refuseColumn, refuseRelation } from "./refused.ts";
import { namesOf } from "./tree.ts";
import { type Value, openValue } from "./value.ts";

/** `column`, `table.column`, `schema.table.column`, `table` and `table.*`. */
export function resolveColumnReference(reference: ColumnRef, scope: QueryScope): Value {
  const fields = reference.fields ?? [];
  const row = starredItem(reference, scope);
  if (row !== null) {
    return rowValue(row, scope);
  }
  const names = namesOf(fields, scope.state);
  const [first = "", second = "", third = ""] = names;
  switch (names.length) {
    case 1:
      return resolveBareName(first, scope);
    case 2: {
      const item = lookUpItem(scope, null, first) ?? refuseRelation(first);
      return columnValue(item, second, scope);
    }
    case 3: {
      const item = lookUpItem(scope, first, second) ?? refuseRelation(`${first}.${second}`);
      if (item.base !== null) {
        scope.state.qualifiedReferences.set(reference, item.base);
      }
      return columnValue(item, third, scope);
    }
    default:
      return refuse("name.unsupported-form", "a column is named with its database", "Write table.column.");
  }
}

/** What `a.*` means where a value is needed: the whole row; null when the reference has no star. */
export function starredItem(reference: ColumnRef, scope: QueryScope): RangeItem | null {
  const fields = reference.fields ?? [];
  const star = fields.at(-1);
  if (star === undefined || !("A_Star" in star)) {
    return null;
  }
  scope.state.claim(star);
  const [first = "", second, ...more] = namesOf(fields.slice(0, -1), scope.state);
  if (fields.length === 1 || more.length > 0) {
    refuse("name.unsupported-form", "a star stands where a value is needed", "Write table.*, or name the columns.");
  }
  const item = second === undefined ? lookUpItem(scope, null, first) : lookUpItem(scope, first, second);
  if (item === null) {
    return refuseRelation(second === undefined ? first : `${first}.${second}`);
  }
  if (second !== undefined && item.base !== null) {
    scope.state.qualifiedReferences.set(reference, item.base);
  }
  return item;
}

/** Expressions of ROW(…) and VALUES, where `a.*` stands for all columns of `a`. */
export function resolveExpanded(nodes: readonly Node[] | undefined, scope: QueryScope): readonly Value[] {
  return (nodes ?? []).flatMap((node) => {
    const item = "ColumnRef" in node ? starredItem(node.ColumnRef, scope) : null;
    if (item === null) {
      return [resolveExpression(node, scope)];
    }
    scope.state.claim(node);
    useWhole(scope, item);
    return item.columns.map((column) => openValue(column.type, { lineage: column.lineage, column }));
  });
}

function resolveBareName(name: string, scope: QueryScope): Value {
  const column = lookUpColumn(scope, name);
  if (column !== null) {
    useColumn(scope, column);
    return openValue(column.type, { lineage: column.lineage, column });
  }
  const item = lookUpItem(scope, null, name);
  return item === null ? refuseColumn(name, null) : rowValue(item, scope);
}

/** A column of an item that is named outright. */
export function columnValue(item: RangeItem, name: string, scope: QueryScope): Value {
  const column = columnOf(item, name);
  useColumn(scope, column);
  return openValue(column.type, { lineage: column.lineage, column });
}

/** The whole row of something in FROM; of a function that returns one value, the value. */
function rowValue(item: RangeItem, scope: QueryScope): Value {
  const lineage = useWhole(scope, item);
  return openValue(null, { lineage, row: item });
}
