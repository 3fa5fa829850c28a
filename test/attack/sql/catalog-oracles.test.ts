/**
 * The catalogs as an oracle, against the catalog of a real PostgreSQL: whether something that is not granted exists, and what it
 * is made of, must not be told by a function that takes a number or a name, nor by a place where text becomes a name.
 */
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { CompiledScope, ScopedRelation } from "#domain/scope.ts";
import { type AnalysisContext, type Analyzer, createAnalyzer } from "#sql/analyze.ts";
import { loadCatalog } from "#protocols/postgres/catalog-loader.ts";
import { type TestPostgres, startPostgres } from "../../support/postgres.ts";
import { sqlWorldDdl, sqlWorldScope } from "../../support/sql-world.ts";

let server: TestPostgres;
let analyzer: Analyzer;
let context: AnalysisContext;

function wholly(name: string, columns: readonly string[]): ScopedRelation {
  return {
    base: { schema: "public", name },
    openColumns: columns,
    maskedColumns: [],
    visibleColumns: columns,
    wholeOpen: true,
    view: null,
    write: { insertColumns: columns, updateColumns: columns, delete: true, view: null },
  };
}

function widened(scope: CompiledScope, added: readonly ScopedRelation[]): CompiledScope {
  return {
    ...scope,
    relations: new Map([
      ...scope.relations,
      ...added.map((relation) => [`public.${relation.base.name}`, relation] as const),
    ]),
  };
}

beforeAll(async () => {
  server = await startPostgres();
  const { host, port, user, password, database } = server;
  const admin = new Client({ host, port, user, password, database });
  await admin.connect();
  await admin.query(sqlWorldDdl);
  await admin.query(`
    CREATE TYPE public.pair AS (place regclass, n integer);
    CREATE DOMAIN public.place AS regclass;
    CREATE TABLE public.pointers (id integer, "where" regclass, "whom" aclitem[], pair public.pair, "there" public.place, number oid);
    CREATE VIEW public.paid AS SELECT id FROM public.invoices WHERE status = 'paid';
  `);
  context = {
    catalog: await loadCatalog(admin),
    scope: widened(sqlWorldScope, [
      wholly("pointers", ["id", "where", "whom", "pair", "there", "number"]),
      wholly("paid", ["id"]),
    ]),
  };
  await admin.end();
  analyzer = await createAnalyzer();
});

afterAll(async () => {
  await server.stop();
});

function verdictOf(text: string, within: AnalysisContext = context): string {
  const result = analyzer.analyze(text, within);
  return result.refused ? result.code : "accepted";
}

function refusedAll(statements: readonly string[]): void {
  test.each(statements)("%s", (text) => {
    expect(verdictOf(text)).not.toBe("accepted");
    // The refusal is about what the statement does, and not about how it is written.
    expect(verdictOf(text)).not.toBe("statement.syntax");
  });
}

function acceptedAll(statements: readonly string[]): void {
  test.each(statements)("%s", (text) => {
    const result = analyzer.analyze(text, context);
    expect(result.refused ? result.reason : "accepted").toBe("accepted");
  });
}

