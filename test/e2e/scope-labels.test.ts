import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Scope, TableGrant } from "#domain/grant.ts";
import type { ColumnLabel } from "#domain/resource.ts";
import type { CompiledScope, ScopedRelation } from "#domain/scope.ts";
import { activate, builds, failureOf, grantAll, logIn, startScopeDatabase } from "../support/scope-database.ts";
import type { ScopeDatabase } from "../support/scope-database.ts";

const masks = [{ ruleId: "partial", label: "pii.ssn", operator: { kind: "partial", keepLast: 4 } }] as const;
const ssn = (table: string, column = "ssn"): ColumnLabel => ({ schema: "hr", table, column, label: "pii.ssn" });
const select = (table: string, schema = "hr"): TableGrant => ({ schema, table, verbs: ["select"], columns: "all" });
const scopeOf = (...tables: readonly TableGrant[]): Scope => ({ tables, masks });

const setUpSql = `
  CREATE SCHEMA hr;
  CREATE TABLE hr.people (id int NOT NULL, ssn text, note text) PARTITION BY RANGE (id);
  CREATE TABLE hr.people_low PARTITION OF hr.people FOR VALUES FROM (0) TO (1000);
  CREATE TABLE hr.people_high PARTITION OF hr.people FOR VALUES FROM (1000) TO (2000);
  CREATE TABLE hr.parent (id int, ssn text);
  CREATE TABLE hr.child (extra text) INHERITS (hr.parent);
  CREATE TABLE hr.grandchild () INHERITS (hr.child);
  CREATE TABLE hr.keys (ssn text PRIMARY KEY, name text);
  CREATE TABLE hr.copies (id int, owner_ssn text REFERENCES hr.keys (ssn));
  CREATE TABLE hr.computed (
    id int, ssn text, reversed text GENERATED ALWAYS AS (reverse(ssn)) STORED, twice int GENERATED ALWAYS AS (id * 2) STORED);
  CREATE TABLE hr.paid (
    id int PRIMARY KEY, salary int, cap int, team int, note text CHECK (note <> ''), CHECK (salary < cap),
    EXCLUDE USING btree ((team + salary) WITH =));
  CREATE TABLE hr.plain (id serial PRIMARY KEY, note text);
  CREATE VIEW hr.simple AS SELECT id, upper(note) AS note FROM hr.plain WHERE id > 0;
  CREATE VIEW hr.above AS SELECT * FROM hr.simple;
  CREATE VIEW hr.leaky AS SELECT id FROM hr.computed;
  CREATE VIEW hr.leaky_above AS SELECT * FROM hr.leaky;
  CREATE VIEW hr.sneaky AS SELECT query_to_xml('SELECT ssn FROM hr.computed', true, false, '') AS x;
  CREATE VIEW hr.sneaky_too AS SELECT table_to_xml('hr.computed', true, false, '') AS x;
  CREATE FUNCTION hr.f() RETURNS text LANGUAGE sql STABLE AS 'SELECT string_agg(ssn, '''') FROM hr.computed';
  CREATE VIEW hr.calls AS SELECT id, hr.f() FROM hr.plain;
  CREATE VIEW hr.sessions AS SELECT query FROM pg_stat_activity;
  CREATE MATERIALIZED VIEW hr.stored AS SELECT * FROM hr.plain;
  CREATE TABLE hr.guarded (id int);
  ALTER TABLE hr.guarded ENABLE ROW LEVEL SECURITY;
  INSERT INTO hr.people VALUES (1, '123-45-6789', 'a'), (1001, '987-65-4321', 'b');
  INSERT INTO hr.grandchild VALUES (1, '123-45-6789', 'e');
  INSERT INTO hr.computed (id, ssn) VALUES (1, '123-45-6789');
  INSERT INTO hr.plain (note) VALUES ('kept');`;

