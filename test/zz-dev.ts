import { Client } from "pg";
import { readFileSync, writeFileSync } from "node:fs";
import { startPostgres } from "./support/postgres.ts";
import { sqlWorldDdl, sqlWorldScope } from "./support/sql-world.ts";
import { loadCatalog } from "#protocols/postgres/catalog-loader.ts";
import { createAnalyzer } from "#sql/analyze.ts";
import { applySplices } from "#sql/splice.ts";
await using s = await startPostgres({});
const c = new Client({ host: s.host, port: s.port, user: s.user, password: s.password, database: s.database });
await c.connect();
await c.query(sqlWorldDdl);
const catalog = await loadCatalog(c);
const analyzer = await createAnalyzer();
for (const line of readFileSync(process.argv[2]!, "utf8").split("\n").filter((l) => l.trim() && !l.startsWith("#"))) {
  const t = performance.now();
  const r = analyzer.analyze(line, { catalog, scope: sqlWorldScope });
  const ms = (performance.now() - t).toFixed(2);
  console.log("\n> " + line);
  if (r.refused) console.log(`  REFUSED ${r.code}: ${r.reason} | ${r.nextStep}  [${ms}]`);
  else for (const st of r.statements) {
    const text = applySplices(Buffer.from(line), st.splices).toString();
    console.log(`  ${st.kind}${st.pure ? " pure" : ""}${st.touchesMasked ? " touches" : ""} [${ms}] ` + st.effects.map((e) => JSON.stringify(Object.values(e)).replaceAll('"', "")).join(" "));
    if (st.outputs) console.log("  out: " + st.outputs.map((o) => o.name + (o.masked.length ? "<" + o.masked.map((m) => m.column).join("+") + ">" : "")).join(", "));
    if (st.splices.length) console.log("  => " + text);
  }
}
await c.end();
