import { describe, expect, test } from "vitest";
import { accepted, analyze, syntheticContext, verdictOf } from "../../support/sql-analysis.ts";
import { buildCatalog } from "#sql/catalog.ts";
import { syntheticRows } from "../../support/sql-catalog.ts";

describe("writes inside the grant", () => {
  test.each([
    ["insert into invoices (id, amount) values ($1, 2)", "insert", ["amount", "id"], ["read:"]],
    ["insert into invoices values (1, 2)", "insert", ["customer_id", "id"], []],
    ["insert into invoices default values", "insert", [], []],
    ["insert into customers (id, email) values (1, 'x') returning id, name", "insert", ["email", "id"], []],
    ["insert into customers (id) values (1) on conflict (id) do nothing", "insert", ["id"], []],
    [
      "insert into invoices (id) values (1) on conflict (id) do update set amount = excluded.amount + invoices.amount",
      "insert",
      ["amount", "id"],
      [],
    ],
    [
      "insert into support_notes (customer_id, body) select id, name from customers",
      "insert",
      ["body", "customer_id"],
      [],
    ],
    [
      "update invoices set amount = amount * 2, status = 'paid' where id = 4 returning *",
      "update",
      ["amount", "status"],
      [],
    ],
    [
      "update invoices i set (amount, status) = (select 1, 'paid'), tags[1] = 'x' from customers c where c.id = i.customer_id",
      "update",
      ["amount", "status", "tags"],
      [],
    ],
    ["update customers set email = $1 where id = 1", "update", ["email"], []],
    ["delete from invoices where id in (select customer_id from support_notes)", "delete", [], []],
    ["delete from invoices i using customers c where c.id = i.customer_id", "delete", [], []],
  ])("%s", (text, verb, columns) => {
    const statement = accepted(text);
    expect(statement.pure).toBe(false);
    expect(statement.effects.filter((effect) => effect.kind === "write")).toMatchObject([{ verb, columns }]);
  });

  test("what a write reads is an effect of its own", () => {
    expect(accepted("update invoices set amount = 1 where customer_id = 2 returning id").effects).toEqual([
      { kind: "read", relation: "public.invoices", columns: ["customer_id", "id"] },
      { kind: "write", verb: "update", relation: "public.invoices", columns: ["amount"] },
    ]);
  });

  test("a query that writes inside WITH is a write of the statement", () => {
    const statement = accepted(
      "with x as (delete from invoices where id = 1 returning customer_id) select email from x join customers c on c.id = x.customer_id",
    );
    expect(statement).toMatchObject({ kind: "select", pure: false });
    expect(statement.effects).toContainEqual({
      kind: "write",
      verb: "delete",
      relation: "public.invoices",
      columns: [],
    });
    expect(statement.outputs?.map(({ masked }) => masked.length)).toEqual([1]);
  });
});

describe("writes outside the grant", () => {
  test.each([
    ["delete from customers", "grant.no-verb"],
    ["update support_notes set body = 'x'", "grant.no-verb"],
    ["insert into parents (id) values (1)", "grant.no-verb"],
    ["insert into payment_methods (id) values (1)", "name.unknown-relation"],
    ["insert into nonexistent (id) values (1)", "name.unknown-relation"],
    ["insert into pg_class (oid) values (1)", "name.unknown-relation"],
    ["update customers set ssn = '1'", "grant.no-column"],
    ["update customers set secret_note = '1'", "grant.no-column"],
    ["update customers set nonexistent = '1'", "grant.no-column"],
    ["insert into customers (id, ssn) values (1, 'x')", "grant.no-column"],
    ["insert into customers values (1, 'x')", "grant.no-column"],
    ["insert into support_notes values (1, 2, 'x', 'y')", "grant.no-column"],
    ["insert into support_notes (customer_id) values (1) returning *", "name.unsupported-form"],
    ["insert into support_notes (customer_id) values (1) returning secret", "name.unknown-column"],
    ["insert into invoices (id) overriding system value values (1)", "statement.unsupported"],
    ["with x as (delete from customers returning id) select 1", "grant.no-verb"],
    ["select (with x as (delete from invoices returning id) select id from x)", "statement.unsupported"],
    ["select * from (with x as (delete from invoices returning id) select id from x) s", "statement.unsupported"],
    ["update invoices set amount = 1 from invoices", "name.ambiguous"],
  ])("%s", (text, code) => {
    expect(verdictOf(text)).toBe(code);
  });

  test("a column that is not granted and one that is not there are answered alike", () => {
    const answers = ["secret_note", "nonexistent"].map((column) => {
      const result = analyze(`update customers set ${column} = 'x'`, syntheticContext);
      return result.refused ? result.reason.replace(column, "x") : "accepted";
    });
    expect(answers[0]).toBe(answers[1]);
  });
});