describe.each(builds)("labels follow the data, PostgreSQL %s", (_, options) => {
  let database: ScopeDatabase;

  beforeAll(async () => {
    database = await startScopeDatabase(options);
    await database.sql(setUpSql);
    await grantAll(database.sql, "hr");
    await database.provisioner.prepare();
  });

  afterAll(() => database[Symbol.asyncDispose]());

  const compile = (scope: Scope, labels: readonly ColumnLabel[]): Promise<CompiledScope> =>
    database.provisioner.compile(scope, labels);
  const relation = async (table: string, labels: readonly ColumnLabel[]): Promise<ScopedRelation | undefined> =>
    (await compile(scopeOf(select(table)), labels)).relations.get(`hr.${table}`);
  const maskedOf = async (table: string, ...labels: readonly ColumnLabel[]): Promise<readonly string[]> =>
    (await relation(table, labels))?.maskedColumns.map(({ column, operator }) => `${column} ${operator.kind}`) ?? [];

  test("from a partitioned table to its partitions, from a partition to the table and to its siblings", async () => {
    expect(await maskedOf("people_low", ssn("people"))).toEqual(["ssn partial"]);
    expect(await maskedOf("people", ssn("people_low"))).toEqual(["ssn partial"]);
    expect(await maskedOf("people_high", ssn("people_low"))).toEqual(["ssn partial"]);
    await activate(database, scopeOf(select("people_low"), select("people")), "sp_grant_part", {
      labels: [ssn("people_high")],
    });
    const client = await logIn(database, "sp_grant_part");
    expect(await failureOf(client, "SELECT ssn FROM hr.people_low")).toBe("42501");
    expect(await failureOf(client, "SELECT * FROM hr.people_high")).toBe("42501");
    expect((await client.query("SELECT id, note FROM hr.people ORDER BY id")).rows).toHaveLength(2);
    await client.end();
  });

  test("along inheritance, both ways and over generations", async () => {
    expect(await maskedOf("grandchild", ssn("parent"))).toEqual(["ssn partial"]);
    expect(await maskedOf("parent", ssn("grandchild"))).toEqual(["ssn partial"]);
    expect(await maskedOf("child", ssn("parent", "id"))).toEqual(["id redact"]);
  });

  test("along foreign keys, both ways", async () => {
    expect(await maskedOf("copies", ssn("keys"))).toEqual(["owner_ssn partial"]);
    expect(await maskedOf("keys", ssn("copies", "owner_ssn"))).toEqual(["ssn partial"]);
  });

  test("to generated columns, which are hidden whole: a mask of the source need not fit what is computed from it", async () => {
    expect(await maskedOf("computed", ssn("computed"))).toEqual(["ssn partial", "reversed redact"]);
  });

  test("a label without a mask is hidden whole, and labels that disagree too", async () => {
    expect(await maskedOf("plain", { schema: "hr", table: "plain", column: "note", label: "other" })).toEqual([
      "note redact",
    ]);
    const both = [ssn("plain", "note"), { schema: "hr", table: "plain", column: "note", label: "other" }];
    expect(await maskedOf("plain", ...both)).toEqual(["note redact"]);
  });

  test("a label on what does not exist is refused: it would hide nothing", async () => {
    await expect(compile(scopeOf(select("plain")), [ssn("plain", "gone")])).rejects.toMatchObject({
      code: "scope.unknown-label",
    });
    await expect(compile(scopeOf(select("plain")), [ssn("gone")])).rejects.toMatchObject({
      code: "scope.unknown-label",
    });
  });

  test("simple views are granted as they are, and can be masked by labels of their own", async () => {
    expect(await relation("simple", [ssn("computed")])).toMatchObject({ wholeOpen: true, view: null });
    expect(await relation("above", [])).toMatchObject({ wholeOpen: true });
    const scope = await activate(database, scopeOf(select("simple")), "sp_grant_view", {
      labels: [ssn("simple", "note")],
    });
    const client = await logIn(database, "sp_grant_view");
    const view = scope.relations.get("hr.simple")?.view;
    expect((await client.query(`SELECT * FROM "${view?.schema ?? ""}".simple`)).rows).toEqual([
      { id: 1, note: "•••••" },
    ]);
    expect(await failureOf(client, "SELECT note FROM hr.simple")).toBe("42501");
    expect(await failureOf(client, "SELECT * FROM hr.plain")).toBe("42501");
    await client.end();
  });

  test.each([
    ["leaky", "labelled columns"],
    ["leaky_above", "labelled columns"],
    ["sneaky", "query_to_xml"],
    ["sneaky_too", "table_to_xml"],
    ["calls", "function"],
    ["sessions", "cannot be granted"],
    ["stored", "materialized view"],
    ["guarded", "row-level security"],
  ])("hr.%s cannot be granted: %s", async (table, reason) => {
    await expect(compile(scopeOf(select(table)), [ssn("computed")])).rejects.toMatchObject({
      code: "scope.unsupported-relation",
      message: expect.stringContaining(reason) as unknown,
    });
  });

  test("writes through views, catalogs, and the gateway's own schemas cannot be granted", async () => {
    const write: TableGrant = { schema: "hr", table: "simple", verbs: ["update"], columns: "all" };
    await expect(compile(scopeOf(write), [])).rejects.toMatchObject({ code: "scope.unsupported-relation" });
    await expect(compile(scopeOf(select("pg_authid", "pg_catalog")), [])).rejects.toMatchObject({
      code: "scope.unsupported-relation",
    });
    await expect(compile(scopeOf(select("pg_class", "sallyport_shadow")), [])).rejects.toMatchObject({
      code: "scope.unknown-table",
    });
  });

  test("what does not exist is named, with what does", async () => {
    await expect(compile(scopeOf(select("gone")), [])).rejects.toMatchObject({
      code: "scope.unknown-table",
      whose: "client",
    });
    await expect(compile(scopeOf(select("Plain")), [])).rejects.toMatchObject({ code: "scope.unknown-table" });
    await expect(compile(scopeOf({ ...select("plain"), columns: ["gone"] }), [])).rejects.toMatchObject({
      code: "scope.unknown-column",
      nextStep: expect.stringContaining("id, note") as unknown,
    });
  });

  test("a table that changes between compile and creation is noticed", async () => {
    const scope = await compile(scopeOf(select("plain")), []);
    await database.sql("ALTER TABLE hr.plain ADD COLUMN added text");
    await expect(database.provisioner.createScope(scope)).rejects.toMatchObject({ code: "scope.changed" });
    const again = await compile(scopeOf(select("plain")), []);
    expect(again.hash).not.toBe(scope.hash);
    await database.sql("ALTER TABLE hr.plain DROP COLUMN added");
  });

  test("serial columns can be inserted without their value, also where it is not granted", async () => {
    await activate(
      database,
      scopeOf({ schema: "hr", table: "plain", verbs: ["insert", "select"], columns: ["note"] }),
      "sp_grant_serial",
      { labels: [] },
    );
    const client = await logIn(database, "sp_grant_serial");
    await client.query("INSERT INTO hr.plain (note) VALUES ('new')");
    expect(await failureOf(client, "INSERT INTO hr.plain (id, note) VALUES (77, 'new')")).toBe("42501");
    expect(await failureOf(client, "SELECT setval('hr.plain_id_seq', 1)")).toBe("42501");
    await client.end();
  });

  test("generated and identity columns are never written, labelled unique ones neither", async () => {
    const all: TableGrant = { schema: "hr", table: "computed", verbs: ["insert", "update"], columns: "all" };
    const computed = (await compile(scopeOf(all), [])).relations.get("hr.computed");
    expect(computed?.write).toMatchObject({ insertColumns: ["id", "ssn"], updateColumns: ["id", "ssn"], view: null });
    const keys: TableGrant = { schema: "hr", table: "keys", verbs: ["insert", "update"], columns: "all" };
    const labelled = (await compile(scopeOf(keys), [ssn("keys")])).relations.get("hr.keys");
    expect(labelled?.write).toMatchObject({ insertColumns: ["name"], updateColumns: ["name"] });
    // A foreign key would tell whether the referenced value is there.
    const copies: TableGrant = { schema: "hr", table: "copies", verbs: ["insert", "update"], columns: "all" };
    const referring = (await compile(scopeOf(copies), [ssn("keys")])).relations.get("hr.copies");
    expect(referring?.write).toMatchObject({ insertColumns: ["id"], updateColumns: ["id"] });
  });

  test("an open column that a constraint compares with a labelled one is not updated", async () => {
    const paid: TableGrant = { schema: "hr", table: "paid", verbs: ["insert", "update"], columns: "all" };
    const label: ColumnLabel = { schema: "hr", table: "paid", column: "salary", label: "pii.salary" };
    const compared = (await compile(scopeOf(paid), [label])).relations.get("hr.paid");
    expect(compared?.write).toMatchObject({
      insertColumns: ["id", "cap", "team", "note"],
      updateColumns: ["id", "note"],
    });
  });
});

