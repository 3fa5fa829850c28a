import { Client } from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { SallyportError } from "#domain/errors.ts";
import type { Scope } from "#domain/grant.ts";
import type { Provisioner } from "#protocols/driver.ts";
import { openProvisioner } from "#protocols/postgres/provisioner.ts";
import {
  activate,
  builds,
  clock,
  failureOf,
  grantPassword,
  labels,
  logIn,
  masks,
  memoryJournal,
  readScope,
  startScopeDatabase,
} from "../support/scope-database.ts";
import type { JournaledChange, ScopeDatabase } from "../support/scope-database.ts";

const writeScope: Scope = {
  tables: [
    { schema: "public", table: "customers", verbs: ["select", "insert", "update", "delete"], columns: "all" },
    { schema: "public", table: "secret_plans", verbs: ["select", "insert"], columns: "all" },
  ],
  masks,
};

/** Everything that says who may do what: roles, memberships, settings, access lists, schemas, views, shared dependencies. */
const snapshotSql = `
  SELECT 'role' AS kind, r.rolname || ' ' || r.rolcanlogin AS text FROM pg_roles r
  UNION ALL SELECT 'member', a.rolname || ' in ' || b.rolname
    FROM pg_auth_members m JOIN pg_roles a ON a.oid = m.member JOIN pg_roles b ON b.oid = m.roleid
  UNION ALL SELECT 'setting', setrole || ' ' || setconfig::text FROM pg_db_role_setting
  UNION ALL SELECT 'schema', n.nspname || ' ' || x::text
    FROM pg_namespace n LEFT JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) x ON true
  UNION ALL SELECT 'relation', c.oid::regclass || ' ' || c.relkind::text || ' ' || x::text
    FROM pg_class c LEFT JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) x ON true
    WHERE c.oid >= 16384
  UNION ALL SELECT 'column', attrelid::regclass || ' ' || attname || ' ' || attacl::text FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid >= 16384
  UNION ALL SELECT 'dependency', d::text FROM pg_shdepend d
  UNION ALL SELECT 'mark', m::text FROM sallyport_shadow.scope_marks m
  UNION ALL SELECT 'comment', d.classoid || ' ' || d.objoid || ' ' || d.description FROM pg_shdescription d
  ORDER BY 1, 2`;

