/** The attacker looks for names and texts of columns that were not granted, and for oracles on those that are masked. */
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Scope } from "#domain/grant.ts";
import { shadowedCatalogRelations } from "#sql/shadowed.ts";
import {
  activate,
  builds,
  failureOf,
  grantAll,
  grantPassword,
  logIn,
  readScope,
  startScopeDatabase,
} from "../../support/scope-database.ts";
import type { ScopeDatabase } from "../../support/scope-database.ts";

const setUpSql = `
  CREATE SCHEMA hr AUTHORIZATION app_owner;
  SET ROLE app_owner;
  CREATE TYPE hr.hidden_mood AS ENUM ('calm');
  CREATE SEQUENCE hr.tickets;
  CREATE FUNCTION hr.hidden_rule(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
  CREATE TABLE hr.staff (
    id int, name text, hidden_salary int, day date,
    twice int GENERATED ALWAYS AS (hidden_salary * 2) STORED,
    longer text GENERATED ALWAYS AS (name || '!') STORED,
    number int DEFAULT nextval('hr.tickets'),
    mood text DEFAULT ('calm'::hr.hidden_mood)::text,
    fine boolean DEFAULT hr.hidden_rule(1),
    CONSTRAINT staff_key UNIQUE (id) INCLUDE (hidden_salary),
    CONSTRAINT staff_pay CHECK (id < hidden_salary),
    CONSTRAINT staff_whole CHECK (staff IS NOT NULL),
    CONSTRAINT staff_rule CHECK (hr.hidden_rule(id)),
    CONSTRAINT staff_id CHECK (id > 0));
  COMMENT ON COLUMN hr.staff.hidden_salary IS 'hidden_comment';
  COMMENT ON CONSTRAINT staff_pay ON hr.staff IS 'hidden_comment';
  CREATE INDEX staff_hidden ON hr.staff (name) INCLUDE (hidden_salary);
  CREATE INDEX staff_hidden_two ON hr.staff ((hidden_salary + id));
  CREATE INDEX staff_hidden_three ON hr.staff (name) WHERE hidden_salary > 3;
  CREATE STATISTICS hr.hidden_statistics ON name, hidden_salary FROM hr.staff;
  CREATE TABLE hr.events (id int, hidden_key text) PARTITION BY LIST (hidden_key);
  CREATE TABLE hr.events_a PARTITION OF hr.events FOR VALUES IN ('hidden_bound');
  RESET ROLE;`;

const hrScope: Scope = {
  tables: [
    {
      schema: "hr",
      table: "staff",
      verbs: ["select"],
      columns: ["id", "name", "twice", "longer", "number", "mood", "fine", "day"],
    },
    { schema: "hr", table: "events", verbs: ["select"], columns: ["id"] },
    { schema: "hr", table: "events_a", verbs: ["select"], columns: ["id"] },
  ],
  masks: [],
};

