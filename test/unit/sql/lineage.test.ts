import { describe, expect, test } from "vitest";
import { outputsOf, verdictOf } from "../../support/sql-analysis.ts";

/** A statement, and its outputs with the masked columns that each is computed from. */
type Case = readonly [text: string, ...outputs: readonly string[]];

const email = "customers.email";
const ssn = "customers.ssn";
const card = "customers.card";
const row = `${card}, ${email}, ${ssn}`;
const everything = ["id", "name", `email<${email}>`, `ssn<${ssn}>`, `card<${card}>`, "country", "created_at"];

function check(cases: readonly Case[]): void {
  test.each(cases.map(([text, ...outputs]) => ({ text, outputs })))("$text", ({ text, outputs }) => {
    expect(outputsOf(text)).toEqual(outputs);
  });
}

describe("columns", () => {
  check([
    ["select ssn from customers", `ssn<${ssn}>`],
    ["select id, name from customers", "id", "name"],
    ["select ssn as id from customers", `id<${ssn}>`],
    ["select c.ssn, public.customers.email from customers c, public.customers", `ssn<${ssn}>`, `email<${email}>`],
    ['select "ssn" from "public"."customers"', `ssn<${ssn}>`],
    ["select SSN from CUSTOMERS", `ssn<${ssn}>`],
    ["select * from customers", ...everything],
    ["select c.* from customers c", ...everything],
    ["table customers", ...everything],
    ["select x.b from customers as x(a, b, c, d)", "b"],
    ["select x.d from customers as x(a, b, c, d)", `d<${ssn}>`],
    ["select * from (select * from customers) s", ...everything],
    ["select s.x from (select ssn from customers) as s(x)", `x<${ssn}>`],
    ["select count(*) from customers where ssn = '1'", "count"],
  ]);
});

describe("whole rows", () => {
  check([
    ["select c from customers c", `c<${row}>`],
    ["select customers from customers", `customers<${row}>`],
    ["select row_to_json(c) from customers c", `row_to_json<${row}>`],
    ["select row_to_json(c.*) from customers c", `row_to_json<${row}>`],
    ["select c::text from customers c", `c<${row}>`],
    ["select (c.*)::text from customers c", `c<${row}>`],
    ["select row(c.*), row(c), row(id, ssn) from customers c", `row<${row}>`, `row<${row}>`, `row<${ssn}>`],
    ["select (c).ssn, (c).id from customers c", `ssn<${ssn}>`, "id"],
    ["select (c).* from customers c", ...everything],
    ["select array[c] from customers c", `array<${row}>`],
    [
      "select json_agg(c), count(c), count(distinct c) from customers c",
      `json_agg<${row}>`,
      `count<${row}>`,
      `count<${row}>`,
    ],
    ["select s.x from (select c as x from customers c) s", `x<${row}>`],
    [
      "select c is null, c = c, c.* is not null from customers c",
      `?column?<${row}>`,
      `?column?<${row}>`,
      `?column?<${row}>`,
    ],
    ["select to_jsonb(s) from (select id, ssn from customers) s", `to_jsonb<${ssn}>`],
    ["select j from (customers c join invoices i on true) as j", `j<${row}>`],
    ["select coalesce(c, c) from customers c", `coalesce<${row}>`],
  ]);
});

