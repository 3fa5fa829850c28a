/**
 * The gateway is killed under a load of writes, again and again. The judge is PostgreSQL itself: no row may exist whose statement
 * has no durable intent before it, and what was left at the resource is gone after the next start.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Client } from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";

import { verifyLedgerDirectory } from "#evidence/verify.ts";
import { openPayload, readLedger, readPayloadKeys } from "#ledger/reader.ts";
import { findFreePort } from "#store/postgres-process.ts";

import { sallyport, startUp } from "../e2e/cli-node.ts";
import { runSql, startPostgres } from "../support/postgres.ts";
import type { DatabaseAddress, TestPostgres } from "../support/postgres.ts";
import { testSeed } from "../support/seed.ts";

const kills = 6;
let postgres: TestPostgres;
let database: DatabaseAddress;
let directory = "";
let environment: Record<string, string> = {};

beforeAll(async () => {
  postgres = await startPostgres();
  await runSql(postgres, "create database billing");
  await runSql(postgres, "create database state");
  const { host, port, user, password } = postgres;
  database = { host, port, user, password, database: "billing" };
  await runSql(database, "create table notes (id text primary key)");
  directory = await mkdtemp(join(tmpdir(), "sallyport kill "));
  const [listen, control] = [await findFreePort(), await findFreePort()];
  await writeFile(
    join(directory, "sallyport.yaml"),
    `version: 1
node: { name: killed }
listen: { postgres: "127.0.0.1:${listen}", control: "127.0.0.1:${control}" }
state: { url: "\${env:STATE}" }
principals:
  - { name: bob, kind: human }
  - { name: writer, kind: agent, owner: bob, expires: "2099-01-01T00:00:00Z" }
resources:
  - { name: billing, kind: postgres, url: "\${env:BILLING}" }
`,
  );
  const url = (name: string): string => `postgres://${user}:${encodeURIComponent(password)}@${host}:${port}/${name}`;
  environment = { BILLING: url("billing"), STATE: url("state") };
}, 60_000);

afterAll(async () => {
  await postgres.stop();
  await rm(directory, { recursive: true, force: true });
});

/** A generator of numbers in [0, 1) from the tests' seed, so that a failure can be run again. */
function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Inserts as fast as it can until the connection breaks. */
async function writeUntilBroken(client: Client, prefix: string): Promise<void> {
  for (let i = 0; ; i++) {
    try {
      await client.query(
        i % 2 === 0 ? `insert into notes values ('${prefix}-${i}')` : "insert into notes values ($1)",
        i % 2 === 0 ? [] : [`${prefix}-${i}`],
      );
    } catch {
      return;
    }
  }
}

async function leftovers(): Promise<unknown> {
  const [row] = await runSql(
    database,
    `select (select count(*) from pg_roles where rolname like 'sp\\_grant%' or rolname like 'sp\\_scope%')::int as roles,
      (select count(*) from pg_stat_activity where usename like 'sp\\_grant%')::int as sessions`,
  );
  return row;
}

/** Every text and bind value that an intent committed to, from the ledger's payloads. */
async function recordedTexts(): Promise<string> {
  const reader = await readLedger(join(directory, ".sallyport/ledger"));
  const keys = await readPayloadKeys(join(directory, ".sallyport/keys"));
  const texts: string[] = [];
  for await (const read of reader.entries()) {
    if (read.entry.type === "command.intent") {
      const opened = await openPayload(read, keys);
      expect(opened.ok).toBe(true);
      texts.push(...(opened.ok ? [...opened.fields.values()].map((field) => field.text) : []));
    }
  }
  return texts.join("\n");
}

test(`after ${kills} kills under load every row has its intent, and nothing is left at the resource`, async () => {
  const random = numbers(testSeed);
  let verifierKey = "";
  for (let round = 0; round < kills; round++) {
    const node = await startUp(directory, environment);
    if (round > 0) {
      // What the killed node left was dropped before it let anybody in.
      expect(await leftovers()).toEqual({ roles: 0, sessions: 0 });
    }
    const granted = await sallyport(
      directory,
      `grant add --principal writer --resource billing --task load-${round} --table public.notes:insert,select:all --for 10m --json`.split(
        " ",
      ),
      environment,
    );
    expect(granted.code, granted.err + granted.out).toBe(0);
    const { connection } = JSON.parse(granted.out);
    const status = await sallyport(directory, ["ledger", "status", "--json"], environment);
    verifierKey = JSON.parse(status.out).ledger.verifierKey;
    const clients = await Promise.all(
      [0, 1, 2, 3].map(async () => {
        const client = new Client(connection);
        client.on("error", () => {});
        await client.connect();
        return client;
      }),
    );
    const writing = clients.map((client, index) => writeUntilBroken(client, `${round}.${index}`));
    await new Promise((resolve) => setTimeout(resolve, 100 + random() * 500));
    node.child.kill("SIGKILL");
    await node.exited;
    await Promise.all(writing);
  }
  const last = await startUp(directory, environment);
  expect(await leftovers()).toEqual({ roles: 0, sessions: 0 });
  last.child.kill("SIGTERM");
  await last.exited;

  const rows = await runSql(database, "select id from notes");
  const recorded = await recordedTexts();
  expect(rows.length).toBeGreaterThan(kills);
  for (const { id } of rows) {
    expect(recorded.includes(`'${String(id)}'`) || recorded.includes(`"${String(id)}"`), String(id)).toBe(true);
  }
  const found = await verifyLedgerDirectory({ directory: join(directory, ".sallyport/ledger"), verifierKey });
  expect(found.faults).toEqual([]);
  expect(found.integrity).toBe("intact");
}, 180_000);