describe.each(builds)("shadow catalogs of PostgreSQL %s beside hidden columns", (major, options) => {
  let database: ScopeDatabase;
  let client: Client;

  beforeAll(async () => {
    database = await startScopeDatabase(options);
    await database.sql(setUpSql);
    await grantAll(database.sql, "hr");
    await database.provisioner.prepare();
    await activate(database, hrScope, "sp_grant_hr", { labels: [] });
    client = await logIn(database, "sp_grant_hr");
  });

  afterAll(async () => {
    await client.end();
    await database[Symbol.asyncDispose]();
  });

  const read = async (query: string): Promise<readonly unknown[]> =>
    (await client.query({ text: query, rowMode: "array" })).rows.map((row: readonly unknown[]) => row[0]);

  test("name and quote none of them in any column", async () => {
    for (const { name, since } of shadowedCatalogRelations) {
      if (since <= Number(major)) {
        const { rows } = await client.query(`SELECT s::text FROM sallyport_shadow.${name} s`);
        expect(JSON.stringify(rows), name).not.toMatch(/hidden_/);
      }
    }
  });

  test.each([
    "SELECT pg_get_expr(s.adbin, s.adrelid) FROM sallyport_shadow.pg_attrdef s",
    "SELECT pg_get_expr(s.conbin, s.conrelid) FROM sallyport_shadow.pg_constraint s",
    "SELECT pg_get_constraintdef(s.oid) FROM sallyport_shadow.pg_constraint s",
    "SELECT pg_get_constraintdef(s.conparentid) FROM sallyport_shadow.pg_constraint s",
    "SELECT s.conindid::regclass FROM sallyport_shadow.pg_constraint s",
    "SELECT pg_get_indexdef(s.indexrelid) FROM sallyport_shadow.pg_index s",
    "SELECT pg_get_expr(s.indpred, s.indrelid) FROM sallyport_shadow.pg_index s",
    "SELECT pg_get_expr(s.indexprs, s.indrelid) FROM sallyport_shadow.pg_index s",
    "SELECT pg_get_expr(s.relpartbound, s.oid) FROM sallyport_shadow.pg_class s",
    "SELECT pg_get_partkeydef(s.oid) FROM sallyport_shadow.pg_class s WHERE s.relkind = 'p'",
    "SELECT obj_description(s.oid, 'pg_constraint') FROM sallyport_shadow.pg_constraint s",
    "SELECT col_description(s.attrelid, s.attnum) FROM sallyport_shadow.pg_attribute s",
    "SELECT pg_get_statisticsobjdef(s.oid) FROM sallyport_shadow.pg_statistic_ext s",
    "SELECT generation_expression FROM sallyport_shadow.columns s",
    "SELECT column_default FROM sallyport_shadow.columns s",
    "SELECT check_clause FROM sallyport_shadow.check_constraints s",
  ])("are not named by a helper over a shadow's own rows: %s", async (query) => {
    expect(JSON.stringify(await read(query))).not.toMatch(/hidden_/);
  });

  test("still tell what stands on granted columns", async () => {
    const of = (column: string): string =>
      `SELECT ${column} FROM sallyport_shadow.columns WHERE table_name = 'staff' AND ${column} IS NOT NULL ORDER BY 1`;
    expect(await read(of("generation_expression"))).toEqual(["(name || '!'::text)"]);
    expect(await read(of("column_default"))).toEqual(["nextval('hr.tickets'::regclass)"]);
    expect(await read("SELECT conname FROM sallyport_shadow.pg_constraint WHERE contype = 'c' ORDER BY 1")).toContain(
      "staff_id",
    );
    expect(
      await read("SELECT constraint_name FROM sallyport_shadow.table_constraints WHERE constraint_type = 'CHECK'"),
    ).toContain("staff_id");
  });
});

