/** Each law at its worst moment: the ledger fails, the masker cannot read, the resource dies in the middle of a row, the client vanishes. */
import { afterEach, describe, expect, test } from "vitest";

import { nodeFiles } from "#ledger/files.ts";
import type { Files } from "#ledger/files.ts";
import { encodeQuery } from "#protocols/postgres/messages-encode.ts";

import { secrets, startGateway } from "../support/gateway.ts";
import type { TestGateway } from "../support/gateway.ts";
import { runSql } from "../support/postgres.ts";
import { startTamper } from "../support/tamper.ts";
import type { Tamper } from "../support/tamper.ts";
import { openWire, summary } from "../support/wire.ts";

let gateway: TestGateway | null = null;
let tamper: Tamper | null = null;

afterEach(async () => {
  await gateway?.stop();
  await tamper?.[Symbol.asyncDispose]();
  gateway = null;
  tamper = null;
});

/** File operations whose syncs fail, or wait, once told to. */
function breakable(): { files: Files; fail(): void; hold(): () => void } {
  let failing = false;
  let held: Promise<void> | null = null;
  return {
    files: {
      ...nodeFiles,
      open: async (path, how) => {
        const file = await nodeFiles.open(path, how);
        return {
          write: (bytes) => file.write(bytes),
          truncate: (size) => file.truncate(size),
          close: () => file.close(),
          sync: async () => {
            await held;
            if (failing) {
              throw Object.assign(new Error("input/output error"), { code: "EIO" });
            }
            await file.sync();
          },
        };
      },
    },
    fail: () => {
      failing = true;
    },
    hold: () => {
      const gate = Promise.withResolvers<void>();
      held = gate.promise;
      return () => {
        held = null;
        gate.resolve();
      };
    },
  };
}

async function started(ledgerFiles?: Files): Promise<TestGateway> {
  gateway = await startGateway({
    postgres: { settings: { log_statement: "all" } },
    ...(ledgerFiles === undefined ? {} : { ledgerFiles }),
    between: async (address) => {
      tamper = await startTamper(address);
      return tamper.address;
    },
  });
  return gateway;
}

