/** Grants, principals and effects for the policy tests. */
import fc from "fast-check";
import type { Effect, StatementKind } from "#domain/effect.ts";
import type { Grant, TableGrant, TableVerb } from "#domain/grant.ts";
import { parseId, type IdPrefix, type IdTypes } from "#domain/ids.ts";
import type { HumanPrincipal, MachinePrincipal } from "#domain/principal.ts";
import type { PolicyInput } from "#policy/decide.ts";

export function id<P extends IdPrefix>(prefix: P, text: string): IdTypes[P] {
  const parsed = parseId(prefix, `${prefix}_${text}`);
  if (parsed === null) {
    throw new Error(`not an id: ${prefix}_${text}`);
  }
  return parsed;
}

export const expiresAtMs = 1_800_000_000_000;
export const beforeExpiryMs = expiresAtMs - 60_000;

export const resource = { id: id("res", "b1"), name: "billing" } as const;

export const agent: MachinePrincipal = {
  kind: "agent",
  id: id("prn", "agent"),
  name: "support-copilot",
  status: "active",
  ownerId: id("prn", "b0b"),
  expiresAtMs: expiresAtMs + 1_000_000,
};

export const bob: HumanPrincipal = { kind: "human", id: id("prn", "b0b"), name: "bob", status: "active" };

export function grantOf(tables: readonly TableGrant[], changes: Partial<Grant> = {}): Grant {
  return {
    id: id("grt", "g1"),
    principalId: agent.id,
    onBehalfOfId: null,
    resourceId: resource.id,
    task: { id: id("tsk", "t1"), title: "T-88 charged twice", purpose: null, ticket: "T-88" },
    scope: { tables, masks: [] },
    createdAtMs: expiresAtMs - 3_600_000,
    expiresAtMs,
    state: "active",
    end: null,
    source: "config",
    ...changes,
  };
}

export function table(name: string, verbs: readonly TableVerb[], columns: TableGrant["columns"] = "all"): TableGrant {
  const [schema = "", relation = ""] = name.split(".");
  return { schema, table: relation, verbs, columns };
}

export function read(relation: string, ...columns: readonly string[]): Effect {
  return { kind: "read", relation, columns };
}

export function write(verb: "insert" | "update" | "delete", relation: string, ...columns: readonly string[]): Effect {
  return { kind: "write", verb, relation, columns };
}

export function inputOf(grant: Grant, effects: readonly Effect[], changes: Partial<PolicyInput> = {}): PolicyInput {
  return {
    principal: agent,
    onBehalfOf: null,
    grant,
    resource,
    kind: "select",
    effects,
    nowMs: beforeExpiryMs,
    ...changes,
  };
}

// A small world, so that grants and effects meet often; its names are unpleasant where PostgreSQL lets them be.
const relations = ["public.customers", "public.invoices", 'sales.In "quotes"', "sales.naïve\\路"] as const;
const columnNames = ["id", "email", "ssn", 'a"b', "名"] as const;
const verbs = ["select", "insert", "update", "delete"] as const;

const relationArbitrary = fc.constantFrom(...relations);
const columnsArbitrary = fc.subarray([...columnNames]);

export const tableGrantArbitrary: fc.Arbitrary<TableGrant> = fc
  .record({
    relation: relationArbitrary,
    verbs: fc.subarray([...verbs], { minLength: 1 }),
    columns: fc.oneof(fc.constant("all" as const), columnsArbitrary),
  })
  .map((line) => ({
    schema: line.relation.slice(0, line.relation.indexOf(".")),
    table: line.relation.slice(line.relation.indexOf(".") + 1),
    verbs: line.verbs,
    columns: line.columns,
  }));

export const effectArbitrary: fc.Arbitrary<Effect> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("read" as const),
      relation: relationArbitrary,
      columns: columnsArbitrary,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("write" as const),
      verb: fc.constantFrom("insert" as const, "update" as const, "delete" as const),
      relation: relationArbitrary,
      columns: columnsArbitrary,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("catalog" as const),
      relation: fc.constantFrom("pg_catalog.pg_class", "public.customers"),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("call" as const),
      function: fc.constantFrom("pg_catalog.lower", "public.customers"),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("setting" as const),
      name: fc.constantFrom("TimeZone", "public.customers"),
      access: fc.constantFrom("read" as const, "write" as const),
    }),
  },
);

export const statementKindArbitrary: fc.Arbitrary<StatementKind> = fc.constantFrom(
  "select",
  "insert",
  "update",
  "delete",
  "explain",
  "transaction",
  "session",
  "empty",
);