describe.each(builds)("the life of a scope, PostgreSQL %s", (_, options) => {
  let database: ScopeDatabase;

  beforeAll(async () => {
    database = await startScopeDatabase(options);
    await database.provisioner.prepare();
  });

  afterAll(() => database[Symbol.asyncDispose]());

  beforeEach(() => {
    database.journal.length = 0;
  });

  const snapshot = async (): Promise<string> =>
    (await database.sql(snapshotSql)).map(({ kind, text }) => `${String(kind)} ${String(text)}`).join("\n");

  async function retire(
    provisioner: Provisioner,
    scope: Scope,
    ...roles: readonly string[]
  ): Promise<readonly boolean[]> {
    const compiled = await provisioner.compile(scope, labels);
    const gone: boolean[] = [];
    for (const role of roles) {
      gone.push(await provisioner.dropGrantRole(role));
    }
    gone.push(await provisioner.dropScope(compiled));
    return gone;
  }

  test("after the drop the catalogs are what they were before", async () => {
    const before = await snapshot();
    await activate(database, writeScope, "sp_grant_one");
    await activate(database, readScope, "sp_grant_two");
    expect(await snapshot()).not.toBe(before);
    expect(await retire(database.provisioner, writeScope, "sp_grant_one")).toEqual([true, true]);
    expect(await retire(database.provisioner, readScope, "sp_grant_two")).toEqual([true, true]);
    expect(await snapshot()).toBe(before);
  });

  test("other roles' rights on the same tables are untouched", async () => {
    await database.sql(
      "CREATE ROLE analyst; GRANT SELECT (id, email), REFERENCES ON customers TO analyst; GRANT USAGE ON SCHEMA public TO analyst",
    );
    const before = await snapshot();
    await activate(database, writeScope, "sp_grant_one");
    await retire(database.provisioner, writeScope, "sp_grant_one");
    expect(await snapshot()).toBe(before);
  });

  test("equal scopes share one scope role, which goes with its last grant", async () => {
    const first = await activate(database, readScope, "sp_grant_one");
    const tables = readScope.tables.toReversed();
    const second = await activate(database, { ...readScope, tables }, "sp_grant_two");
    expect(second.role).toBe(first.role);
    expect(database.journal.filter(({ action }) => action === "scope.create")).toHaveLength(1);
    expect(await retire(database.provisioner, readScope, "sp_grant_one")).toEqual([true, false]);
    const client = await logIn(database, "sp_grant_two");
    expect((await client.query("SELECT count(*)::int AS n FROM invoices")).rows).toEqual([{ n: 3 }]);
    await client.end();
    expect(await retire(database.provisioner, readScope, "sp_grant_two")).toEqual([true, true]);
  });

  test("32 activations at once all succeed, through two gateways", async () => {
    const before = await snapshot();
    const gateways = [database.provisioner, database.restart()];
    const scopes = [readScope, writeScope];
    await Promise.all(
      Array.from({ length: 32 }, async (_item, i) => {
        const provisioner = gateways[i % 2] ?? database.provisioner;
        await activate(database, scopes[i % 3 === 0 ? 1 : 0] ?? readScope, `sp_grant_${i}`, { provisioner });
      }),
    );
    const client = await logIn(database, "sp_grant_31");
    expect((await client.query("SELECT count(*)::int AS n FROM invoices")).rows).toEqual([{ n: 3 }]);
    await client.end();
    const gone = await Promise.all(
      Array.from({ length: 32 }, (_item, i) =>
        (gateways[(i + 1) % 2] ?? database.provisioner).dropGrantRole(`sp_grant_${i}`),
      ),
    );
    expect(gone.every(Boolean)).toBe(true);
    expect(await retire(database.provisioner, readScope)).toEqual([true]);
    expect(await retire(database.provisioner, writeScope)).toEqual([true]);
    expect(await snapshot()).toBe(before);
  });

  test("grants that begin while the last one of their scope ends find their scope or make it again", async () => {
    const scope = await activate(database, readScope, "sp_grant_0");
    for (let round = 0; round < 6; round++) {
      await Promise.all([
        activate(database, readScope, `sp_grant_${round + 1}`),
        database.provisioner.dropGrantRole(`sp_grant_${round}`).then(() => database.restart().dropScope(scope)),
      ]);
      const client = await logIn(database, `sp_grant_${round + 1}`);
      expect((await client.query("SELECT count(*)::int AS n FROM invoices")).rows).toEqual([{ n: 3 }]);
      await client.end();
    }
    expect(await retire(database.provisioner, readScope, "sp_grant_6")).toEqual([true, true]);
  });

  test("a gateway killed after any statement leaves nothing that the next one cannot finish or drop", async () => {
    const before = await snapshot();
    const scope = await activate(database, writeScope, "sp_grant_one");
    const statements = database.journal.find(({ action }) => action === "scope.create")?.statements ?? [];
    await retire(database.provisioner, writeScope, "sp_grant_one");
    expect(statements.length).toBeGreaterThan(12);
    for (let k = 1; k <= statements.length; k++) {
      const { host, port, user, password, database: name } = database.login;
      const killed = new Client({ host, port, user, password, database: name, options: '-c search_path=""' });
      killed.on("error", () => undefined);
      await killed.connect();
      // Without a transaction around them: worse than what the provisioner does, as if half of it had been committed.
      for (const statement of statements.slice(0, k)) {
        await killed.query(statement.replace("SET LOCAL ROLE", "SET ROLE"));
      }
      await killed.end();
      if (k % 2 === 0) {
        await database.provisioner.createScope(scope);
        await database.provisioner.createScope(scope);
      }
      expect(await database.provisioner.dropScope(scope), `after statement ${k}`).toBe(true);
      expect(await database.provisioner.dropScope(scope)).toBe(true);
      expect(await snapshot(), `after statement ${k}`).toBe(before);
    }
  });

  test("a connection that is lost inside the transaction leaves nothing", async () => {
    const before = await snapshot();
    const dying: JournaledChange[] = [];
    const journal = memoryJournal(dying);
    const provisioner = openProvisioner({
      connection: database.login,
      resource: { name: "billing" },
      clock,
      randomBytes: (length) => Buffer.alloc(length, 7),
      journal: {
        begin: async (action, object, statements) => {
          const finish = await journal.begin(action, object, statements);
          await database.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'provisioner' AND state LIKE 'idle in%'",
          );
          return finish;
        },
      },
    });
    const scope = await provisioner.compile(readScope, labels);
    await expect(provisioner.createScope(scope)).rejects.toMatchObject({ code: "resource.unavailable" });
    expect(dying).toMatchObject([{ action: "scope.create", result: { status: "failed" } }]);
    expect(await snapshot()).toBe(before);
    await provisioner.close();
  });

  test("a scope that someone has changed is made whole again, under its living grants", async () => {
    const scope = await activate(database, readScope, "sp_grant_one");
    const view = scope.relations.get("public.customers")?.view;
    const client = await logIn(database, "sp_grant_one");
    const damages = [
      `REVOKE SELECT (name) ON customers FROM ${scope.role}`,
      "DELETE FROM sallyport_shadow.scope_marks",
      "UPDATE sallyport_shadow.scope_marks SET relation = 'secret_plans'::regclass, number = 1 WHERE number = 3",
      `GRANT SELECT ON secret_plans TO ${scope.role}`,
      `GRANT SELECT (ssn) ON customers TO ${scope.role}`,
      `GRANT SELECT ON invoices TO ${scope.role}`,
      `REVOKE SELECT (ctid) ON invoices FROM ${scope.role}`,
      `DROP SCHEMA ${view?.schema ?? ""} CASCADE`,
      `ALTER VIEW ${view?.schema ?? ""}.customers SET (security_barrier = false)`,
      `COMMENT ON VIEW ${view?.schema ?? ""}.customers IS 'mine'`,
    ];
    for (const damage of damages) {
      await database.sql(/^(GRANT|REVOKE)/.test(damage) ? `SET ROLE provisioner; ${damage}` : damage);
      await database.restart().createScope(scope);
      expect(
        (await client.query(`SELECT count(*)::int AS n FROM "${view?.schema ?? ""}".customers`)).rows,
        damage,
      ).toEqual([{ n: 3 }]);
      expect((await client.query("SELECT name FROM customers")).rows, damage).toHaveLength(3);
      expect(await failureOf(client, "SELECT ssn FROM customers"), damage).toBe("42501");
      expect(await failureOf(client, "SELECT * FROM secret_plans"), damage).toBe("42501");
    }
    await client.end();
    expect(await retire(database.provisioner, readScope, "sp_grant_one")).toEqual([true, true]);
  });

  test("a right that somebody else gave a scope role stops the scope, with what to do", async () => {
    const scope = await database.provisioner.compile(readScope, labels);
    await database.provisioner.createScope(scope);
    await database.sql(`SET ROLE app_owner; GRANT SELECT ON secret_plans TO ${scope.role}`);
    await expect(database.provisioner.createScope(scope)).rejects.toMatchObject({
      code: "resource.rights",
      message: expect.stringContaining("SELECT public secret_plans") as unknown,
      nextStep: expect.stringContaining("DROP OWNED BY") as unknown,
    });
    await expect(database.provisioner.dropScope(scope)).rejects.toMatchObject({ code: "resource.rights" });
    await database.sql(`DROP OWNED BY ${scope.role}`);
    expect(await database.provisioner.dropScope(scope)).toBe(true);
  });

  test("dropping a grant role ends its running statements and open transactions within a second", async () => {
    await activate(database, readScope, "sp_grant_one");
    const busy = await logIn(database, "sp_grant_one");
    const idle = await logIn(database, "sp_grant_one");
    await idle.query("BEGIN");
    await idle.query("SELECT * FROM invoices");
    const statement = failureOf(busy, "SELECT pg_sleep(60)");
    const startedMs = performance.now();
    expect(await database.provisioner.dropGrantRole("sp_grant_one")).toBe(true);
    expect(performance.now() - startedMs).toBeLessThan(1000);
    expect(await statement).toMatch(/57P01|unknown/);
    await expect(idle.query("SELECT 1")).rejects.toThrow();
    await expect(logIn(database, "sp_grant_one")).rejects.toThrow();
    expect(await retire(database.provisioner, readScope)).toEqual([true]);
  });

  test("two drops of one role at once both see it gone", async () => {
    await activate(database, readScope, "sp_grant_one");
    const gone = await Promise.all([
      database.provisioner.dropGrantRole("sp_grant_one"),
      database.restart().dropGrantRole("sp_grant_one"),
    ]);
    expect(gone).toEqual([true, true]);
    expect(await retire(database.provisioner, readScope)).toEqual([true]);
  });

  test("what a session made for itself goes with its role", async () => {
    await activate(database, { ...readScope, tables: [...readScope.tables, ...writeScope.tables] }, "sp_grant_one");
    const client = await logIn(database, "sp_grant_one");
    await client.query("SELECT lo_from_bytea(0, 'kept')");
    await client.query("ALTER ROLE sp_grant_one SET work_mem = '1MB'");
    await client.end();
    expect(await database.provisioner.dropGrantRole("sp_grant_one")).toBe(true);
    expect(
      await retire(database.provisioner, { ...readScope, tables: [...readScope.tables, ...writeScope.tables] }),
    ).toEqual([true]);
  });

  test("terminate ends a backend of the grant role and no other", async () => {
    await activate(database, readScope, "sp_grant_one");
    const client = await logIn(database, "sp_grant_one");
    const other = new Client(database.admin);
    other.on("error", () => undefined);
    await other.connect();
    const pid = async (of: Client): Promise<number> =>
      Number((await of.query<{ pid: number }>("SELECT pg_backend_pid() AS pid")).rows[0]?.pid);
    await database.provisioner.terminate("sp_grant_one", await pid(other));
    expect((await other.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    const ended = new Promise((resolve) => client.once("end", resolve));
    await database.provisioner.terminate("sp_grant_one", await pid(client));
    await ended;
    await other.end();
    expect(await retire(database.provisioner, readScope, "sp_grant_one")).toEqual([true, true]);
  });

  test("a grant role is made again over one that a killed gateway left", async () => {
    const scope = await activate(database, readScope, "sp_grant_one");
    await database.restart().createGrantRole({
      role: "sp_grant_one",
      password: grantPassword,
      scope,
      validUntilMs: Date.now() + 60_000,
      connectionsMax: 1,
      readOnly: false,
    });
    const client = await logIn(database, "sp_grant_one");
    await expect(logIn(database, "sp_grant_one")).rejects.toMatchObject({ code: "53300" });
    expect((await client.query("SHOW default_transaction_read_only")).rows).toEqual([
      { default_transaction_read_only: "off" },
    ]);
    expect((await client.query("SHOW search_path")).rows).toEqual([{ search_path: "public, pg_temp" }]);
    await client.end();
    expect(await retire(database.provisioner, readScope, "sp_grant_one")).toEqual([true, true]);
  });

  test("a role that has expired cannot log in", async () => {
    const scope = await activate(database, readScope, "sp_grant_one");
    await database.provisioner.createGrantRole({
      role: "sp_grant_one",
      password: grantPassword,
      scope,
      validUntilMs: Date.now() - 1000,
      connectionsMax: 1,
      readOnly: true,
    });
    await expect(logIn(database, "sp_grant_one")).rejects.toMatchObject({ code: "28P01" });
    expect(await retire(database.provisioner, readScope, "sp_grant_one")).toEqual([true, true]);
  });

  test("roles that the gateway did not make are neither taken over nor dropped", async () => {
    await expect(database.provisioner.dropGrantRole("app_owner")).rejects.toMatchObject({ code: "role.not-ours" });
    const scope = await database.provisioner.compile(readScope, labels);
    await database.sql(`CREATE ROLE ${scope.role}; COMMENT ON ROLE ${scope.role} IS 'somebody''s'`);
    await expect(database.provisioner.createScope(scope)).rejects.toMatchObject({ code: "role.not-ours" });
    await expect(database.provisioner.dropScope(scope)).rejects.toMatchObject({ code: "role.not-ours" });
    await database.sql(`DROP ROLE ${scope.role}`);
  });

  test("every change is journaled before it runs, with its outcome, and no verifier in it", async () => {
    await activate(database, readScope, "sp_grant_one");
    await retire(database.provisioner, readScope, "sp_grant_one");
    expect(database.journal.map(({ action, result }) => [action, result])).toEqual([
      ["scope.create", { status: "ok", sqlState: null, attested: null }],
      ["grant-role.create", { status: "ok", sqlState: null, attested: null }],
      ["grant-role.drop", { status: "ok", sqlState: null, attested: true }],
      ["scope.drop", { status: "ok", sqlState: null, attested: true }],
    ]);
    const text = JSON.stringify(database.journal);
    expect(text).not.toContain("SCRAM-SHA-256$");
    expect(text).not.toContain(grantPassword);
    expect(text).toContain("<verifier>");
  });

  test("nothing is made when the journal cannot write, and a drop happens all the same", async () => {
    await activate(database, readScope, "sp_grant_one");
    const before = await snapshot();
    const provisioner = openProvisioner({
      connection: database.login,
      resource: { name: "billing" },
      clock,
      randomBytes: (length) => Buffer.alloc(length, 7),
      journal: { begin: () => Promise.reject(new SallyportError("ledger.failed", "gateway", "the disk is full")) },
    });
    const scope = await provisioner.compile(writeScope, labels);
    await expect(provisioner.createScope(scope)).rejects.toMatchObject({ code: "ledger.failed" });
    expect(await snapshot()).toBe(before);
    await expect(provisioner.dropGrantRole("sp_grant_one")).rejects.toMatchObject({ code: "ledger.failed" });
    await expect(logIn(database, "sp_grant_one")).rejects.toThrow();
    await provisioner.close();
    expect(await retire(database.provisioner, readScope, "sp_grant_one")).toEqual([true, true]);
  });

  test("a lock that the application holds fails in time, and the scope is made once it is free", async () => {
    const migration = new Client(database.admin);
    await migration.connect();
    await migration.query("BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE");
    const scope = await database.provisioner.compile(readScope, labels);
    const creation = database.provisioner.createScope(scope);
    await new Promise((resolve) => setTimeout(resolve, 2500));
    await migration.query("COMMIT");
    await migration.end();
    await creation;
    expect(database.journal.some(({ result }) => result?.sqlState === "55P03")).toBe(true);
    expect(await retire(database.provisioner, readScope)).toEqual([true]);
  });
});
