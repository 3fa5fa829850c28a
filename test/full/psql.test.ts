/** The real psql, through the gateway: what it sends by itself to describe things, and what a person types. */
import { spawn } from "node:child_process";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { ConnectionDetails } from "#domain/control.ts";

import { secrets, startGateway } from "../support/gateway.ts";
import type { TestGateway } from "../support/gateway.ts";
import { psql } from "../support/requirements.ts";

const program = psql.find();
let gateway: TestGateway;
let connection: ConnectionDetails;

beforeAll(async () => {
  gateway = await startGateway();
  ({ connection } = await gateway.grant());
}, 60_000);

afterAll(async () => {
  await gateway.stop();
});

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs psql with `input` on its standard input; `interruptAfterMs` presses Ctrl-C then. */
async function run(
  input: string,
  how: { readonly interruptAfterMs?: number; readonly footers?: boolean } = {},
): Promise<Ran> {
  const { host, port, database, user, password } = connection;
  const child = spawn(program ?? "psql", ["-X", "-A", ...(how.footers === true ? [] : ["-t"])], {
    env: {
      PATH: process.env["PATH"],
      PGHOST: host,
      PGPORT: String(port),
      PGDATABASE: database,
      PGUSER: user,
      PGPASSWORD: password,
    },
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => {
    out += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    err += chunk.toString();
  });
  child.stdin.end(input);
  if (how.interruptAfterMs !== undefined) {
    setTimeout(() => child.kill("SIGINT"), how.interruptAfterMs);
  }
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  for (const secret of secrets) {
    expect(out + err).not.toContain(secret);
  }
  return { code, out, err };
}

describe.skipIf(program === null)("psql through the gateway", () => {
  test("\\d and \\dt list the granted tables under their own names and nothing else", async () => {
    for (const command of ["\\d", "\\dt"]) {
      const { out, err } = await run(command);
      expect(err).toBe("");
      const names = out
        .trim()
        .split("\n")
        .map((line) => line.split("|").slice(0, 3).join("."));
      expect(names).toEqual(["public.customers.table", "public.invoices.table"]);
    }
  });

  test("\\d customers describes the table, and an ungranted one does not exist", async () => {
    const { out, err } = await run("\\d customers\n\\d public.customers\n\\d payment_methods\n", { footers: true });
    expect(out).toContain("email|text");
    expect(out).toContain("customers_pkey");
    expect(err).toContain('Did not find any relation named "payment_methods"');
  });

  test("a prepared statement, a transaction and an error behave as they do without a gateway", async () => {
    const { out, err } = await run(`
      prepare p (int) as select name, ssn from customers where id = $1;
      execute p(2);
      deallocate p;
      begin;
      select count(*) from invoices;
      select 1/0;
      select 2;
      commit;
      select 'after';
    `);
    expect(out.split("\n").filter((line) => line !== "")).toEqual([
      "PREPARE",
      expect.stringMatching(/^Grace\|/),
      "DEALLOCATE",
      "BEGIN",
      "12",
      "ROLLBACK",
      "after",
    ]);
    expect(err).toContain("division by zero");
    expect(err).toContain("current transaction is aborted");
  });

  test("Ctrl-C cancels the statement and the session goes on", async () => {
    const slow =
      "select count(*) from invoices a, invoices b, invoices c, invoices d, invoices e, invoices f, invoices g, invoices h;";
    const startedMs = performance.now();
    const { err } = await run(slow, { interruptAfterMs: 700 });
    expect(err).toContain("canceling statement due to user request");
    expect(performance.now() - startedMs).toBeLessThan(5000);
    const entries = (await gateway.entries()).map(({ entry }) => entry);
    expect(entries.some((entry) => entry.type === "cancel.requested" && entry.known)).toBe(true);
    expect(entries.some((entry) => entry.type === "command.outcome" && entry.outcome.status === "cancelled")).toBe(
      true,
    );
  });

  test("a denial says the rule, the reason and the next step, with the id that the record has", async () => {
    const { err } = await run("\\set VERBOSITY verbose\nselect * from payment_methods;\n");
    expect(err).toContain('no grant covers "payment_methods"');
    expect(err).toContain("HINT:");
    const id = /dec_[0-9a-z]+/.exec(err)?.[0];
    const entries = (await gateway.entries()).map(({ entry }) => entry);
    expect(entries.some((entry) => entry.type === "command.denied" && entry.decision.id === id)).toBe(true);
  });

  test("a statement that is far too long is told so, and does not merely lose the connection", async () => {
    for (const megabytes of [2, 20]) {
      const { err } = await run(`select 1 /*${"x".repeat(megabytes * 1024 * 1024)}*/;\n`);
      expect(err).toMatch(/FATAL: .* is over the limit of .*\[dec_/);
    }
  });

  test("every statement that psql sent is recorded, those of its own making included", async () => {
    const before = (await gateway.entries()).filter(({ entry }) => entry.type === "command.intent").length;
    await run("\\d customers\n");
    const entries = await gateway.entries();
    const intents = entries.filter(({ entry }) => entry.type === "command.intent");
    expect(intents.length - before).toBeGreaterThanOrEqual(3);
    for (const { entry, index } of intents.slice(before)) {
      expect(entry.type === "command.intent" && entry.effects.every((effect) => effect.object.length > 0)).toBe(true);
      expect(entries.some((other) => other.entry.type === "command.outcome" && other.entry.intent === index)).toBe(
        true,
      );
    }
  });
});