describe("a statement that writes reads no masked value", () => {
  test.each([
    "update customers set email = ssn",
    "update customers set email = email || 'x'",
    "update customers set name = (select max(c.email) from customers c)",
    "update customers set name = 'x' where ssn = '1'",
    "update customers set name = 'x' where customers is not null",
    "update customers set name = 'x' returning email",
    "update customers set name = 'x' returning *",
    "update customers set name = 'x' returning customers",
    "update invoices set amount = length(c.ssn) from customers c",
    "update invoices set amount = 1 where exists (select 1 from customers where card = '1')",
    "insert into customers (id) values (1) returning ssn",
    "insert into customers (id) values (1) on conflict (ssn) do nothing",
    "insert into support_notes (body) select email from customers",
    "insert into support_notes (body) select row_to_json(c)::text from customers c",
    "insert into support_notes (body) values ((select max(ssn) from customers))",
    "with c as (select ssn from customers) insert into support_notes (body) select ssn from c",
    "with c as (select ssn from customers), x as (insert into support_notes (body) select ssn from c returning id) select 1",
    "delete from invoices using customers c where c.card = '1'",
    "delete from invoices where (select count(*) from customers where email is null) > 1",
  ])("%s", (text) => {
    expect(verdictOf(text)).toBe("grant.masked-read-in-write");
  });

  test("a unique masked column is not written: a conflict would tell what is there", () => {
    const [customers] = [...syntheticContext.scope.relations.values()].filter(({ base }) => base.name === "customers");
    const write = { insertColumns: ["id", "ssn"], updateColumns: ["ssn"], delete: false, view: null };
    const relations = new Map(customers === undefined ? [] : [["public.customers", { ...customers, write }]]);
    const context = { ...syntheticContext, scope: { ...syntheticContext.scope, relations } };
    expect(verdictOf("insert into customers (id, ssn) values (1, 'x')", context)).toBe("grant.masked-read-in-write");
    expect(verdictOf("update customers set ssn = 'x'", context)).toBe("grant.masked-read-in-write");
    expect(verdictOf("insert into customers (id) values (1)", context)).toBe("accepted");
  });

  test.each([
    "insert into customers (id) values (1) on conflict (id) do update set name = 'x'",
    "insert into customers (id) values (1) on conflict on constraint customers_ssn_key do nothing",
  ])("%s", (text) => {
    expect(verdictOf(text)).toBe("statement.unsupported");
  });
});

describe("what a table does on a write", () => {
  const withTable = (name: string, more: { hasRules?: boolean; hasTriggers?: boolean }) => ({
    ...syntheticContext,
    catalog: buildCatalog({
      ...syntheticRows,
      relations: syntheticRows.relations.map((relation) =>
        relation.name === name ? { ...relation, ...more } : relation,
      ),
    }),
  });

  test("rules change what a write is: it is refused", () => {
    expect(verdictOf("delete from invoices", withTable("invoices", { hasRules: true }))).toBe("statement.unsupported");
  });

  test("triggers see real values: refused where a column is masked, and not elsewhere", () => {
    expect(verdictOf("insert into customers (id) values (1)", withTable("customers", { hasTriggers: true }))).toBe(
      "statement.unsupported",
    );
    expect(verdictOf("insert into invoices (id) values (1)", withTable("invoices", { hasTriggers: true }))).toBe(
      "accepted",
    );
  });
});
