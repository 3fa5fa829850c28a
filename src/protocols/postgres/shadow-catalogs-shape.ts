/** The words that definitions of shadows are written in: filters over an original, and columns put in place of its own. */
import { shadowOf as s } from "./shadow-catalogs-helpers.ts";

/** One SELECT of a shadow: the original as `x`. */
export interface ShadowBranch {
  readonly from: string;
  readonly where: string;
  /** Over those of the definition. */
  readonly replaced?: Readonly<Record<string, string>>;
}

/** What a shadow shows. */
export interface ShadowDefinition {
  readonly schema: "pg_catalog" | "information_schema";
  readonly name: string;
  readonly branches: readonly ShadowBranch[];
  /** Expressions in place of columns; a column that this version of PostgreSQL has not is left out. */
  readonly replaced: Readonly<Record<string, string>>;
  /** When set, every column but these and the replaced ones is blank: 0 for a number, NULL for the rest. */
  readonly kept: readonly string[] | null;
}

/** In `from`: the definition of the original as the server has it, without its conditions on the session's rights. */
export const openOriginal = "<the original without rights>";

/** The first OID of an object that is not PostgreSQL's own (`FirstNormalObjectId`). */
export const ownOids = 16_384;

type Options = { readonly replaced?: Readonly<Record<string, string>>; readonly kept?: readonly string[] };

/** The shadow of a relation of `pg_catalog`: one filter over the original, or branches. */
export function inCatalog(
  name: string,
  where: string | readonly ShadowBranch[],
  options: Options = {},
): ShadowDefinition {
  return define("pg_catalog", name, where, options);
}

/** The shadow of a view of `information_schema`. */
export function inInformationSchema(
  name: string,
  where: string | readonly ShadowBranch[],
  options: Options = {},
): ShadowDefinition {
  return define("information_schema", name, where, options);
}

function define(
  schema: ShadowDefinition["schema"],
  name: string,
  where: string | readonly ShadowBranch[],
  { replaced = {}, kept }: Options,
): ShadowDefinition {
  const branches = typeof where === "string" ? [{ from: `${schema}.${name} x`, where }] : where;
  return { schema, name, branches, replaced, kept: kept ?? null };
}

/** A filter that nothing passes. */
export const nothing = "false";
/** What is PostgreSQL's own, and what is among the OIDs of a query. */
export const grantedOr = (granted: string, column = "oid"): string =>
  `x.${column} < ${ownOids} OR x.${column} IN (${granted})`;
/** OIDs of granted relations. */
export const relations = `SELECT g.relation FROM ${s("granted_relations")} g`;
/** OIDs of the types that granted columns have. */
export const types = `SELECT g.oid FROM ${s("granted_types")} g`;
/** A row about a schema of PostgreSQL itself. */
export const isSystemSchema = (column: string): string => `x.${column} IN ('pg_catalog', 'information_schema')`;
/** A row about a granted relation, by its name. */
export const isGrantedName = (schema: string, name: string): string =>
  `(x.${schema}, x.${name}) IN (SELECT g.schema, g.name FROM ${s("granted_relations")} g)`;
