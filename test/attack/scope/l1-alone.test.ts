/** The attacker holds a grant role's login and no gateway stands before the database: what rights alone keep (MASKING.md, L1). */
import type { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Scope } from "#domain/grant.ts";
import type { CompiledScope, QualifiedName } from "#domain/scope.ts";
import {
  activate,
  builds,
  failureOf,
  logIn,
  masks,
  readScope,
  secrets,
  startScopeDatabase,
} from "../../support/scope-database.ts";
import type { ScopeDatabase } from "../../support/scope-database.ts";

const writeScope: Scope = {
  tables: [
    { schema: "public", table: "customers", verbs: ["select"], columns: "all" },
    { schema: "public", table: "customers", verbs: ["insert", "delete"], columns: "all" },
    { schema: "public", table: "customers", verbs: ["update"], columns: ["notes", "tier"] },
    { schema: "public", table: "invoices", verbs: ["select", "insert", "update"], columns: ["customer_id", "amount"] },
  ],
  masks,
};

function name(view: QualifiedName | null | undefined): string {
  if (view === null || view === undefined) {
    throw new Error("the scope has no such view");
  }
  return `"${view.schema}"."${view.name}"`;
}

describe.each(builds)("rights alone, PostgreSQL %s", (_, options) => {
  let database: ScopeDatabase;
  let scope: CompiledScope;
  let reader: Client;
  let writer: Client;
  /** The masked view of the reader, and the two views of the writer. */
  let masked: string;
  let writerMasked: string;
  let write: string;

  beforeAll(async () => {
    database = await startScopeDatabase(options);
    await database.provisioner.prepare();
    scope = await activate(database, readScope, "sp_grant_reader");
    const wider = await activate(database, writeScope, "sp_grant_writer");
    masked = name(scope.relations.get("public.customers")?.view);
    writerMasked = name(wider.relations.get("public.customers")?.view);
    write = name(wider.relations.get("public.customers")?.write?.view);
    reader = await logIn(database, "sp_grant_reader");
    writer = await logIn(database, "sp_grant_writer");
  });

  afterAll(async () => {
    await reader.end();
    await writer.end();
    await database[Symbol.asyncDispose]();
  });

  /** Everything that the attempts give back, errors with all their fields included: a secret in it is a leak. */
  async function transcript(client: Client, statements: readonly string[]): Promise<string> {
    const seen: unknown[] = [];
    for (const statement of statements) {
      try {
        seen.push((await client.query({ text: statement, rowMode: "array" })).rows);
      } catch (error) {
        seen.push(error instanceof Error ? { ...error, message: error.message } : error);
        await client.query("ROLLBACK");
      }
    }
    return JSON.stringify(seen);
  }

  function expectNoSecret(text: string): void {
    for (const secret of secrets) {
      expect(text).not.toContain(secret);
    }
  }

  test.each([
    "SELECT * FROM customers",
    "SELECT email FROM customers",
    "SELECT c FROM customers c",
    "SELECT row_to_json(c) FROM customers c",
    "SELECT id FROM customers WHERE ssn LIKE '123%'",
    "SELECT id FROM customers ORDER BY income",
    "SELECT ctid FROM customers",
    "SELECT count(email) FROM customers",
    "TABLE customers",
    "COPY customers TO STDOUT",
    "COPY customers (id, email) TO STDOUT",
    "SELECT * FROM secret_plans",
    "SELECT 1 FROM secret_plans",
    "SELECT secret_function()",
    "INSERT INTO customers (name, email, ssn) VALUES ('a', 'b', 'c')",
    "UPDATE customers SET tier = 'gold'",
    "DELETE FROM customers",
    "TRUNCATE customers",
    "SELECT * FROM customers FOR UPDATE",
    "BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE",
    "CREATE TABLE mine (x int)",
    "CREATE TEMP TABLE mine (x int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "ALTER TABLE customers ADD COLUMN x int",
    "DROP TABLE customers",
    "ALTER TABLE customers DISABLE TRIGGER ALL",
    "SELECT nextval('customers_id_seq')",
    "SET ROLE app_owner",
    "SET ROLE provisioner",
    "SET SESSION AUTHORIZATION postgres",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_statistic",
    "SELECT query_to_xml('SELECT ssn FROM public.customers', true, false, '')",
    "SELECT table_to_xml('public.customers', true, false, '')",
    "GRANT SELECT ON customers TO PUBLIC",
    "COMMENT ON TABLE customers IS 'mine'",
  ])("refuse %s", async (statement) => {
    await reader.query("SET default_transaction_read_only = off");
    expect(await failureOf(reader, statement)).toMatch(/^(42501|25006|2F003|0A000)$/);
    await reader.query("ROLLBACK");
  });

  test("nothing that a reader can ask gives back a hidden value", async () => {
    expectNoSecret(
      await transcript(reader, [
        `SELECT * FROM ${masked}`,
        `SELECT c FROM ${masked} c`,
        `SELECT row_to_json(c), to_jsonb(c), c::text, md5(c::text) FROM ${masked} c`,
        `SELECT string_agg(email || ssn, '') FROM ${masked}`,
        `SELECT reverse(ssn), encode(convert_to(email, 'UTF8'), 'base64'), substr(notes, 1, 3) FROM ${masked}`,
        `SELECT email::int FROM ${masked}`,
        `SELECT ssn::date FROM ${masked}`,
        `SELECT 1 / (length(notes) - 5) FROM ${masked}`,
        `SELECT xmlforest(c.email, c.ssn) FROM ${masked} c`,
        `EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM ${masked} WHERE email LIKE 'ada%'`,
        `SELECT pg_get_viewdef('${masked}'::regclass)`,
        `SELECT ev_action::text FROM pg_rewrite WHERE ev_class = '${masked}'::regclass`,
        "SELECT * FROM pg_stats WHERE tablename = 'customers'",
        "SELECT * FROM pg_stats_ext",
        "SELECT * FROM pg_stat_activity",
        "SELECT query FROM pg_stat_activity WHERE query LIKE '%@%'",
        "SELECT * FROM pg_attribute WHERE attrelid = 'customers'::regclass",
        "SELECT * FROM pg_constraint WHERE conrelid = 'customers'::regclass",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM public.customers LOOP RAISE NOTICE '%', r; END LOOP; END $$",
        "EXECUTE x",
      ]),
    );
    const stats = await reader.query("SELECT attname FROM pg_stats WHERE tablename = 'customers' ORDER BY 1");
    expect(stats.rows.map((row: { attname: string }) => row.attname)).toEqual(["id", "name", "tier"]);
  });

  test("a condition on a hidden column compares the masked value", async () => {
    const count = async (condition: string): Promise<unknown> =>
      (await reader.query(`SELECT count(*)::int AS n FROM ${masked} WHERE ${condition}`)).rows[0];
    expect(await count("ssn = '123-45-6789'")).toEqual({ n: 0 });
    expect(await count("email LIKE 'ada.lovelace%'")).toEqual({ n: 0 });
    expect(await count("email LIKE '%@example.org'")).toEqual({ n: 1 });
    expect(await count("income > 81000 AND income < 82000")).toEqual({ n: 0 });
    expect(await count("birth_date = '1815-01-01'")).toEqual({ n: 1 });
    expect(await count("notes LIKE '%engines%'")).toEqual({ n: 0 });
  });

  test("no setting of the session changes a masked value", async () => {
    const read = async (): Promise<string> =>
      JSON.stringify((await reader.query(`SELECT c::text FROM ${masked} c`)).rows);
    const before = await read();
    for (const setting of [
      "TimeZone = 'Pacific/Kiritimati'",
      "TimeZone = 'America/Adak'",
      "lc_numeric = 'C'",
      "search_path = ''",
      "standard_conforming_strings = off",
    ]) {
      await reader.query(`SET ${setting}`);
      expect(await read(), setting).toBe(before);
      await reader.query("RESET ALL");
    }
  });

  test("what a reader may do works: open columns on the table, joins, grouping by the key", async () => {
    const open = await reader.query("SELECT id, name, tier FROM customers ORDER BY id");
    expect(open.rows).toHaveLength(3);
    const joined = await reader.query(
      `SELECT c.email, c.name, sum(i.amount)::text AS total FROM ${masked} c JOIN invoices i ON i.customer_id = c.id
       GROUP BY c.id, c.email, c.name ORDER BY c.id`,
    );
    expect(joined.rows).toEqual([
      { email: "•••••@example.org", name: "Ada", total: "120.50" },
      { email: "•••••@example.com", name: "Grace", total: "7.00" },
    ]);
    const grouped = await reader.query("SELECT id, name FROM customers GROUP BY id HAVING count(*) = 1 ORDER BY id");
    expect(grouped.rows).toHaveLength(3);
    const plan = await reader.query("EXPLAIN (COSTS OFF) SELECT name FROM customers WHERE id = 1");
    expect(JSON.stringify(plan.rows)).toContain("customers");
  });

  test("one scope's views are closed to a grant of another", async () => {
    expect(await failureOf(writer, `SELECT * FROM ${masked}`)).toBe("42501");
    expect(await failureOf(reader, `SELECT * FROM ${write}`)).toBe("42501");
  });

  test.each([
    (view: string) => `SELECT * FROM ${view}`,
    (view: string) => `SELECT ssn FROM ${view}`,
    (view: string) => `UPDATE ${view} SET notes = ssn`,
    (view: string) => `UPDATE ${view} SET notes = notes || '!'`,
    (view: string) => `UPDATE ${view} SET tier = 'gold' WHERE ssn = '123-45-6789'`,
    (view: string) => `UPDATE ${view} SET tier = 'gold' RETURNING email`,
    (view: string) => `UPDATE ${view} SET tier = 'gold' RETURNING *`,
    (view: string) => `UPDATE ${view} SET name = 'x' WHERE id = 1`,
    (view: string) => `UPDATE ${view} SET ssn = 'x' WHERE id = 1`,
    (view: string) => `DELETE FROM ${view} WHERE income > 50000`,
    (view: string) => `DELETE FROM ${view} RETURNING ssn`,
    (view: string) => `DELETE FROM ${view} d USING ${view} o WHERE d.ssn = o.ssn`,
    (view: string) => `INSERT INTO ${view} (name, ssn) VALUES ('a', 'b') RETURNING ssn`,
    (view: string) => `INSERT INTO ${view} (name, ssn, email) VALUES ('a', 'b', 'ada.lovelace@example.org')`,
    (view: string) =>
      `INSERT INTO ${view} (id, name, ssn) VALUES (1, 'a', 'b') ON CONFLICT (id) DO UPDATE SET notes = excluded.ssn`,
    (view: string) =>
      `INSERT INTO ${view} (id, name, ssn) VALUES (1, 'a', 'b') ON CONFLICT (id) DO UPDATE SET tier = ${view}.ssn`,
    (view: string) => `MERGE INTO ${view} w USING (VALUES (1)) v(id) ON w.ssn = 'x' WHEN MATCHED THEN DELETE`,
    (view: string) => `COPY (SELECT ssn FROM ${view}) TO STDOUT`,
    (view: string) => `TRUNCATE ${view}`,
  ])("a write view gives back no hidden value: attempt %#", async (statement) => {
    // 42501: no right; 42703: the view has no such column; 42809 and 0A000: this version has no such form for a view.
    expect(await failureOf(writer, statement(write))).toMatch(/^(42501|42703|42809|0A000)$/);
    await writer.query("ROLLBACK");
  });

  test("the base table takes no write where a write view stands for it", async () => {
    for (const statement of [
      "UPDATE customers SET tier = 'gold' WHERE id = 1",
      "INSERT INTO customers (name, ssn) VALUES ('a', 'b')",
      "DELETE FROM customers WHERE id = 3",
    ]) {
      expect(await failureOf(writer, statement), statement).toBe("42501");
    }
  });

  test("what a writer may do works, and constraints of the table hold", async () => {
    await writer.query("BEGIN");
    const updated = await writer.query(
      `UPDATE ${write} SET tier = 'gold', notes = 'called' WHERE id = 3 RETURNING id, tier`,
    );
    expect(updated.rows).toEqual([{ id: 3, tier: "gold" }]);
    const seen = await writer.query(`SELECT tier, notes FROM ${writerMasked} WHERE id = 3`);
    expect(seen.rows).toEqual([{ tier: "gold", notes: "•••••" }]);
    expect((await writer.query(`DELETE FROM ${write} WHERE id = 3`)).rowCount).toBe(1);
    const invoice = await writer.query(
      "INSERT INTO invoices (customer_id, amount) VALUES (1, 5) RETURNING customer_id",
    );
    expect(invoice.rowCount).toBe(1);
    expect((await writer.query("UPDATE invoices SET amount = 6 WHERE amount = 5")).rowCount).toBe(1);
    await writer.query("ROLLBACK");
    expect(await failureOf(writer, `UPDATE ${write} SET tier = 'lead' WHERE id = 1`)).toBe("23514");
    expect(await failureOf(writer, "UPDATE invoices SET paid = true")).toBe("42501");
    expect(await failureOf(writer, "SELECT paid FROM invoices")).toBe("42501");
  });

  test("an error names no hidden value of the row that failed", async () => {
    const failures = await transcript(writer, [
      `UPDATE ${write} SET tier = 'lead' WHERE id = 1`,
      `UPDATE ${write} SET tier = NULL WHERE id = 1`,
      `UPDATE ${write} SET notes = notes`,
      `INSERT INTO ${write} (id, name, ssn) VALUES (1, 'a', 'b')`,
      `INSERT INTO ${write} (name, ssn) VALUES ('a', 'b')`,
      `DELETE FROM ${write} WHERE id = 1`,
      "INSERT INTO invoices (customer_id, amount) VALUES (999, 1)",
      "INSERT INTO invoices (customer_id, amount) VALUES (1, 1e9)",
    ]);
    expect(failures).toContain("23514");
    expect(failures).toContain("23503");
    expect(failures).toContain("23502");
    expectNoSecret(failures);
  });

  test("a labelled unique column cannot be written: an insert would tell whether a value is there", () => {
    expect(scope.relations.get("public.customers")?.write).toBeNull();
  });
});