async function logged(of: TestGateway, text: string): Promise<boolean> {
  const { readFile } = await import("node:fs/promises");
  return (await readFile(of.postgres.logFile, "utf8")).includes(text);
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe("law 1: no effect without a durable record", () => {
  test("while the record is not durable a write is not forwarded, and of a read nothing is released", async () => {
    const disk = breakable();
    const node = await started(disk.files);
    const { connection } = await node.grant([
      { schema: "public", table: "notes", verbs: ["select", "insert"], columns: "all" },
      { schema: "public", table: "customers", verbs: ["select"], columns: ["id", "name"] },
    ]);
    const writer = await openWire(connection);
    const reader = await openWire(connection);
    const release = disk.hold();
    writer.send(encodeQuery("insert into notes (customer_id, body) values (9, 'held back')"));
    reader.send(encodeQuery("select name from customers where id = 2 /* held read */"));
    let answered = false;
    const writing = writer.untilReady().then((messages) => {
      answered = true;
      return messages;
    });
    const reading = reader.untilReady().then((messages) => {
      answered = true;
      return messages;
    });
    await pause(400);
    expect(answered).toBe(false);
    expect(await logged(node, "held back")).toBe(false);
    // The read may overlap with its record: it has been forwarded, and not a byte of it was released.
    expect(await logged(node, "held read")).toBe(true);
    release();
    expect(summary(await writing)).toEqual(["complete INSERT 0 1", "ready idle"]);
    expect(summary(await reading)).toContain("row Grace");
    writer.close();
    reader.close();
  });

  test("when the ledger fails, nothing passes any more, in or out, and the client is told why", async () => {
    const disk = breakable();
    const node = await started(disk.files);
    const { connection } = await node.grant([
      { schema: "public", table: "notes", verbs: ["select", "insert"], columns: "all" },
    ]);
    const wire = await openWire(connection);
    disk.fail();
    wire.send(encodeQuery("insert into notes (customer_id, body) values (9, 'unrecorded')"));
    const told = await wire.untilEnd();
    expect(summary(told).some((line) => line.startsWith("complete"))).toBe(false);
    expect(summary(told).some((line) => line.startsWith("error"))).toBe(true);
    const [row] = await runSql(node.database, "select count(*)::int as n from notes where body = 'unrecorded'");
    expect(row).toEqual({ n: 0 });
    await expect(openWire(connection)).rejects.toThrow();
    await expect(node.node.ended).rejects.toMatchObject({ code: "ledger.unavailable" });
  });
});

describe("law 2: nothing unmasked goes downstream", () => {
  test("a result that the masker cannot vouch for ends the session with nothing of it released", async () => {
    const node = await started();
    const { connection } = await node.grant();
    const wire = await openWire(connection);
    // A resource that answers with one column more than was asked for.
    tamper?.set((chunk) => {
      const at = chunk.indexOf("T");
      if (at !== 0) {
        return chunk;
      }
      const lying = Buffer.from(chunk);
      lying.writeInt16BE(lying.readInt16BE(5) + 1, 5);
      return lying;
    });
    wire.send(encodeQuery("select name, email from customers"));
    const told = summary(await wire.untilEnd());
    tamper?.set(null);
    expect(told.filter((line) => line.startsWith("row"))).toEqual([]);
    expect(told.at(-1)).toMatch(/^error/);
  });

  test("rows with another shape than their description are not released", async () => {
    const node = await started();
    const { connection } = await node.grant();
    const wire = await openWire(connection);
    tamper?.set((chunk) => {
      const row = Buffer.from([0x44, 0, 0, 0, 15, 0, 1, 0, 0, 0, 5, 0x6c, 0x65, 0x61, 0x6b, 0x73]);
      const at = chunk.indexOf(0x44);
      return chunk[0] === 0x54 && at > 0 ? Buffer.concat([chunk.subarray(0, at), row, chunk.subarray(at)]) : chunk;
    });
    wire.send(encodeQuery("select id, name from invoices join customers using (id)"));
    const told = summary(await wire.untilEnd());
    tamper?.set(null);
    expect(told.join(" ")).not.toContain("leaks");
  });
});

describe("law 3: nothing unknown goes through", () => {
  test("a resource that reports another way of quoting ends the session before the next statement", async () => {
    const node = await started();
    const { connection } = await node.grant();
    const wire = await openWire(connection);
    tamper?.set((chunk) => {
      const body = Buffer.from("standard_conforming_strings\0off\0");
      const header = Buffer.alloc(5);
      header.write("S");
      header.writeInt32BE(body.length + 4, 1);
      return Buffer.concat([header, body, chunk]);
    });
    wire.send(encodeQuery("select 'x'"));
    const told = summary(await wire.untilEnd());
    tamper?.set(null);
    expect(told.at(-1)).toMatch(/^error/);
    expect(told.join(" ")).not.toContain("row x");
  });
});

describe("when one side dies", () => {
  test("a resource that dies in the middle of a row leaves whole rows, an error and an outcome", async () => {
    const node = await started();
    const { connection } = await node.grant();
    const wire = await openWire(connection);
    tamper?.cutAfter(150);
    wire.send(encodeQuery("select * from customers order by id"));
    const told = summary(await wire.untilEnd());
    tamper?.cutAfter(Number.POSITIVE_INFINITY);
    expect(told.at(-1)).toMatch(/^error/);
    for (const secret of secrets) {
      expect(told.join(" ")).not.toContain(secret);
    }
    await pause(300);
    const entries = await node.entries();
    const intent = entries.findLast(({ entry }) => entry.type === "command.intent");
    const outcome = entries.find(({ entry }) => entry.type === "command.outcome" && entry.intent === intent?.index);
    expect(outcome?.entry.type === "command.outcome" ? outcome.entry.outcome.status : null).toBe("may-have-run");
    expect(entries.some(({ entry }) => entry.type === "session.closed" && entry.how === "upstream")).toBe(true);
  });

  test("a client that vanishes in the middle of a statement leaves no backend, no socket, and an outcome", async () => {
    const node = await started();
    const { connection, grant } = await node.grant();
    const wire = await openWire(connection);
    wire.send(
      encodeQuery(
        "select count(*) from invoices a, invoices b, invoices c, invoices d, invoices e, invoices f, invoices g",
      ),
    );
    await pause(200);
    wire.close();
    let gone = false;
    for (let i = 0; i < 40 && !gone; i++) {
      await pause(100);
      const [row] = await runSql(
        node.database,
        "select count(*)::int as n from pg_stat_activity where usename like 'sp\\_grant%'",
      );
      gone = row?.["n"] === 0;
    }
    expect(gone).toBe(true);
    const sessions = await node.control.listSessions();
    expect(sessions.filter((session) => session.grantId === grant.id)).toEqual([]);
    const entries = await node.entries();
    expect(entries.some(({ entry }) => entry.type === "session.closed" && entry.how === "client")).toBe(true);
    expect(
      entries.some(({ entry }) => entry.type === "command.outcome" && entry.outcome.status === "may-have-run"),
    ).toBe(true);
  });
});
