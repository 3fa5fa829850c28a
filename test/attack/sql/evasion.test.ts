/**
 * Statements that try to get past the gate, by the classes of MASKING.md and FAILURES.md. Each is denied with the code given, or
 * accepted with every masked value behind it found and its relation sent to the view.
 */
import { describe, expect, test } from "vitest";
import { isParameterTypeAllowed } from "#sql/types.ts";
import { accepted, analyze, rewritten, syntheticContext, verdictOf } from "../../support/sql-analysis.ts";

function denied(cases: readonly (readonly [text: string, code: string])[]): void {
  test.each(cases)("%s", (text, code) => {
    expect(verdictOf(text)).toBe(code);
  });
}

describe("what is not granted and what does not exist are answered alike", () => {
  const pairs: readonly (readonly [string, (name: string) => string])[] = [
    ["in FROM", (name) => `select * from ${name}`],
    ["qualified", (name) => `select * from public.${name}`],
    ["in a join", (name) => `select 1 from invoices join ${name} on true`],
    ["in a subquery", (name) => `select (select 1 from ${name})`],
    ["in WITH", (name) => `with x as (select * from ${name}) select 1`],
    ["in a set operation", (name) => `select 1 union select 1 from ${name}`],
    ["TABLE", (name) => `table ${name}`],
    ["ONLY", (name) => `select 1 from only ${name}`],
    ["as the target of INSERT", (name) => `insert into ${name} values (1)`],
    ["as the target of UPDATE", (name) => `update ${name} set id = 1`],
    ["as the target of DELETE", (name) => `delete from ${name}`],
    ["in EXPLAIN", (name) => `explain (costs off) select * from ${name}`],
    ["as regclass", (name) => `select '${name}'::regclass`],
    ["as a qualified regclass", (name) => `select cast('public.${name}' as pg_catalog.regclass)`],
    ["as a typed literal", (name) => `select regclass '${name}'`],
    ["as a type", (name) => `select null::${name}`],
    ["as a column's table", (name) => `select ${name}.id from invoices`],
    ["beside a regclass column", (name) => `select 1 from pg_class where oid::regclass = '${name}'`],
    ["in a list beside a regclass column", (name) => `select 1 from pg_class where oid::regclass in ('${name}')`],
    [
      "in an array literal beside a regclass column",
      (name) => `select 1 from pg_class where oid::regclass = any('{${name}}')`,
    ],
    ["in CASE beside a regclass column", (name) => `select case oid::regclass when '${name}' then 1 end from pg_class`],
    ["in COALESCE beside a regclass column", (name) => `select coalesce(oid::regclass, '${name}') from pg_class`],
    ["in VALUES beside a regclass", (name) => `values ('pg_class'::regclass), ('${name}')`],
    [
      "in a set operation beside a regclass column",
      (name) => `select oid::regclass from pg_class union select '${name}'`,
    ],
    [
      "beside a type that is regclass or oid",
      (name) => `select 1 from pg_class where coalesce(oid::regclass, oid) = '${name}'`,
    ],
    [
      "beside an element of an array of regclass",
      (name) => `select (array_agg(oid::regclass))[1] = '${name}' from pg_class`,
    ],
    ["beside a regclass from a subquery", (name) => `select (select oid::regclass from pg_class limit 1) = '${name}'`],
    [
      "beside a regclass from WITH",
      (name) => `with t as (select oid::regclass as r from pg_class) select 1 from t where r = '${name}'`,
    ],
    ["by IS DISTINCT FROM", (name) => `select oid::regclass is distinct from '${name}' from pg_class`],
    ["by NULLIF", (name) => `select nullif(oid::regclass, '${name}') from pg_class`],
    ["as a hypothetical row", (name) => `select rank('${name}') within group (order by oid::regclass) from pg_class`],
    ["in a row beside a regclass column", (name) => `select 1 from pg_class where (oid::regclass, 1) = ('${name}', 1)`],
    ["in an array beside a regclass column", (name) => `select array[oid::regclass, '${name}'] from pg_class`],
    ["in a polymorphic call", (name) => `select array_position(array_agg(oid::regclass), '${name}') from pg_class`],
    ["as a window default", (name) => `select lag(oid::regclass, 1, '${name}') over () from pg_class`],
    ["in BETWEEN", (name) => `select 1 from pg_class where oid::regclass between '${name}' and '${name}'`],
    ["in to_regclass", (name) => `select to_regclass('${name}')`],
    ["in a question about rights", (name) => `select has_table_privilege('${name}', 'select')`],
    ["as a function", (name) => `select ${name}(1)`],
    ["as an enum", (name) => `select 'x'::${name === "payment_methods" ? "secret_kind" : name}`],
  ];

  test.each(pairs)("%s", (_, make) => {
    const [there, absent] = ["payment_methods", "nonexistent"].map((name) => {
      const result = analyze(make(name), syntheticContext);
      const { reason, nextStep, code } = result.refused ? result : { reason: "accepted", nextStep: "", code: "" };
      return { code, nextStep, reason: reason.replaceAll(/payment_methods|secret_kind/g, "nonexistent") };
    });
    expect(there).toEqual(absent);
    expect(there?.reason).not.toBe("accepted");
  });

  test("a hidden column is answered as one that is not there", () => {
    for (const make of [
      (name: string) => `select ${name} from customers`,
      (name: string) => `select c.${name} from customers c`,
    ]) {
      const [there, absent] = ["secret_note", "nonexistent_x"].map((name) => {
        const result = analyze(make(name), syntheticContext);
        return result.refused ? [result.code, result.reason.replace(name, "x")] : null;
      });
      expect(there).toEqual(absent);
      expect(there?.[0]).toBe("name.unknown-column");
    }
  });
});