describe.each(builds)("rights that PostgreSQL %s checks for hidden values", (_, options) => {
  test("a table of one's own cannot ask a masked column which values it has", async () => {
    await using database = await startScopeDatabase(options);
    // As on PostgreSQL 14 and older, and on every database that nobody hardened.
    await database.sql("GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT TEMP ON DATABASE billing TO PUBLIC");
    await database.provisioner.prepare();
    const writes: Scope = {
      tables: [
        ...readScope.tables,
        { schema: "public", table: "secret_plans", verbs: ["insert", "update"], columns: ["id"] },
      ],
      masks: readScope.masks,
    };
    await activate(database, writes, "sp_grant_maker");
    const client = await logIn(database, "sp_grant_maker");
    await client.query("SET default_transaction_read_only = off");
    expect(await failureOf(client, "CREATE TABLE mine (email text)")).toBeNull();
    for (const statement of [
      "CREATE TABLE probe (email text REFERENCES customers (email))",
      "ALTER TABLE mine ADD FOREIGN KEY (email) REFERENCES customers (email)",
      "CREATE TABLE probe (id int REFERENCES secret_plans (id))",
      "CREATE TABLE probe (id int REFERENCES customers (id))",
      "CREATE TABLE probe (LIKE customers INCLUDING ALL)",
      "CREATE TABLE probe () INHERITS (customers)",
    ]) {
      expect(await failureOf(client, statement), statement).toBe("42501");
    }
    const marked = await client.query(
      "SELECT has_any_column_privilege('customers', 'REFERENCES') OR has_any_column_privilege('secret_plans', 'REFERENCES') AS marked",
    );
    expect(marked.rows).toEqual([{ marked: false }]);
    await client.end();
  });

  test("a column added to a table that is wholly open is closed from its first moment", async () => {
    await using database = await startScopeDatabase(options);
    await database.provisioner.prepare();
    await activate(database, readScope, "sp_grant_open");
    const client = await logIn(database, "sp_grant_open");
    const works = [
      "SELECT count(*) FROM invoices",
      "SELECT 1 FROM invoices",
      "SELECT id, customer_id, amount, paid FROM invoices",
      "SELECT ctid, xmin, tableoid FROM invoices",
    ];
    const whole = [
      "SELECT * FROM invoices",
      "TABLE invoices",
      "SELECT i FROM invoices i",
      "SELECT row_to_json(i) FROM invoices i",
      "SELECT i::text FROM invoices i",
      "SELECT to_jsonb(i) FROM invoices i",
      "SELECT * FROM invoices a JOIN invoices b USING (id)",
      "COPY invoices TO STDOUT",
    ];
    // COPY has no driver of its own here: the client library fails on its rows, the server does not.
    for (const statement of [...works, ...whole.slice(0, -1)]) {
      expect(await failureOf(client, statement), statement).toBeNull();
    }
    await client.query("PREPARE earlier AS SELECT row_to_json(i)::text FROM invoices i");
    await client.query("EXECUTE earlier");
    await database.sql("ALTER TABLE invoices ADD COLUMN secret_note text DEFAULT 'hidden_note'");
    for (const statement of [...whole, "EXECUTE earlier", "SELECT secret_note FROM invoices"]) {
      expect(await failureOf(client, statement), statement).toBe("42501");
    }
    for (const statement of works) {
      expect(await failureOf(client, statement), statement).toBeNull();
    }
    await client.end();
  });

  test("partitioned tables, inheritance and views stay readable whole, and their new columns closed", async () => {
    await using database = await startScopeDatabase(options);
    await database.sql(`
      CREATE SCHEMA hr AUTHORIZATION app_owner; SET ROLE app_owner;
      CREATE TABLE hr.parts (id int, note text) PARTITION BY RANGE (id);
      CREATE TABLE hr.parts_low PARTITION OF hr.parts FOR VALUES FROM (0) TO (10);
      CREATE TABLE hr.parent (id int);
      CREATE TABLE hr.child (more text) INHERITS (hr.parent);
      CREATE VIEW hr.seen AS SELECT id FROM hr.parent;
      INSERT INTO hr.parts VALUES (1, 'a'); INSERT INTO hr.child VALUES (1, 'hidden'); RESET ROLE;`);
    await grantAll(database.sql, "hr");
    await database.provisioner.prepare();
    const tables = ["parts", "parts_low", "parent", "seen"];
    const scope: Scope = {
      tables: tables.map((table) => ({ schema: "hr", table, verbs: ["select"], columns: "all" })),
      masks: [],
    };
    const compiled = await activate(database, scope, "sp_grant_parts", { labels: [] });
    const client = await logIn(database, "sp_grant_parts");
    for (const table of tables) {
      expect(compiled.relations.get(`hr.${table}`)).toMatchObject({ wholeOpen: true, view: null });
      expect((await client.query(`SELECT t FROM hr.${table} t`)).rows, table).toHaveLength(1);
      expect((await client.query(`SELECT count(*)::int AS n FROM hr.${table}`)).rows, table).toEqual([{ n: 1 }]);
    }
    expect(await failureOf(client, "SELECT * FROM hr.child")).toBe("42501");
    await database.sql(`
      ALTER TABLE hr.parts ADD COLUMN added text; ALTER TABLE hr.parent ADD COLUMN added text;
      CREATE OR REPLACE VIEW hr.seen AS SELECT id, added FROM hr.parent;`);
    for (const table of tables) {
      expect(await failureOf(client, `SELECT * FROM hr.${table}`), table).toBe("42501");
      expect(await failureOf(client, `SELECT id FROM hr.${table}`), table).toBeNull();
    }
    await client.end();
  });

  test("a masked column that is renamed or dropped keeps or loses its mark, and the marks are closed to grants", async () => {
    await using database = await startScopeDatabase(options);
    await database.provisioner.prepare();
    const scope = await activate(database, readScope, "sp_grant_marks");
    const client = await logIn(database, "sp_grant_marks");
    const shown = async (): Promise<readonly unknown[]> =>
      (
        await client.query(
          "SELECT column_name FROM sallyport_shadow.columns WHERE table_name = 'customers' ORDER BY ordinal_position",
        )
      ).rows.map((row: { column_name: string }) => row.column_name);
    expect(await shown()).toEqual(["id", "name", "email", "ssn", "birth_date", "income", "notes", "tier"]);
    await database.sql("ALTER TABLE customers RENAME COLUMN notes TO remarks");
    expect(await shown()).toEqual(["id", "name", "email", "ssn", "birth_date", "income", "remarks", "tier"]);
    await database.sql("ALTER TABLE customers DROP COLUMN ssn CASCADE");
    expect(await shown()).toEqual(["id", "name", "tier"]);
    await client.query("SET default_transaction_read_only = off");
    for (const statement of [
      "SELECT * FROM sallyport_shadow.scope_marks",
      "INSERT INTO sallyport_shadow.scope_marks VALUES ('', 0, 'secret_plans'::regclass, 1)",
      "DELETE FROM sallyport_shadow.scope_marks",
    ]) {
      expect(await failureOf(client, statement), statement).toBe("42501");
    }
    await client.end();
    expect(await database.provisioner.dropGrantRole("sp_grant_marks")).toBe(true);
    expect(await database.provisioner.dropScope(scope)).toBe(true);
    expect(await database.sql("SELECT * FROM sallyport_shadow.scope_marks")).toEqual([]);
  });
});

