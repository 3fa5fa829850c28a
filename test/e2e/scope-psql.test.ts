import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { shadowedCatalogRelations } from "#sql/shadowed.ts";
import { psql } from "../support/requirements.ts";
import { activate, builds, logIn, readScope, startScopeDatabase } from "../support/scope-database.ts";
import type { ScopeDatabase } from "../support/scope-database.ts";

const execFileAsync = promisify(execFile);
const program = psql.find();

/** What real psql asks for a meta-command, as the superuser: the queries that it prints with -E. */
async function queriesOf(database: ScopeDatabase, command: string): Promise<readonly string[]> {
  const { host, port, user, password, database: name } = database.admin;
  const { stdout } = await execFileAsync(
    program ?? "psql",
    ["-X", "-E", "-h", host, "-p", String(port), "-U", user, "-d", name, "-c", command],
    { env: { ...process.env, PGPASSWORD: password, LC_ALL: "C" } },
  );
  return [...stdout.matchAll(/^\/?\*+ QUERY \*+\/?\n([\s\S]*?)\n\/?\*{20,}\/?$/gm)].map((match) => match[1] ?? "");
}

/** The queries with every shadowed relation by its shadow, as the gate splices them. */
function splice(query: string): string {
  return shadowedCatalogRelations.reduce(
    (text, { schema, name }) =>
      text.replaceAll(new RegExp(`\\b${schema}\\.${name}\\b(?!\\()`, "g"), (found, offset: number) =>
        /(?:FROM|JOIN|,)\s+$/i.test(text.slice(0, offset)) ? `sallyport_shadow.${name}` : found,
      ),
    query,
  );
}

/** Each meta-command with what its answer must show. */
const commands: readonly (readonly [string, readonly string[]])[] = [
  ["\\d", ["customers", "invoices"]],
  ["\\dt", ["customers", "invoices"]],
  [
    "\\d customers",
    ["ssn", "character varying(11)", "customers_name", "customers_tier_check", "invoices_customer_id_fkey"],
  ],
  ["\\d+ customers", ["What they pay for", "customers_email_key"]],
  ["\\d invoices", ["FOREIGN KEY (customer_id) REFERENCES customers(id)"]],
  ["\\di", ["customers_pkey"]],
  ["\\dn", ["public"]],
  ["\\du", ["sp_grant_psql"]],
  ["\\df", []],
  ["\\dv", []],
  ["\\ds", []],
  ["\\dT", []],
  ["\\dp", ["customers"]],
];

describe.skipIf(program === null).each(builds)(
  "psql's own queries on the shadow catalogs of PostgreSQL %s",
  (_, options) => {
    test("run, show what is granted, and show nothing else", async () => {
      await using database = await startScopeDatabase(options);
      await database.provisioner.prepare();
      await activate(database, readScope, "sp_grant_psql");
      const client = await logIn(database, "sp_grant_psql");
      for (const [command, expected] of commands) {
        const results: unknown[] = [];
        for (const query of await queriesOf(database, command)) {
          results.push((await client.query(splice(query))).rows);
        }
        const shown = JSON.stringify(results);
        expect(results.length, command).toBeGreaterThan(0);
        for (const text of expected) {
          expect(shown, command).toContain(text);
        }
        expect(shown, command).not.toMatch(/secret|sallyport|sp_scope|app_owner|provisioner|postgres"/);
      }
      await client.end();
    });
  },
);
