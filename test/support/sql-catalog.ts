/** A catalog made by hand: a small part of PostgreSQL's own, and the relations of `sql-world.ts`. No server is needed. */
import {
  type Catalog,
  type CatalogCast,
  type CatalogColumn,
  type CatalogFunction,
  type CatalogOperator,
  type CatalogRelation,
  type CatalogRows,
  type CatalogType,
  type Volatility,
  buildCatalog,
} from "#sql/catalog.ts";

/** `name:oid[:kind[:element]]`; an array type is named `_element`. */
const typeList =
  "bool:16 bytea:17 char:18 name:19 int8:20 int2:21 int2vector:22 int4:23 regproc:24 text:25 oid:26 tid:27 xid:28 cid:29 oidvector:30 json:114 xml:142 pg_node_tree:194 unknown:705:pseudo regconfig:3734 float4:700 float8:701 bpchar:1042 varchar:1043 date:1082 time:1083 timestamp:1114 timestamptz:1184 interval:1186 numeric:1700 bit:1560 regclass:2205 regtype:2206 regnamespace:4089 record:2249:pseudo cstring:2275:pseudo any:2276:pseudo anyarray:2277:pseudo void:2278:pseudo internal:2281:pseudo anyelement:2283:pseudo anynonarray:2776:pseudo anyenum:3500:pseudo anyrange:3831:pseudo anycompatible:5077:pseudo anycompatiblearray:5078:pseudo tsvector:3614 tsquery:3615 jsonb:3802 uuid:2950 aclitem:1033 _text:1009:base:25 _int4:1007:base:23 _int2:1005:base:21 _name:1003:base:19 _oid:1028:base:26 _char:1002:base:18 _regclass:2210:base:2205 _numeric:1231:base:1700 _int8:1016:base:20 _aclitem:1034:base:1033";

const builtinTypes: readonly CatalogType[] = typeList.split(" ").map((text) => {
  const [name = "", oid = "", kind = "base", element = "0"] = text.split(":");
  return {
    schema: "pg_catalog",
    name,
    oid: Number(oid),
    kind: kind === "pseudo" ? "pseudo" : "base",
    element: Number(element),
    array: 0,
    base: 0,
    relation: 0,
  };
});

const userTypes: readonly CatalogType[] = [
  {
    schema: "public",
    name: "invoice_status",
    oid: 20_000,
    kind: "enum",
    element: 0,
    array: 20_001,
    base: 0,
    relation: 0,
  },
  {
    schema: "public",
    name: "_invoice_status",
    oid: 20_001,
    kind: "base",
    element: 20_000,
    array: 0,
    base: 0,
    relation: 0,
  },
  { schema: "public", name: "secret_kind", oid: 20_002, kind: "enum", element: 0, array: 0, base: 0, relation: 0 },
  {
    schema: "public",
    name: "customers",
    oid: 20_010,
    kind: "composite",
    element: 0,
    array: 0,
    base: 0,
    relation: 16_400,
  },
];

const types = [...builtinTypes, ...userTypes].map((type) => ({
  ...type,
  array: [...builtinTypes, ...userTypes].find((candidate) => candidate.element === type.oid)?.oid ?? 0,
}));

const oidOf = (name: string): number => {
  const found = types.find((type) => type.name === name);
  if (found === undefined) {
    throw new Error(`no type ${name}`);
  }
  return found.oid;
};