/** A value whose type reads names, in all the ways to come by one. */
const readers: readonly (readonly [how: string, value: string, from: string])[] = [
  ["a cast", "'pg_class'::regclass", ""],
  ["a cast catalog column", "c.oid::regclass", "from pg_class c"],
  ["a regproc column", "a.amhandler", "from pg_am a"],
  ["a field of a row", "(a).amhandler", "from pg_am a"],
  ["a field of a row out of a subquery", "(s.x).amhandler", "from (select a as x from pg_am a) s"],
  ["a field of an element", "(array_agg(a))[1].amhandler", "from pg_am a"],
  ["a whole row", "a", "from pg_am a"],
  ["a whole row out of a subquery", "s.x", "from (select a as x from pg_am a) s"],
  ["a scalar subquery", "(select amhandler from pg_am limit 1)", ""],
  ["a whole row out of a scalar subquery", "(select a from pg_am a limit 1)", ""],
  [
    "a recursive query",
    "t.r",
    "from (with recursive t as (select oid::regclass as r from pg_class union all select r from t) select * from t) t",
  ],
  [
    "a set operation",
    "t.r",
    "from (select oid::regclass as r from pg_class union select amhandler::regproc::oid::regclass from pg_am) t",
  ],
  ["VALUES", "t.r", "from (values ('pg_class'::regclass)) t(r)"],
  ["a function", "pg_typeof(1)", ""],
  ["a function in FROM", "u.r", "from unnest(array['pg_class'::regclass]) u(r)"],
  ["CASE", "case when true then c.oid::regclass end", "from pg_class c"],
  ["COALESCE", "coalesce(null, c.oid::regclass)", "from pg_class c"],
  ["NULLIF", "nullif(c.oid::regclass, null)", "from pg_class c"],
  ["a window function", "first_value(c.oid::regclass) over ()", "from pg_class c"],
  ["an aggregate", "any_value(c.oid::regclass)", "from pg_class c"],
  ["a lateral subquery", "l.r", "from pg_class c, lateral (select c.oid::regclass as r) l"],
  [
    "a full join",
    "r",
    "from (select oid::regclass as r from pg_class) x full join (select oid::regclass as r from pg_class) y using (r)",
  ],
  ["an access list", "c.relacl", "from pg_class c"],
  ["an element of an access list", "c.relacl[1]", "from pg_class c"],
  ["a granted column", "p.where", "from pointers p"],
  ["a granted column of a domain", "p.there", "from pointers p"],
  ["a granted row", "p.pair", "from pointers p"],
  ["a field of a granted row", "(p.pair).place", "from pointers p"],
  ["a whole granted row", "p", "from pointers p"],
];

/** Places that bring a value and a text to one type. */
const unifications: readonly (readonly [where: string, make: (value: string, text: string, from: string) => string])[] =
  [
    ["UNION", (value, text, from) => `select ${value} ${from} union all select ${text}`],
    ["UNION the other way", (value, text, from) => `select ${text} union all select ${value} ${from}`],
    [
      "UNION deeper",
      (value, text, from) =>
        `(select ${value} ${from} union select ${value} ${from}) union all (select ${text} limit 1)`,
    ],
    [
      "UNION of three",
      (value, text, from) => `select ${value} ${from} union select ${text} union select ${value} ${from}`,
    ],
    ["EXCEPT", (value, text, from) => `select ${value} ${from} except select ${text}`],
    ["INTERSECT in FROM", (value, text, from) => `select 1 from (select ${text} intersect select ${value} ${from}) s`],
    [
      "VALUES",
      (value, text, from) => `select * from (select ${value} as r ${from}) z, lateral (values (z.r), (${text})) v`,
    ],
    ["CASE", (value, text, from) => `select case when true then ${value} else ${text} end ${from}`],
    ["CASE … WHEN", (value, text, from) => `select case ${value} when ${text} then 1 end ${from}`],
    ["COALESCE", (value, text, from) => `select coalesce(${value}, ${text}) ${from}`],
    ["NULLIF", (value, text, from) => `select nullif(${value}, ${text}) ${from}`],
    ["GREATEST", (value, text, from) => `select greatest(${text}, ${value}) ${from}`],
    ["ARRAY", (value, text, from) => `select array[${value}, ${text}] ${from}`],
    [
      "IN",
      (value, text, from) =>
        `select 1 ${from === "" ? "from (select 1) z" : from} where ${value} in (${text}, ${text})`,
    ],
    ["IN the other way", (value, text, from) => `select ${text} in (${value}, ${value}) ${from}`],
    ["IN a subquery", (value, text, from) => `select ${text} in (select ${value} ${from})`],
    ["= ANY a subquery", (value, text, from) => `select ${text} = any (select ${value} ${from})`],
    ["= ANY an array", (value, text, from) => `select ${text} = any (array[${value}]) ${from}`],
    ["BETWEEN", (value, text, from) => `select ${value} between (${text}) and (${text}) ${from}`],
    ["=", (value, text, from) => `select ${value} = ${text} ${from}`],
    ["IS DISTINCT FROM", (value, text, from) => `select ${value} is distinct from ${text} ${from}`],
    ["a row comparison", (value, text, from) => `select (1, ${value}) = (1, ${text}) ${from}`],
    ["a row beside a subquery", (value, text, from) => `select (1, ${text}) = (select 1, ${value} ${from} limit 1)`],
    ["a row in a subquery", (value, text, from) => `select (1, ${text}) in (select 1, ${value} ${from})`],
    ["array_append", (value, text, from) => `select array_append(array[${value}], ${text}) ${from}`],
    ["array_position", (value, text, from) => `select array_position(array[${value}], ${text}) ${from}`],
    ["array_replace", (value, text, from) => `select array_replace(array[${value}], ${text}, ${text}) ${from}`],
    ["||", (value, text, from) => `select array[${value}] || ${text} ${from}`],
    ["lag", (value, text, from) => `select lag(z.r, 1, ${text}) over () from (select ${value} as r ${from}) z`],
    [
      "rank",
      (value, text, from) => `select rank(${text}) within group (order by z.r) from (select ${value} as r ${from}) z`,
    ],
    [
      "a recursive query",
      (value, text, from) =>
        `with recursive t(r) as (select ${value} ${from} union all select ${text} from t) select 1 from t`,
    ],
    [
      "a recursive query with WITH inside",
      (value, text, from) =>
        `with recursive t(r) as (with w as (select 1) select ${value} ${from} union all select ${text}) select 1 from t`,
    ],
    [
      "an element of a list",
      (value, text, from) =>
        `select 1 from (select array_agg(z.r) as l from (select ${value} as r ${from}) z) y where l[1] = ${text}`,
    ],
  ];

