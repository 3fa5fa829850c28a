import fc from "fast-check";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { MaskOperator } from "#domain/resource.ts";
import { activate, builds, grantAll, logIn, startScopeDatabase } from "../support/scope-database.ts";
import type { ScopeDatabase } from "../support/scope-database.ts";

const operators: readonly MaskOperator[] = [
  { kind: "redact" },
  { kind: "null" },
  { kind: "partial", keepLast: 4 },
  { kind: "email" },
  { kind: "date", precision: "year" },
  { kind: "date", precision: "quarter" },
  { kind: "date", precision: "month" },
  { kind: "number", roundTo: 1000 },
];

/** Types, each with values at its edges. */
const samples: Readonly<Record<string, readonly string[]>> = {
  text: ["''", "'a'", "repeat('x', 100000)", "'4111-1111-1111-1234'", "'ada@example.org'", "'ä@ö'", "E'\\n\\t'"],
  "varchar(3)": ["'abc'", "''"],
  "char(8)": ["'12345678'", "'a'"],
  'text COLLATE "C"': ["'4111111111111234'"],
  "text COLLATE public.folded": ["'4111111111111234'", "'ADA@example.org'"],
  name: ["'someone'"],
  '"char"': ["'x'"],
  smallint: ["32767", "-32768", "0", "499"],
  integer: ["2147483647", "-2147483648", "1500"],
  bigint: ["9223372036854775807", "-9223372036854775808"],
  oid: ["4294967295"],
  numeric: ["'NaN'", "1e1000", "-1e1000", "0.0001", "123456789012345678901234567890.5"],
  "numeric(10,2)": ["99999999.99", "-99999999.99", "1499.99", "'NaN'"],
  "numeric(3,3)": ["0.999", "-0.999"],
  "numeric(4)": ["9999", "-9999"],
  real: ["3.4e38", "-3.4e38", "1.2e-38", "'NaN'", "'Infinity'"],
  "double precision": ["1.7e308", "-1.7e308", "2.3e-308", "5e-324", "'NaN'", "'-Infinity'", "1e15", "1499.5"],
  money: ["92233720368547758.07", "'-1'"],
  boolean: ["true", "false"],
  date: ["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'", "'2024-02-29'", "'0044-03-15 BC'"],
  timestamp: ["'infinity'", "'4713-01-01 00:00:00 BC'", "'294276-12-31 23:59:59'", "'2024-11-30 12:34:56.789'"],
  "timestamp(0)": ["'2024-11-30 23:59:59.9'"],
  timestamptz: ["'-infinity'", "'4713-01-02 00:00:00+00 BC'", "'294276-12-31 23:59:59+00'", "'2024-01-01 00:30:00+02'"],
  time: ["'24:00:00'"],
  timetz: ["'24:00:00+12'"],
  interval: ["'178000000 years'", "'-1 second'"],
  uuid: ["'6f1c1d3e-0000-4000-8000-000000000001'"],
  json: [`'{"email": "ada@example.org"}'`, "'null'"],
  jsonb: [`'{"email": "ada@example.org"}'`],
  xml: ["'<a>1</a>'"],
  bytea: ["'\\x0011'", "''"],
  inet: ["'192.168.1.7/24'", "'::1'"],
  cidr: ["'192.168.0.0/16'"],
  macaddr: ["'08:00:2b:01:02:03'"],
  macaddr8: ["'08:00:2b:01:02:03:04:05'"],
  "bit(3)": ["B'101'"],
  varbit: ["B'10'"],
  point: ["'(1,2)'"],
  int4range: ["'[1,5)'", "'empty'"],
  "integer[]": ["'{1,2,3}'"],
  "text[]": ["'{ada@example.org}'"],
  tsvector: ["'a b'"],
  "public.mood": ["'sad'"],
  "public.mood[]": ["'{sad}'"],
  "public.postal": ["'12345-6789'"],
  "public.long_postal": ["'12345-678'"],
  "public.pair": ["ROW(1, 'x')"],
  "public.pair[]": ["ARRAY[ROW(1, 'x')::public.pair]"],
};

const types = Object.keys(samples);

const schemaSql = `
  CREATE COLLATION public.folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
  CREATE TYPE public.mood AS ENUM ('glad', 'sad');
  CREATE DOMAIN public.postal AS varchar(10) NOT NULL CHECK (VALUE ~ '^[0-9-]+$');
  CREATE DOMAIN public.long_postal AS public.postal CHECK (length(VALUE) > 6);
  CREATE TYPE public.pair AS (a int, b text);
  CREATE TABLE public.every_type (row_id serial PRIMARY KEY, ${types.map((type, i) => `c${i} ${type}`).join(", ")});
  ALTER DOMAIN public.postal DROP NOT NULL;
  ${types.flatMap((_, i) => samples[types[i] ?? ""]?.map((value) => `INSERT INTO public.every_type (c${i}) VALUES (${value});`) ?? []).join("\n")}
  INSERT INTO public.every_type DEFAULT VALUES;
  CREATE TABLE public.texts (id int PRIMARY KEY, partial text, email text, short varchar(12));`;

