import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { Client } from "pg";

import {
  encodeBind,
  encodeExecute,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "#protocols/postgres/messages-encode.ts";

import { startGateway } from "../support/gateway.ts";
import type { TestGateway } from "../support/gateway.ts";
import { runSql } from "../support/postgres.ts";
import { openWire, summary } from "../support/wire.ts";

let gateway: TestGateway;

beforeAll(async () => {
  gateway = await startGateway();
}, 60_000);

afterAll(async () => {
  await gateway.stop();
});

const slow =
  "select count(*) from invoices a, invoices b, invoices c, invoices d, invoices e, invoices f, invoices g, invoices h";

async function grantRoles(): Promise<number> {
  const [row] = await runSql(
    gateway.database,
    "select count(*)::int as n from pg_roles where rolname like 'sp\\_grant%'",
  );
  return Number(row?.["n"]);
}

async function backends(): Promise<number> {
  const [row] = await runSql(
    gateway.database,
    "select count(*)::int as n from pg_stat_activity where usename like 'sp\\_grant%'",
  );
  return Number(row?.["n"]);
}

async function failure(work: Promise<unknown>): Promise<Error & { code?: string }> {
  try {
    await work;
  } catch (error) {
    if (error instanceof Error) {
      return error;
    }
  }
  throw new Error("it did not fail");
}

describe("when a grant is revoked", () => {
  test("what runs, what is open and what is idle end within a second, and each client reads why and lives on", async () => {
    const { connection, grant } = await gateway.grant();
    const running = await gateway.connect(connection);
    const idle = await gateway.connect(connection);
    const open = await gateway.connect(connection);
    await open.query("begin");
    await open.query("select 1");
    const work = failure(running.query(slow));
    await new Promise((resolve) => setTimeout(resolve, 150));
    const startedMs = performance.now();
    const revoking = gateway.control.revokeGrant(grant.id, "the task is done");
    const told = await work;
    expect(performance.now() - startedMs).toBeLessThan(1000);
    expect(told.message).toContain("the grant was revoked: the task is done");
    expect(told.message).toMatch(/dec_[0-9a-z]+/);
    const ended = await revoking;
    expect(performance.now() - startedMs).toBeLessThan(1000);
    expect(ended.state).toBe("ended");
    expect(await backends()).toBe(0);
    for (const client of [running, idle, open]) {
      const error = await failure(client.query("select name from customers"));
      expect(error.code).toBe("42501");
      expect(error.message).toContain("the task is done");
    }
    await Promise.all([running, idle, open].map((client: Client) => client.end()));
    expect(await grantRoles()).toBe(0);
  });

  test("a pipeline that was under way is answered to its end, each Sync with its ReadyForQuery", async () => {
    const { connection, grant } = await gateway.grant();
    const wire = await openWire(connection);
    const parse = (text: string): Buffer => encodeParse({ statement: "", text, parameterTypes: [] });
    const bind = encodeBind({ portal: "", statement: "", parameterFormats: [], values: [], resultFormats: [] });
    wire.send(
      parse(slow),
      bind,
      encodeExecute("", 0),
      encodeSync(),
      parse("select 2"),
      bind,
      encodeExecute("", 0),
      encodeSync(),
    );
    wire.send(encodeQuery("select 3"));
    await new Promise((resolve) => setTimeout(resolve, 150));
    await gateway.control.revokeGrant(grant.id, "over");
    const first = summary(await wire.untilReady());
    expect(first.at(-2)).toBe("error 42501");
    expect(first.at(-1)).toBe("ready idle");
    expect(summary(await wire.untilReady())).toEqual(["error 42501", "ready idle"]);
    expect(summary(await wire.untilReady())).toEqual(["error 42501", "ready idle"]);
    // And so is what comes later, in both protocols.
    wire.send(parse("select 4"), bind, encodeExecute("", 0), encodeSync(), encodeQuery("select 5"));
    expect(summary(await wire.untilReady())).toEqual(["error 42501", "ready idle"]);
    expect(summary(await wire.untilReady())).toEqual(["error 42501", "ready idle"]);
    wire.close();
  });

  test("the record has the reason, the drop with its attestation, and every later try as a denial", async () => {
    const { connection, grant } = await gateway.grant();
    const client = await gateway.connect(connection);
    await gateway.control.revokeGrant(grant.id, "leaving");
    await failure(client.query("select 1"));
    const entries = (await gateway.entries()).map(({ entry }) => entry);
    const intent = entries.find(
      (entry) => entry.type === "change.intent" && entry.kind === "grant.revoke" && entry.object === grant.id,
    );
    expect(intent).toBeDefined();
    const drop = entries.findLast((entry) => entry.type === "provision.intent" && entry.action === "grant-role.drop");
    const outcome = entries.findLast(
      (entry) =>
        entry.type === "provision.outcome" && drop?.type === "provision.intent" && entry.change === drop.change,
    );
    expect(outcome).toMatchObject({ status: "ok", attested: true });
    const denial = entries.findLast((entry) => entry.type === "command.denied");
    expect(denial).toMatchObject({ session: { grant: grant.id }, decision: { code: "grant.revoked" } });
    await client.end();
  });

  test("nobody logs in with its credential any more, and the refusal is an entry with the id that the client reads", async () => {
    const { connection, grant } = await gateway.grant();
    await gateway.control.revokeGrant(grant.id, "over");
    const error = await failure(gateway.connect(connection));
    expect(error.code).toMatch(/^28/);
    const id = /dec_[0-9a-z]+/.exec(error.message)?.[0];
    const refused = (await gateway.entries()).find(
      ({ entry }) => entry.type === "session.refused" && entry.decision === id,
    );
    expect(refused?.entry).toMatchObject({ grant: grant.id });
  });
});

describe("when a grant expires", () => {
  test("it ends to the second, whatever is running, and its roles and scope are dropped", async () => {
    const { connection, grant } = await gateway.grant(undefined, 1500);
    const client = await gateway.connect(connection);
    const error = await failure(client.query(slow));
    expect(Date.now() - grant.expiresAtMs).toBeLessThan(1000);
    expect(error.message).toMatch(/the grant expired at/);
    expect((await failure(client.query("select 1"))).message).toMatch(/the grant expired at/);
    await client.end();
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(await grantRoles()).toBe(0);
    const [left] = await runSql(
      gateway.database,
      "select (select count(*) from pg_roles where rolname like 'sp\\_scope%')::int as roles, (select count(*) from pg_namespace where nspname like 'sallyport\\_%' and nspname <> 'sallyport_shadow')::int as schemas",
    );
    expect(left).toEqual({ roles: 0, schemas: 0 });
  });

  test("a session opened in its last moments gets no more time than the grant has", async () => {
    const { connection, grant } = await gateway.grant(undefined, 1500);
    await new Promise((resolve) => setTimeout(resolve, 700));
    const client = await gateway.connect(connection);
    const [session] = (await gateway.control.listSessions()).filter((one) => one.grantId === grant.id);
    expect(session?.deadlineMs).toBe(grant.expiresAtMs);
    await client.end();
  });
});

describe("a run", () => {
  test("ends with its credential and its sessions, however its end and a login race", async () => {
    for (const old of await gateway.control.listGrants({ state: "active" })) {
      await gateway.control.revokeGrant(old.id, "making room");
    }
    await gateway.grant();
    for (let round = 0; round < 5; round++) {
      const [grant] = await gateway.control.listGrants({ state: "active" });
      const run = await gateway.control.startRun({
        principal: "support-copilot",
        resource: "billing",
        task: grant?.task ?? "",
        command: "test",
      });
      const logins = Promise.allSettled(
        Array.from({ length: 8 }, async (_, index) => {
          await new Promise((resolve) => setTimeout(resolve, index * 4));
          const client = await gateway.connect(run.connection);
          await client.query("select 1");
          return client;
        }),
      );
      await new Promise((resolve) => setTimeout(resolve, 15));
      await gateway.control.endRun(run.runId, "over");
      const settled = await logins;
      for (const one of settled) {
        if (one.status === "fulfilled") {
          await failure(one.value.query("select 1"));
          await one.value.end().catch(() => null);
        }
      }
      await failure(gateway.connect(run.connection));
      const live = (await gateway.control.listSessions()).filter(
        (one) => one.runId === run.runId && one.state === "live",
      );
      expect(live).toEqual([]);
    }
    for (const grant of await gateway.control.listGrants({ state: "active" })) {
      await gateway.control.revokeGrant(grant.id, "done");
    }
  });
});

describe("a cancel request", () => {
  test("ends only what the session that owns the key runs", async () => {
    const { connection } = await gateway.grant();
    const mine = await openWire(connection);
    const other = await openWire(connection);
    const { sendCancel } = await import("#protocols/postgres/handshake-upstream.ts");
    const at = { host: connection.host, port: connection.port };
    mine.send(encodeQuery(slow));
    await new Promise((resolve) => setTimeout(resolve, 150));
    const signal = AbortSignal.timeout(5000);
    await sendCancel(at, other.cancelKey, signal);
    await sendCancel(at, { ...mine.cancelKey, secretKey: mine.cancelKey.secretKey ^ 1 }, signal);
    await new Promise((resolve) => setTimeout(resolve, 200));
    await sendCancel(at, mine.cancelKey, signal);
    expect(summary(await mine.untilReady())).toContain("error 57014");
    const cancels = (await gateway.entries()).filter(({ entry }) => entry.type === "cancel.requested");
    expect(cancels.map(({ entry }) => entry.type === "cancel.requested" && entry.known)).toEqual([true, true]);
    mine.close();
    other.close();
  });
});
