import { createServer, type AddressInfo, connect } from "node:net";
import { describe, expect, test } from "vitest";
import { SallyportError } from "#domain/errors.ts";
import { openProvisioner } from "#protocols/postgres/provisioner.ts";
import type { ProvisionerConnection } from "#protocols/postgres/provisioner-connection.ts";
import { runSql } from "../support/postgres.ts";
import {
  activate,
  builds,
  clock,
  failureOf,
  labels,
  logIn,
  memoryJournal,
  readScope,
  startScopeDatabase,
} from "../support/scope-database.ts";

/** What is thrown; fails when nothing is. */
async function refusal(work: Promise<unknown>): Promise<SallyportError> {
  const error: unknown = await work.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof SallyportError)) {
    throw new Error("no SallyportError was thrown", { cause: error });
  }
  return error;
}

function provisionerFor(connection: ProvisionerConnection): ReturnType<typeof openProvisioner> {
  return openProvisioner({
    connection,
    resource: { name: "billing" },
    journal: memoryJournal([]),
    clock,
    randomBytes: (length) => Buffer.alloc(length, 7),
  });
}

/** The SQL that an error tells an administrator to run. */
function adviceOf(error: SallyportError): string {
  const [, sql] = /run: (.*)$/s.exec(error.nextStep ?? "") ?? [];
  return sql ?? "";
}

