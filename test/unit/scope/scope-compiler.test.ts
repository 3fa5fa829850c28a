import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Scope, TableGrant } from "#domain/grant.ts";
import type { ColumnLabel } from "#domain/resource.ts";
import { compileScope, replanScope } from "#protocols/postgres/scope-compiler.ts";
import type { ScopePlan } from "#protocols/postgres/scope-compiler.ts";
import type { ColumnDefinition, ScopeTables, TableDefinition } from "#protocols/postgres/scope-compiler-tables.ts";
import { markKeys, scopeMarks } from "#protocols/postgres/scope-marks.ts";
import { changeRights, createScopeStatements, scopeRights, scopeViews } from "#protocols/postgres/scope-sql.ts";

const text = {
  name: "text",
  schema: "pg_catalog",
  kind: "b",
  category: "S",
  sql: "text",
  modifier: -1,
  collation: { schema: "pg_catalog", name: "default" },
} as const;

function column(name: string, changes: Partial<ColumnDefinition> = {}): ColumnDefinition {
  return {
    name,
    type: text,
    notNull: false,
    generated: "no",
    identityAlways: false,
    unique: false,
    comparedWith: [],
    ...changes,
  };
}

function table(name: string, columns: readonly ColumnDefinition[], schema = "public"): TableDefinition {
  return { schema, name, oid: 1, kind: "r", rowSecurity: false, columns, sequences: [], readsThrough: [] };
}

const customers = table("customers", [column("id"), column("email"), column("tier")]);
const invoices = table("invoices", [column("id"), column("amount")]);
const orders = table("orders", [column("id")], "sales");
const label: ColumnLabel = { schema: "public", table: "customers", column: "email", label: "pii.email" };

function picture(labels: readonly ColumnLabel[] = [], changes: Partial<ScopeTables> = {}): ScopeTables {
  return {
    database: "billing",
    unicode: true,
    tables: [customers, invoices, orders],
    labelled: labels.map((given) => ({ ...given, origin: "given" as const })),
    ...changes,
  };
}

function grant(
  name: string,
  verbs: TableGrant["verbs"],
  columns: TableGrant["columns"] = "all",
  schema = "public",
): TableGrant {
  return { schema, table: name, verbs, columns };
}

function compile(
  tables: readonly TableGrant[],
  labels: readonly ColumnLabel[] = [label],
  masks: Scope["masks"] = [],
): ScopePlan {
  return compileScope({ tables, masks }, labels, picture(labels));
}

describe("a compiled scope", () => {
  test("shows a table without labels as it is, and another through a masked view of the scope", () => {
    const { scope } = compile([grant("customers", ["select"]), grant("invoices", ["select"])]);
    expect(scope.relations.get("public.invoices")).toMatchObject({
      wholeOpen: true,
      view: null,
      visibleColumns: ["id", "amount"],
    });
    expect(scope.relations.get("public.customers")).toMatchObject({
      wholeOpen: false,
      openColumns: ["id", "tier"],
      visibleColumns: ["id", "email", "tier"],
      maskedColumns: [{ column: "email", label: "pii.email", ruleId: "default.redact", operator: { kind: "redact" } }],
      view: { schema: `sallyport_${scope.hash.slice(0, 12)}_1`, name: "customers" },
      write: null,
    });
    expect(scope.role).toBe(`sp_scope_${scope.hash.slice(0, 12)}`);
  });

  test("takes entries of one table together, verb by verb", () => {
    const { scope } = compile([
      grant("customers", ["select"]),
      grant("customers", ["update"], ["tier"]),
      grant("customers", ["update"], ["id"]),
    ]);
    expect(scope.relations.get("public.customers")?.write).toMatchObject({
      insertColumns: [],
      updateColumns: ["id", "tier"],
      delete: false,
    });
  });

  test("sends writes through a view exactly when the table has labelled columns, granted or not", () => {
    const partly = compile([grant("customers", ["select", "update"], ["id", "tier"])]).scope.relations.get(
      "public.customers",
    );
    expect(partly?.write?.view?.schema).toMatch(/^sallyport_[0-9a-f]{12}_1_w$/);
    expect(partly?.maskedColumns).toEqual([]);
    const open = compile([grant("invoices", ["select", "update"], ["amount"])]).scope.relations.get("public.invoices");
    expect(open).toMatchObject({ wholeOpen: false, write: { view: null }, view: { name: "invoices" } });
  });

  test("updates no open column that a constraint compares with a masked one", () => {
    const compared = {
      ...customers,
      columns: customers.columns.map((of) => ({ ...of, comparedWith: of.name === "id" ? [] : ["email", "tier"] })),
    };
    const scope: Scope = { tables: [grant("customers", ["select", "insert", "update"])], masks: [] };
    const { write } =
      compileScope(scope, [label], picture([label], { tables: [compared] })).scope.relations.get("public.customers") ??
      {};
    expect(write).toMatchObject({ insertColumns: ["id", "email", "tier"], updateColumns: ["id", "email"] });
  });

  test("has no view to read when nothing may be read", () => {
    const relation = compile([grant("customers", ["insert"])]).scope.relations.get("public.customers");
    expect(relation).toMatchObject({ view: null, visibleColumns: [], wholeOpen: false });
  });

  test("does not depend on the order or the spelling of what is granted", () => {
    const entries = [
      grant("customers", ["select"], ["id"]),
      grant("customers", ["select"], ["email", "tier"]),
      grant("customers", ["delete", "update"], ["tier"]),
      grant("invoices", ["select", "insert"]),
      grant("orders", ["select"], "all", "sales"),
    ];
    const expected = compile(entries).scope;
    fc.assert(
      fc.property(fc.shuffledSubarray(entries, { minLength: entries.length }), (shuffled) => {
        const mixed = shuffled.map((entry) => ({
          ...entry,
          verbs: entry.verbs.toReversed(),
          columns: entry.columns === "all" ? entry.columns : entry.columns.toReversed(),
        }));
        expect(compile([...mixed, ...mixed]).scope).toEqual(expected);
      }),
    );
  });

  test("has another hash when anything that it shows, or says of it, is another", () => {
    const base = [grant("customers", ["select"]), grant("invoices", ["select"])];
    const mask = { ruleId: "a", label: "pii.email", operator: { kind: "email" } } as const;
    const wider = { ...invoices, columns: [...invoices.columns, column("added")] };
    const hashes = [
      compile(base),
      compile([...base, grant("orders", ["select"], "all", "sales")]),
      compile([grant("customers", ["select"], ["id"]), grant("invoices", ["select"])]),
      compile([...base, grant("invoices", ["insert"])]),
      compile([...base, grant("invoices", ["update"])]),
      compile([...base, grant("invoices", ["delete"])]),
      compile(base, []),
      compile(base, [label], [mask]),
      compile(base, [label], [{ ...mask, ruleId: "b" }]),
      compile(base, [{ ...label, label: "pii.other" }]),
      compileScope({ tables: base, masks: [] }, [label], picture([label], { database: "other" })),
      compileScope({ tables: base, masks: [] }, [label], picture([label], { tables: [customers, wider, orders] })),
      compileScope({ tables: base, masks: [] }, [label], picture([label], { unicode: false })),
    ].map(({ scope }) => scope.hash);
    expect(new Set(hashes).size).toBe(hashes.length);
  });

  test("is found again from what was compiled, until a table changes", () => {
    const plan = compile([grant("customers", ["select", "update"]), grant("invoices", ["select", "insert", "delete"])]);
    expect(replanScope(plan.scope, picture())).toEqual(plan);
    const changed = {
      ...customers,
      columns: customers.columns.map((c) => (c.name === "email" ? column("email", { notNull: true }) : c)),
    };
    expect(() => replanScope(plan.scope, picture([], { tables: [changed, invoices] }))).toThrow(/changed/);
    expect(() => replanScope(plan.scope, picture([], { tables: [customers] }))).toThrow(/changed/);
  });

  test("is refused when it grants nothing, or two tables that are one once written with a dot", () => {
    expect(() => compile([])).toThrow(/grants nothing/);
    expect(() => compile([grant("customers", [])])).toThrow(/grants nothing/);
    const tables = [table("b.c", [column("x")], "a"), table("c", [column("x")], "a.b")];
    const scope: Scope = {
      tables: [grant("b.c", ["select"], "all", "a"), grant("c", ["select"], "all", "a.b")],
      masks: [],
    };
    expect(() => compileScope(scope, [], picture([], { tables }))).toThrow(/same name/);
  });
});