describe("text that meets a value that names an object", () => {
  const texts = ["'payment_methods'", "'payment_methods' collate \"C\"", "$1"];
  describe.each(unifications)("in %s", (_, make) => {
    test.each(readers)("that is %s is refused", (_how, value, from) => {
      for (const text of texts) {
        const statement = make(value, text, from);
        expect([statement, verdictOf(statement)]).not.toEqual([statement, "accepted"]);
        expect([statement, verdictOf(statement)]).not.toEqual([statement, "statement.syntax"]);
      }
    });
  });

  test.each(unifications)("a null or another such value in %s is let through", (_, make) => {
    for (const text of ["null", "'customers'::regclass"]) {
      const statement = make("c.oid::regclass", text, "from pg_class c");
      const result = analyzer.analyze(statement, context);
      expect([statement, result.refused ? result.reason : "accepted"]).toEqual([statement, "accepted"]);
    }
  });

  test("a null says nothing, and text beside text is text", () => {
    for (const [, value, from] of readers.filter(([how]) => !/row|element|access list/.test(how))) {
      expect(verdictOf(`select coalesce(${value}, null) ${from}`)).toBe("accepted");
      expect(verdictOf(`select (${value})::text = 'payment_methods' ${from}`)).toBe("accepted");
    }
  });
});

describe("text that is read as a row", () => {
  refusedAll([
    `select jsonb_populate_record(a, '{"amhandler": "nosuch"}') from pg_am a`,
    `select json_populate_record(a, '{"amhandler": "nosuch"}') from pg_am a`,
    `select * from json_populate_recordset(null::pg_am, '[]')`,
    `select json_populate_recordset(t, '[{"typinput": "nosuch"}]') from pg_type t`,
    `select jsonb_populate_recordset(t, '[{"typinput": "nosuch"}]') from pg_type t`,
    `select jsonb_populate_record_valid(a, '{"amhandler": "nosuch"}') from pg_am a`,
    `select jsonb_populate_record(from_json => '{"amhandler": "nosuch"}', base => a) from pg_am a`,
    `select * from json_to_record('{"a": "nosuch"}') as x(a regproc)`,
    `select * from jsonb_to_recordset('[{"a": ["nosuch"]}]') as x(a regproc[])`,
    `select * from json_to_record('{"a": "x"}') as x(a aclitem)`,
    `select json_value('{"a": "nosuch"}', '$.a' returning regproc)`,
    `select json_query('["nosuch"]', '$' returning regproc[])`,
    `insert into pointers (pair) values ('(payment_methods,1)')`,
    `insert into pointers (there) values ('payment_methods')`,
    `insert into pointers (whom) values ('{payment_owner=r/payment_owner}')`,
    `update pointers set "where" = 'payment_methods'`,
    `update pointers set (id, pair) = (select 1, '(payment_methods,1)')`,
    `select 'payment_methods'::text::regclass`,
    `select array['payment_methods']::regclass[]`,
    `select 'postgres=r/postgres'::aclitem`,
    `select 'x'::unknown::regclass`,
    `select lag(value => 'payment_methods'::text::regclass)`,
  ]);
});

