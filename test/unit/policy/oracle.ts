/** The slow, obvious version of what a policy set decides: no engine, no cache, no policies, just the sentences of the design. */
import type { Effect } from "#domain/effect.ts";
import type { TableGrant, TableVerb } from "#domain/grant.ts";
import type { Principal } from "#domain/principal.ts";
import type { PolicyInput } from "#policy/decide.ts";

/** A forbid that an operator wrote, as its Cedar text and as the same thing said in TypeScript. */
export interface OperatorRule {
  readonly id: string;
  readonly text: string;
  readonly forbids: (input: PolicyInput, effect: Effect | null, subject: Principal) => boolean;
}

export const operatorRules: readonly OperatorRule[] = [
  {
    id: "no-writes",
    text: '@id("no-writes") forbid(principal, action in Action::"write", resource);',
    forbids: (_input, effect) => effect?.kind === "write",
  },
  {
    id: "no-ssn",
    text: '@id("no-ssn") forbid(principal, action in [Action::"select", Action::"update"], resource) when { context.columns.contains("ssn") };',
    forbids: (_input, effect) =>
      (effect?.kind === "read" || (effect?.kind === "write" && effect.verb === "update")) &&
      effect.columns.includes("ssn"),
  },
  {
    id: "not-bob",
    text: '@id("not-bob") forbid(principal, action, resource) when { principal.name == "bob" };',
    forbids: (_input, _effect, subject) => subject.name === "bob",
  },
  {
    id: "agents-no-lower",
    text: '@id("agents-no-lower") forbid(principal, action == Action::"call", resource == Function::"pg_catalog.lower") when { principal.kind == "agent" };',
    forbids: (_input, effect, subject) =>
      effect?.kind === "call" && effect.function === "pg_catalog.lower" && subject.kind === "agent",
  },
  {
    id: "late",
    text: '@id("late") forbid(principal, action, resource) when { context.now >= context.grant.expiresAt - 1000 };',
    forbids: (input) => input.nowMs >= input.grant.expiresAtMs - 1000,
  },
  {
    id: "no-transactions",
    text: '@id("no-transactions") forbid(principal, action == Action::"transaction", resource in Resource::"res_b1");',
    forbids: (input, effect) => effect === null && input.kind === "transaction",
  },
];

/** True when every effect, and the command itself, is permitted to everyone concerned. */
export function oracleAllows(input: PolicyInput, rules: readonly OperatorRule[]): boolean {
  const subjects = input.onBehalfOf === null ? [input.principal] : [input.principal, input.onBehalfOf];
  return subjects.every(
    (subject) =>
      input.grant.state === "active" &&
      input.nowMs < input.grant.expiresAtMs &&
      subject.status === "active" &&
      (subject.kind === "human" || input.nowMs < subject.expiresAtMs) &&
      [null, ...input.effects].every(
        (effect) =>
          !rules.some((rule) => rule.forbids(input, effect, subject)) &&
          (effect === null || isGranted(effect, input.grant.scope.tables)),
      ),
  );
}

function isGranted(effect: Effect, tables: readonly TableGrant[]): boolean {
  if (effect.kind === "read") {
    return isColumnwiseGranted("select", effect.relation, effect.columns, tables);
  }
  if (effect.kind === "write") {
    return isColumnwiseGranted(effect.verb, effect.relation, effect.columns, tables);
  }
  return true;
}

function isColumnwiseGranted(
  verb: TableVerb,
  relation: string,
  columns: readonly string[],
  tables: readonly TableGrant[],
): boolean {
  const lines = tables.filter((line) => `${line.schema}.${line.table}` === relation && line.verbs.includes(verb));
  return (
    lines.length > 0 &&
    columns.every((column) => lines.some((line) => line.columns === "all" || line.columns.includes(column)))
  );
}