describe("expressions", () => {
  check([
    ["select upper(ssn), reverse(lower(email)) from customers", `upper<${ssn}>`, `reverse<${email}>`],
    ["select ssn || card from customers", `?column?<${card}, ${ssn}>`],
    [
      "select ssn = '1', ssn is null, not (ssn > 'a') from customers",
      ...Array.from({ length: 3 }, () => `?column?<${ssn}>`),
    ],
    ["select case when ssn > 'a' then 1 else 0 end from customers", `case<${ssn}>`],
    ["select case id when 1 then ssn end from customers", `case<${ssn}>`],
    ["select case ssn when 'a' then id end from customers", `case<${ssn}>`],
    [
      "select coalesce(ssn, name), nullif(name, ssn), greatest(name, ssn) from customers",
      `coalesce<${ssn}>`,
      `nullif<${ssn}>`,
      `greatest<${ssn}>`,
    ],
    ["select array[id::text, ssn], (array[ssn])[1] from customers", `array<${ssn}>`, `array<${ssn}>`],
    ["select ssn::bytea, cast(ssn as varchar(3)) from customers", `ssn<${ssn}>`, `ssn<${ssn}>`],
    ["select ssn collate \"C\", ssn operator(pg_catalog.||) 'x' from customers", `ssn<${ssn}>`, `?column?<${ssn}>`],
    [
      "select ssn between 'a' and name, name in ('x', ssn), name like ssn from customers",
      ...Array.from({ length: 3 }, () => `?column?<${ssn}>`),
    ],
    ["select ascii(substr(ssn, 1, 1)) from customers", `ascii<${ssn}>`],
    ["select encode(convert_to(ssn, 'UTF8'), 'base64') from customers", `encode<${ssn}>`],
    [
      "select substring(ssn from 1 for 2), position('0' in ssn), trim(both '0' from ssn) from customers",
      `substring<${ssn}>`,
      `position<${ssn}>`,
      `btrim<${ssn}>`,
    ],
    ["select jsonb_build_object('x', c) -> 'ssn' from customers c", `?column?<${row}>`],
    [
      "select xmlelement(name x, ssn), xmlforest(ssn as y), xmlserialize(content xmlcomment(ssn) as text) from customers",
      `xmlelement<${ssn}>`,
      `xmlforest<${ssn}>`,
      `xmlserialize<${ssn}>`,
    ],
    [
      "select json_object('k': ssn), json_array(ssn), json_arrayagg(ssn), json_scalar(ssn) from customers",
      `json_object<${ssn}>`,
      `json_array<${ssn}>`,
      `json_arrayagg<${ssn}>`,
      `json_scalar<${ssn}>`,
    ],
    ["select json_value(to_jsonb(c), '$.ssn') from customers c", `json_value<${row}>`],
    [
      "select regexp_matches(ssn, '.'), generate_series(1, length(ssn)) from customers",
      `regexp_matches<${ssn}>`,
      `generate_series<${ssn}>`,
    ],
  ]);
});

describe("aggregates and windows", () => {
  check([
    [
      "select max(ssn), string_agg(name, email), array_agg(id order by ssn) from customers",
      `max<${ssn}>`,
      `string_agg<${email}>`,
      `array_agg<${ssn}>`,
    ],
    ["select count(*) filter (where ssn > 'a') from customers", `count<${ssn}>`],
    [
      "select rank() over (order by ssn), count(*) over (partition by email) from customers",
      `rank<${ssn}>`,
      `count<${email}>`,
    ],
    ["select row_number() over w from customers window w as (order by ssn)", `row_number<${ssn}>`],
    ["select row_number() over (w rows 1 preceding) from customers window w as (order by ssn)", `row_number<${ssn}>`],
    ["select lag(ssn, 1, name) over (order by id) from customers", `lag<${ssn}>`],
    ["select country, count(*) from customers group by country having max(ssn) > 'a'", "country", "count"],
  ]);
});

describe("subqueries", () => {
  check([
    ["select (select ssn from customers limit 1)", `ssn<${ssn}>`],
    ["select (select c.ssn) from customers c", `ssn<${ssn}>`],
    ["select array(select ssn from customers)", `array<${ssn}>`],
    ["select exists(select 1 from customers where ssn = '1')", `exists<${ssn}>`],
    [
      "select name in (select email from customers), ssn = any (select name from customers) from customers",
      `?column?<${email}>`,
      `?column?<${ssn}>`,
    ],
    ["select 'x' in (select name from customers where ssn = '1')", `?column?<${ssn}>`],
    ["select e.x from customers c, lateral (select c.email as x) e", `x<${email}>`],
    ["select u from customers c, lateral unnest(array[c.ssn]) u", `u<${ssn}>`],
    ["select e.value from customers c, json_each(row_to_json(c)) e", `value<${row}>`],
    ["select x.k from customers c cross join lateral json_to_recordset(to_json(c)) as x(k text)", `k<${row}>`],
    ["select v.x from customers c, lateral (values (c.ssn), (c.name)) v(x)", `x<${ssn}>`],
    ["select (select (select max(c.ssn))) from customers c", `max<${ssn}>`],
    ["select t.n from customers c, lateral generate_series(1, length(c.ssn)) with ordinality as t(n, o)", `n<${ssn}>`],
  ]);
});

