import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Client } from "pg";
import type { Scope } from "#domain/grant.ts";
import { undefinedShadows } from "#protocols/postgres/shadow-catalogs-definitions.ts";
import { shadowedCatalogRelations } from "#sql/shadowed.ts";
import { activate, builds, failureOf, logIn, masks, readScope, startScopeDatabase } from "../support/scope-database.ts";
import type { ScopeDatabase } from "../support/scope-database.ts";

/** Grants some columns: not the primary key, not the column of the index. */
const partScope: Scope = {
  tables: [{ schema: "public", table: "customers", verbs: ["select"], columns: ["email", "tier"] }],
  masks,
};

test("every relation that the gate splices onto a shadow has a definition", () => {
  expect(undefinedShadows()).toEqual([]);
});

describe.each(builds)("shadow catalogs of PostgreSQL %s", (major, options) => {
  let database: ScopeDatabase;
  let client: Client;
  let part: Client;

  beforeAll(async () => {
    database = await startScopeDatabase(options);
    await database.provisioner.prepare();
    await activate(database, readScope, "sp_grant_shadow");
    await activate(database, partScope, "sp_grant_part");
    client = await logIn(database, "sp_grant_shadow");
    part = await logIn(database, "sp_grant_part");
  });

  afterAll(async () => {
    await client.end();
    await part.end();
    await database[Symbol.asyncDispose]();
  });

  const column = async (query: string, from = client): Promise<readonly unknown[]> =>
    (await from.query({ text: query, rowMode: "array" })).rows.map((row: readonly unknown[]) => row[0]);

  test("have the columns of the originals, by name, order and type", async () => {
    let compared = 0;
    for (const { schema, name, since, tableoid } of shadowedCatalogRelations) {
      if (since > Number(major)) {
        continue;
      }
      const shape = async (relation: string): Promise<readonly (readonly [string, number])[]> =>
        (await client.query(`SELECT * FROM ${relation} LIMIT 0`)).fields.map((field) => [field.name, field.dataTypeID]);
      const original = (await shape(`${schema}.${name}`)).map(([field, type]) =>
        // A view cannot have a column of type anyarray.
        field === "attmissingval" ? [field, 25] : [field, type],
      );
      expect(await shape(`sallyport_shadow.${name}`), name).toEqual(
        tableoid ? [...original, ["tableoid", 26]] : original,
      );
      compared++;
    }
    expect(compared).toBeGreaterThan(40);
  });

  test("can be read whole, and name nothing that is not granted", async () => {
    for (const { name, since } of shadowedCatalogRelations) {
      if (since > Number(major)) {
        continue;
      }
      const text = JSON.stringify((await client.query(`SELECT * FROM sallyport_shadow.${name}`)).rows);
      expect(text, name).not.toMatch(/secret_|sallyport_|sp_scope|app_owner|provisioner/);
    }
  });

  test("show granted tables under their own names as base tables of their own schema", async () => {
    const tables =
      "SELECT table_name || ' ' || table_type FROM sallyport_shadow.tables WHERE table_schema = 'public' ORDER BY 1";
    expect(await column(tables)).toEqual(["customers BASE TABLE", "invoices BASE TABLE"]);
    expect(await column("SELECT schema_name FROM sallyport_shadow.schemata ORDER BY 1")).toEqual([
      "information_schema",
      "pg_catalog",
      "public",
    ]);
    expect(
      await column(
        "SELECT relname FROM sallyport_shadow.pg_class WHERE oid = 'public.customers'::regclass AND pg_table_is_visible(oid)",
      ),
    ).toEqual(["customers"]);
  });

  test("show granted columns only, and what stands on granted columns only", async () => {
    const named = "WHERE table_schema = 'public' ORDER BY 1";
    expect(await column(`SELECT column_name FROM sallyport_shadow.columns ${named}`, part)).toEqual(["email", "tier"]);
    const attributes = `SELECT attname FROM sallyport_shadow.pg_attribute WHERE attrelid >= 16384 ORDER BY attrelid, attnum`;
    expect(await column(attributes, part)).toEqual(["email", "tier", "email"]);
    const index = "SELECT indexrelid::regclass::text FROM sallyport_shadow.pg_index WHERE indrelid >= 16384";
    expect(await column(index, part)).toEqual(["customers_email_key"]);
    expect(await column("SELECT relnatts FROM sallyport_shadow.pg_class WHERE relname = 'customers'", part)).toEqual([
      8,
    ]);
    const constraints = `SELECT conname FROM sallyport_shadow.pg_constraint WHERE conrelid >= 16384 AND contype <> 'n' ORDER BY 1`;
    expect(await column(constraints, part)).toEqual(["customers_email_key", "customers_tier_check"]);
    expect(await column(constraints)).toContain("invoices_customer_id_fkey");
    expect(
      await column("SELECT column_name FROM sallyport_shadow.key_column_usage WHERE table_schema = 'public'", part),
    ).toEqual(["email"]);
    expect(await column(`SELECT adnum FROM sallyport_shadow.pg_attrdef ORDER BY 1`, part)).toEqual([8]);
    const notNull = `SELECT count(*)::int FROM sallyport_shadow.table_constraints WHERE table_schema = 'public' AND constraint_name LIKE '%not_null'`;
    expect(await column(notNull, part)).toEqual([2]);
  });

  test("tell how granted tables join", async () => {
    const joins = `
      SELECT k.column_name || '>' || u.table_name || '.' || u.column_name
      FROM sallyport_shadow.table_constraints c
      JOIN sallyport_shadow.key_column_usage k USING (constraint_schema, constraint_name)
      JOIN sallyport_shadow.constraint_column_usage u USING (constraint_schema, constraint_name)
      WHERE c.constraint_type = 'FOREIGN KEY'`;
    expect(await column(joins)).toEqual(["customer_id>customers.id"]);
    expect(await column(joins, part)).toEqual([]);
    expect(await column("SELECT check_clause FROM sallyport_shadow.check_constraints")).toEqual([
      expect.stringContaining("'gold'"),
    ]);
  });

  test("speak of no other role and no other session", async () => {
    expect(await column("SELECT rolname FROM sallyport_shadow.pg_roles")).toEqual(["sp_grant_shadow"]);
    expect(await column("SELECT datname FROM sallyport_shadow.pg_database")).toEqual(["billing"]);
    expect(await column("SELECT count(*)::int FROM sallyport_shadow.pg_stat_activity")).toEqual([1]);
    expect(await column("SELECT count(*)::int FROM sallyport_shadow.pg_auth_members")).toEqual([0]);
    expect(await column("SELECT count(*)::int FROM sallyport_shadow.pg_proc WHERE prosrc IS NOT NULL")).toEqual([0]);
    expect(Number((await column("SELECT count(*) FROM sallyport_shadow.pg_proc"))[0])).toBeGreaterThan(2000);
  });

  test("let no condition see a row that they hide", async () => {
    let asked = 0;
    for (const { name } of shadowedCatalogRelations.filter((relation) => relation.since <= Number(major))) {
      const { fields } = await client.query(`SELECT * FROM sallyport_shadow.${name} LIMIT 0`);
      for (const field of fields) {
        // Speaks, by failing, of the first row that it sees of what is not granted.
        const condition = `1 / (coalesce(s."${field.name}"::text, '') !~ 'secret_|^plan$|app_owner')::int = 1`;
        const query = `SELECT count(*) FROM sallyport_shadow.${name} s WHERE ${condition}`;
        expect(await failureOf(client, query), query).toBeNull();
        asked++;
      }
    }
    expect(asked).toBeGreaterThan(500);
  });

  test("cannot be changed or widened by a grant, and their helpers cannot be read", async () => {
    for (const statement of [
      "SELECT * FROM sallyport_shadow.granted_columns",
      "SELECT * FROM sallyport_shadow.pg_class_part_1",
      "BEGIN; LOCK TABLE sallyport_shadow.scope_lock IN EXCLUSIVE MODE",
      "UPDATE sallyport_shadow.pg_class SET relname = 'x'",
      "CREATE VIEW sallyport_shadow.x AS SELECT 1",
    ]) {
      expect(await failureOf(client, statement), statement).toMatch(/42501|55000|25006/);
      await client.query("ROLLBACK");
    }
  });

  test("show nothing to a login that is no grant", async () => {
    const rows = await database.sql(
      "SELECT count(*)::int AS n FROM sallyport_shadow.tables WHERE table_schema = 'public'",
    );
    expect(rows).toEqual([{ n: 0 }]);
  });

  test("stay quick in a database of many tables and grants", async () => {
    await database.sql(`
      DO $$ BEGIN FOR i IN 1..300 LOOP
        EXECUTE format('CREATE TABLE public.many_%s (id int PRIMARY KEY, a text, b int REFERENCES customers (id))', i);
      END LOOP; END $$`);
    await Promise.all(Array.from({ length: 20 }, (_item, i) => activate(database, readScope, `sp_grant_many_${i}`)));
    const startedMs = performance.now();
    for (const query of [
      "SELECT * FROM sallyport_shadow.tables WHERE table_schema = 'public'",
      "SELECT * FROM sallyport_shadow.columns WHERE table_name = 'customers'",
      "SELECT * FROM sallyport_shadow.table_constraints JOIN sallyport_shadow.key_column_usage USING (constraint_name)",
      "SELECT * FROM sallyport_shadow.pg_attribute WHERE attrelid = 'customers'::regclass",
      "SELECT * FROM sallyport_shadow.pg_constraint WHERE conrelid = 'customers'::regclass",
      "SELECT * FROM sallyport_shadow.pg_class c JOIN sallyport_shadow.pg_namespace n ON n.oid = c.relnamespace",
    ]) {
      await client.query(query);
    }
    // Some tens of milliseconds; it was many seconds when the marks were walked for every row.
    expect(performance.now() - startedMs).toBeLessThan(2000);
  });

  test("are left alone when they are what they should be, and remade when they are not", async () => {
    const before = database.journal.length;
    await database.restart().prepare();
    expect(database.journal.length).toBe(before);
    await database.sql("DROP VIEW sallyport_shadow.tables; COMMENT ON SCHEMA sallyport_shadow IS 'an older version'");
    await database.restart().prepare();
    expect(database.journal.at(-1)).toMatchObject({ action: "catalog", result: { status: "ok" } });
    expect(await column("SELECT count(*)::int FROM sallyport_shadow.tables WHERE table_schema = 'public'")).toEqual([
      2,
    ]);
  });
});