describe("reads that are hidden", () => {
  denied([
    ["select * from pg_authid", "name.unknown-relation"],
    ["select * from pg_catalog.pg_stats", "name.unknown-relation"],
    ["select * from information_schema.views", "name.unknown-relation"],
    ["select * from sallyport_view_public.customers", "name.unknown-relation"],
    ["select * from sallyport_shadow.pg_class", "name.unknown-relation"],
    ['select * from "public.customers"', "name.unknown-relation"],
    ['select * from "Customers"', "name.unknown-relation"],
    ["select * from pg_temp.customers", "name.unknown-relation"],
    ["select * from children", "name.unknown-relation"],
    ["select * from postgres.public.payment_methods", "name.unsupported-form"],
    ["select (select secret from support_notes limit 1)", "name.unknown-column"],
    ["select * from support_notes where secret is null", "name.unknown-column"],
    ["select s from (select secret from support_notes) s", "name.unknown-column"],
    ["select 1 from invoices order by secret", "name.unknown-column"],
    ["select 1 from support_notes join customers using (secret_note)", "name.unknown-column"],
  ]);
});

describe("attribute notation is a column or it is nothing", () => {
  denied([
    ["select ssn(c) from customers c", "grant.no-function"],
    ["select peek(c) from customers c", "grant.no-function"],
    ["select c.peek from customers c", "name.unknown-column"],
    ["select (c).peek from customers c", "name.unknown-column"],
    ["select (s.x).peek from (select c as x from customers c) s", "name.unknown-column"],
    ["select (select c from customers c limit 1).peek", "name.unknown-column"],
    ["select (array_agg(c))[1].peek from customers c", "name.unknown-column"],
    ["select ((array_agg(c))[1]).peek from customers c", "name.unknown-column"],
    ["select public.peek(c) from customers c", "grant.no-function"],
    ["select (null::customers).ssn", "statement.unsupported"],
  ]);
});