describe("joins", () => {
  check([
    ["select ssn from customers join parents using (ssn)", `ssn<customers.ssn, parents.ssn>`],
    [
      "select * from parents natural join (select ssn from customers) s",
      `ssn<customers.ssn, parents.ssn>`,
      "id",
      "name",
    ],
    ["select j.ssn from (customers join invoices on customers.id = customer_id) j", `ssn<${ssn}>`],
    ["select j.ssn from customers join parents using (ssn) as j", `ssn<customers.ssn, parents.ssn>`],
    [
      "select i.* from customers c join invoices i on c.id = i.customer_id",
      "id",
      "customer_id",
      "amount",
      "status",
      "tags",
      "data",
      "issued",
    ],
  ]);
});

describe("common tables", () => {
  check([
    ["with a as (select ssn from customers) select * from a", `ssn<${ssn}>`],
    ["with a(x) as (select ssn from customers), b as (select x as y from a) select y from b", `y<${ssn}>`],
    ["with customers as (select 'x' as ssn) select ssn from customers", "ssn"],
    [
      "with x as (with customers as (select 1 as ssn) select * from customers) select x.ssn, c.ssn from x, customers c",
      "ssn",
      `ssn<${ssn}>`,
    ],
    ["with customers as (select ssn as name from customers) select name from customers", `name<${ssn}>`],
    [
      "with recursive t(n, s) as (select id, ssn from customers union all select n + 1, s from t) select * from t",
      "n",
      `s<${ssn}>`,
    ],
    [
      "with recursive t(a, b, c) as (select name, name, ssn from customers union all select b, c, a from t) select * from t",
      `a<${ssn}>`,
      `b<${ssn}>`,
      `c<${ssn}>`,
    ],
    ["with recursive a as (select * from b), b as (select ssn from customers) select * from a", `ssn<${ssn}>`],
  ]);

  test.each([
    [
      "a later name is not visible before",
      "with a as (select * from b), b as (select 1) select * from a",
      "name.unknown-relation",
    ],
    [
      "a name ends with its query",
      "select * from (with x as (select 1) select * from x) s, x",
      "name.unknown-relation",
    ],
    [
      "a qualified name is never a common table",
      "with payment_methods as (select 1) select * from public.payment_methods",
      "name.unknown-relation",
    ],
    [
      "a name is not visible to a sibling's inside",
      "select (with x as (select 1 as a) select a from x), (select a from x)",
      "name.unknown-relation",
    ],
    [
      "recursion without RECURSIVE reads the table",
      "with payment_methods as (select * from payment_methods) select 1",
      "name.unknown-relation",
    ],
    ["recursion needs a base", "with recursive a as (select * from a) select 1", "statement.unsupported"],
    [
      "two rounds of recursion cannot name each other",
      "with recursive a as (select 1 union select * from b), b as (select * from a) select * from a",
      "statement.unsupported",
    ],
  ])("%s", (_, text, code) => {
    expect(verdictOf(text)).toBe(code);
  });
});

describe("set operations", () => {
  check([
    ["select name from customers union all select ssn from customers", `name<${ssn}>`],
    ["select ssn from customers intersect select name from customers order by ssn limit 1", `ssn<${ssn}>`],
    ["(select id, email from customers) except (values (1, 'x'))", "id", `email<${email}>`],
    ["values (1), ((select length(ssn) from customers limit 1))", `column1<${ssn}>`],
  ]);
});

describe("output names are PostgreSQL's", () => {
  check([
    ["select 1, 'a', $1, 1 + 1, true", "?column?", "?column?", "?column?", "?column?", "?column?"],
    [
      "select current_date, current_user, now(), count(*) from invoices",
      "current_date",
      "current_user",
      "now",
      "count",
    ],
    ["select 1::int, '1'::text, id::text from invoices", "int4", "text", "id"],
    [
      "select row(1), array[1], coalesce(1), greatest(1), least(1), nullif(1, 2)",
      "row",
      "array",
      "coalesce",
      "greatest",
      "least",
      "nullif",
    ],
    ["select case when true then 1 end, case when true then 1 else id end from invoices", "case", "id"],
    [
      "select exists(select 1), array(select 1), (select 1), (select id from invoices limit 1)",
      "exists",
      "array",
      "?column?",
      "id",
    ],
    ["values (1, 2)", "column1", "column2"],
    ["select grouping(id) from invoices group by id", "grouping"],
  ]);
});