describe.each(builds)("a grant role that cannot be dropped, PostgreSQL %s", (_, options) => {
  test("is closed, cleaned as far as it goes, and says what is left where", async () => {
    await using database = await startScopeDatabase(options);
    await database.sql("CREATE DATABASE elsewhere");
    await database.provisioner.prepare();
    const scope = await activate(database, readScope, "sp_grant_owner");
    const { host, port } = database.admin;
    const there = new Client({ host, port, user: "sp_grant_owner", password: grantPassword, database: "elsewhere" });
    await there.connect();
    await there.query("SET default_transaction_read_only = off");
    await there.query("SELECT lo_from_bytea(0, 'kept'), lo_from_bytea(0, 'kept')");
    await there.end();
    const here = await logIn(database, "sp_grant_owner");
    await here.query("SET default_transaction_read_only = off");
    await here.query("SELECT lo_from_bytea(0, 'dropped')");
    await here.end();
    database.journal.length = 0;
    for (let attempt = 1; attempt <= 2; attempt++) {
      await expect(database.provisioner.dropGrantRole("sp_grant_owner"), `attempt ${attempt}`).rejects.toMatchObject({
        code: "resource.leftover",
        message: expect.stringMatching(/2 objects in database elsewhere/) as unknown,
        nextStep: expect.stringContaining('DROP OWNED BY "sp_grant_owner"') as unknown,
      });
    }
    expect(database.journal.map(({ action, result }) => [action, result?.status, result?.sqlState])).toEqual([
      ["grant-role.drop", "failed", "2BP01"],
      ["grant-role.drop", "failed", "2BP01"],
    ]);
    expect(await database.sql("SELECT * FROM pg_largeobject_metadata")).toEqual([]);
    expect(
      await database.sql(`
        SELECT rolcanlogin, rolpassword IS NULL AS closed, rolconnlimit,
          (SELECT count(*)::int FROM pg_auth_members WHERE member = a.oid) AS memberships
        FROM pg_authid a WHERE rolname = 'sp_grant_owner'`),
    ).toEqual([{ rolcanlogin: false, closed: true, rolconnlimit: 0, memberships: 0 }]);
    // Its scope goes meanwhile.
    expect(await database.provisioner.dropScope(scope)).toBe(true);
    const admin = new Client({ ...database.admin, database: "elsewhere" });
    await admin.connect();
    await admin.query("DROP OWNED BY sp_grant_owner");
    await admin.end();
    expect(await database.provisioner.dropGrantRole("sp_grant_owner")).toBe(true);
  });
});
