/** The demo's data on a real server, and the server's own account of what it was sent. */
import { readFile } from "node:fs/promises";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openDemoDatabase } from "../../demo/database.ts";
import { loadBillingData, makeBillingData } from "../../demo/seed.ts";
import { logLinePrefix, readStatementLog } from "../../demo/statement-log.ts";
import { type TestPostgres, runSql, startPostgres } from "../support/postgres.ts";

describe("the demo's database", () => {
  let server: TestPostgres;
  beforeAll(async () => {
    server = await startPostgres({ settings: { log_statement: "all", log_line_prefix: logLinePrefix } });
  });
  afterAll(async () => {
    await server?.stop();
  });

  test("is loaded in about a second, and holds what was made", async () => {
    const { host, port, user, password, database } = server;
    const client = new Client({ host, port, user, password, database });
    await client.connect();
    const data = makeBillingData();
    const startedMs = performance.now();
    await loadBillingData(client, data);
    expect(performance.now() - startedMs).toBeLessThan(3000);
    await client.end();
    const [counts] = await runSql(
      server,
      "select (select count(*) from customers)::int as customers, (select count(*) from invoices)::int as invoices, (select count(*) from payments)::int as payments",
    );
    expect(counts).toEqual({
      customers: data.customers.length,
      invoices: data.invoices.length,
      payments: data.payments.length,
    });
    const [ada] = await runSql(server, "select name, ssn, birth_date::text from customers where id = 1");
    expect(ada).toEqual({
      name: data.customers[0]?.name,
      ssn: data.customers[0]?.ssn,
      birth_date: data.customers[0]?.birthDate,
    });
  });

  test("says in its log whose each statement was, denied texts included", async () => {
    await runSql(server, "create role grant_role login password 'x' superuser");
    const as = { ...server, user: "grant_role", password: "x" };
    await runSql(as, "select 1;\nselect 2");
    await expect(runSql(as, "SALLYPORT DENIED dec_1")).rejects.toThrow("syntax error");
    const { host, port, database } = server;
    const client = new Client({ host, port, database, user: "grant_role", password: "x" });
    await client.connect();
    await client.query("select $1::int", [3]);
    await client.end();
    const logged = readStatementLog(await readFile(server.logFile, "utf8"), new Set(["grant_role"]));
    expect(logged).toEqual({ messages: 2, denied: 1, texts: ["select 1;\n\tselect 2", "select $1::int"] });
  });

  test("on a server of the user's is gone afterwards, with every role that was made for it", async () => {
    const { user, password, host, port } = server;
    const inventory = (): Promise<unknown> =>
      runSql(server, "select rolname as name from pg_roles union all select datname from pg_database order by name");
    const before = await inventory();
    const demo = await openDemoDatabase("unused", `postgres://${user}:${password}@${host}:${port}/postgres`, null);
    await demo.load(makeBillingData());
    expect(await demo.count("invoices")).toBe(makeBillingData().invoices.length);
    const login = new URL(demo.billingUrl);
    const provisioner = {
      host,
      port,
      user: login.username,
      password: login.password,
      database: login.pathname.slice(1),
    };
    // What a gateway that was killed leaves behind.
    await runSql(
      provisioner,
      "create role sp_scope_x; create role sp_grant_y login in role sp_scope_x; grant select on customers to sp_scope_x",
    );
    await demo[Symbol.asyncDispose]();
    expect(await inventory()).toEqual(before);
    // The passwords went to the server as verifiers only.
    const log = await readFile(server.logFile, "utf8");
    expect(log).toContain(login.username);
    expect(log).not.toContain(login.password);
  });
});