/** The slow, obvious version of `partial`. */
function maskPartly(value: string, keepLast: number): string {
  const characters = [...value];
  const isCode = (character: string): boolean => /^[A-Za-z0-9]$/.test(character);
  const codes = characters.filter(isCode).length;
  const allowed =
    characters.length > 0 && characters.length <= 64 && characters.every((c) => isCode(c) || " ()+./_:#-".includes(c));
  if (!allowed || codes < Math.max(2 * keepLast, keepLast + 4)) {
    return "•••••";
  }
  let seen = 0;
  return characters.map((character) => (isCode(character) && ++seen <= codes - keepLast ? "•" : character)).join("");
}

/** The slow, obvious version of `email`. */
function maskEmail(value: string): string {
  const parts = value.split("@");
  const [local = "", domain = ""] = parts;
  const plain =
    parts.length === 2 &&
    local !== "" &&
    [...local].length <= 64 &&
    !/["\s]/.test(local) &&
    /^[A-Za-z0-9.-]{1,253}$/.test(domain);
  return plain ? `•••••@${domain}` : "•••••";
}

describe.each(builds)("masked values, PostgreSQL %s", (_, options) => {
  let database: ScopeDatabase;
  let client: Client;

  beforeAll(async () => {
    database = await startScopeDatabase(options);
    await database.sql(`SET ROLE app_owner; ${schemaSql}`);
    await grantAll(database.sql, "public");
    await database.provisioner.prepare();
  });

  afterAll(() => database[Symbol.asyncDispose]());

  test.each(operators)(
    "$kind: every type keeps its type and collation, no value makes it fail, NULL stays NULL",
    async (operator) => {
      const role = `sp_grant_${operators.indexOf(operator)}`;
      const labels = types.map((_type, i) => ({
        schema: "public",
        table: "every_type",
        column: `c${i}`,
        label: "all",
      }));
      const scope = await activate(
        database,
        {
          tables: [{ schema: "public", table: "every_type", verbs: ["select"], columns: "all" }],
          masks: [{ ruleId: "rule", label: "all", operator }],
        },
        role,
        { labels },
      );
      const relation = scope.relations.get("public.every_type");
      const view = `"${relation?.view?.schema ?? ""}".every_type`;
      const shape = (name: string): Promise<readonly Record<string, unknown>[]> =>
        database.sql(`
        WITH RECURSIVE bare AS (
          SELECT a.attname, a.atttypid AS type, a.atttypmod AS modifier, a.attcollation AS collation
          FROM pg_attribute a WHERE a.attrelid = '${name}'::regclass AND a.attnum > 0
          UNION ALL
          SELECT b.attname, t.typbasetype, CASE b.modifier WHEN -1 THEN t.typtypmod ELSE b.modifier END, b.collation
          FROM bare b JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd')
        SELECT b.attname, format_type(b.type, b.modifier) AS type, b.collation
        FROM bare b JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd' ORDER BY 1`);
      expect(await shape(view)).toEqual(await shape("public.every_type"));

      client = await logIn(database, role);
      const { rows } = await client.query<Record<string, unknown>>({
        text: `SELECT t.*::text FROM ${view} t ORDER BY row_id`.replace("t.*::text", "*"),
      });
      const empty = rows.at(-1);
      expect(Object.entries(empty ?? {}).filter(([name, value]) => name !== "row_id" && value !== null)).toEqual([]);
      expect(rows.length).toBeGreaterThan(types.length);
      await client.query(
        `SELECT * FROM ${view} ORDER BY ${types
          .map((_type, i) => i)
          .filter((i) => !/json$|xml|point/.test(types[i] ?? ""))
          .map((i) => `c${i}`)
          .join(", ")}`,
      );
      if (operator.kind === "redact") {
        for (const i of types.keys()) {
          const shown = new Set(rows.map((row) => JSON.stringify(row[`c${i}`])).filter((value) => value !== "null"));
          expect(shown.size, types[i]).toBeLessThanOrEqual(1);
        }
      }
      if (operator.kind === "null") {
        expect(rows.every((row) => types.every((_type, i) => row[`c${i}`] === null))).toBe(true);
      }
      await client.end();
    },
  );

  test("an operator that does not fit a column's type becomes redact, and the compiled scope says so", async () => {
    const compile = async (operator: MaskOperator, column: string): Promise<string | undefined> =>
      (
        await database.provisioner.compile(
          {
            tables: [{ schema: "public", table: "every_type", verbs: ["select"], columns: "all" }],
            masks: [{ ruleId: "rule", label: "one", operator }],
          },
          [{ schema: "public", table: "every_type", column, label: "one" }],
        )
      ).relations.get("public.every_type")?.maskedColumns[0]?.operator.kind;
    const columnOf = (type: string): string => `c${types.indexOf(type)}`;
    expect(await compile({ kind: "email" }, columnOf("integer"))).toBe("redact");
    expect(await compile({ kind: "partial", keepLast: 2 }, columnOf("jsonb"))).toBe("redact");
    expect(await compile({ kind: "date", precision: "year" }, columnOf("text"))).toBe("redact");
    expect(await compile({ kind: "number", roundTo: 10 }, columnOf("money"))).toBe("redact");
    expect(await compile({ kind: "partial", keepLast: 2 }, columnOf("public.long_postal"))).toBe("partial");
    expect(await compile({ kind: "number", roundTo: 10 }, columnOf("numeric(3,3)"))).toBe("number");
    expect(await compile({ kind: "null" }, columnOf("public.pair"))).toBe("null");
  });

  test("partial and email do what their obvious versions do, for any text", async () => {
    const alphabet = fc.constantFrom(...("abcXYZ0189 ()+./_:#-@\"'\\\n\u00e9\u{1f600}".match(/./gsu) ?? []));
    const text = fc.oneof(
      fc.string({ unit: alphabet, maxLength: 24 }),
      fc.string({ unit: "binary", maxLength: 40 }).map((value) => value.replaceAll("\0", "")),
      fc.stringMatching(/^[0-9]{4}[- ]?[0-9]{4}[- ]?[0-9]{4}[- ]?[0-9]{1,7}$/),
      fc.emailAddress(),
      fc.string({ unit: fc.constantFrom(..."0123456789"), minLength: 60, maxLength: 70 }),
    );
    const keepLast = 4;
    const scope = await activate(
      database,
      {
        tables: [{ schema: "public", table: "texts", verbs: ["select"], columns: "all" }],
        masks: [
          { ruleId: "partial", label: "partial", operator: { kind: "partial", keepLast } },
          { ruleId: "email", label: "email", operator: { kind: "email" } },
        ],
      },
      "sp_grant_texts",
      {
        labels: [
          { schema: "public", table: "texts", column: "partial", label: "partial" },
          { schema: "public", table: "texts", column: "email", label: "email" },
          { schema: "public", table: "texts", column: "short", label: "email" },
        ],
      },
    );
    const view = `"${scope.relations.get("public.texts")?.view?.schema ?? ""}".texts`;
    client = await logIn(database, "sp_grant_texts");
    const admin = new Client(database.admin);
    await admin.connect();
    await fc.assert(
      fc.asyncProperty(fc.array(text, { minLength: 1, maxLength: 60 }), async (values) => {
        await admin.query("TRUNCATE texts");
        await admin.query(
          `INSERT INTO texts SELECT i, value, value, left(value, 12) FROM unnest($1::text[]) WITH ORDINALITY AS v(value, i)`,
          [values],
        );
        const { rows } = await client.query<{ partial: string; email: string; short: string }>(
          `SELECT * FROM ${view} ORDER BY id`,
        );
        expect(rows.map((row) => row.partial)).toEqual(values.map((value) => maskPartly(value, keepLast)));
        expect(rows.map((row) => row.email)).toEqual(values.map(maskEmail));
        expect(rows.map((row) => row.short)).toEqual(
          values.map((value) => [...maskEmail([...value].slice(0, 12).join(""))].slice(0, 12).join("")),
        );
      }),
      { numRuns: 40 },
    );
    await admin.end();
    await client.end();
  });

  test("numbers are rounded to the nearest step and kept inside their type", async () => {
    const scope = await activate(
      database,
      {
        tables: [{ schema: "public", table: "every_type", verbs: ["select"], columns: "all" }],
        masks: [{ ruleId: "rule", label: "number", operator: { kind: "number", roundTo: 1000 } }],
      },
      "sp_grant_numbers",
      {
        labels: ["smallint", "integer", "bigint", "numeric(10,2)", "numeric(3,3)", "double precision"].map((type) => ({
          schema: "public",
          table: "every_type",
          column: `c${types.indexOf(type)}`,
          label: "number",
        })),
      },
    );
    const view = `"${scope.relations.get("public.every_type")?.view?.schema ?? ""}".every_type`;
    client = await logIn(database, "sp_grant_numbers");
    const read = async (type: string): Promise<readonly string[]> => {
      const column = `c${types.indexOf(type)}`;
      const { rows } = await client.query<{ value: string }>(
        `SELECT ${column}::text AS value FROM ${view} WHERE ${column} IS NOT NULL ORDER BY row_id`,
      );
      return rows.map(({ value }) => value);
    };
    expect(await read("smallint")).toEqual(["32000", "-32000", "0", "0"]);
    expect(await read("integer")).toEqual(["2147483000", "-2147483000", "2000"]);
    expect(await read("bigint")).toEqual(["9223372036854775000", "-9223372036854775000"]);
    expect(await read("numeric(10,2)")).toEqual(["99999000.00", "-99999000.00", "1000.00", "99999000.00"]);
    expect(await read("numeric(3,3)")).toEqual(["0.000", "0.000"]);
    expect(await read("double precision")).toEqual(["0", "0", "1e+15", "1000"]);
    await client.end();
  });
});
