/** A client with a valid credential and no manners. What others let through is each tried once; then bytes at random. */
import { readFile } from "node:fs/promises";

import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { ConnectionDetails } from "#domain/control.ts";
import { limits } from "#domain/limits.ts";
import {
  encodeBind,
  encodeExecute,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "#protocols/postgres/messages-encode.ts";

import { secrets, startGateway } from "../../support/gateway.ts";
import type { TestGateway } from "../../support/gateway.ts";
import { runSql } from "../../support/postgres.ts";
import { openWire, summary } from "../../support/wire.ts";

let gateway: TestGateway;
let connection: ConnectionDetails;

beforeAll(async () => {
  gateway = await startGateway({ postgres: { settings: { log_statement: "all" } } });
  ({ connection } = await gateway.grant([
    { schema: "public", table: "customers", verbs: ["select"], columns: "all" },
    { schema: "public", table: "notes", verbs: ["select", "insert", "delete"], columns: "all" },
  ]));
}, 60_000);

afterAll(async () => {
  await gateway.stop();
});

async function serverLog(): Promise<string> {
  return readFile(gateway.postgres.logFile, "utf8");
}

async function stillServes(): Promise<void> {
  const wire = await openWire(connection);
  wire.send(encodeQuery("select 1"));
  expect(summary(await wire.untilReady())).toContain("row 1");
  wire.close();
}

const bindValue = (value: string, formats: readonly number[] = []): Buffer =>
  encodeBind({
    portal: "",
    statement: "five",
    parameterFormats: [],
    values: [Buffer.from(value)],
    resultFormats: formats,
  });

describe("what got past other gateways", () => {
  test("a statement behind eight megabytes of comment is refused before a byte of it goes out", async () => {
    await runSql(gateway.database, "insert into notes (customer_id, body) values (1, 'kept')");
    const wire = await openWire(connection);
    wire.send(encodeQuery(`/*${"x".repeat(8 * 1024 * 1024)}*/ delete from notes`));
    const told = summary(await wire.untilEnd());
    expect(told.at(-1)).toMatch(/^error 54000/);
    const [row] = await runSql(gateway.database, "select count(*)::int as n from notes where body = 'kept'");
    expect(row).toEqual({ n: 1 });
    const entries = (await gateway.entries()).map(({ entry }) => entry);
    expect(entries.findLast((entry) => entry.type === "command.denied")).toMatchObject({
      decision: { code: "statement.too-large" },
    });
    await stillServes();
  });

  test("a statement at the limit runs, and one byte more is denied in place", async () => {
    const wire = await openWire(connection);
    const fill = (bytes: number): Buffer => {
      const text = "select 1 /*";
      return encodeQuery(`${text}${"x".repeat(bytes - text.length - 2)}*/`);
    };
    wire.send(fill(limits.statementBytesMax));
    expect(summary(await wire.untilReady())).toContain("row 1");
    wire.send(fill(limits.statementBytesMax + 1));
    expect(summary(await wire.untilEnd()).at(-1)).toMatch(/^error 54000/);
  });

  test("one Parse with five executions gives five records, each with its own value", async () => {
    const wire = await openWire(connection);
    const values = ["v-one", "v-two", "v-three", "v-four", "v-five"];
    wire.send(
      encodeParse({ statement: "five", text: "select $1::text", parameterTypes: [] }),
      ...values.flatMap((value) => [bindValue(value), encodeExecute("", 0)]),
      encodeSync(),
    );
    expect(summary(await wire.untilReady()).filter((line) => line.startsWith("row"))).toHaveLength(5);
    const entries = await gateway.entries();
    const intents = entries.filter(({ entry }) => entry.type === "command.intent").slice(-5);
    const recorded = await Promise.all(intents.map((intent) => gateway.payload(intent)));
    expect(recorded.map((fields) => fields["values"])).toEqual(values.map((value) => JSON.stringify([value])));
    wire.close();
  });

  test("a prepared statement run again without Describe is masked, in text and in binary", async () => {
    const wire = await openWire(connection);
    wire.send(
      encodeParse({ statement: "five", text: "select ssn, email from customers where name = $1", parameterTypes: [] }),
      encodeSync(),
    );
    await wire.untilReady();
    for (const formats of [[0], [1], [0, 1]]) {
      wire.send(bindValue("Ada", formats), encodeExecute("", 0), encodeSync());
      const told = summary(await wire.untilReady()).join("\n");
      expect(told).toContain("row");
      for (const secret of secrets) {
        expect(told).not.toContain(secret);
      }
    }
    wire.close();
  });

  test("a parameter declared as a name's type, and a setting bound at run time, are held to the same rules", async () => {
    const wire = await openWire(connection);
    wire.send(encodeParse({ statement: "", text: "select $1::text", parameterTypes: [2205] }), encodeSync());
    expect(summary(await wire.untilReady())).toEqual(["error 0A000", "ready idle"]);
    const set = async (name: string, value: string): Promise<string> => {
      wire.send(
        encodeParse({ statement: "", text: "select set_config($1, $2, false)", parameterTypes: [] }),
        encodeBind({
          portal: "",
          statement: "",
          parameterFormats: [],
          values: [Buffer.from(name), Buffer.from(value)],
          resultFormats: [],
        }),
        encodeExecute("", 0),
        encodeSync(),
      );
      return summary(await wire.untilReady()).join(" ");
    };
    expect(await set("statement_timeout", "5000")).toContain("row 5s");
    expect(await set("statement_timeout", "0")).toContain("error 42501");
    expect(await set("search_path", "pg_temp")).toContain("error 42501");
    expect(await set("session_authorization", "postgres")).toContain("error 42501");
    wire.close();
  });

  test("a read inside a SERIALIZABLE transaction waits for its record, since others see its conflicts", async () => {
    const wire = await openWire(connection);
    wire.send(
      encodeQuery("begin isolation level serializable"),
      encodeQuery("select count(*) from notes /* serial */"),
    );
    await wire.untilReady();
    await wire.untilReady();
    wire.send(encodeQuery("commit"), encodeQuery("select count(*) from notes /* plain */"));
    await wire.untilReady();
    await wire.untilReady();
    wire.send(encodeQuery("select count(*) from notes /* plain again */"));
    await wire.untilReady();
    const intents = (await gateway.entries()).flatMap(({ entry }) => (entry.type === "command.intent" ? [entry] : []));
    expect(intents.slice(-5).map((entry) => entry.pure)).toEqual([false, false, false, expect.any(Boolean), true]);
    wire.close();
  });

  test("EXECUTE in SQL cannot set what a bound set_config may not", async () => {
    const wire = await openWire(connection);
    wire.send(
      encodeParse({ statement: "s", text: "select set_config($1, $2, false)", parameterTypes: [] }),
      encodeSync(),
      encodeQuery("execute s('standard_conforming_strings', 'off')"),
      encodeQuery("select 'x\\', 'y, (select 1) --'"),
    );
    await wire.untilReady();
    expect(summary(await wire.untilReady())).toEqual(["error 42501", "ready idle"]);
    expect(summary(await wire.untilReady())).toContain("row x\\,y, (select 1) --");
    wire.close();
  });

  test("names that PostgreSQL would take for one another are refused", async () => {
    const wire = await openWire(connection);
    const stem = "a".repeat(63);
    const bind = (statement: string, portal: string): Buffer =>
      encodeBind({ portal, statement, parameterFormats: [], values: [], resultFormats: [] });
    wire.send(encodeParse({ statement: `${stem}X`, text: "select 1", parameterTypes: [] }), encodeSync());
    expect(summary(await wire.untilReady())).toEqual(["error 54000", "ready idle"]);
    wire.send(encodeParse({ statement: stem, text: "select 1", parameterTypes: [] }), encodeSync());
    expect(summary(await wire.untilReady())).toEqual(["parse-complete", "ready idle"]);
    for (const frame of [bind(`${stem}Y`, ""), bind(stem, `${stem}Y`), encodeExecute(`${stem}Y`, 0)]) {
      wire.send(frame, encodeSync());
      expect(summary(await wire.untilReady())).toEqual(["error 54000", "ready idle"]);
    }
    wire.close();
  });

  test("Terminate lets go of what the session holds, also when the socket stays open", async () => {
    const wire = await openWire(connection);
    wire.send(encodeQuery("begin"), encodeQuery("delete from notes where id = 1"));
    await wire.untilReady();
    await wire.untilReady();
    wire.send(Buffer.from([0x58, 0, 0, 0, 4]));
    let open = 1;
    for (let i = 0; i < 30 && open > 0; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      const [row] = await runSql(
        gateway.database,
        "select count(*)::int as n from pg_stat_activity where usename like 'sp\\_grant%' and state = 'idle in transaction'",
      );
      open = Number(row?.["n"]);
    }
    expect(open).toBe(0);
    wire.close();
  });

  test("a flood of connections that say nothing keeps nobody out, and cancel requests without a key fill no log", async () => {
    const { connect } = await import("node:net");
    const silent = Array.from({ length: limits.handshakesMax + 50 }, () => {
      const socket = connect(connection.port, connection.host);
      socket.on("error", () => {});
      return socket;
    });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await stillServes();
    for (const socket of silent) {
      socket.destroy();
    }
    const before = (await gateway.entries()).length;
    const { sendCancel } = await import("#protocols/postgres/handshake-upstream.ts");
    await Promise.all(
      Array.from({ length: 100 }, (_, index) =>
        sendCancel(connection, { processId: 1, secretKey: index }, AbortSignal.timeout(5000)),
      ),
    );
    await new Promise((resolve) => setTimeout(resolve, 1300));
    const cancels = (await gateway.entries())
      .slice(before)
      .flatMap(({ entry }) => (entry.type === "cancel.requested" ? [entry.count] : []));
    expect(cancels.length).toBeLessThan(5);
    expect(cancels.reduce((sum, count) => sum + count, 0)).toBe(100);
  });

  test("a constraint's words do not name what is outside the grant", async () => {
    await runSql(
      gateway.database,
      "create table if not exists hidden_child (note int references notes (id)); insert into notes (id, body) values (9001, 'x'); insert into hidden_child values (9001)",
    );
    const wire = await openWire(connection);
    wire.send(encodeQuery("delete from notes where id = 9001"));
    const told = await wire.untilReady();
    expect(summary(told)).toEqual(["error 23503", "ready idle"]);
    expect(JSON.stringify(told.map((message) => (message.kind === "error" ? [...message.fields] : [])))).not.toContain(
      "hidden_child",
    );
    wire.close();
  });

  test("FunctionCall and COPY data outside COPY reach nobody", async () => {
    const wire = await openWire(connection);
    const call = Buffer.from([0x46, 0, 0, 0, 14, 0, 0, 0x04, 0xd2, 0, 0, 0, 0, 0, 0]);
    wire.send(call);
    expect(summary(await wire.untilReady())).toEqual(["error 0A000", "ready idle"]);
    wire.send(Buffer.from([0x64, 0, 0, 0, 8, 1, 2, 3, 4]), Buffer.from([0x63, 0, 0, 0, 4]), encodeQuery("select 5"));
    expect(summary(await wire.untilReady())).toContain("row 5");
    const entries = (await gateway.entries()).map(({ entry }) => entry);
    expect(
      entries.some((entry) => entry.type === "command.denied" && entry.decision.code === "protocol.unsupported"),
    ).toBe(true);
    wire.close();
  });

  test("a message of an unknown type ends the session with a recorded denial", async () => {
    const wire = await openWire(connection);
    wire.send(Buffer.from([0x7a, 0, 0, 0, 4]));
    expect(summary(await wire.untilEnd()).at(-1)).toBe("error 08P01");
    const entries = (await gateway.entries()).map(({ entry }) => entry);
    expect(entries.findLast((entry) => entry.type === "command.denied")).toMatchObject({
      decision: { code: "protocol.violation" },
    });
    await stillServes();
  });

  test("text that is not UTF-8 is denied in place, and so is a byte after the first NUL", async () => {
    const wire = await openWire(connection);
    wire.send(Buffer.from([0x51, 0, 0, 0, 10, 0x73, 0x27, 0xff, 0xfe, 0x27, 0]));
    expect(summary(await wire.untilReady())).toEqual(["error 22021", "ready idle"]);
    wire.send(encodeQuery("select 6"));
    expect(summary(await wire.untilReady())).toContain("row 6");
    wire.send(Buffer.from([0x51, 0, 0, 0, 22]), Buffer.from("select 1\0delete x\0"));
    expect(summary(await wire.untilEnd()).at(-1)).toMatch(/^error/);
    expect(await serverLog()).not.toContain("delete x");
  });

  test("an error that quotes values leaves without them when masked columns take part", async () => {
    const wire = await openWire(connection);
    for (const text of [
      "select ssn::int from customers",
      "select 1/(length(email) - length(email)) from customers",
      "select name from customers where card::date = now()",
    ]) {
      wire.send(encodeQuery(text));
      const told = JSON.stringify(
        (await wire.untilReady()).map((message) => (message.kind === "error" ? [...message.fields] : message.kind)),
      );
      for (const secret of secrets) {
        expect(told, text).not.toContain(secret);
      }
    }
    wire.close();
  });

  test("a denied statement never reaches the server's log", async () => {
    const wire = await openWire(connection);
    wire.send(encodeQuery("select 'needle-denied' from payment_methods; drop table customers /* needle-drop */"));
    await wire.untilReady();
    const log = await serverLog();
    expect(log).not.toContain("needle-denied");
    expect(log).not.toContain("needle-drop");
    wire.close();
  });
});

describe("bytes at random", () => {
  const honest = Buffer.concat([
    encodeQuery("select name from customers"),
    encodeParse({ statement: "a", text: "select $1::int", parameterTypes: [23] }),
    encodeBind({ portal: "p", statement: "a", parameterFormats: [], values: [Buffer.from("1")], resultFormats: [] }),
    encodeExecute("p", 1),
    encodeSync(),
    encodeQuery("select 2; select 3"),
  ]);

  test("end at most the session that sent them", async () => {
    const marker = "not-to-be-forwarded";
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(honest.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        fc.nat(honest.length),
        async (changes, length) => {
          const bytes = Buffer.from(honest);
          for (const [at, value] of changes) {
            bytes[at] = value;
          }
          const wire = await openWire(connection);
          wire.send(
            bytes.subarray(0, length === 0 ? honest.length : length),
            encodeQuery(`select '${marker}' from secrets`),
          );
          await Promise.race([wire.untilEnd(), new Promise((resolve) => setTimeout(resolve, 30))]);
          wire.close();
        },
      ),
      { numRuns: 150 },
    );
    await stillServes();
    expect(await serverLog()).not.toContain(marker);
    for (let i = 0; i < 40 && (await gateway.control.listSessions()).length > 0; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    expect(await gateway.control.listSessions()).toEqual([]);
  }, 60_000);
});
