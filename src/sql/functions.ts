/**
 * Which functions of `pg_catalog` may be called. The rule is by property, so that a new version's functions fall under it: what is
 * volatile, reads by name or number outside the statement, takes text that is run, or speaks of the server is not allowed unless
 * it is listed here.
 */
import { type Catalog, type CatalogFunction, isBuiltin } from "./catalog.ts";

/**
 * - `plain`: computes from its arguments
 * - `helper`: looks an object up; the arguments at `objects` must come from a shadowed catalog or name something granted
 * - `row`: the first two arguments must be two columns of one row of a shadowed catalog
 * - `partition`: as `helper`, about a partition's key or bounds
 * - `configuration`: the first argument names a text search configuration
 * - `setting`: reads or writes a setting by name
 * - `privilege`: asks about a right on an object
 */
export type FunctionVerdict =
  | { readonly kind: "plain" }
  | { readonly kind: "helper"; readonly objects: readonly number[] }
  | { readonly kind: "row"; readonly pairs: readonly RowPair[] }
  | { readonly kind: "partition"; readonly speaksOf: "columns" | "values" }
  | { readonly kind: "configuration" }
  | { readonly kind: "setting"; readonly access: "read" | "write" }
  | { readonly kind: "privilege" }
  | { readonly kind: "denied" };

/** Two columns that belong together. */
export interface RowPair {
  /** Of `pg_catalog`. */
  readonly relation: string;
  readonly first: string;
  /** Null when any OID will do. */
  readonly second: string | null;
}

const denied: FunctionVerdict = { kind: "denied" };
const plain: FunctionVerdict = { kind: "plain" };

/** Volatile, and still only a value. */
const allowedVolatile = new Set([
  "random",
  "random_normal",
  "gen_random_uuid",
  "uuidv4",
  "uuidv7",
  "clock_timestamp",
  "timeofday",
  "pg_is_in_recovery",
  "array_sample",
  "array_shuffle",
]);

/** Functions whose name starts with `pg_` are about the server; these only compute, or say what a client may know. */
const allowedOfServer = new Set([
  "pg_backend_pid",
  "pg_is_in_recovery",
  "pg_postmaster_start_time",
  "pg_typeof",
  "pg_column_size",
  "pg_size_pretty",
  "pg_size_bytes",
  "pg_client_encoding",
  "pg_encoding_to_char",
  "pg_char_to_encoding",
  "pg_encoding_max_length",
  "pg_collation_for",
  "pg_get_keywords",
  "pg_my_temp_schema",
  "pg_options_to_table",
]);

/** Catalog helpers, with the positions of the arguments that say which object. */
const helpers = new Map<string, readonly number[]>([
  ["format_type", [0]],
  ["oidvectortypes", [0]],
  ["obj_description", [0]],
  ["shobj_description", [0]],
  ["pg_table_is_visible", [0]],
  ["pg_type_is_visible", [0]],
  ["pg_function_is_visible", [0]],
  ["pg_operator_is_visible", [0]],
  ["pg_collation_is_visible", [0]],
  ["pg_opclass_is_visible", [0]],
  ["pg_statistics_obj_is_visible", [0]],
  ["pg_is_other_temp_schema", [0]],
  ["pg_get_userbyid", [0]],
  ["pg_get_constraintdef", [0]],
  ["pg_get_indexdef", [0]],
  ["pg_get_triggerdef", [0]],
  ["pg_get_function_result", [0]],
  ["pg_get_function_arguments", [0]],
  ["pg_get_function_identity_arguments", [0]],
  ["pg_get_statisticsobjdef_columns", [0]],
  ["pg_relation_is_publishable", [0]],
  ["pg_partition_ancestors", [0]],
  ["pg_relation_is_updatable", [0]],
  ["to_regclass", [0]],
]);

/** Helpers that must be asked about columns of one row: expressions with the table that they are of, a column with its table. */
const rowHelpers = new Map<string, readonly RowPair[]>([
  ["col_description", [{ relation: "pg_attribute", first: "attrelid", second: "attnum" }]],
  [
    "pg_get_expr",
    [
      { relation: "pg_attrdef", first: "adbin", second: "adrelid" },
      { relation: "pg_class", first: "relpartbound", second: "oid" },
      { relation: "pg_index", first: "indexprs", second: "indrelid" },
      { relation: "pg_index", first: "indpred", second: "indrelid" },
      { relation: "pg_constraint", first: "conbin", second: "conrelid" },
      { relation: "pg_policy", first: "polqual", second: "polrelid" },
      { relation: "pg_policy", first: "polwithcheck", second: "polrelid" },
      // psql takes the table from elsewhere. The shadow has no rows (shadow-catalogs.ts).
      { relation: "pg_publication_rel", first: "prqual", second: null },
    ],
  ],
]);