describe("functions that reach out of the statement", () => {
  denied(
    [
      "pg_sleep(1)",
      "pg_catalog.pg_sleep(1)",
      '"pg_sleep"(1)',
      "pg_read_file('/etc/passwd')",
      "pg_ls_dir('/')",
      "lo_create(0)",
      "lo_import('/etc/passwd')",
      "lo_get(1)",
      "query_to_xml('select 1', true, true, '')",
      "table_to_xml('customers', true, true, '')",
      "schema_to_xml('public', true, true, '')",
      "database_to_xml(true, true, '')",
      "cursor_to_xml('c', 1, true, true, '')",
      "ts_stat('select ssn from customers')",
      "ts_rewrite('a'::tsquery, 'select ssn from customers')",
      "dblink('select 1')",
      "public.dblink('select 1')",
      "run_it('select 1')",
      "nextval('x')",
      "setval('x', 1)",
      "lastval()",
      "currval('x')",
      "pg_notify('a', 'b')",
      "pg_advisory_lock(1)",
      "pg_try_advisory_lock(1)",
      "pg_terminate_backend(1, 0)",
      "pg_reload_conf()",
      "txid_current()",
      "pg_current_xact_id()",
      "pg_export_snapshot()",
      "pg_get_viewdef(1)",
      "pg_get_functiondef(1)",
      "pg_get_ruledef(1)",
      "pg_relation_size('customers')",
      "pg_total_relation_size('customers')",
      "pg_database_size('postgres')",
      "pg_stat_get_live_tuples(1)",
      "row_security_active('customers')",
      "inet_server_addr()",
      "pg_input_is_valid('payment_methods', 'regclass')",
      "regclassin('payment_methods')",
      "regclass('payment_methods')",
      "regtype('x')",
      "pg_logical_slot_get_changes('x', 'y')",
      "format_type(16430, null)",
      "obj_description(16430, 'pg_class')",
      "col_description(16430, 1)",
      "pg_get_constraintdef(16431)",
      "pg_get_indexdef('16431')",
      "pg_get_userbyid(10)",
      "pg_get_constraintdef((select 16431))",
      "pg_get_constraintdef($1)",
      "pg_table_is_visible(16430)",
      "pg_column_size(ssn)",
      "nonexistent()",
      "no_schema.lower('A')",
      "a.b.lower('A')",
    ].map((call) => [`select ${call} from customers`, "grant.no-function"] as const),
  );

  test("the same functions in FROM, in ORDER BY, in an argument and behind FILTER", () => {
    for (const text of [
      "select * from pg_ls_dir('/')",
      "select * from rows from (pg_ls_dir('/'))",
      "select 1 order by pg_sleep(1)",
      "select 1 limit (select 1 from pg_sleep(1))",
      "select lower(pg_read_file('x'))",
      "select count(*) filter (where pg_try_advisory_lock(1)) from invoices",
      "select sum(id) over (order by pg_sleep(1)) from invoices",
      "select 1 from invoices group by pg_sleep(1)",
      "values (pg_read_file('x'))",
      "select case when true then pg_read_file('x') end",
      "select array[pg_read_file('x')]",
      "select 1 from invoices join customers on pg_sleep(1) is null",
      "select string_agg(name, ',' order by pg_sleep(1)) from customers",
      "with x as (select pg_sleep(1)) select 1",
      "insert into invoices (id) values (lastval())",
      "update invoices set amount = lastval()",
      "insert into invoices (id) values (1) returning pg_sleep(1)",
      "explain (costs off) select pg_sleep(1)",
      "select distinct on (pg_sleep(1)) 1",
      "select json_object('a': pg_read_file('x'))",
      "select xmlelement(name a, pg_read_file('x'))",
    ]) {
      expect([text, verdictOf(text)]).toEqual([text, "grant.no-function"]);
    }
  });

  test("an overload of the database denies the call that it can catch, and no other", () => {
    expect(verdictOf("select lower(name) from customers")).toBe("accepted");
    expect(verdictOf("select lower('A')")).toBe("accepted");
    expect(verdictOf("select lower(status) from invoices")).toBe("grant.no-function");
    // The driver decides a parameter's type after the gate has looked.
    expect(verdictOf("select lower($1)")).toBe("grant.no-function");
    expect(verdictOf("select lower($1::text)")).toBe("accepted");
  });

  test("a function that somebody put into pg_catalog is not PostgreSQL's own", () => {
    const { catalog, scope } = syntheticContext;
    const planted = (catalog.functions.get("reverse") ?? []).map((routine) => ({
      ...routine,
      oid: 20_000,
      name: "planted",
    }));
    const context = {
      scope,
      catalog: { ...catalog, functions: new Map([...catalog.functions, ["planted", planted]]) },
    };
    expect(verdictOf("select pg_catalog.planted(name) from customers", context)).toBe("grant.no-function");
  });
});