describe.each(builds)("what a resource allows, PostgreSQL %s", (_, options) => {
  test("a login without rights is told the SQL that gives them, step by step, until a grant works", async () => {
    await using database = await startScopeDatabase(options);
    await database.sql("CREATE ROLE plain LOGIN PASSWORD 'plain'");
    const provisioner = provisionerFor({ ...database.login, user: "plain", password: "plain" });

    const first = await refusal(provisioner.prepare());
    expect(first.code).toBe("resource.rights");
    expect(adviceOf(first)).toContain("CREATEROLE");
    await provisioner.close();
    await database.sql(adviceOf(first));

    const second = provisionerFor({ ...database.login, user: "plain", password: "plain" });
    const noTables = await refusal(second.prepare());
    expect(adviceOf(noTables)).toContain("WITH GRANT OPTION");
    await database.sql(adviceOf(noTables));
    await database.sql("REVOKE SELECT ON customers FROM plain");
    await second.prepare();

    const third = await refusal(second.compile(readScope, labels));
    expect(third.code).toBe("resource.rights");
    expect(adviceOf(third)).toBe('GRANT SELECT ON TABLE "public"."customers" TO "plain" WITH GRANT OPTION;');
    await database.sql(adviceOf(third));
    await activate(database, readScope, "sp_grant_plain", { provisioner: second });
    const client = await logIn(database, "sp_grant_plain");
    expect((await client.query("SELECT * FROM invoices")).rows).toHaveLength(3);
    await client.end();
    await second.close();
  });

  test("a superuser's provisioner makes the same rights", async () => {
    await using database = await startScopeDatabase({ ...options, superuser: true });
    await database.provisioner.prepare();
    const scope = await activate(database, readScope, "sp_grant_super");
    const client = await logIn(database, "sp_grant_super");
    expect(await failureOf(client, "SELECT email FROM customers")).toBe("42501");
    expect((await client.query("SELECT name FROM customers")).rows).toHaveLength(3);
    await client.end();
    expect(await database.provisioner.dropGrantRole("sp_grant_super")).toBe(true);
    expect(await database.provisioner.dropScope(scope)).toBe(true);
  });

  test("what PUBLIC may still do is said", async () => {
    await using database = await startScopeDatabase(options);
    expect((await database.provisioner.prepare()).publicRights).toEqual([
      "CONNECT on 2 other databases",
      "USAGE on language plpgsql",
    ]);
    await database.sql(`
      GRANT TEMP ON DATABASE billing TO PUBLIC; GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT SELECT ON secret_plans TO PUBLIC;
      GRANT SELECT (ssn) ON customers TO PUBLIC; GRANT CREATE ON DATABASE billing TO PUBLIC;
      CREATE FOREIGN DATA WRAPPER files; CREATE SERVER outside FOREIGN DATA WRAPPER files; GRANT USAGE ON FOREIGN SERVER outside TO PUBLIC;
      SELECT lo_create(77); GRANT SELECT ON LARGE OBJECT 77 TO PUBLIC;
      CREATE FUNCTION open_to_all() RETURNS int LANGUAGE sql AS 'SELECT 1'`);
    expect((await database.restart().prepare()).publicRights).toEqual([
      "CONNECT on 2 other databases",
      "CREATE on database billing",
      "CREATE on schema public",
      "EXECUTE on 1 function in schema public",
      "SELECT on 1 large object",
      "SELECT on column public.customers.ssn",
      "SELECT on public.secret_plans",
      "TEMP on database billing",
      "USAGE on foreign server outside",
      "USAGE on language plpgsql",
    ]);
    await database.sql("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC");
    await runSql(database.server, "REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC");
    const hardened = (await database.restart().prepare()).publicRights;
    expect(hardened).not.toContain("USAGE on language plpgsql");
    expect(hardened.some((right) => right.startsWith("CONNECT"))).toBe(false);
  });

  test("grants come into a database that is closed to PUBLIC", async () => {
    await using database = await startScopeDatabase(options);
    await database.sql(
      "REVOKE CONNECT ON DATABASE billing FROM PUBLIC; GRANT CONNECT ON DATABASE billing TO provisioner",
    );
    const closed = await refusal(database.provisioner.prepare());
    expect(closed.code).toBe("resource.rights");
    await database.sql(adviceOf(closed));
    await database.provisioner.prepare();
    await activate(database, readScope, "sp_grant_closed");
    const client = await logIn(database, "sp_grant_closed");
    expect((await client.query("SELECT * FROM invoices")).rows).toHaveLength(3);
    await client.end();
  });

  test("what PUBLIC may read elsewhere is not shown to a grant", async () => {
    await using database = await startScopeDatabase(options);
    await database.sql("GRANT SELECT ON secret_plans TO PUBLIC");
    await database.provisioner.prepare();
    await activate(database, readScope, "sp_grant_public");
    const client = await logIn(database, "sp_grant_public");
    const { rows } = await client.query(
      "SELECT table_name FROM sallyport_shadow.tables WHERE table_schema = 'public' ORDER BY 1",
    );
    expect(rows).toEqual([{ table_name: "customers" }, { table_name: "invoices" }]);
    await client.end();
  });

  test("a pooler before the server is noticed: it answers with a key of its own", async () => {
    await using database = await startScopeDatabase(options);
    // Passes everything on, and changes the process id in BackendKeyData as a pooler does.
    const pooler = createServer((client) => {
      const upstream = connect(database.server.port, database.server.host);
      client.pipe(upstream);
      upstream.on("data", (chunk: Buffer) => {
        const key = chunk.indexOf(Buffer.from([0x4b, 0, 0, 0]));
        if (key >= 0) {
          chunk.writeUInt32BE(1, key + 5);
        }
        client.write(chunk);
      });
      for (const socket of [client, upstream]) {
        socket.on("error", () => undefined);
        socket.on("close", () => {
          client.destroy();
          upstream.destroy();
        });
      }
    });
    await new Promise<void>((resolve) => pooler.listen(0, "127.0.0.1", resolve));
    const { port } = pooler.address() as AddressInfo;
    const provisioner = provisionerFor({ ...database.login, port });
    expect((await refusal(provisioner.prepare())).code).toBe("resource.pooler");
    await provisioner.close();
    pooler.close();
  });

  test("a resource that cannot be reached is said to be, without its password", async () => {
    await using database = await startScopeDatabase(options);
    for (const change of [{ port: 1 }, { password: "wrong-secret" }, { database: "nowhere" }]) {
      const provisioner = provisionerFor({ ...database.login, ...change });
      const error = await refusal(provisioner.prepare());
      expect(error.code).toBe("resource.unavailable");
      expect(`${error.message} ${error.nextStep ?? ""}`).not.toContain("wrong-secret");
      await provisioner.close();
    }
  });

  test("a resource that comes back is used again", async () => {
    await using database = await startScopeDatabase(options);
    await database.provisioner.prepare();
    await database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'provisioner'");
    await new Promise((resolve) => setTimeout(resolve, 50));
    await activate(database, readScope, "sp_grant_again");
    expect(await database.provisioner.dropGrantRole("sp_grant_again")).toBe(true);
  });
});