/** A partition's key names columns; its constraint also has the bounds, which are values. */
const partitionHelpers = new Map<string, "columns" | "values">([
  ["pg_get_partkeydef", "columns"],
  ["pg_get_partition_constraintdef", "values"],
]);

const privilegeQuestion = /^(has_[a-z_]+_privilege|pg_has_role)$/;

/** Names that are denied although nothing in their signature says why. */
const deniedNames = new Set([
  // Runs SQL text, or reads by name.
  "ts_stat",
  "ts_rewrite",
  "ts_parse",
  "ts_token_type",
  "ts_debug",
  "row_security_active",
  // Reads text as a row, and the row's own names with it.
  "json_populate_record",
  "json_populate_recordset",
  "jsonb_populate_record",
  "jsonb_populate_recordset",
  "jsonb_populate_record_valid",
  // Speaks of the network, transactions or roles.
  "inet_client_addr",
  "inet_client_port",
  "inet_server_addr",
  "inet_server_port",
  "mxid_age",
  "aclexplode",
  "makeaclitem",
  "acldefault",
  "current_query",
  "querytree",
  "amvalidate",
]);

const deniedPattern =
  /(_to_xml|_to_xmlschema|_to_xml_and_xmlschema|_validator|_support|_handler)$|^(pg_|txid_|lo_|lo|binary_upgrade_|fmgr_|to_reg)/;
/** `lo…` names of `pg_catalog` that are not about large objects. */
const notLargeObjects = new Set(["log", "log10", "lower", "lower_inc", "lower_inf"]);

/** Arguments and results of these types look something up, are the server's own, or cannot be written safely. */
const innerTypes = new Set(
  "cstring internal trigger event_trigger language_handler fdw_handler index_am_handler tsm_handler table_am_handler regclass regproc regprocedure regoper regoperator regrole regnamespace regdictionary regcollation regtype regdatabase aclitem _aclitem xid xid8 cid tid pg_snapshot txid_snapshot refcursor pg_ddl_command".split(
    " ",
  ),
);

/** Take an OID and only compare or convert it. */
const harmlessOnOids = new Set(["max", "min", "int8", "oidlarger", "oidsmaller", "nameconcatoid"]);

/** Every name that the rules above speak of, so that a test can ask a server whether it has them. */
export const namedFunctions: ReadonlySet<string> = new Set([
  ...allowedVolatile,
  ...allowedOfServer,
  ...helpers.keys(),
  ...rowHelpers.keys(),
  ...partitionHelpers.keys(),
  ...deniedNames,
  ...notLargeObjects,
  ...harmlessOnOids,
]);

/** Functions of `information_schema` that drivers call. */
const informationSchemaFunctions = new Set(["_pg_expandarray"]);

/** Whether a function may be called, and what its arguments must be. Anything outside the built-in schemas is denied. */
export function judgeFunction(routine: CatalogFunction, catalog: Catalog): FunctionVerdict {
  if (routine.schema === "information_schema") {
    return informationSchemaFunctions.has(routine.name) ? plain : denied;
  }
  if (!isBuiltin(routine) || routine.kind === "procedure") {
    return denied;
  }
  if (routine.name === "current_setting" || routine.name === "set_config") {
    return { kind: "setting", access: routine.name === "set_config" ? "write" : "read" };
  }
  if (privilegeQuestion.test(routine.name)) {
    return { kind: "privilege" };
  }
  const pairs = rowHelpers.get(routine.name);
  if (pairs !== undefined) {
    return { kind: "row", pairs };
  }
  const speaksOf = partitionHelpers.get(routine.name);
  if (speaksOf !== undefined) {
    return { kind: "partition", speaksOf };
  }
  const objects = helpers.get(routine.name);
  if (objects !== undefined) {
    return { kind: "helper", objects };
  }
  return judgeBySignature(routine, catalog);
}

function judgeBySignature(routine: CatalogFunction, catalog: Catalog): FunctionVerdict {
  const name = routine.name;
  if (routine.volatility === "volatile" && !allowedVolatile.has(name)) {
    return denied;
  }
  if (deniedNames.has(name) || (deniedPattern.test(name) && !allowedOfServer.has(name) && !notLargeObjects.has(name))) {
    return denied;
  }
  const typeNames = routine.arguments.map((type) => catalog.types.get(type)?.name ?? "internal");
  if (typeNames[0] === "regconfig" && routine.arguments.length > 1) {
    return typeNames.slice(1).some((type) => innerTypes.has(type)) ? denied : { kind: "configuration" };
  }
  const returns = name === "pg_typeof" ? "text" : (catalog.types.get(routine.returns)?.name ?? "internal");
  if ([...typeNames, returns].some((type) => innerTypes.has(type) || type === "regconfig")) {
    return denied;
  }
  return typeNames.includes("oid") && !harmlessOnOids.has(name) ? denied : plain;
}
