import { afterAll, beforeAll, expect, test } from "vitest";

import { startGateway } from "../support/gateway.ts";
import type { TestGateway } from "../support/gateway.ts";
import { runSql } from "../support/postgres.ts";

let gateway: TestGateway;

beforeAll(async () => {
  gateway = await startGateway();
}, 60_000);

afterAll(async () => {
  await gateway.stop();
});

async function made(): Promise<unknown> {
  const [row] = await runSql(
    gateway.database,
    `select (select count(*) from pg_roles where rolname like 'sp\\_grant%')::int as grants,
      (select count(*) from pg_roles where rolname like 'sp\\_scope%')::int as scopes`,
  );
  return row;
}

test("grants of one scope share its role, made and ended at once in any order, and the last one takes it away", async () => {
  for (let round = 0; round < 3; round++) {
    const first = await Promise.all(Array.from({ length: 4 }, () => gateway.grant()));
    expect(await made()).toEqual({ grants: 4, scopes: 1 });
    const [, ...more] = await Promise.all([
      Promise.all(first.map(({ grant }) => gateway.control.revokeGrant(grant.id, "over"))),
      gateway.grant(),
      gateway.grant(),
    ]);
    for (const { connection } of more) {
      const client = await gateway.connect(connection);
      expect((await client.query("select name from customers where id = 1")).rows).toEqual([{ name: "Ada" }]);
      expect((await client.query("select ssn is null as hidden from customers where id = 1")).rows).toHaveLength(1);
      await client.end();
    }
    await Promise.all(more.map(({ grant }) => gateway.control.revokeGrant(grant.id, "over")));
    expect(await made()).toEqual({ grants: 0, scopes: 0 });
  }
});

test("a grant on a table that is not there is refused, says so, and leaves nothing", async () => {
  await expect(
    gateway.grant([{ schema: "public", table: "no_such_table", verbs: ["select"], columns: "all" }]),
  ).rejects.toMatchObject({ code: "scope.unknown-table" });
  expect(await gateway.control.listGrants({ state: "active" })).toEqual([]);
  expect(await made()).toEqual({ grants: 0, scopes: 0 });
});

test("a second table cannot be reached by naming the first one's grant: rights are by credential, never by what a client says", async () => {
  const customers = await gateway.grant([{ schema: "public", table: "customers", verbs: ["select"], columns: ["id"] }]);
  const invoices = await gateway.grant([{ schema: "public", table: "invoices", verbs: ["select"], columns: ["id"] }]);
  const client = await gateway.connect(customers.connection, { applicationName: invoices.grant.id });
  await expect(client.query("select id from invoices")).rejects.toMatchObject({ code: "42P01" });
  await expect(client.query("select name from customers")).rejects.toMatchObject({ code: "42703" });
  expect((await client.query("select * from customers order by 1")).rows).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }]);
});

test("what is refused at the control endpoint is an entry, with the decision id that the asker reads", async () => {
  const ask = (resource: string): Promise<unknown> =>
    gateway.control.startRun({ principal: "support-copilot", resource, task: "nothing", command: "test" });
  for (const resource of ["billing", "no-such-resource"]) {
    const error: unknown = await ask(resource).catch((failure: unknown) => failure);
    expect(error).toMatchObject({ decisionId: expect.stringMatching(/^dec_/) });
    const decision = typeof error === "object" && error !== null && "decisionId" in error ? error.decisionId : null;
    const entries = (await gateway.entries()).map(({ entry }) => entry);
    expect(entries.findLast((entry) => entry.type === "change.outcome")).toMatchObject({
      kind: "run.start",
      status: "failed",
      detail: { decision },
    });
  }
});

test("an expired grant is told and recorded as expired, also to whoever comes later", async () => {
  const { connection, grant } = await gateway.grant(undefined, 1000);
  await new Promise((resolve) => setTimeout(resolve, 1800));
  const error: unknown = await gateway.connect(connection).catch((failure: unknown) => failure);
  expect(error).toMatchObject({ code: "28000", message: expect.stringContaining("expired at") });
  const entries = (await gateway.entries()).map(({ entry }) => entry);
  expect(entries.findLast((entry) => entry.type === "session.refused")).toMatchObject({
    code: "grant.expired",
    grant: grant.id,
  });
});