describe("a number that no catalog showed", () => {
  const made = "(select generate_series(16384, 16600)::int8::oid as oid) v";
  const sources: readonly (readonly [how: string, from: string])[] = [
    ["RIGHT JOIN USING", `pg_class right join ${made} using (oid)`],
    ["FULL JOIN USING", `pg_class full join ${made} using (oid)`],
    ["LEFT JOIN USING", `${made} left join pg_class using (oid)`],
    ["NATURAL RIGHT JOIN", `(select oid from pg_class) c natural right join ${made}`],
    ["NATURAL FULL JOIN", `(select oid from pg_class) c natural full join ${made}`],
    ["a join's alias", `(pg_class right join ${made} using (oid)) as j`],
    ["a join of joins", `(pg_class right join ${made} using (oid)) join pg_type using (oid)`],
    ["UNION", `(select oid from pg_class union select v.oid from ${made}) u`],
    ["UNION with a granted column", "(select oid from pg_class union select number from pointers) u"],
    ["UNION of VALUES", "(select oid from pg_class union values (16384::int8::oid)) u"],
    [
      "a recursive query",
      "(with recursive t(oid) as (select oid from pg_class union select (t.oid::int8 + 1)::oid from t) select * from t) u",
    ],
    ["CASE", `(select case when true then v.oid else c.oid end as oid from pg_class c, ${made}) u`],
    ["COALESCE", `(select coalesce(v.oid, c.oid) as oid from pg_class c, ${made}) u`],
    ["an array", `(select unnest(array[v.oid, c.oid]) as oid from pg_class c, ${made}) u`],
    ["unnest in FROM", `pg_class c, ${made}, unnest(array[v.oid]) as u(oid)`.replace("pg_class c, ", "")],
    ["a window", `(select lag(v.oid) over () as oid from ${made}) u`],
    ["an aggregate", `(select max(v.oid) as oid from ${made}) u`],
    [
      "LATERAL",
      `${made.replace(") v", ") w")}, lateral (select w.oid + 0 as oid) u`.replace(
        "w.oid + 0",
        "(w.oid::int8 + 0)::oid",
      ),
    ],
    ["VALUES", "(values (16384::int8::oid)) u(oid)"],
    ["a granted column", "(select number as oid from pointers) u"],
  ];
  const calls: readonly string[] = [
    "oid::regclass",
    "oid::regprocedure",
    "pg_get_userbyid(oid)",
    "pg_get_indexdef(oid)",
    "pg_get_constraintdef(oid)",
    "format_type(oid, null)",
    "pg_get_function_arguments(oid)",
    "obj_description(oid)",
    "obj_description(oid, 'pg_class')",
    "has_table_privilege(oid, 'select')",
    "has_schema_privilege(oid, 'usage')",
    "pg_relation_is_updatable(oid, true)",
    "pg_table_is_visible(oid)",
    "age(oid::text::xid)",
  ];
  test.each(sources)("by %s is not looked up", (_, from) => {
    for (const call of calls) {
      const statement = `select ${call.replaceAll("oid", from.includes("lateral") || from.includes("unnest(array[v.oid]) as") ? "u.oid" : "oid").replace("u.oid::regclass", "u.oid::regclass")} from ${from}`;
      expect([statement, verdictOf(statement)]).not.toEqual([statement, "accepted"]);
      expect([statement, verdictOf(statement)]).not.toEqual([statement, "name.ambiguous"]);
    }
  });

  acceptedAll([
    "select oid::regclass, pg_get_userbyid(relowner), obj_description(oid, 'pg_class') from pg_class",
    "select conrelid::regclass, pg_get_constraintdef(oid) from pg_constraint",
    "select s.o::regclass from (select oid as o from pg_class) s",
    "select has_table_privilege(oid, 'select') from (select oid from pg_class union select conrelid from pg_constraint) s",
  ]);
});