describe("the rights of a scope", () => {
  const plan = compile([
    grant("customers", ["select", "update", "insert", "delete"]),
    grant("invoices", ["select", "delete"]),
  ]);
  const server = { version: 180_000, superuser: false, viewOwner: "owner", readers: "readers" };

  test("never include a hidden column of the base table, and never a base table as a whole but for DELETE", () => {
    const base = scopeRights(plan).filter(({ on, schema }) => on === "table" && schema === "public");
    expect(base.filter(({ column: of }) => of === "email")).toEqual([]);
    expect(base.filter(({ column: of }) => of === null).map(({ name, privilege }) => `${name} ${privilege}`)).toEqual([
      "invoices DELETE",
    ]);
  });

  test("mark the columns that the base table has no right for, with the view that stands for them", () => {
    const { view, write } = plan.scope.relations.get("public.customers") ?? {};
    const base = { schema: "public", name: "customers" };
    expect(scopeMarks(plan)).toEqual([
      { view, base, columns: ["email"] },
      { view: write?.view, base, columns: ["id", "email", "tier"] },
    ]);
    expect(markKeys(plan)).toHaveLength(4);
    expect(scopeMarks(compile([grant("customers", ["delete"]), grant("invoices", ["select", "insert"])]))).toEqual([]);
  });

  test("come out as one statement for each object, and go by the same", () => {
    const rights = scopeRights(plan).filter(({ schema }) => schema === "public");
    expect(changeRights("GRANT", rights, 'r"x')).toEqual([
      'GRANT SELECT ("id", "tier") ON TABLE "public"."customers" TO "r""x"',
      'GRANT DELETE, SELECT ("id", "amount", "ctid", "xmin", "cmin", "xmax", "cmax", "tableoid") ON TABLE "public"."invoices" TO "r""x"',
      'GRANT USAGE ON SCHEMA "public" TO "r""x"',
    ]);
    expect(changeRights("REVOKE", rights, "r")).toHaveLength(3);
  });

  test("views say what they are, behind a barrier", () => {
    for (const { sql, comment } of scopeViews(plan)) {
      expect(sql).toContain("WITH (security_barrier = true)");
      expect(comment).toMatch(/^Sallyport: (masked|write) view of public\.customers; definition [0-9a-f]{16}$/);
    }
    expect(scopeViews(plan)).toHaveLength(2);
  });

  test("membership gives no SET ROLE where PostgreSQL can say so", () => {
    const modern = createScopeStatements(plan, server, [], false).filter(
      (statement) => / TO CURRENT_USER| TO "sp_scope/.test(statement) && !statement.includes(" ON "),
    );
    expect(modern.every((statement) => statement.endsWith("WITH INHERIT TRUE, SET FALSE"))).toBe(true);
    const older = createScopeStatements(plan, { ...server, version: 150_000 }, [], false).join(";");
    expect(older).not.toContain("WITH INHERIT");
  });
});
