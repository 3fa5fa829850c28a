/** Questions about rights (`has_table_privilege` and its kin) name objects, and answer whether they exist. */
import type { QueryScope } from "./namespace.ts";
import { refuse, refuseUnsupported } from "./refused.ts";
import { isCatalogReference, isKnownRelation, isKnownSchema } from "./types.ts";
import type { Value } from "./value.ts";

type Named = "relation" | "schema" | "database" | "role" | "other";

const objects = new Map<string, Named>([
  ["has_table_privilege", "relation"],
  ["has_any_column_privilege", "relation"],
  ["has_schema_privilege", "schema"],
  ["has_database_privilege", "database"],
  ["pg_has_role", "role"],
]);

/** Catalog columns that hold names, by what they name; under other names the same text would be looked up as something else. */
const nameColumns: Readonly<Record<Named, readonly string[]>> = {
  // A relation's bare name would be looked for along the search path.
  relation: [],
  schema: ["nspname", "schema_name", "table_schema", "schemaname"],
  database: ["datname"],
  role: ["rolname", "usename"],
  other: [],
};

/**
 * Only what the catalog shows or the grant covers may be asked about.
 * @throws StatementRefused `grant.no-function`
 */
export function checkPrivilegeQuestion(name: string, values: readonly Value[], scope: QueryScope): void {
  const object = values.at(-2);
  const role = values.length > 2 ? values.at(-3) : undefined;
  const isAllowed =
    // A column by name or number would also tell of hidden ones.
    name !== "has_column_privilege" &&
    values.length <= 3 &&
    object !== undefined &&
    isShown(object, objects.get(name) ?? "other", scope) &&
    (role === undefined || isShown(role, "role", scope));
  if (!isAllowed) {
    refuse(
      "grant.no-function",
      "rights may only be asked about objects that the catalog shows",
      "Pass an OID of a catalog relation, such as pg_class.oid, or the name of a granted table.",
    );
  }
  if (values.at(-1)?.constant === null) {
    refuseUnsupported("the right that is asked about is not a constant", "Write it, as in 'SELECT'.");
  }
}

function isShown(value: Value, named: Named, scope: QueryScope): boolean {
  const origins = value.column?.origins ?? [];
  const isNameColumn =
    origins.length > 0 &&
    origins.every(({ use, column }) => use.kind === "shadow" && nameColumns[named].includes(column));
  const isOwnName = value.isOwnName && named !== "relation" && named !== "other";
  return isCatalogReference(value) || isNameColumn || isOwnName || isKnownName(value.constant, named, scope);
}

function isKnownName(constant: string | null, named: Named, scope: QueryScope): boolean {
  if (constant === null) {
    return false;
  }
  return named === "relation" ? isKnownRelation(constant, scope) : named === "schema" && isKnownSchema(constant, scope);
}
