/** The gate's reading of statements, held against what a real PostgreSQL makes of them. */
import { readFileSync } from "node:fs";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { type AnalysisContext, type Analyzer, createAnalyzer } from "#sql/analyze.ts";
import { applySplices } from "#sql/splice.ts";
import { loadCatalog } from "#protocols/postgres/catalog-loader.ts";
import { type TestPostgres, startPostgres } from "../support/postgres.ts";
import { lineageCases } from "../support/sql-lineage.ts";
import { benignStatements } from "../support/sql-statements.ts";
import { sqlWorldDdl, sqlWorldLogin, sqlWorldScope, sqlWorldScopeDdl } from "../support/sql-world.ts";

const fixture = z.array(
  z.object({
    command: z.string().optional(),
    server: z.union([z.number(), z.string()]),
    sql: z.string(),
    refused: z.string().optional(),
  }),
);

function readFixture(name: string): z.infer<typeof fixture> {
  return fixture.parse(JSON.parse(readFileSync(new URL(`../fixtures/sql/${name}`, import.meta.url), "utf8")));
}

interface Output {
  readonly names: readonly string[];
  /** Each column's values, sorted: the order of rows is not looked at. */
  readonly columns: readonly (readonly string[])[];
}

/** Runs one statement in a transaction that is rolled back. Parameters are null. */
async function run(client: Client, text: string, parameters: number): Promise<Output> {
  await client.query("BEGIN");
  try {
    const values = Array.from({ length: parameters }, () => null);
    const { fields, rows } = await client.query<unknown[]>({ text, values, rowMode: "array" });
    const columns = fields.map((_, i) => rows.map((row) => JSON.stringify(row[i] ?? null)).toSorted());
    return { names: fields.map((field) => field.name), columns };
  } finally {
    await client.query("ROLLBACK");
  }
}

let server: TestPostgres;
let admin: Client;
let session: Client;
let analyzer: Analyzer;
let context: AnalysisContext;

beforeAll(async () => {
  server = await startPostgres();
  const { host, port, user, password, database } = server;
  admin = new Client({ host, port, user, password, database });
  await admin.connect();
  await admin.query(sqlWorldDdl);
  const catalog = await loadCatalog(admin);
  await admin.query(sqlWorldScopeDdl(catalog));
  session = new Client({ host, port, database, user: sqlWorldLogin, password: sqlWorldLogin });
  await session.connect();
  analyzer = await createAnalyzer();
  context = { catalog, scope: sqlWorldScope };
});

afterAll(async () => {
  await session.end();
  await admin.end();
  await server.stop();
});

function withOids(text: string): string {
  return text.replaceAll(/\{\{(.*?)\}\}/g, (_, name: string) => String(context.catalog.relations.get(name)?.oid));
}

function analyzeOne(text: string) {
  const result = analyzer.analyze(text, context);
  if (result.refused) {
    throw new Error(`${result.code}: ${result.reason}`);
  }
  const [statement] = result.statements;
  if (statement === undefined) {
    throw new Error("no statement");
  }
  return { statement, forwarded: applySplices(Buffer.from(text), statement.splices).toString() };
}

const statements = [
  ...benignStatements,
  ...Object.values(lineageCases).flatMap((cases) => cases.map(([text]) => text)),
];

describe("a statement that passes runs with the grant's own rights, and returns the outputs that the gate expects", () => {
  test.each(statements)("%s", async (text) => {
    const { statement, forwarded } = analyzeOne(text);
    const output = await run(session, forwarded, statement.parameters);
    if (statement.outputs !== null) {
      expect(output.names).toEqual(statement.outputs.map(({ name }) => name));
    } else if (statement.kind !== "explain") {
      expect(output.names).toEqual([]);
    }
  });
});

describe("what clients send to discover a schema passes, and runs", () => {
  const psql = readFixture("psql-15.json").filter(
    ({ server: major, command }) => major === 18 && command !== "\\l" && command !== "\\dt+",
  );

  test.each(psql.map(({ command, sql }) => ({ command: command ?? "", sql })))(
    "psql $command: $sql",
    async ({ sql }) => {
      const { statement, forwarded } = analyzeOne(withOids(sql));
      const output = await run(session, forwarded, statement.parameters);
      expect(output.names).toEqual(statement.outputs?.map(({ name }) => name));
    },
  );

  test.each(readFixture("clients.json"))("$server: $sql", async ({ sql, refused }) => {
    const result = analyzer.analyze(sql, context);
    if (refused !== undefined) {
      expect(result).toMatchObject({ refused: true, code: refused });
      return;
    }
    const { statement, forwarded } = analyzeOne(sql);
    if (statement.kind === "select" && statement.boundSettings.length === 0) {
      const output = await run(session, forwarded, statement.parameters);
      expect(output.names).toEqual(statement.outputs?.map(({ name }) => name));
    }
  });
});

/** Pairs of a statement's results on two databases that differ in masked columns only, as the owner sees them. */
describe("an output that changes with a masked value is one that the gate knows", () => {
  const queries = statements.filter(
    (text) => !/^(insert|update|delete|explain)|random\(|now\(|for update|delete from/.test(text),
  );

  test.each(queries)("%s", async (text) => {
    const { statement } = analyzeOne(text);
    const before = await run(admin, text, statement.parameters);
    await admin.query("BEGIN");
    await admin.query(
      "UPDATE public.customers SET email = 'z' || email || 'zz', ssn = '9' || reverse(ssn), card = CASE WHEN id % 2 = 0 THEN NULL ELSE 'y' END",
    );
    await admin.query("SAVEPOINT changed");
    let after: Output;
    try {
      const values = Array.from({ length: statement.parameters }, () => null);
      const { fields, rows } = await admin.query<unknown[]>({ text, values, rowMode: "array" });
      after = {
        names: fields.map((field) => field.name),
        columns: fields.map((_, i) => rows.map((row) => JSON.stringify(row[i] ?? null)).toSorted()),
      };
    } finally {
      await admin.query("ROLLBACK");
    }
    // A masked predicate chooses rows: then what comes back may change everywhere, and no value of an open column is told.
    const filtersOnMasked = before.columns[0]?.length !== after.columns[0]?.length;
    for (const [i, column] of before.columns.entries()) {
      if (!filtersOnMasked && JSON.stringify(column) !== JSON.stringify(after.columns[i])) {
        expect([i, statement.outputs?.[i]?.masked.length ?? 0]).not.toEqual([i, 0]);
      }
    }
  });
});
