import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { generateKeyPairSync } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { openPool } from "#store/database.ts";
import { type Migration, migrate, readMigrations } from "#store/migrate.ts";
import { openStore } from "#store/store.ts";
import { type DatabaseAddress, type TestPostgres, createDatabase, runSql, startPostgres } from "../support/postgres.ts";

let server: TestPostgres;
let database: DatabaseAddress;
let made = 0;
const first: Migration = {
  number: 1,
  name: "0001-first.sql",
  sql: "create table sallyport.one (a int);\ncreate table sallyport.two (a int)",
};
const second: Migration = { number: 2, name: "0002-second.sql", sql: "alter table sallyport.one add column b int" };

async function run(...migrations: readonly Migration[]): Promise<readonly number[]> {
  const pool = openPool(database, () => {});
  try {
    return await migrate(pool, migrations);
  } finally {
    await pool.end();
  }
}

beforeAll(async () => {
  server = await startPostgres();
});

afterAll(async () => {
  await server.stop();
});

beforeEach(async () => {
  made += 1;
  database = await createDatabase(server, `migrate_${made}`);
});

describe("migrations", () => {
  test("are applied once each, in order, with their hashes noted", async () => {
    expect(await run(first)).toEqual([1]);
    expect(await run(first, second)).toEqual([2]);
    expect(await run(first, second)).toEqual([]);
    const notes = await runSql(
      database,
      "select number, name, length(sha256) as hash from sallyport.migrations order by number",
    );
    expect(notes).toEqual([
      { number: 1, name: "0001-first.sql", hash: 64 },
      { number: 2, name: "0002-second.sql", hash: 64 },
    ]);
  });

  test("that were changed after they had been applied are refused, by name", async () => {
    await run(first, second);
    const changed = { ...first, sql: `${first.sql};\n-- and one more thing` };
    await expect(run(changed, second)).rejects.toMatchObject({
      code: "store.migration-changed",
      message: expect.stringContaining("0001-first.sql"),
    });
  });

  test("are the same under another convention for line ends", async () => {
    await run(first);
    expect(await run({ ...first, sql: first.sql.replaceAll("\n", "\r\n") })).toEqual([]);
  });

  test("of a newer program are refused", async () => {
    await run(first, second);
    await expect(run(first)).rejects.toMatchObject({ code: "store.newer" });
  });

  test("that fail half-way leave nothing behind, and are applied when mended", async () => {
    const broken = { ...second, sql: "create table sallyport.half (a int); select 1/0" };
    await expect(run(first, broken)).rejects.toMatchObject({ code: "store.migration-failed" });
    const left = await runSql(
      database,
      "select to_regclass('sallyport.half') as half, to_regclass('sallyport.one') as one",
    );
    expect(left).toEqual([{ half: null, one: "sallyport.one" }]);
    expect(await run(first, second)).toEqual([2]);
  });

  test("of two nodes that start at once are applied once", async () => {
    const key = generateKeyPairSync("ed25519");
    const stores = await Promise.all([1, 2, 3, 4].map(() => openStore(database, key)));
    await Promise.all(stores.map((store) => store.close()));
    const notes = await runSql(database, "select count(*)::int as count from sallyport.migrations");
    expect(notes).toEqual([{ count: (await readMigrations()).length }]);
  });

  test("need a login that may make a schema, and say so", async () => {
    await runSql(
      database,
      `create role weak_${made} login password 'weak'; revoke create on database migrate_${made} from public`,
    );
    const weak = { ...database, user: `weak_${made}`, password: "weak" };
    await expect(openStore(weak, generateKeyPairSync("ed25519"))).rejects.toMatchObject({
      code: "store.rights",
      nextStep: expect.stringContaining("create"),
    });
  });
});

describe("the migrations' directory", () => {
  let directory = "";

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "sallyport migrations "));
    return () => rm(directory, { recursive: true });
  });

  test.each([
    ["a gap", ["0001-a.sql", "0003-c.sql"]],
    ["a number that is there twice", ["0001-a.sql", "0001-b.sql"]],
    ["a name that does not fit", ["0001-a.sql", "2-b.sql"]],
  ])("with %s is refused", async (_, names) => {
    await Promise.all(names.map((name) => writeFile(join(directory, name), "select 1")));
    await expect(readMigrations(directory)).rejects.toMatchObject({ code: "store.migrations" });
  });
});
