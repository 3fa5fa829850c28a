/** A database with everything that the gate must tell apart, for tests against a real PostgreSQL, and a scope over it. */
import type { CompiledScope, MaskedColumn, ScopedRelation } from "#domain/scope.ts";
import { type Catalog, findRelation } from "#sql/catalog.ts";
import { shadowedCatalogRelations } from "#sql/shadowed.ts";

/** DDL of the test's database: granted and hidden tables, columns with labels, and traps. */
export const sqlWorldDdl = `
  CREATE TYPE public.invoice_status AS ENUM ('open', 'paid', 'void');
  CREATE TABLE public.customers (
    id integer PRIMARY KEY, name text NOT NULL, email text, ssn text UNIQUE, card text, country text, created_at timestamptz,
    secret_note text
  );
  CREATE TABLE public.invoices (
    id bigint PRIMARY KEY, customer_id integer REFERENCES public.customers, amount numeric(10,2), status public.invoice_status,
    tags text[], data jsonb, issued date
  );
  CREATE TABLE public.support_notes (id serial PRIMARY KEY, customer_id integer, body text, secret text);
  CREATE TABLE public.payment_methods (id integer PRIMARY KEY, customer_id integer, pan text);
  CREATE TABLE public.audit_log (id serial PRIMARY KEY, at timestamptz DEFAULT now(), what text);
  CREATE TABLE public.parents (id integer PRIMARY KEY, name text, ssn text);
  CREATE TABLE public.children (extra text) INHERITS (public.parents);
  CREATE FUNCTION public.peek(public.customers) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1.ssn';
  CREATE FUNCTION public.lower(public.invoice_status) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''x''::text';
  CREATE FUNCTION public.run(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
  INSERT INTO public.customers
    SELECT i, 'Customer ' || i, 'c' || i || '@example.com', '078-05-' || lpad(i::text, 4, '0'), '4111111111111111', 'DE', now(), 'note'
    FROM generate_series(1, 20) i;
  INSERT INTO public.invoices
    SELECT i, 1 + i % 20, i * 10, 'open', ARRAY['a', 'b'], '{"k": 1}', '2026-01-01' FROM generate_series(1, 40) i;
`;

function masked(column: string, label: string): MaskedColumn {
  return { column, label, ruleId: `mask-${label}`, operator: { kind: "redact" } };
}

const view = (name: string): { readonly schema: string; readonly name: string } => ({
  schema: "sallyport_view_public",
  name,
});
const base = (name: string): { readonly schema: string; readonly name: string } => ({ schema: "public", name });

const relations: readonly ScopedRelation[] = [
  {
    base: base("customers"),
    openColumns: ["id", "name", "country", "created_at"],
    maskedColumns: [masked("email", "pii.email"), masked("ssn", "pii.ssn"), masked("card", "pci.pan")],
    visibleColumns: ["id", "name", "email", "ssn", "card", "country", "created_at"],
    wholeOpen: false,
    view: view("customers"),
    write: {
      insertColumns: ["id", "name", "email", "country"],
      updateColumns: ["name", "email"],
      delete: false,
      view: { schema: "sallyport_write_public", name: "customers" },
    },
  },
  {
    base: base("invoices"),
    openColumns: ["id", "customer_id", "amount", "status", "tags", "data", "issued"],
    maskedColumns: [],
    visibleColumns: ["id", "customer_id", "amount", "status", "tags", "data", "issued"],
    wholeOpen: true,
    view: null,
    write: {
      insertColumns: ["id", "customer_id", "amount", "status", "tags", "data", "issued"],
      updateColumns: ["amount", "status", "tags"],
      delete: true,
      view: null,
    },
  },
  {
    base: base("support_notes"),
    openColumns: ["id", "customer_id", "body"],
    maskedColumns: [],
    visibleColumns: ["id", "customer_id", "body"],
    wholeOpen: false,
    view: view("support_notes"),
    write: { insertColumns: ["customer_id", "body"], updateColumns: [], delete: false, view: null },
  },
  {
    base: base("parents"),
    openColumns: ["id", "name"],
    maskedColumns: [masked("ssn", "pii.ssn")],
    visibleColumns: ["id", "name", "ssn"],
    wholeOpen: false,
    view: view("parents"),
    write: null,
  },
];

/** What the tests' grant covers of `sqlWorldDdl`. */
export const sqlWorldScope: CompiledScope = {
  hash: "00".repeat(32),
  role: "sallyport_scope_test",
  relations: new Map(relations.map((relation) => [`${relation.base.schema}.${relation.base.name}`, relation])),
  shadowSchema: "sallyport_shadow",
};

/** A login with the rights of `sqlWorldScope` and no others, as the provisioner would make them; its password is its name. */
export const sqlWorldLogin = "sallyport_grant_test";

const view_ = "sallyport_view_public";
const write_ = "sallyport_write_public";

/**
 * The database's side of `sqlWorldScope`: views that hold masked values, column rights on open columns, and stand-ins for the
 * shadow catalogs (whole, since these tests look at what the gate does and not at what the shadows hide).
 */
export function sqlWorldScopeDdl(catalog: Catalog): string {
  const shadows = shadowedCatalogRelations
    .filter((shadow) => shadow.since * 10_000 <= catalog.serverVersion)
    .map(({ schema, name, tableoid }) => {
      // No view can have a column of type anyarray, and none has system columns.
      const columns = (findRelation(catalog, schema, name)?.columns ?? []).map((column) =>
        column.typeName === "anyarray" ? `NULL::text AS "${column.name}"` : `x."${column.name}"`,
      );
      const all = tableoid ? [...columns, "x.tableoid"] : columns;
      return `CREATE VIEW sallyport_shadow."${name}" AS SELECT ${all.join(", ")} FROM ${schema}."${name}" x;`;
    });
  return `
    CREATE SCHEMA ${view_}; CREATE SCHEMA ${write_}; CREATE SCHEMA sallyport_shadow;
    CREATE VIEW ${view_}.customers AS SELECT id, name, '***'::text AS email, '***'::text AS ssn, '***'::text AS card, country,
      created_at FROM public.customers;
    CREATE VIEW ${view_}.support_notes AS SELECT id, customer_id, body FROM public.support_notes;
    CREATE VIEW ${view_}.parents AS SELECT id, name, '***'::text AS ssn FROM public.parents;
    CREATE VIEW ${write_}.customers AS SELECT id, name, email, country FROM public.customers;
    ${shadows.join("\n")}
    CREATE ROLE ${sqlWorldLogin} LOGIN PASSWORD '${sqlWorldLogin}';
    GRANT USAGE ON SCHEMA ${view_}, ${write_}, sallyport_shadow, public TO ${sqlWorldLogin};
    GRANT SELECT ON ALL TABLES IN SCHEMA ${view_}, sallyport_shadow TO ${sqlWorldLogin};
    GRANT SELECT (id, name, country, created_at) ON public.customers TO ${sqlWorldLogin};
    GRANT SELECT (id, customer_id, body), INSERT (customer_id, body) ON public.support_notes TO ${sqlWorldLogin};
    GRANT SELECT (id, name) ON public.parents TO ${sqlWorldLogin};
    GRANT SELECT, INSERT, UPDATE (amount, status, tags), DELETE ON public.invoices TO ${sqlWorldLogin};
    GRANT SELECT (id, name, country), INSERT (id, name, email, country), UPDATE (name, email) ON ${write_}.customers
      TO ${sqlWorldLogin};
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ${sqlWorldLogin};
  `;
}