describe("operators, collations, casts and types of the database", () => {
  denied([
    ["select name === 'x' from customers", "grant.no-function"],
    ["select name operator(public.===) 'x' from customers", "grant.no-function"],
    ["select name operator(public.=) 'x' from customers", "grant.no-function"],
    ["select status < name from invoices, customers", "grant.no-function"],
    ["select 1 from invoices order by status using operator(public.<)", "grant.no-function"],
    ["select name in ('x') from customers order by name using ===", "grant.no-function"],
    ['select name collate "public"."x" from customers', "statement.unsupported"],
    ['select name collate "nonexistent" from customers', "statement.unsupported"],
    ["select 'x'::secret_kind", "statement.unsupported"],
    ["select 'x'::cstring", "statement.unsupported"],
    ["select 'x=r/y'::aclitem", "statement.unsupported"],
    ["select ssn::regclass from customers", "name.unknown-relation"],
    ["select 16430::regclass", "name.unknown-relation"],
    ["select '16430'::regclass", "name.unknown-relation"],
    ["select $1::regclass", "name.unknown-relation"],
    ["select name::regclass from customers", "name.unknown-relation"],
    ["select relname::text::regclass from pg_class", "name.unknown-relation"],
    ["select (oid::int8 + 1)::oid::regclass from pg_class", "name.unknown-relation"],
    ["select '{payment_methods}'::regclass[]", "name.unknown-relation"],
    ["select 'secret_kind'::regtype", "name.unknown-relation"],
    ["select 'other'::regnamespace", "name.unknown-relation"],
    ["select json_value('{}', '$.a' returning regclass)", "statement.unsupported"],
    ["select * from json_to_recordset('[]') as x(a regclass)", "statement.unsupported"],
    ["select to_tsvector('payment_methods', 'x')", "name.unknown-relation"],
    ["select to_tsvector(name, 'x') from customers", "grant.no-function"],
  ]);

  test("what names something granted, or PostgreSQL's own, passes", () => {
    for (const text of [
      "select 'customers'::regclass, 'public.customers'::regclass, '\"customers\"'::regclass, '16400'::regclass, 'pg_class'::regclass",
      "select oid::regclass from pg_class",
      "select 'int4'::regtype, 'public'::regnamespace",
      "select status = 'paid', 'open'::invoice_status, status in ('open') from invoices",
      "select to_tsvector('english', body) @@ to_tsquery('a') from support_notes",
      'select name collate "C", name collate pg_catalog.default from customers',
      "select has_table_privilege('customers', 'select'), has_table_privilege(oid, 'select') from pg_class",
      "select format_type(atttypid, atttypmod), pg_get_expr(adbin, adrelid) from pg_attribute, pg_attrdef",
    ]) {
      expect([text, verdictOf(text)]).toEqual([text, "accepted"]);
    }
  });

  test("an implicit cast by a function of the database leaves no trace in a statement: nothing passes", () => {
    const { catalog, scope } = syntheticContext;
    const cast = { source: 25, target: 23, context: "implicit", builtin: false } as const;
    const context = { scope, catalog: { ...catalog, casts: new Map([...catalog.casts, ["25>23", cast]]) } };
    expect(verdictOf("select 1", context)).toBe("statement.unsupported");
  });
});

