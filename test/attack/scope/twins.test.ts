/** Non-interference at L1: what a grant can see is the same whatever the hidden columns hold (MASKING.md). */
import type { Client } from "pg";
import { describe, expect, test } from "vitest";
import { shadowedCatalogRelations } from "#sql/shadowed.ts";
import { activate, builds, labels, logIn, readScope, startScopeDatabase } from "../../support/scope-database.ts";

const statements = (view: string): readonly string[] => [
  `SELECT * FROM ${view}`,
  `SELECT c FROM ${view} c ORDER BY email, ssn, income, birth_date, notes`,
  `SELECT DISTINCT ssn FROM ${view}`,
  `SELECT tier, count(*), min(email), max(income), avg(income), string_agg(notes, ',') FROM ${view} GROUP BY tier ORDER BY tier`,
  `SELECT id FROM ${view} WHERE ssn > '5' OR email LIKE '%a%' OR income > 1000 OR birth_date < '1900-01-01'`,
  `SELECT length(notes), md5(ssn), reverse(email) FROM ${view}`,
  `SELECT id, ssn::int FROM ${view}`,
  `SELECT 1 / (income - 81234.56) FROM ${view}`,
  `SELECT pg_column_size(email), pg_column_size(c) FROM ${view} c`,
  `SELECT row_to_json(c), to_jsonb(c), hashtext(c::text) FROM ${view} c`,
  `SELECT a.id, b.id FROM ${view} a JOIN ${view} b USING (ssn) ORDER BY 1, 2`,
  `SELECT i.amount, c.email FROM ${view} c JOIN invoices i ON i.customer_id = c.id ORDER BY i.id`,
  `SELECT row_number() OVER (ORDER BY income, id), lag(ssn) OVER (ORDER BY id) FROM ${view}`,
  `SELECT CASE WHEN ssn = '123-45-6789' THEN 1 / 0 END FROM ${view}`,
  `EXPLAIN (COSTS OFF, VERBOSE) SELECT * FROM ${view} WHERE email = 'ada.lovelace@example.org'`,
  "SELECT id, name, tier FROM customers ORDER BY id",
  "SELECT email FROM customers",
  "SELECT ctid, xmin FROM customers",
  "SELECT count(*) FROM customers",
  "SELECT attname, n_distinct, avg_width, most_common_vals, histogram_bounds, correlation FROM pg_stats WHERE tablename = 'customers' ORDER BY 1",
  ...shadowedCatalogRelations
    // Its own sessions' times and counters change by themselves.
    .filter(({ name, since }) => since <= 13 && name !== "pg_stat_activity")
    .map(({ name }) => `SELECT md5(string_agg(s::text, '' ORDER BY s::text)) FROM sallyport_shadow.${name} s`),
];

async function transcript(client: Client, view: string): Promise<readonly string[]> {
  const seen: string[] = [];
  for (const statement of statements(view)) {
    try {
      const result = await client.query({ text: statement, rowMode: "array" });
      seen.push(`${statement} => ${JSON.stringify([result.command, result.rowCount, result.rows])}`);
    } catch (error) {
      seen.push(`${statement} => ${JSON.stringify({ ...(error instanceof Error ? error : {}) })}`);
    }
  }
  return seen;
}

describe.each(builds)("twin databases, PostgreSQL %s", (_, options) => {
  test("differ in hidden columns only and answer the same", async () => {
    await using database = await startScopeDatabase(options);
    await database.provisioner.prepare();
    const masks = labels.map(({ label }) => ({ ruleId: label, label, operator: { kind: "redact" } as const }));
    const scope = await activate(database, { ...readScope, masks }, "sp_grant_twin", { labels });
    const view = scope.relations.get("public.customers")?.view;
    const client = await logIn(database, "sp_grant_twin");
    const name = `"${view?.schema ?? ""}".customers`;
    const settle = async (): Promise<void> => {
      await database.sql("VACUUM FULL customers");
      await database.sql("ANALYZE customers");
    };
    // Both twins have been written and counted once.
    await database.sql("UPDATE customers SET notes = notes");
    await settle();
    const raw = (): Promise<unknown> => database.sql("SELECT md5(string_agg(c::text, '')) FROM public.customers c");
    const [first, firstRaw] = [await transcript(client, name), await raw()];
    await database.sql(`
      UPDATE customers SET email = md5(email) || repeat('z', id * 500), ssn = left(md5(ssn), 11), birth_date = birth_date + 4711 * id,
        income = income * 3 + id, notes = repeat(md5(notes), 200 * id)`);
    await settle();
    const second = await transcript(client, name);
    expect(await raw()).not.toEqual(firstRaw);
    expect(second).toEqual(first);
    expect(first.length).toBeGreaterThan(50);
    await client.end();
  });
});
