import { test } from "vitest";
import { activate, grantAll, logIn, readScope, labels, builds, startScopeDatabase } from "../support/scope-database.ts";
test.each(builds)("bench %s", async (_v, options) => {
  await using db = await startScopeDatabase(options);
  await db.sql("do $$ begin for i in 1..1000 loop execute format('create table public.t%s (id int primary key, a text, b text, c int references customers(id), d int, e int, f int, g int, h int)', i); end loop; end $$");
  await grantAll(db.sql, "public");
  await db.sql("analyze pg_class; analyze pg_attribute; analyze pg_shdepend; analyze pg_constraint");
  let t = performance.now();
  await db.provisioner.prepare(); console.log("prepare", performance.now() - t);
  t = performance.now(); await db.restart().prepare(); console.log("prepare again", performance.now() - t);
  const scope = { ...readScope, tables: [...readScope.tables, ...Array.from({length: 10}, (_, i) => ({ schema: "public", table: "t"+(i+1), verbs: ["select"] as const, columns: "all" as const }))] };
  const many = Array.from({ length: 60 }, (_, i) => ({ ...readScope, tables: [...scope.tables.slice(0, 4), { schema: "public", table: "t" + (20 + i), verbs: ["select"] as const, columns: "all" as const }] }));
  const times: number[] = [];
  for (const [i, s] of many.entries()) { const c = await db.provisioner.compile(s, labels); t = performance.now(); await db.provisioner.createScope(c); times.push(performance.now() - t); await activate(db, s, "sp_x" + i); }
  times.sort((a,b)=>a-b); console.log("createScope p50", times[30], "p95", times[57]);
  const times2: number[] = [];
  const c1 = await db.provisioner.compile(scope, labels);
  t = performance.now(); for (let i = 0; i < 10; i++) await db.provisioner.compile(scope, labels); console.log("compile", (performance.now() - t)/10);
  await activate(db, scope, "sp_a");
  for (let i = 0; i < 60; i++) { t = performance.now(); await db.provisioner.createGrantRole({ role: "sp_y" + i, password: "x", scope: c1, validUntilMs: Date.now()+1e6, connectionsMax: 3, readOnly: true }); times2.push(performance.now() - t); }
  times2.sort((a,b)=>a-b); console.log("createGrantRole p50", times2[30], "p95", times2[57]);
  const times3: number[] = [];
  for (let i = 0; i < 60; i++) { t = performance.now(); await db.provisioner.dropGrantRole("sp_y" + i); times3.push(performance.now() - t); }
  times3.sort((a,b)=>a-b); console.log("dropGrantRole p50", times3[30], "p95", times3[57]);
  const client = await logIn(db, "sp_a");
  for (const q of ["select * from X.tables where table_schema='public'", "select * from X.columns where table_schema='public'", "select * from X.columns where table_name='customers'", "select * from X.table_constraints where table_schema='public'", "select * from X.key_column_usage", "select * from X.constraint_column_usage", "select c.relname from X.pg_class c join X.pg_namespace n on n.oid=c.relnamespace where n.nspname='public' and c.relkind='r'", "select * from X.pg_attribute where attrelid='customers'::regclass", "select * from X.pg_index where indrelid='customers'::regclass", "select * from X.pg_constraint where conrelid='customers'::regclass","select * from X.pg_type where typname='int4'", "select * from X.pg_description where objoid='customers'::regclass"]) {
    const run = async (s: string) => { const ts: number[] = []; for (let i = 0; i < 15; i++) { t = performance.now(); await client.query(s); ts.push(performance.now() - t); } ts.sort((a,b)=>a-b); return ts[7]!.toFixed(1); };
    const orig = q.replaceAll(/X\.(\w+)/g, (_, n: string) => (n.startsWith("pg_") ? "pg_catalog." : "information_schema.") + n);
    console.log(await run(q.replaceAll("X.", "sallyport_shadow.")), "orig", await run(orig), q);
  }
  await client.end();
}, 120000);
