/** A whole node in this process, in front of a real PostgreSQL with a small database, for tests that go over the wire. */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Client } from "pg";

import { createControlClient } from "#api/client.ts";
import type { ControlClient } from "#api/client.ts";
import type { AddedGrant, ConnectionDetails } from "#domain/control.ts";
import type { TableGrant } from "#domain/grant.ts";
import type { Files } from "#ledger/files.ts";
import { openPayload, readLedger, readPayloadKeys } from "#ledger/reader.ts";
import type { ReadEntry } from "#ledger/reader.ts";

import { parseConfig } from "../../src/config.ts";
import { loadControlToken, nodePlaces } from "../../src/config-secrets.ts";
import { startNode } from "../../src/main.ts";
import type { RunningNode } from "../../src/main.ts";
import { createLog } from "../../src/telemetry.ts";
import { runSql, startPostgres } from "./postgres.ts";
import type { DatabaseAddress, StartPostgresOptions, TestPostgres } from "./postgres.ts";

/** Values that no client may ever see: searched for in everything that leaves. */
export const secrets = [
  "ada.secret@example.com",
  "987-65-4329",
  "4111111111111111",
  "grace.secret@example.org",
] as const;

const schema = `
create table customers (
  id int primary key, name text not null, email text, ssn text, card text, joined date
);
create table invoices (id int primary key, customer_id int references customers(id), amount numeric(10,2), status text);
create table payment_methods (id int primary key, customer_id int, card text);
create table notes (id serial primary key, customer_id int, body text);
insert into customers values
  (1, 'Ada', 'ada.secret@example.com', '987-65-4329', '4111111111111111', '2020-01-02'),
  (2, 'Grace', 'grace.secret@example.org', '987-65-4321', '4222222222222', '2021-03-04'),
  (3, 'Edsger', null, null, null, '2022-05-06');
insert into invoices select i, 1 + i % 3, i * 10, case when i % 2 = 0 then 'paid' else 'open' end from generate_series(1, 12) i;
insert into payment_methods values (1, 1, '4111111111111111');
`;

export interface GatewayOptions {
  readonly postgres?: StartPostgresOptions;
  /** The file operations of the ledger, for tests that break them. */
  readonly ledgerFiles?: Files;
  /** Stands between the gateway and PostgreSQL: given where PostgreSQL is, returns where to connect instead. */
  readonly between?: (address: { readonly host: string; readonly port: number }) => Promise<{
    readonly host: string;
    readonly port: number;
  }>;
}

export interface TestGateway extends AsyncDisposable {
  readonly node: RunningNode;
  readonly control: ControlClient;
  readonly postgres: TestPostgres;
  /** The superuser's way to the database behind the gateway. */
  readonly database: DatabaseAddress;
  readonly directory: string;
  readonly port: number;
  /** A grant of `support-copilot` on `billing`. */
  grant(tables?: readonly TableGrant[], lifetimeMs?: number): Promise<AddedGrant>;
  /** A connected client of `pg`; closed with the gateway. */
  connect(to: ConnectionDetails, options?: { readonly applicationName?: string }): Promise<Client>;
  /** The entries so far. */
  entries(): Promise<readonly ReadEntry[]>;
  /** What an entry's payload holds. */
  payload(entry: ReadEntry): Promise<{ readonly [name: string]: string }>;
  /** Stops the node, lets `meanwhile` happen, and starts it again on the same state. */
  restart(meanwhile: () => Promise<void>): Promise<void>;
  stop(): Promise<void>;
}

/** Customers without ssn's and card's raw values, invoices whole. */
export const defaultTables: readonly TableGrant[] = [
  { schema: "public", table: "customers", verbs: ["select"], columns: "all" },
  { schema: "public", table: "invoices", verbs: ["select"], columns: "all" },
];