describe("types that a client declares for parameters", () => {
  const { catalog } = syntheticContext;
  test.each([
    ["left to PostgreSQL", 0, true],
    ["text", 25, true],
    ["int4[]", 1007, true],
    ["an enum", 20_000, true],
    ["regclass", 2205, false],
    ["regclass[]", 2210, false],
    ["cstring", 2275, false],
    ["aclitem", 1033, false],
    ["a table's row", 20_010, false],
    ["one that is not there", 99_999, false],
  ])("%s", (_, oid, allowed) => {
    expect(isParameterTypeAllowed(oid, catalog)).toBe(allowed);
  });
});

describe("physical layout is not told of tables with hidden columns", () => {
  denied([
    ["select ctid from customers", "name.unknown-column"],
    ["select c.xmin, c.ctid from customers c", "name.unknown-column"],
    ["select tableoid from customers", "name.unknown-column"],
    ["select 1 from customers where ctid = '(0,1)'", "name.unknown-column"],
    ["select ctid from support_notes", "name.unknown-column"],
    ["select * from customers tablesample system (10)", "statement.unsupported"],
    ["select * from support_notes tablesample bernoulli (10)", "statement.unsupported"],
    ["select * from invoices tablesample public.mine (10)", "statement.unsupported"],
    ["select pg_column_size(c) from customers c", "grant.no-function"],
    ["delete from invoices where ctid = '(0,1)'", "name.unknown-column"],
  ]);

  test("of a table that is open as a whole it is", () => {
    expect(verdictOf("select ctid, xmin from invoices")).toBe("accepted");
    expect(verdictOf("select * from invoices tablesample system (10)")).toBe("accepted");
  });
});

describe("statements that no grant allows", () => {
  denied([
    ["drop table customers", "grant.no-verb"],
    ["drop/**/table customers", "grant.no-verb"],
    ["/* select */ drop table customers", "grant.no-verb"],
    ["-- select\ndrop table customers", "grant.no-verb"],
    ["truncate customers", "grant.no-verb"],
    ["truncate table only customers cascade", "grant.no-verb"],
    ["create table x (a int)", "grant.no-verb"],
    ["create temp table x as select * from customers", "grant.no-verb"],
    ["select * into x from customers", "grant.no-verb"],
    ["create view v as select 1", "grant.no-verb"],
    ["create function f() returns int language sql as 'select 1'", "grant.no-verb"],
    ["create or replace function pg_temp.f() returns int language sql as 'select 1'", "grant.no-verb"],
    ["alter table customers add x int", "grant.no-verb"],
    ["alter role postgres password 'x'", "grant.no-verb"],
    ["alter system set x = 1", "grant.no-verb"],
    ["grant select on customers to public", "grant.no-verb"],
    ["revoke select on customers from public", "grant.no-verb"],
    ["comment on table customers is 'x'", "grant.no-verb"],
    ["create extension dblink", "grant.no-verb"],
    ["vacuum customers", "grant.no-verb"],
    ["analyze customers", "grant.no-verb"],
    ["refresh materialized view x", "grant.no-verb"],
    ["create trigger t before insert on customers execute function f()", "grant.no-verb"],
    ["do $$ begin perform 1; end $$", "statement.unsupported"],
    ["call f()", "statement.unsupported"],
    ["copy customers to stdout", "statement.unsupported"],
    ["copy (select ssn from customers) to stdout", "statement.unsupported"],
    ["copy customers from stdin", "statement.unsupported"],
    ["copy customers to program 'cat'", "statement.unsupported"],
    ["merge into invoices i using customers c on true when matched then delete", "statement.unsupported"],
    ["listen x", "statement.unsupported"],
    ["unlisten *", "statement.unsupported"],
    ["notify x, 'y'", "statement.unsupported"],
    ["lock customers", "statement.unsupported"],
    ["prepare p as select * from payment_methods", "name.unknown-relation"],
    ["prepare p as delete from customers", "grant.no-verb"],
    ["prepare p as select pg_read_file($1)", "grant.no-function"],
    ["prepare p(regclass) as select $1", "statement.unsupported"],
    ["prepare p(secret_kind) as select $1", "statement.unsupported"],
    ["execute p(pg_read_file('x'))", "grant.no-function"],
    ["execute p((select ssn from payment_methods))", "name.unknown-relation"],
    ["explain (costs off) execute p", "statement.unsupported"],
    ["declare c cursor with hold for select ssn from customers", "statement.unsupported"],
    ["fetch all from c", "statement.unsupported"],
    ["move 1 from c", "statement.unsupported"],
    ["close c", "statement.unsupported"],
    ["discard all", "statement.unsupported"],
    ["load 'x'", "statement.unsupported"],
    ["set constraints all deferred", "statement.unsupported"],
    ["checkpoint", "statement.unsupported"],
    ["reset session authorization", "grant.no-session-setting"],
  ]);

  test("the harmless look-alike passes", () => {
    expect(verdictOf("select 'drop table x; delete from customers' as note")).toBe("accepted");
  });

  test("one forbidden statement denies the whole message, and is named", () => {
    const result = analyze("select 1; select 2; drop table customers; select 3", syntheticContext);
    expect(result).toMatchObject({ refused: true, code: "grant.no-verb", statement: 3, statements: 4 });
    expect(result.refused && result.reason).toBe("no grant allows DROP");
  });

  test.each([
    "commit; drop table customers",
    "select 1 /* */; /* */ truncate customers",
    "begin; delete from customers",
    "select 1;;;; copy customers to stdout",
  ])("%s", (text) => {
    expect(verdictOf(text)).not.toBe("accepted");
  });
});

