import { Client } from "pg";
import { readFileSync } from "node:fs";
import { startPostgres } from "./support/postgres.ts";
import { sqlWorldDdl, sqlWorldScope } from "./support/sql-world.ts";
import { loadCatalog } from "#protocols/postgres/catalog-loader.ts";
import { createAnalyzer } from "#sql/analyze.ts";
for (const dir of [undefined, "/usr/lib/postgresql/15/bin"]) {
  const s = await startPostgres(dir === undefined ? {} : { binaryDirectory: dir });
  const c = new Client({ host: s.host, port: s.port, user: s.user, password: s.password, database: s.database });
  await c.connect();
  await c.query(sqlWorldDdl);
  const catalog = await loadCatalog(c);
  const analyzer = await createAnalyzer();
  for (const f of ["psql-15", "clients"]) for (const q of JSON.parse(readFileSync(`test/fixtures/sql/${f}.json`, "utf8"))) {
    const sql = q.sql.replaceAll(/\{\{(.*?)\}\}/g, (_: string, n: string) => String(catalog.relations.get(n)!.oid));
    const r = analyzer.analyze(sql, { catalog, scope: sqlWorldScope });
    if (r.refused) console.log(s.version, q.command ?? q.server, r.code, r.reason, q.refused === r.code ? "(expected)" : "\n" + sql.slice(0, 1500));
    else if (q.refused) console.log("NOT REFUSED", sql);
  }
  await c.end();
  await s.stop();
}