describe.each(builds)("names of every kind, PostgreSQL %s", (_, options) => {
  const names = [
    "Mixed Case",
    "select",
    'a"b',
    "it's",
    "tab\tand\nline",
    "ünïcödé",
    "back\\slash",
    "a.b",
    "$1",
    "x".repeat(63),
    "--comment",
    ";drop",
  ];

  test("work as schema, table, column and type, in views, rights, catalogs and drops", async () => {
    await using database = await startScopeDatabase(options);
    const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`;
    for (const name of names) {
      const [schema, table, column] = [`${name.slice(0, 60)} s`, `${name.slice(0, 60)} t`, name].map(quote);
      await database.sql(`
        CREATE SCHEMA ${schema ?? ""};
        CREATE TYPE ${schema ?? ""}.${column ?? ""} AS ENUM ('a');
        CREATE TABLE ${schema ?? ""}.${table ?? ""} (id serial PRIMARY KEY, ${column ?? ""} text, hidden ${schema ?? ""}.${column ?? ""});
        INSERT INTO ${schema ?? ""}.${table ?? ""} (${column ?? ""}, hidden) VALUES ('secret', 'a');`);
      await grantAll(database.sql, `${name.slice(0, 60)} s`);
    }
    await database.provisioner.prepare();
    const before = await database.sql("SELECT relacl::text FROM pg_class WHERE relacl IS NOT NULL ORDER BY oid");
    const scope: Scope = {
      tables: names.map((name) => ({
        schema: `${name.slice(0, 60)} s`,
        table: `${name.slice(0, 60)} t`,
        verbs: ["select", "insert", "update", "delete"],
        columns: "all",
      })),
      masks: [],
    };
    const labels = names.flatMap((name) =>
      [name, "hidden"].map((column) => ({
        schema: `${name.slice(0, 60)} s`,
        table: `${name.slice(0, 60)} t`,
        column,
        label: "pii.name",
      })),
    );
    const compiled = await activate(database, scope, "sp_grant_names", { labels });
    expect(compiled.relations.size).toBe(names.length);
    const client = await logIn(database, "sp_grant_names");
    for (const [key, { view, base, write }] of compiled.relations) {
      const read = await client.query({
        text: `SELECT * FROM ${quote(view?.schema ?? "")}.${quote(view?.name ?? "")}`,
        rowMode: "array",
      });
      expect(read.rows, key).toEqual([[1, "•••••", null]]);
      const inserted = await client.query(
        `INSERT INTO ${quote(write?.view?.schema ?? "")}.${quote(write?.view?.name ?? "")} (hidden) VALUES ('a')`,
      );
      expect(inserted.rowCount, key).toBe(1);
      const shown = await client.query(
        "SELECT count(*)::int AS n FROM sallyport_shadow.columns WHERE table_schema = $1 AND table_name = $2",
        [base.schema, base.name],
      );
      expect(shown.rows, key).toEqual([{ n: 3 }]);
    }
    await client.end();
    expect(await database.provisioner.dropGrantRole("sp_grant_names")).toBe(true);
    expect(await database.provisioner.dropScope(compiled)).toBe(true);
    expect(await database.sql("SELECT relacl::text FROM pg_class WHERE relacl IS NOT NULL ORDER BY oid")).toEqual(
      before,
    );
  });
});
