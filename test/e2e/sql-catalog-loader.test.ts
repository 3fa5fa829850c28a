import { existsSync } from "node:fs";
import { Client } from "pg";
import { describe, expect, test } from "vitest";
import { catalogSignature, loadCatalog } from "#protocols/postgres/catalog-loader.ts";
import { findRelation } from "#sql/catalog.ts";
import { createAnalyzer } from "#sql/analyze.ts";
import { startPostgres } from "../support/postgres.ts";
import { benignStatements } from "../support/sql-statements.ts";
import { sqlWorldDdl, sqlWorldScope } from "../support/sql-world.ts";

const debian15 = "/usr/lib/postgresql/15/bin";
const servers = [
  { name: "the embedded PostgreSQL", options: {} },
  ...(existsSync(debian15) ? [{ name: "PostgreSQL 15", options: { binaryDirectory: debian15 } }] : []),
];

describe.each(servers)("$name", ({ options }) => {
  test("the snapshot says what the database has, and its signature follows every change of that", async () => {
    await using server = await startPostgres(options);
    const { host, port, user, password, database } = server;
    const client = new Client({ host, port, user, password, database });
    await client.connect();
    try {
      await client.query(sqlWorldDdl);
      await client.query(`
        CREATE SCHEMA sallyport_scope_x; CREATE TABLE sallyport_scope_x.t (a int);
        CREATE TABLE public.more (
          id bigint GENERATED ALWAYS AS IDENTITY, a int NOT NULL DEFAULT 1, b int GENERATED ALWAYS AS (a * 2) STORED, "Odd.Name" text, gone int,
          UNIQUE (a, b)
        ) PARTITION BY RANGE (a);
        ALTER TABLE public.more DROP COLUMN gone;
        CREATE TABLE public.more_1 PARTITION OF public.more FOR VALUES FROM (0) TO (10);
        CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER t BEFORE INSERT ON public.more_1 FOR EACH ROW EXECUTE FUNCTION public.touch();
        CREATE RULE r AS ON DELETE TO public.audit_log DO INSTEAD NOTHING;
        ALTER TABLE public.audit_log ENABLE ROW LEVEL SECURITY;
        CREATE VIEW public.open_invoices AS SELECT * FROM public.invoices;
        CREATE FUNCTION public.spread(IN a int, VARIADIC b text[], OUT c int, OUT d text) LANGUAGE sql AS 'SELECT 1, ''x''';
        CREATE FUNCTION public.cast_it(text) RETURNS public.invoice_status LANGUAGE sql IMMUTABLE AS 'SELECT ''open''::public.invoice_status';
        CREATE CAST (text AS public.invoice_status) WITH FUNCTION public.cast_it(text);
      `);
      const catalog = await loadCatalog(client);

      const more = findRelation(catalog, "public", "more");
      expect(more).toMatchObject({ kind: "partitioned", hasChildren: true, hasTriggers: false, foreign: false });
      expect(
        more?.columns.map(({ name, number, notNull, hasDefault, generated, identity, unique }) => [
          name,
          number,
          notNull,
          hasDefault,
          generated,
          identity,
          unique,
        ]),
      ).toEqual([
        ["id", 1, true, false, "no", "always", false],
        ["a", 2, true, true, "no", "no", true],
        ["b", 3, false, false, "stored", "no", true],
        ["Odd.Name", 4, false, false, "no", "no", false],
      ]);
      expect(findRelation(catalog, "public", "more_1")).toMatchObject({ kind: "table", hasTriggers: true });
      expect(findRelation(catalog, "public", "audit_log")).toMatchObject({ hasRules: true, rowSecurity: true });
      expect(findRelation(catalog, "public", "open_invoices")).toMatchObject({ kind: "view", hasRules: false });
      expect(findRelation(catalog, "public", "invoices")?.columns.map(({ typeName }) => typeName)).toEqual([
        "bigint",
        "integer",
        "numeric(10,2)",
        "invoice_status",
        "text[]",
        "jsonb",
        "date",
      ]);
      expect(findRelation(catalog, "pg_catalog", "pg_class")?.columns[0]).toMatchObject({ name: "oid", type: 26 });
      expect(findRelation(catalog, "information_schema", "tables")?.kind).toBe("view");
      // The gateway's own schemas are no part of what statements can name.
      expect(catalog.schemas.has("sallyport_scope_x")).toBe(false);
      expect(findRelation(catalog, "sallyport_scope_x", "t")).toBeNull();
      expect(catalog.functions.get("spread")).toMatchObject([
        {
          schema: "public",
          arguments: [23, 1009],
          variadic: 25,
          outputs: [
            { name: "c", type: 23 },
            { name: "d", type: 25 },
          ],
          argumentNames: ["a", "b"],
        },
      ]);
      expect([...catalog.casts.values()].filter(({ builtin }) => !builtin)).toMatchObject([
        { source: 25, context: "explicit" },
      ]);
      expect(catalog.collations.has("C")).toBe(true);
      expect(catalog.encoding).toBe("UTF8");

      let signature = await catalogSignature(client);
      expect(signature).toBe(catalog.version);
      for (const ddl of [
        "ALTER TABLE public.more ADD COLUMN extra text",
        "ALTER TABLE public.more RENAME COLUMN extra TO extra2",
        "ALTER TABLE public.more ALTER COLUMN extra2 TYPE varchar(10)",
        "ALTER TABLE public.more DROP COLUMN extra2",
        "CREATE TABLE public.x (a int)",
        "ALTER TABLE public.x RENAME TO y",
        "CREATE UNIQUE INDEX ON public.y (a)",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "CREATE OPERATOR public.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)",
        "CREATE TRIGGER t BEFORE INSERT ON public.y FOR EACH ROW EXECUTE FUNCTION public.touch()",
        "ALTER TABLE public.y ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON public.y USING (true)",
        "CREATE OR REPLACE VIEW public.open_invoices AS SELECT * FROM public.invoices WHERE status = 'open'",
        "DROP TABLE public.y",
        "CREATE TYPE public.mood AS ENUM ('a')",
        "CREATE SCHEMA other",
        "DROP CAST (text AS public.invoice_status)",
      ]) {
        await client.query(ddl);
        const next = await catalogSignature(client);
        expect([ddl, next === signature]).toEqual([ddl, false]);
        signature = next;
      }
      for (const quiet of [
        "INSERT INTO public.customers (id, name) VALUES (99, 'x')",
        "ANALYZE public.customers",
        "VACUUM public.customers",
        "CREATE TEMP TABLE t (a int)",
        "CREATE TABLE sallyport_scope_x.t2 (a int)",
        "DROP SCHEMA sallyport_scope_x CASCADE",
      ]) {
        await client.query(quiet);
        expect([quiet, await catalogSignature(client)]).toEqual([quiet, signature]);
      }
    } finally {
      await client.end();
    }
  });

  test("ordinary statements pass against its snapshot", async () => {
    await using server = await startPostgres(options);
    const { host, port, user, password, database } = server;
    const client = new Client({ host, port, user, password, database });
    await client.connect();
    try {
      await client.query(sqlWorldDdl);
      const catalog = await loadCatalog(client);
      const analyzer = await createAnalyzer();
      const refused = benignStatements.flatMap((text) => {
        const result = analyzer.analyze(text, { catalog, scope: sqlWorldScope });
        return result.refused ? [`${text}: ${result.code} ${result.reason}`] : [];
      });
      expect(refused).toEqual([]);
    } finally {
      await client.end();
    }
  });
});