/** `[schema.]name(argument, …[ default]) → result[ set][ stable|volatile][ aggregate|window]`; outputs after a bar. */
const functionList = `
  count() → int8 aggregate; count(any) → int8 aggregate; sum(int4) → int8 aggregate; sum(int8) → numeric aggregate
  sum(numeric) → numeric aggregate; max(text) → text aggregate; max(int4) → int4 aggregate; max(timestamptz) → timestamptz aggregate
  max(numeric) → numeric aggregate; min(text) → text aggregate; min(int4) → int4 aggregate; avg(numeric) → numeric aggregate
  array_agg(anynonarray) → anyarray aggregate; string_agg(text, text) → text aggregate; json_agg(anyelement) → json stable aggregate
  rank() → int8 window; rank(any variadic) → int8 aggregate; row_number() → int8 window; lag(anycompatible, int4, anycompatible) → anycompatible window
  lower(text) → text; lower(anyrange) → anyelement; upper(text) → text; reverse(text) → text; length(text) → int4; md5(text) → text
  substr(text, int4, int4) → text; substring(text, int4, int4) → text; btrim(text, text) → text; btrim(text) → text; position(text, text) → int4
  overlay(text, text, int4) → text; replace(text, text, text) → text; concat(any variadic) → text stable; chr(int4) → text; ascii(text) → int4
  encode(bytea, text) → text; convert_to(text, name) → bytea stable; left(text, int4) → text; split_part(text, text, int4) → text
  row_to_json(record) → json stable; to_json(anyelement) → json stable; to_jsonb(anyelement) → jsonb stable
  jsonb_build_object(any variadic) → jsonb stable; json_build_object(any variadic) → json stable; json_build_array(any variadic) → json stable; xmlcomment(text) → xml
  json_each(json) → record set | key text, value json; json_each_text(json) → record set | key text, value text
  json_to_recordset(json) → record set stable; json_array_elements(json) → json set | value json; jsonb_object_keys(jsonb) → text set
  unnest(anyarray) → anyelement set; generate_series(int4, int4) → int4 set; generate_subscripts(anyarray, int4) → int4 set
  array_to_string(anyarray, text) → text stable; array_upper(anyarray, int4) → int4; array_position(anycompatiblearray, anycompatible) → int4
  regexp_matches(text, text) → _text set; regexp_split_to_table(text, text) → text set; similar_to_escape(text) → text; like_escape(text, text) → text
  extract(text, timestamptz) → numeric stable; date_part(text, timestamptz) → float8 stable; date_trunc(text, timestamptz) → timestamptz stable
  timezone(text, timestamptz) → timestamp; now() → timestamptz stable; clock_timestamp() → timestamptz volatile; random() → float8 volatile
  gen_random_uuid() → uuid volatile; version() → text stable; current_database() → name stable; current_schemas(bool) → _name stable
  pg_backend_pid() → int4 stable; round(numeric, int4) → numeric; round(numeric) → numeric; abs(int4) → int4
  to_tsvector(regconfig, text) → tsvector; to_tsvector(text) → tsvector stable; to_tsquery(text) → tsquery stable
  current_setting(text) → text stable; current_setting(text, bool) → text stable; set_config(text, text, bool) → text volatile
  pg_get_userbyid(oid) → name stable; pg_table_is_visible(oid) → bool stable; format_type(oid, int4) → text stable
  obj_description(oid, name) → text stable; col_description(oid, int4) → text stable; pg_get_constraintdef(oid) → text stable
  pg_get_expr(pg_node_tree, oid) → text stable; pg_get_indexdef(oid) → text stable; to_regclass(text) → regclass stable
  has_table_privilege(text, text) → bool stable; has_table_privilege(oid, text) → bool stable; has_schema_privilege(text, text) → bool stable
  pg_typeof(any) → regtype stable; pg_column_size(any) → int4 stable; pg_size_pretty(int8) → text
  pg_sleep(float8) → void volatile; pg_read_file(text) → text volatile; pg_ls_dir(text) → text set volatile; pg_notify(text, text) → void volatile
  pg_advisory_lock(int8) → void volatile; pg_try_advisory_lock(int8) → bool volatile; pg_terminate_backend(int4, int8) → bool volatile
  nextval(regclass) → int8 volatile; setval(regclass, int8) → int8 volatile; currval(regclass) → int8 volatile; lastval() → int8 volatile
  lo_create(oid) → oid volatile; lo_import(text) → oid volatile; lo_get(oid) → bytea volatile; query_to_xml(text, bool, bool, text) → xml volatile
  table_to_xml(regclass, bool, bool, text) → xml stable; schema_to_xml(name, bool, bool, text) → xml stable
  database_to_xml(bool, bool, text) → xml stable; cursor_to_xml(text, int4, bool, bool, text) → xml volatile
  ts_stat(text) → record set volatile; ts_rewrite(tsquery, text) → tsquery volatile; txid_current() → int8 stable
  pg_current_xact_id() → int8 stable; pg_export_snapshot() → text volatile; pg_get_viewdef(oid) → text stable
  pg_get_functiondef(oid) → text stable; pg_get_ruledef(oid) → text stable; pg_relation_size(regclass) → int8 volatile
  pg_total_relation_size(regclass) → int8 volatile; pg_database_size(name) → int8 volatile; pg_stat_get_live_tuples(oid) → int8 stable
  regclassin(cstring) → regclass stable; regclass(text) → regclass stable; row_security_active(text) → bool stable
  inet_server_addr() → text stable; pg_input_is_valid(text, text) → bool stable; currtid2(text, tid) → tid volatile; text(bpchar) → text
  pg_logical_slot_get_changes(name, text) → record set volatile; pg_reload_conf() → bool volatile; aclexplode(_aclitem) → record set stable
  public.peek(customers) → text stable; public.run_it(text) → text volatile; public.lower(invoice_status) → text; public.dblink(text) → record set volatile
`;