describe("a name that the client chose, in a question about rights", () => {
  refusedAll([
    "select has_table_privilege('payment_methods'::name, 'select')",
    "select has_table_privilege(('pay' || 'ment_methods')::name, 'select')",
    "select has_table_privilege(current_user, 'payment_methods'::name, 'select')",
    "select has_table_privilege(application_name, 'select') from pg_stat_activity",
    "select has_table_privilege(setting, 'select') from pg_settings",
    "select has_table_privilege(relname, 'select') from pg_class",
    "select has_table_privilege(nspname, 'select') from pg_namespace",
    "select has_table_privilege(name, 'select') from customers",
    "select has_table_privilege($1, 'select')",
    "select has_table_privilege('payment_methods' collate \"C\", 'select')",
    "select has_any_column_privilege('payment_methods'::name, 'select')",
    "select has_column_privilege('customers', 'secret_note', 'select')",
    "select has_column_privilege('customers', 'nosuch'::name, 'select')",
    "select has_column_privilege(c.oid, a.attnum, 'select') from pg_class c, pg_attribute a",
    "select has_column_privilege(c.oid, a.attname, 'select') from pg_class c, pg_attribute a",
    "select has_schema_privilege('hidden'::name, 'usage')",
    "select has_schema_privilege('customers', 'usage')",
    "select has_schema_privilege(application_name, 'usage') from pg_stat_activity",
    "select has_type_privilege('secret_kind'::name, 'usage')",
    "select has_type_privilege('customers', 'usage')",
    "select has_function_privilege('run(text)', 'execute')",
    "select has_function_privilege('run(text)'::name, 'execute')",
    "select has_database_privilege('other'::name, 'connect')",
    "select has_sequence_privilege('audit_log_id_seq'::name, 'usage')",
    "select has_sequence_privilege('audit_log_id_seq', 'usage')",
    "select has_language_privilege('plperlu', 'usage')",
    "select has_server_privilege('x', 'usage')",
    "select has_foreign_data_wrapper_privilege('x', 'usage')",
    "select has_tablespace_privilege('x', 'create')",
    "select has_parameter_privilege('x', 'set')",
    "select pg_has_role('postgres'::name, 'usage')",
    "select pg_has_role('postgres', 'usage')",
    "select pg_has_role(current_user, 'postgres'::name, 'usage')",
    "select pg_has_role(x, 'usage') from (select rolname as x from pg_roles union select name::name from customers) s",
  ]);
  acceptedAll([
    "select has_table_privilege('customers', 'select'), has_table_privilege(current_user, 'public.customers', 'select')",
    "select has_table_privilege(c.oid, 'select'), has_table_privilege(session_user, c.oid, 'select') from pg_class c",
    "select has_schema_privilege('public', 'usage'), has_schema_privilege(current_schema, 'usage'), has_schema_privilege(current_schema(), 'create')",
    "select has_schema_privilege(nspname, 'usage'), has_schema_privilege(oid, 'usage') from pg_namespace",
    "select has_database_privilege(current_database(), 'connect'), has_database_privilege(datname, 'create') from pg_database",
    "select pg_has_role(relowner, 'usage'), pg_has_role(user, 'usage') from pg_class",
    "select has_any_column_privilege(c.oid, 'select') from pg_class c",
  ]);
});