describe("locks are writes", () => {
  denied([
    ["select id from customers for update", "grant.no-verb"],
    ["select id from customers for key share", "grant.no-verb"],
    ["select id from support_notes for share", "grant.no-verb"],
    ["select i.id from invoices i, customers c for update", "grant.no-verb"],
    ["select * from (select id from customers) s for update", "statement.unsupported"],
    ["select oid from pg_class for update", "grant.no-verb"],
    ["select id from invoices for update of payment_methods", "name.unknown-relation"],
    ["with x as (select id from customers for update) select 1", "grant.no-verb"],
    ["select (select id from customers limit 1 for update)", "grant.no-verb"],
  ]);

  test("a lock that the grant allows waits for its record", () => {
    expect(accepted("select id from invoices for update")).toMatchObject({ pure: false });
    expect(accepted("select i.id from invoices i, customers c for update of i")).toMatchObject({ pure: false });
  });
});

describe("names do not move under the checker", () => {
  test("a common table shadows where PostgreSQL lets it, and nowhere else", () => {
    expect(verdictOf("with payment_methods as (select 1) select * from payment_methods")).toBe("accepted");
    expect(verdictOf("with payment_methods as (select 1) select * from public.payment_methods")).toBe(
      "name.unknown-relation",
    );
    expect(verdictOf("select * from (with payment_methods as (select 1) select 1) s, payment_methods")).toBe(
      "name.unknown-relation",
    );
    expect(verdictOf("with customers as (select 1 as id) delete from customers")).toBe("grant.no-verb");
    expect(verdictOf("with x as (select * from y), y as (select 1) select 1")).toBe("name.unknown-relation");
    expect(
      rewritten("with x as (select ssn from customers), customers as (select 'x' as ssn) select * from x, customers"),
    ).toBe(
      'with x as (select ssn from "sallyport_view_public"."customers"), customers as (select \'x\' as ssn) select * from x, customers',
    );
  });

  test("an alias that looks like a table does not lend its columns", () => {
    expect(verdictOf("select payment_methods.pan from customers payment_methods")).toBe("name.unknown-column");
    expect(rewritten("select invoices.ssn from customers invoices")).toContain("sallyport_view_public");
    expect(verdictOf("select public.customers.ssn from customers c")).toBe("name.unknown-relation");
  });

  test("an inner name wins over an outer one", () => {
    const inner = accepted("select (select x from (select 'open' as x) s) from (select ssn as x from customers) o");
    expect(inner.outputs?.[0]?.masked).toEqual([]);
    const outer = accepted("select (select x from (select 'open' as y) s) from (select ssn as x from customers) o");
    expect(outer.outputs?.[0]?.masked).toHaveLength(1);
  });

  test("a sibling in FROM is seen by LATERAL only", () => {
    expect(verdictOf("select * from customers c, (select c.id) s")).toBe("name.unknown-relation");
    expect(verdictOf("select * from customers c, lateral (select c.id) s")).toBe("accepted");
    expect(verdictOf("select * from (select c.id) s, customers c")).toBe("name.unknown-relation");
    expect(
      verdictOf("select 1 from customers c join invoices i on exists (select 1 from parents p where p.id = c.id)"),
    ).toBe("accepted");
    expect(verdictOf("select 1 from parents p, customers c join invoices i on p.id = c.id")).toBe(
      "name.unknown-relation",
    );
  });
});