export async function startGateway(options: GatewayOptions = {}): Promise<TestGateway> {
  const postgres = await startPostgres(options.postgres);
  const directory = await mkdtemp(join(tmpdir(), "sallyport test gateway "));
  const { host, port, user, password } = postgres;
  await runSql(postgres, "create database billing");
  await runSql(postgres, "create database state");
  const database: DatabaseAddress = { host, port, user, password, database: "billing" };
  await runSql(database, schema);
  const gatewayPort = await freePort();
  const controlPort = await freePort();
  const resource = (await options.between?.({ host, port })) ?? { host, port };
  const url = (name: string, at: { readonly host: string; readonly port: number }): string =>
    `postgres://${user}:${encodeURIComponent(password)}@${at.host}:${at.port}/${name}`;
  const config = parseConfig(configText(gatewayPort, controlPort), join(directory, "sallyport.yaml"), {
    environment: { BILLING: url("billing", resource), STATE: url("state", { host, port }) },
    nowMs: Date.now(),
  });
  const log = createLog({ level: process.env["SALLYPORT_TEST_LOG"] === "1" ? "debug" : "silent" });
  let node = await startNode(config, {
    log,
    ...(options.ledgerFiles === undefined ? {} : { ledgerFiles: options.ledgerFiles }),
  });
  node.ended.catch(() => null);
  const places = nodePlaces(config.directory);
  const control = createControlClient({
    host: "127.0.0.1",
    port: controlPort,
    token: (await loadControlToken(places.controlToken)).reveal(),
  });
  const clients: Client[] = [];
  let tasks = 87;
  let stopping: Promise<void> | null = null;
  const stop = (): Promise<void> => {
    stopping ??= (async () => {
      await Promise.all(clients.map((client) => client.end().catch(() => null)));
      await control[Symbol.asyncDispose]();
      await node.stop();
      await postgres.stop();
      await rm(directory, { recursive: true, force: true });
    })();
    return stopping;
  };
  return {
    get node() {
      return node;
    },
    control,
    postgres,
    database,
    directory,
    port: gatewayPort,
    grant: (tables = defaultTables, lifetimeMs = 600_000) =>
      control.addGrant({
        principal: "support-copilot",
        resource: "billing",
        task: { title: `T-${++tasks} charged twice` },
        tables,
        lifetimeMs,
      }),
    connect: async (to, how = {}) => {
      const client = new Client({
        host: to.host,
        port: to.port,
        database: to.database,
        user: to.user,
        password: to.password,
        application_name: how.applicationName ?? "test",
      });
      client.on("error", () => {});
      await client.connect();
      clients.push(client);
      return client;
    },
    entries: async () => {
      const reader = await readLedger(places.ledger);
      const entries: ReadEntry[] = [];
      for await (const entry of reader.entries()) {
        entries.push(entry);
      }
      return entries;
    },
    payload: async (entry) => {
      const opened = await openPayload(entry, await readPayloadKeys(places.keys));
      return opened.ok ? Object.fromEntries([...opened.fields].map(([name, field]) => [name, field.text])) : {};
    },
    restart: async (meanwhile) => {
      await node.stop();
      await meanwhile();
      node = await startNode(config, { log });
      node.ended.catch(() => null);
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function configText(gatewayPort: number, controlPort: number): string {
  return `version: 1
node: { name: test }
listen: { postgres: "127.0.0.1:${gatewayPort}", control: "127.0.0.1:${controlPort}" }
directory: state
state: { url: "\${env:STATE}" }
principals:
  - { name: bob, kind: human }
  - { name: support-copilot, kind: agent, owner: bob, expires: "2099-01-01T00:00:00Z" }
resources:
  - name: billing
    kind: postgres
    url: "\${env:BILLING}"
    labels:
      public.customers.email: pii.email
      public.customers.ssn: pii.ssn
      public.customers.card: pci.pan
masks:
  - { label: pii.email, operator: email }
  - { label: pii.ssn, operator: redact }
  - { label: pci.pan, operator: partial, keepLast: 4 }
`;
}

async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => {
        if (address !== null && typeof address === "object") {
          resolve(address.port);
        } else {
          reject(new Error("no port"));
        }
      });
    });
  });
}
