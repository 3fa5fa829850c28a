/**
 * Types whose text is read as the name of an object (`'payment_methods'::regclass`): where text that a client wrote meets one of
 * them, the answer or the error says whether the object exists.
 */
import { type Catalog, type CatalogType, compositeColumns } from "./catalog.ts";

/** `reg…` types, and `aclitem`, which names roles; arrays of them, and domains over them. */
export function isNameReading(catalog: Catalog, type: number | null): boolean {
  const found = type === null ? undefined : catalog.types.get(type);
  const inner = found === undefined ? undefined : innerType(catalog, found);
  return inner !== undefined && inner.schema === "pg_catalog" && /^(reg[a-z]+|aclitem)$/.test(inner.name);
}

/** As `isNameReading`, and rows with such a field: their text is read field by field. A row whose fields are not known counts. */
export function mayReadNames(catalog: Catalog, type: number | null): boolean {
  return type !== null && mayReadInside(catalog, type, nestingMax);
}

/** Composite types hold one another, never themselves but through arrays: past this depth a type counts as one that reads names. */
const nestingMax = 8;

function mayReadInside(catalog: Catalog, type: number, depth: number): boolean {
  if (isNameReading(catalog, type)) {
    return true;
  }
  const found = catalog.types.get(type);
  const inner = found === undefined ? undefined : innerType(catalog, found);
  if (inner === undefined || inner.kind !== "composite") {
    return false;
  }
  const fields = compositeColumns(catalog, inner.oid);
  return fields === null || depth === 0 || fields.some((field) => mayReadInside(catalog, field.type, depth - 1));
}

/** What an array holds and a domain is made of; undefined when the snapshot does not have it. */
function innerType(catalog: Catalog, type: CatalogType): CatalogType | undefined {
  let inner: CatalogType | undefined = type;
  for (let depth = 0; inner !== undefined && depth <= nestingMax; depth++) {
    const next: number = inner.element === 0 ? (inner.kind === "domain" ? inner.base : 0) : inner.element;
    if (next === 0) {
      return inner;
    }
    inner = catalog.types.get(next);
  }
  return inner;
}