describe("values that are spoken without being returned", () => {
  test.each([
    "select id from customers where ssn like '078%'",
    "select id from customers order by ssn",
    "select count(*) from customers group by ssn",
    "select distinct on (ssn) id from customers",
    "select a.id from customers a join customers b on a.ssn = b.card",
    "select id from customers where length(ssn) > 3",
    "select id from customers c where c is not null",
    "select 1 / (length(ssn) - 11) from customers",
    "select ssn::int from customers",
    "select id from customers limit (select length(ssn) from customers limit 1)",
    "select id from invoices offset (select length(max(email)) from customers)",
    "select generate_series(1, length(ssn)) from customers",
    "select count(*) from customers having max(ssn) > 'a'",
    "select id from customers where (id, ssn) in (select 1, 'x')",
    "select sum(id) over (partition by ssn) from customers",
    "select id from customers where exists (select from invoices where customer_id = length(customers.ssn))",
    "select i.id from invoices i left join customers c on c.card = '1'",
    "with recursive t as (select id, ssn from customers union select t.id, c.ssn from t join customers c using (ssn)) select id from t",
    "select id from customers where ssn = $1",
    "select id from customers where ssn between $1 and $2",
    "select id from customers group by cube (id, ssn)",
    "select name from customers window w as (order by ssn)",
    "select 1 where (select max(ssn) from customers) > 'a'",
  ])("%s is computed on the view", (text) => {
    const statement = accepted(text);
    expect(statement.touchesMasked).toBe(true);
    const readsMasked = statement.effects.some(
      (effect) => effect.kind === "read" && effect.columns.some((column) => ["ssn", "card", "email"].includes(column)),
    );
    expect(readsMasked).toBe(true);
    expect(rewritten(text)).toContain('"sallyport_view_public"."customers"');
  });
});

describe("syntax that the gate does not know denies", () => {
  denied([
    ["select * from xmltable('/a' passing '<a/>' columns x text) t", "statement.unsupported"],
    ["select * from json_table('{}', '$' columns (a text)) t", "statement.unsupported"],
    [
      "with recursive t as (select 1 as a union all select a from t) search depth first by a set o select * from t",
      "statement.unsupported",
    ],
    [
      "with recursive t as (select 1 as a union all select a from t) cycle a set c using p select * from t",
      "statement.unsupported",
    ],
    ["update invoices set amount = 1 where current of c", "statement.unsupported"],
    ["update invoices set amount = 1 returning with (old as o) o.id", "statement.unsupported"],
    ["select id from invoices where id = old.id", "name.unknown-relation"],
    ["update invoices set amount = 1 returning old.amount", "name.unknown-relation"],
    ["select 1::numeric(x)", "statement.unsupported"],
    ["select x.* from lower('A') as x(a text)", "accepted"],
    ["select * from unnest(array(select c from customers c)) u", "statement.unsupported"],
    ["select * from unnest($1) u", "statement.unsupported"],
  ]);
});