function parseFunction(text: string, oid: number): CatalogFunction {
  const [, qualified = "", args = "", result = "", words = "", outputs = ""] =
    /^([a-z_0-9.]+)\((.*?)\) → (\w+)([a-z ]*)(?:\| (.*))?$/.exec(text) ?? [];
  const [name = "", schema = "pg_catalog"] = qualified.split(".").toReversed();
  const argumentTexts = args === "" ? [] : args.split(", ");
  const variadic = argumentTexts.some((argument) => argument.endsWith(" variadic")) ? oidOf("any") : 0;
  const has = (word: string): boolean => words.split(" ").includes(word);
  const volatility: Volatility = has("volatile") ? "volatile" : has("stable") ? "stable" : "immutable";
  return {
    schema,
    name,
    oid: schema === "pg_catalog" ? oid : 30_000 + oid,
    kind: has("aggregate") ? "aggregate" : has("window") ? "window" : "function",
    language: schema === "pg_catalog" ? "internal" : "sql",
    volatility,
    arguments: argumentTexts.map((argument) => oidOf(argument.replace(" variadic", ""))),
    defaults: 0,
    variadic,
    returns: oidOf(result),
    returnsSet: has("set"),
    outputs:
      outputs === ""
        ? []
        : outputs.split(", ").map((output) => {
            const [outputName = "", type = ""] = output.split(" ");
            return { name: outputName, type: oidOf(type) };
          }),
    argumentNames: [],
  };
}

const functions = functionList
  .split(/[;\n]/)
  .map((text) => text.trim())
  .filter((text) => text !== "")
  .map((text, i) => parseFunction(text, 1000 + i));

/** `left name right result`; a prefix operator has `-` on the left. */
const operatorList = `
  text = text bool; text <> text bool; text < text bool; text > text bool; text <= text bool; text >= text bool; text || text text
  text ~~ text bool; text !~~ text bool; text ~~* text bool; text ~ text bool; text ~* text bool; text !~ text bool
  int4 = int4 bool; int4 <> int4 bool; int4 < int4 bool; int4 > int4 bool; int4 <= int4 bool; int4 >= int4 bool; int4 + int4 int4
  int4 - int4 int4; int4 * int4 int4; int4 / int4 int4; int4 % int4 int4; - - int4 int4; - - numeric numeric
  int8 = int8 bool; int8 = int4 bool; int8 > int4 bool; int4 = int8 bool; int2 = int2 bool; int2 > int4 bool; int8 + int8 int8
  numeric = numeric bool; numeric > numeric bool; numeric < numeric bool; numeric >= numeric bool; numeric <= numeric bool
  numeric + numeric numeric; numeric * numeric numeric; numeric - numeric numeric; float8 < float8 bool
  bool = bool bool; oid = oid bool; oid <> oid bool; name = name bool; name = text bool; name <> text bool; name <> name bool
  name ~ text bool; name !~ text bool; char = char bool; name ~~ text bool; name < name bool
  timestamptz > timestamptz bool; timestamptz < timestamptz bool; timestamptz <= timestamptz bool; timestamptz >= timestamptz bool
  timestamptz - timestamptz interval; timestamptz - interval timestamptz; date = date bool; date >= date bool; date <= date bool
  jsonb -> text jsonb; jsonb ->> text text; json -> text json; json ->> text text; jsonb ? text bool; jsonb @> jsonb bool; jsonb = jsonb bool
  anyarray = anyarray bool; anyarray @> anyarray bool; anyarray && anyarray bool; anyenum = anyenum bool; anyenum <> anyenum bool
  anyarray || anyarray anyarray; record = record bool; record < record bool; bytea = bytea bool; tsvector @@ tsquery bool
`;

const operators: readonly CatalogOperator[] = [
  ...operatorList
    .split(/[;\n]/)
    .map((text) => text.trim())
    .filter((text) => text !== "")
    .map((text, i): CatalogOperator => {
      const [left = "", name = "", right = "", result = ""] = text.split(" ");
      return {
        schema: "pg_catalog",
        name,
        oid: 3000 + i,
        left: left === "-" ? 0 : oidOf(left),
        right: oidOf(right),
        result: oidOf(result),
        volatility: "immutable",
      };
    }),
  { schema: "public", name: "===", oid: 31_000, left: 25, right: 25, result: 16, volatility: "volatile" },
  { schema: "public", name: "<", oid: 31_001, left: 20_000, right: 25, result: 16, volatility: "immutable" },
];