describe("an expression or a column's number beside another table", () => {
  refusedAll([
    "select pg_get_expr(c.conbin, 'customers'::regclass) from pg_constraint c",
    "select pg_get_expr(k.conbin, c.oid) from pg_constraint k, pg_class c",
    "select pg_get_expr(k.conbin, k.confrelid) from pg_constraint k",
    "select pg_get_expr(a.adbin, b.adrelid) from pg_attrdef a, pg_attrdef b",
    "with t as (select * from pg_attrdef) select pg_get_expr(a.adbin, b.adrelid) from t a, t b",
    "select pg_get_expr(s.adbin, s.adrelid) from (with t as (select * from pg_attrdef) select a.adbin, b.adrelid from t a, t b) s",
    "select pg_get_expr(d.adbin, (select adrelid from pg_attrdef limit 1)) from pg_attrdef d",
    "select pg_get_expr((select adbin from pg_attrdef limit 1), (select adrelid from pg_attrdef limit 1))",
    "select pg_get_expr(adbin, x.adrelid) from pg_attrdef, lateral (select adrelid from pg_attrdef) x",
    "select pg_get_expr(lag(adbin) over (), adrelid) from pg_attrdef",
    "select pg_get_expr(j.adbin, j.adrelid) from (pg_attrdef a right join (select oid from pg_class) b using (oid)) as j(o, r, n, b)",
    "select pg_get_expr('x', 'customers'::regclass)",
    "select pg_get_expr(i.indpred, c.oid) from pg_index i, pg_class c",
    "select col_description(oid, 8) from pg_class",
    "select col_description(oid, generate_series(1, 20)) from pg_class",
    "select col_description(c.oid, a.attnum) from pg_class c, pg_attribute a",
    "select col_description(a.attrelid, b.attnum) from pg_attribute a, pg_attribute b",
    "select col_description('customers'::regclass, 8)",
    "select col_description(a.attrelid, a.attnum + 1) from pg_attribute a",
    "select col_description(a.attrelid, a.attnum::int4) from pg_attribute a",
  ]);
  acceptedAll([
    "select pg_get_expr(d.adbin, d.adrelid), pg_get_expr(d.adbin, d.adrelid, true) from pg_attrdef d join pg_class c on c.oid = d.adrelid",
    "select pg_get_expr(adbin, adrelid) from pg_attrdef",
    "select (select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d where d.adrelid = a.attrelid) from pg_attribute a",
    "select pg_get_expr(c.relpartbound, c.oid) from pg_class c",
    "select pg_get_expr(i.indpred, i.indrelid), pg_get_expr(i.indexprs, i.indrelid) from pg_index i",
    "select col_description(a.attrelid, a.attnum) from pg_attribute a left join pg_class c on c.oid = a.attrelid",
  ]);
});

describe("a partition's key", () => {
  test("is told only when every column of partitioned tables is", () => {
    const { catalog } = context;
    const key = "select pg_get_partkeydef(oid) from pg_class";
    const constraint = "select pg_get_partition_constraintdef(oid) from pg_class";
    expect(verdictOf(key)).toBe("accepted");
    expect(verdictOf(constraint)).toBe("grant.no-function");
    const partitioned = new Map(
      [...catalog.relations].map(([name, relation]) => [
        name,
        name === "public.support_notes" ? { ...relation, kind: "partitioned" as const } : relation,
      ]),
    );
    expect(verdictOf(key, { ...context, catalog: { ...catalog, relations: partitioned } })).toBe("grant.no-function");
  });
});

describe("plans and counters", () => {
  refusedAll([
    "explain select * from pg_class",
    "explain (costs off) select * from pg_roles",
    "explain (costs off) select * from information_schema.tables",
    "explain (costs off) select 1 from invoices where id in (select oid::int8 from pg_class)",
    "explain (costs off) with t as (select 1 from pg_am) select 1 from t",
    "explain (costs off) insert into invoices (id) select oid::int8 from pg_class",
    "explain (costs off) select id from paid",
    "explain (costs off) select id from parents",
    "explain select id from support_notes",
    "explain select id from customers",
    "select age('3'::xid)",
    "select age(xmin) from invoices",
    "select age(relfrozenxid), mxid_age(relminmxid) from pg_class",
    "select age(datfrozenxid) from pg_database",
    "select txid_current(), pg_current_xact_id()",
    "select pg_snapshot_xmax(pg_current_snapshot())",
    "select pg_xact_commit_timestamp('3'::xid)",
    "select txid_status(3)",
  ]);
  acceptedAll([
    "explain select id from invoices where amount > 3",
    "explain (costs off) select id, ssn from customers",
    "explain select 1",
    "select age(created_at), age(now(), created_at) from customers",
  ]);
});

