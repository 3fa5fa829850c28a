import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findFreePort } from "#store/postgres-process.ts";
import { type DatabaseAddress, type TestPostgres, createDatabase, runSql, startPostgres } from "../support/postgres.ts";
import { type CliResult, type RunningNode, sallyport as runSallyport, startUp } from "./cli-node.ts";

interface DoctorResult {
  readonly findings: readonly { readonly area: string; readonly verdict: string }[];
}

let server: TestPostgres;
let database: DatabaseAddress;
let directory = "";
let environment: Readonly<Record<string, string>> = {};
let node: RunningNode;
const password = "pr0visioner-secret";

const sallyport = (...given: readonly string[]): Promise<CliResult> => runSallyport(directory, given, environment);

beforeAll(async () => {
  server = await startPostgres();
  database = await createDatabase(server, "billing");
  await runSql(
    database,
    `create table customers (id int primary key, name text, email text, ssn text);
     insert into customers values (1, 'Ada', 'ada@example.org', '123-45-6789');
     create role provisioner login createrole password '${password}';
     grant create on database billing to provisioner;
     grant select on customers to provisioner with grant option;
     grant usage on schema public to provisioner with grant option`,
  );
  directory = await mkdtemp(join(tmpdir(), "sallyport cli grant "));
  await runSallyport(directory, ["init", "--name", "cli-grant"]);
  const [postgres, control] = [await findFreePort(), await findFreePort()];
  await writeFile(
    join(directory, "sallyport.yaml"),
    `version: 1
node: { name: cli-grant }
listen: { postgres: "127.0.0.1:${postgres}", control: "127.0.0.1:${control}" }
state: { url: "\${env:STATE_URL}" }
principals:
  - { name: bob, kind: human }
  - { name: support-copilot, kind: agent, owner: bob, expires: 2099-01-01T00:00:00Z }
resources:
  - name: billing
    kind: postgres
    url: postgresql://provisioner:\${env:PROVISIONER_PASSWORD}@127.0.0.1:${server.port}/billing
    labels: { public.customers.email: pii.email }
masks:
  - { label: pii.email, operator: redact }
`,
  );
  const state = await createDatabase(server, "state");
  environment = {
    STATE_URL: `postgresql://${state.user}:${encodeURIComponent(state.password)}@127.0.0.1:${state.port}/state`,
    PROVISIONER_PASSWORD: password,
  };
});

afterAll(async () => {
  node?.child.kill("SIGKILL");
  await server.stop();
  await rm(directory, { recursive: true, force: true });
});

describe("doctor, before the gateway runs", () => {
  test("sees the provisioner's rights, the state database and the clocks", async () => {
    const result = await sallyport("doctor", "--json");
    const { findings }: DoctorResult = JSON.parse(result.out);
    expect(findings).toContainEqual(
      expect.objectContaining({
        area: "resource billing",
        verdict: "ok",
        found: expect.stringContaining("PostgreSQL 18"),
      }),
    );
    expect(findings).toContainEqual(expect.objectContaining({ area: "state", verdict: "ok" }));
    expect(findings.filter((one) => one.verdict === "failure")).toEqual([]);
    expect(result.out).not.toContain(password);
  });

  test("says which SQL gives a right that is missing", async () => {
    await runSql(database, "alter role provisioner nocreaterole; revoke create on database billing from provisioner");
    const { findings }: DoctorResult = JSON.parse((await sallyport("doctor", "--json")).out);
    expect(findings).toContainEqual(
      expect.objectContaining({ verdict: "failure", fix: 'alter role "provisioner" createrole' }),
    );
    expect(findings).toContainEqual(
      expect.objectContaining({ verdict: "failure", fix: expect.stringContaining("grant create") }),
    );
    await runSql(database, "alter role provisioner createrole; grant create on database billing to provisioner");
  });

  test("says that a password is wrong, and not which one it tried", async () => {
    const result = await runSallyport(directory, ["doctor"], { ...environment, PROVISIONER_PASSWORD: "wrong-secret" });
    expect([result.code, result.out]).toEqual([1, expect.stringContaining("28P01")]);
    expect(result.out + result.err).not.toContain("wrong-secret");
  });
});

describe("a grant by the command line", () => {
  interface Connection {
    readonly host: string;
    readonly port: number;
    readonly database: string;
    readonly user: string;
    readonly password: string;
  }
  let grant = "";
  let connection: Connection;

  function grantAdd(principal: string, table: string): Promise<CliResult> {
    const whom = ["--principal", principal, "--resource", "billing", "--task", "T-88"];
    return sallyport("grant", "add", ...whom, "--table", table, "--for", "5m", "--json");
  }

  async function query(sql: string): Promise<readonly Record<string, unknown>[]> {
    const client = new Client({ ...connection });
    await client.connect();
    try {
      const result = await client.query<Record<string, unknown>>(sql);
      return result.rows;
    } finally {
      await client.end();
    }
  }

  test("lets its credential reach what it names, masked, and nothing else", async () => {
    node = await startUp(directory, environment);
    const added = await grantAdd("support-copilot", "public.customers:select:id,email");
    expect(added.code, added.out).toBe(0);
    const answer: { readonly grant: { readonly id: string }; readonly connection: Connection } = JSON.parse(added.out);
    grant = answer.grant.id;
    connection = answer.connection;
    const rows = await query("select id, email from customers");
    expect(rows).toHaveLength(1);
    expect(JSON.stringify(rows)).not.toContain("ada@example.org");
    await expect(query("select ssn from customers")).rejects.toThrow(/ssn/);
  });

  test("is listed, revoked by the start of its id, and gone", async () => {
    const listed = JSON.parse((await sallyport("grant", "ls", "--json")).out);
    expect(listed.grants).toMatchObject([{ id: grant, state: "active", source: "api" }]);
    const revoked = await sallyport("grant", "revoke", grant.slice(0, 9), "--yes", "--reason", "done", "--json");
    expect(JSON.parse(revoked.out)).toMatchObject({
      grant: { id: grant, state: "ended", end: { how: "revoked", reason: "done" } },
    });
    await expect(query("select 1")).rejects.toThrow();
    expect(JSON.parse((await sallyport("grant", "ls", "--json")).out)).toEqual({ grants: [] });
  });

  test("for a principal that is not there is refused with what is", async () => {
    const refused = await grantAdd("nobody", "public.customers:select:id");
    expect(refused.code).not.toBe(0);
    expect(JSON.parse(refused.out)).toMatchObject({
      error: { code: expect.any(String), nextStep: expect.any(String) },
    });
  });

  test("left in the state store no password that logs in, and none in the process's words", async () => {
    const rows = await runSql({ ...database, database: "state" }, "select body::text from sallyport.credentials");
    expect(rows.length).toBeGreaterThan(0);
    expect(JSON.stringify(rows)).not.toContain(connection.password);
  });
});