const casts: readonly CatalogCast[] =
  "int4>int8 int4>numeric int4>float8 int8>numeric int2>int4 int2>int8 varchar>text bpchar>text name>text char>text date>timestamptz int4>oid int8>oid regclass>oid oid>regclass regproc>oid text>regclass"
    .split(" ")
    .map((text) => {
      const [source = "", target = ""] = text.split(">");
      return { source: oidOf(source), target: oidOf(target), context: "implicit", builtin: true };
    });

/** `column type[!][*]`: `!` not null, `*` unique. */
function columnsOf(text: string): readonly CatalogColumn[] {
  return text.split(", ").map((part, i) => {
    const [, name = "", type = "", marks = ""] = /^(\w+) (\w+)([!*]*)$/.exec(part) ?? [];
    return {
      name,
      type: oidOf(type),
      typeName: type,
      number: i + 1,
      notNull: marks.includes("!"),
      hasDefault: false,
      generated: "no",
      identity: "no",
      unique: marks.includes("*"),
    };
  });
}

function relation(
  schema: string,
  name: string,
  oid: number,
  columns: string,
  more: Partial<CatalogRelation> = {},
): CatalogRelation {
  return {
    schema,
    name,
    oid,
    kind: "table",
    owner: "owner",
    columns: columnsOf(columns),
    hasTriggers: false,
    hasRules: false,
    rowSecurity: false,
    hasChildren: false,
    foreign: false,
    ...more,
  };
}

const relations: readonly CatalogRelation[] = [
  relation(
    "public",
    "customers",
    16_400,
    "id int4!*, name text!, email text, ssn text*, card text, country text, created_at timestamptz, secret_note text",
  ),
  relation(
    "public",
    "invoices",
    16_410,
    "id int8!*, customer_id int4, amount numeric, status invoice_status, tags _text, data jsonb, issued date",
  ),
  relation("public", "support_notes", 16_420, "id int4!*, customer_id int4, body text, secret text"),
  relation("public", "payment_methods", 16_430, "id int4!*, customer_id int4, pan text"),
  relation("public", "parents", 16_440, "id int4!*, name text, ssn text", { hasChildren: true }),
  relation("public", "children", 16_450, "id int4!*, name text, ssn text, extra text"),
  relation(
    "pg_catalog",
    "pg_class",
    1259,
    "oid oid!*, relname name, relnamespace oid, relkind char, relowner oid, relpartbound pg_node_tree",
  ),
  relation("pg_catalog", "pg_namespace", 2615, "oid oid!*, nspname name, nspowner oid"),
  relation("pg_catalog", "pg_attribute", 1249, "attrelid oid, attname name, atttypid oid, atttypmod int4, attnum int2"),
  relation("pg_catalog", "pg_constraint", 2606, "oid oid!*, conname name, conrelid oid, contype char"),
  relation("pg_catalog", "pg_attrdef", 2604, "oid oid!*, adrelid oid, adnum int2, adbin pg_node_tree"),
  relation("pg_catalog", "pg_authid", 1260, "oid oid!*, rolname name, rolpassword text"),
  relation("pg_catalog", "pg_stats", 12_000, "schemaname name, tablename name, attname name, most_common_vals text", {
    kind: "view",
  }),
  relation("information_schema", "tables", 13_000, "table_schema name, table_name name, table_type text", {
    kind: "view",
  }),
  relation("information_schema", "columns", 13_001, "table_schema name, table_name name, column_name name", {
    kind: "view",
  }),
  relation("information_schema", "views", 13_002, "table_schema name, table_name name, view_definition text", {
    kind: "view",
  }),
];

/** The rows of the hand-made catalog, for tests that change one thing. */
export const syntheticRows: CatalogRows = {
  version: "synthetic",
  serverVersion: 180_000,
  encoding: "UTF8",
  searchPath: ["public"],
  schemas: ["pg_catalog", "information_schema", "public"],
  relations,
  functions,
  types,
  operators,
  casts,
  collations: ["default", "C", "POSIX"],
};

export const syntheticCatalog: Catalog = buildCatalog(syntheticRows);