describe("settings that Bind brings", () => {
  test("are listed with all their values", () => {
    const result = analyzer.analyze(
      "select set_config($1, $2, false), set_config($1, $3, false), set_config($1, $2, true)",
      context,
    );
    expect(result.refused ? [] : result.statements.map(({ boundSettings }) => boundSettings)).toEqual([
      [
        { nameParameter: 1, valueParameter: 2 },
        { nameParameter: 1, valueParameter: 3 },
      ],
    ]);
  });

  refusedAll([
    "select set_config(new_value => $1, setting_name => $2, is_local => false)",
    "select set_config(setting_name => 'search_path', new_value => 'x', is_local => false)",
    "select set_config($1, 'x', false)",
    "select set_config('role', $1, false)",
    "select set_config($1 || '', $2, false)",
    "select current_setting($1)",
  ]);
});

describe("a wholly granted table that has grown", () => {
  const grown = (): AnalysisContext => {
    const relation = context.catalog.relations.get("public.invoices");
    const [column] = relation?.columns ?? [];
    if (relation === undefined || column === undefined) {
      throw new Error("no invoices");
    }
    const added = { ...column, name: "secret_note", number: 99 };
    const changed = { ...relation, columns: [...relation.columns.filter(({ name }) => name !== "tags"), added] };
    const relations = new Map(context.catalog.relations).set("public.invoices", changed);
    return { ...context, catalog: { ...context.catalog, relations } };
  };

  test.each([
    "select id, amount from invoices",
    "select i.id from invoices i where i.amount > 3 order by i.issued",
    "select c.name, sum(i.amount) from invoices i join customers c on c.id = i.customer_id group by c.name",
    "select id from invoices join (select 1::int8 as id) s using (id)",
    "insert into invoices (id, amount) values (1, 2) returning id",
    "update invoices set amount = 1 where id = 2 returning amount",
    "delete from invoices where id = 3",
    "select count(*) from invoices",
    "select id from invoices for update",
  ])("answers what names its columns: %s", (text) => {
    expect(verdictOf(text, grown())).toBe("accepted");
  });

  test.each([
    ["select * from invoices", "grant.no-column"],
    ["select i.* from invoices i", "grant.no-column"],
    ["table invoices", "grant.no-column"],
    ["select i from invoices i", "grant.no-column"],
    ["select i::text from invoices i", "grant.no-column"],
    ["select row_to_json(i) from invoices i", "grant.no-column"],
    ["select count(i) from invoices i", "grant.no-column"],
    ["select (i).id from invoices i", "grant.no-column"],
    ["select (select i from invoices i limit 1)", "grant.no-column"],
    ["select 1 from invoices natural join customers", "grant.no-column"],
    ["select 1 from (select 1 as secret_note) s natural join invoices", "grant.no-column"],
    ["select a from invoices as i(a)", "grant.no-column"],
    ["select * from (invoices i join customers c on true) as j", "grant.no-column"],
    ["select (select secret_note from invoices limit 1) from (select 1 as secret_note) s", "grant.no-column"],
    ["select secret_note from invoices", "name.unknown-column"],
    ["select i.secret_note from invoices i", "name.unknown-column"],
    ["select tags from invoices", "name.unknown-column"],
    ["delete from invoices returning *", "grant.no-column"],
    ["update invoices set amount = 1 returning invoices", "grant.no-column"],
    ["insert into invoices values (1, 2)", "grant.no-column"],
    ["update invoices set secret_note = 'x'", "grant.no-column"],
  ])("refuses what depends on all of them: %s", (text, code) => {
    expect([verdictOf(text, grown()), verdictOf(text)]).not.toEqual(["accepted", "accepted"]);
    expect(verdictOf(text, grown())).toBe(code);
  });

  test("says which columns to name", () => {
    const result = analyzer.analyze("select * from invoices", grown());
    expect(result.refused ? result.nextStep : "").toContain('"id", "customer_id", "amount"');
    expect(JSON.stringify(result)).not.toContain("secret_note");
  });
});
