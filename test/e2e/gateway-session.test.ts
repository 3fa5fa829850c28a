import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { verifyLedgerDirectory } from "#evidence/verify.ts";
import {
  encodeBind,
  encodeDescribe,
  encodeExecute,
  encodeFlush,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "#protocols/postgres/messages-encode.ts";

import { secrets, startGateway } from "../support/gateway.ts";
import type { TestGateway } from "../support/gateway.ts";
import { runSql } from "../support/postgres.ts";
import { openWire, summary } from "../support/wire.ts";

let gateway: TestGateway;

beforeAll(async () => {
  gateway = await startGateway({ postgres: { settings: { log_statement: "all" } } });
}, 60_000);

afterAll(async () => {
  await gateway.stop();
});

async function errorOf(
  work: Promise<unknown>,
): Promise<{ code: string; message: string; detail: string; hint: string }> {
  try {
    await work;
  } catch (error) {
    if (error instanceof Error) {
      const fields: Partial<Record<string, unknown>> = { ...error };
      return {
        code: String(fields["code"]),
        message: error.message,
        detail: String(fields["detail"]),
        hint: String(fields["hint"]),
      };
    }
  }
  throw new Error("it did not fail");
}

const parse = (text: string, statement = ""): Buffer => encodeParse({ statement, text, parameterTypes: [] });
const bind = (statement = "", portal = ""): Buffer =>
  encodeBind({ portal, statement, parameterFormats: [], values: [], resultFormats: [] });
const execute = (portal = "", rowsMax = 0): Buffer => encodeExecute(portal, rowsMax);

describe("a granted session", () => {
  test("reads what is open as it is and what is labelled as its mask", async () => {
    const { connection } = await gateway.grant();
    const client = await gateway.connect(connection);
    const open = await client.query("select id, name from customers order by id");
    expect(open.rows).toEqual([
      { id: 1, name: "Ada" },
      { id: 2, name: "Grace" },
      { id: 3, name: "Edsger" },
    ]);
    const masked = await client.query("select * from customers order by id");
    const text = JSON.stringify(masked.rows);
    for (const secret of secrets) {
      expect(text).not.toContain(secret);
    }
    expect(masked.rows).toHaveLength(3);
    expect(String(masked.rows[0].email)).toMatch(/@example\.com$/);
    expect(String(masked.rows[0].card)).toMatch(/1111$/);
  });

  test("computes on masked values only: a transformed secret comes back masked", async () => {
    const { connection } = await gateway.grant();
    const client = await gateway.connect(connection);
    for (const sql of [
      "select reverse(ssn) as x from customers",
      "select row_to_json(c) as x from customers c",
      "select upper(email) || card as x from customers",
      "select string_agg(ssn, ',') as x from customers",
      "select c::text as x from customers c",
      "select (select email from customers where id = 1) as x",
      "with s as (select ssn from customers) select max(ssn) as x from s",
    ]) {
      const { rows } = await client.query(sql);
      expect(rows.length).toBeGreaterThan(0);
      const text = JSON.stringify(rows);
      for (const secret of secrets) {
        expect(text, sql).not.toContain(secret);
        expect(text, sql).not.toContain([...secret].toReversed().join(""));
        expect(text.toLowerCase(), sql).not.toContain(secret.toLowerCase());
      }
    }
  });

  test("is denied what the grant does not name, with one decision id in the error and in the record", async () => {
    const { connection } = await gateway.grant();
    const client = await gateway.connect(connection);
    const unknown = await errorOf(client.query("select * from payment_methods"));
    const absent = await errorOf(client.query("select * from no_such_table_at_all"));
    expect(unknown.code).toBe("42P01");
    expect(absent.code).toBe("42P01");
    const id = /dec_[0-9a-z]+/.exec(unknown.message)?.[0] ?? "";
    expect(unknown.detail).toContain(id);
    const denied = (await gateway.entries()).find(
      ({ entry }) => entry.type === "command.denied" && entry.decision.id === id,
    );
    expect(denied).toBeDefined();
    // The session goes on.
    expect((await client.query("select 1 as one")).rows).toEqual([{ one: 1 }]);
  });

  test("runs nothing of a message with one denied statement", async () => {
    const { connection } = await gateway.grant([
      { schema: "public", table: "invoices", verbs: ["select", "update"], columns: "all" },
    ]);
    const client = await gateway.connect(connection);
    const error = await errorOf(client.query("update invoices set status = 'void'; drop table invoices"));
    expect(error.code).toMatch(/^(42501|0A000)$/);
    const [row] = await runSql(gateway.database, "select count(*)::int as n from invoices where status = 'void'");
    expect(row).toEqual({ n: 0 });
  });

  test("leaves intent and outcome for each statement, the intent first, and no secret in the log", async () => {
    const { connection } = await gateway.grant();
    const client = await gateway.connect(connection, { applicationName: "recorded" });
    await client.query("select name, email from customers where id = $1", [1]);
    const entries = await gateway.entries();
    const opened = entries.find(({ entry }) => entry.type === "session.opened" && entry.client === "recorded");
    const session = opened?.entry.type === "session.opened" ? opened.entry.session : "";
    const mine = entries.filter(
      ({ entry }) => "session" in entry && typeof entry.session === "object" && entry.session?.id === session,
    );
    const intent = mine.find(({ entry }) => entry.type === "command.intent");
    const outcome = mine.find(({ entry }) => entry.type === "command.outcome");
    expect(intent?.index).toBeLessThan(outcome?.index ?? -1);
    if (intent?.entry.type !== "command.intent" || outcome?.entry.type !== "command.outcome") {
      throw new Error("no intent or outcome");
    }
    expect(outcome.entry.intent).toBe(intent.index);
    expect(outcome.entry.outcome).toMatchObject({ status: "ok", rows: 1, tag: "SELECT 1" });
    expect(outcome.entry.outcome.redactions).toMatchObject([{ label: "pii.email", cells: 1, output: 2 }]);
    expect(await gateway.payload(intent)).toEqual({ values: '["1"]' });
    const prepared = mine.find(({ entry }) => entry.type === "command.prepared");
    expect(prepared).toBeDefined();
    if (prepared !== undefined) {
      expect((await gateway.payload(prepared))["statement"]).toContain("select name, email from customers");
    }
  });

  test("finds only the granted tables by discovery, under their own names", async () => {
    const { connection } = await gateway.grant();
    const client = await gateway.connect(connection);
    const tables = await client.query(
      "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 2",
    );
    expect(tables.rows).toEqual([
      { table_schema: "public", table_name: "customers" },
      { table_schema: "public", table_name: "invoices" },
    ]);
    const columns = await client.query(
      "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = $1",
      ["customers"],
    );
    expect(columns.rows.map((row) => String(row.column_name)).toSorted((a, b) => (a < b ? -1 : 1))).toEqual([
      "card",
      "email",
      "id",
      "joined",
      "name",
      "ssn",
    ]);
  });
});

describe("the extended protocol", () => {
  test("a pipeline is answered in order, each group by itself", async () => {
    const { connection } = await gateway.grant();
    const wire = await openWire(connection);
    wire.send(parse("select 1"), bind(), execute(), encodeSync(), parse("select 2"), bind(), execute(), encodeSync());
    expect(summary(await wire.untilReady())).toEqual([
      "parse-complete",
      "bind-complete",
      "row 1",
      "complete SELECT 1",
      "ready idle",
    ]);
    expect(summary(await wire.untilReady())).toContain("row 2");
    wire.close();
  });

  test("a denial in a pipeline answers in its place and what went before it in the group commits nothing", async () => {
    const { connection } = await gateway.grant([
      { schema: "public", table: "notes", verbs: ["select", "insert"], columns: "all" },
    ]);
    const wire = await openWire(connection);
    wire.send(
      parse("insert into notes (customer_id, body) values (1, 'pipelined')"),
      bind(),
      execute(),
      parse("select * from payment_methods"),
      bind(),
      execute(),
      encodeSync(),
    );
    const answers = summary(await wire.untilReady());
    expect(answers).toEqual(["parse-complete", "bind-complete", "complete INSERT 0 1", "error 42P01", "ready idle"]);
    const [row] = await runSql(gateway.database, "select count(*)::int as n from notes where body = 'pipelined'");
    expect(row).toEqual({ n: 0 });
    const entries = await gateway.entries();
    expect(entries.some(({ entry }) => entry.type === "transaction.ended" && entry.how === "rollback")).toBe(true);
    wire.close();
  });

  test("a name that upstream refused to define again keeps its first meaning", async () => {
    const { connection } = await gateway.grant();
    const wire = await openWire(connection);
    wire.send(parse("select 1", "s"), encodeSync());
    await wire.untilReady();
    wire.send(parse("select id, email from customers", "s"), encodeSync());
    expect(summary(await wire.untilReady())).toEqual(["error 42P05", "ready idle"]);
    wire.send(bind("s"), execute(), encodeSync());
    expect(summary(await wire.untilReady())).toContain("row 1");
    wire.close();
  });

  test("a statement that failed upstream is not there for a later group that was already on its way", async () => {
    const { connection } = await gateway.grant();
    const wire = await openWire(connection);
    wire.send(
      parse("select 1/0", "a"),
      bind("a"),
      execute(),
      parse("select 7", "b"),
      encodeSync(),
      bind("b"),
      execute(),
      encodeSync(),
    );
    expect(summary(await wire.untilReady())).toContain("error 22012");
    expect(summary(await wire.untilReady())).toEqual(["error 26000", "ready idle"]);
    wire.close();
  });

  test("a portal fetched in parts is one command with an outcome for each part", async () => {
    const { connection } = await gateway.grant();
    const wire = await openWire(connection);
    wire.send(
      parse("select id from invoices order by id"),
      bind(),
      execute("", 5),
      execute("", 5),
      execute("", 5),
      encodeSync(),
    );
    const answers = summary(await wire.untilReady());
    expect(answers.filter((answer) => answer === "portal-suspended")).toHaveLength(2);
    expect(answers.filter((answer) => answer.startsWith("row"))).toHaveLength(12);
    const entries = await gateway.entries();
    const intent = entries.findLast(({ entry }) => entry.type === "command.intent");
    const outcomes = entries.filter(({ entry }) => entry.type === "command.outcome" && entry.intent === intent?.index);
    expect(outcomes.map(({ entry }) => (entry.type === "command.outcome" ? entry.outcome.rows : -1))).toEqual([
      5, 5, 2,
    ]);
    wire.close();
  });

  test("a group of thousands of messages is answered, with and without an error in its middle", async () => {
    const { connection } = await gateway.grant();
    const wire = await openWire(connection);
    const one = Buffer.concat([parse("select 1"), bind(), execute()]);
    wire.send(...Array.from({ length: 3000 }, () => one), encodeSync());
    const answers = summary(await wire.untilReady());
    expect(answers.filter((answer) => answer === "row 1")).toHaveLength(3000);
    const half = Array.from({ length: 1500 }, () => one);
    wire.send(...half, parse("select 1/0"), bind(), execute(), ...half, encodeSync());
    const broken = summary(await wire.untilReady());
    expect(broken.filter((answer) => answer === "row 1")).toHaveLength(1500);
    expect(broken.slice(-2)).toEqual(["error 22012", "ready idle"]);
    wire.close();
  });

  test("Flush brings the answer to Describe before Sync", async () => {
    const { connection } = await gateway.grant();
    const wire = await openWire(connection);
    wire.send(
      parse("select name, email from customers where id = $1", "d"),
      encodeDescribe("statement", "d"),
      encodeFlush(),
    );
    await new Promise((resolve) => setTimeout(resolve, 300));
    wire.send(encodeSync());
    expect(summary(await wire.untilReady())).toEqual([
      "parse-complete",
      "parameter-description",
      "row-description",
      "ready idle",
    ]);
    wire.close();
  });
});

describe("prepared statements in SQL", () => {
  test("are decided when they are prepared, recorded at each EXECUTE, masked, and gone after DEALLOCATE", async () => {
    const { connection } = await gateway.grant();
    const client = await gateway.connect(connection);
    await client.query("prepare who (int) as select id, name, ssn from customers where id = $1");
    const { rows } = await client.query("execute who(1)");
    expect(rows).toEqual([{ id: 1, name: "Ada", ssn: expect.not.stringContaining("987") }]);
    const entries = (await gateway.entries()).map(({ entry }) => entry);
    const intent = entries.findLast((entry) => entry.type === "command.intent");
    expect(intent).toMatchObject({ kind: "select", effects: [{ verb: "select", object: "public.customers" }] });
    expect(entries.findLast((entry) => entry.type === "command.outcome")).toMatchObject({
      outcome: { rows: 1, redactions: [{ label: "pii.ssn", cells: 1 }] },
    });
    expect((await errorOf(client.query("prepare who as select 1"))).code).toBe("42P05");
    expect((await errorOf(client.query("prepare hidden as select * from payment_methods"))).code).toBe("42P01");
    expect((await errorOf(client.query("execute hidden"))).code).toBe("26000");
    expect((await errorOf(client.query("prepare w as delete from invoices"))).code).toMatch(/42501|0A000/);
    await client.query("deallocate who");
    expect((await errorOf(client.query("execute who(1)"))).code).toBe("26000");
    await client.query("prepare again as select 2 as two");
    await client.query("deallocate all");
    expect((await errorOf(client.query("execute again"))).code).toBe("26000");
  });

  test("a name means the same whether SQL or the protocol gave it", async () => {
    const { connection } = await gateway.grant();
    const wire = await openWire(connection);
    wire.send(encodeQuery("prepare shared as select 11"));
    expect(summary(await wire.untilReady())).toEqual(["complete PREPARE", "ready idle"]);
    wire.send(parse("select name from customers", "shared"), encodeSync());
    expect(summary(await wire.untilReady())).toEqual(["error 42P05", "ready idle"]);
    wire.send(bind("shared"), execute(), encodeSync());
    expect(summary(await wire.untilReady())).toContain("row 11");
    wire.send(encodeQuery("begin; execute shared"));
    expect(summary(await wire.untilReady())).toEqual(["error 0A000", "ready idle"]);
    wire.close();
  });
});

describe("the control endpoint", () => {
  test("a request without the token is turned away and recorded", async () => {
    const { control } = await gateway.control.status();
    const answer = await fetch(`http://${control.host}:${control.port}/v1/status`, {
      headers: { authorization: "Bearer guessed" },
    });
    expect(answer.status).toBe(401);
    await new Promise((resolve) => setTimeout(resolve, 1300));
    const entries = await gateway.entries();
    expect(entries.map(({ entry }) => entry)).toContainEqual(
      expect.objectContaining({ type: "control.refused", code: "request.token", count: 1 }),
    );
  });
});

describe("the record", () => {
  test("of everything above verifies offline with the key from outside", async () => {
    const status = await gateway.control.status();
    const found = await verifyLedgerDirectory({
      directory: status.ledger.directory,
      verifierKey: status.ledger.verifierKey,
    });
    expect(found.faults).toEqual([]);
    expect(found.integrity).toBe("intact");
    expect(found.completeness).toBe("complete");
  });
});

describe("transactions", () => {
  test("a denial makes the transaction fail, so that a later COMMIT rolls back and says so", async () => {
    const { connection } = await gateway.grant([
      { schema: "public", table: "notes", verbs: ["select", "insert"], columns: "all" },
    ]);
    const wire = await openWire(connection);
    wire.send(encodeQuery("begin"));
    expect(summary(await wire.untilReady())).toEqual(["complete BEGIN", "ready in-transaction"]);
    wire.send(encodeQuery("insert into notes (customer_id, body) values (2, 'in transaction')"));
    expect(summary(await wire.untilReady())).toContain("complete INSERT 0 1");
    wire.send(encodeQuery("select * from payment_methods"));
    expect(summary(await wire.untilReady())).toEqual(["error 42P01", "ready failed"]);
    wire.send(encodeQuery("commit"));
    expect(summary(await wire.untilReady())).toEqual(["complete ROLLBACK", "ready idle"]);
    const [row] = await runSql(gateway.database, "select count(*)::int as n from notes where body = 'in transaction'");
    expect(row).toEqual({ n: 0 });
    wire.close();
  });

  test("several statements in one message are each recorded", async () => {
    const { connection } = await gateway.grant();
    const wire = await openWire(connection);
    wire.send(encodeQuery("select 1; select name from customers where id = 1; ;"));
    expect(summary(await wire.untilReady())).toEqual([
      "row-description",
      "row 1",
      "complete SELECT 1",
      "row-description",
      "row Ada",
      "complete SELECT 1",
      "ready idle",
    ]);
    const intents = (await gateway.entries()).filter(
      ({ entry }) => entry.type === "command.intent" && entry.statements === 2,
    );
    expect(intents.length).toBeGreaterThanOrEqual(2);
    wire.send(encodeQuery(""));
    expect(summary(await wire.untilReady())).toEqual(["empty-query", "ready idle"]);
    wire.close();
  });
});
