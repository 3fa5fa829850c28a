/** How the analysis gives up on a statement. It is thrown and caught inside this module only. */
import type { DenyCode } from "#domain/decision.ts";

/** Carries a denial out of a deep place of a parse tree. `analyze` turns it into a `Refusal`. */
export class StatementRefused extends Error {
  readonly code: DenyCode;
  readonly reason: string;
  readonly nextStep: string;

  constructor(code: DenyCode, reason: string, nextStep: string) {
    super(reason);
    this.name = "StatementRefused";
    this.code = code;
    this.reason = reason;
    this.nextStep = nextStep;
  }
}

/** @throws StatementRefused always. */
export function refuse(code: DenyCode, reason: string, nextStep: string): never {
  throw new StatementRefused(code, reason, nextStep);
}

/**
 * The same words for a relation that is not granted and one that is not there: a denial must not say what exists.
 * @throws StatementRefused `name.unknown-relation`
 */
export function refuseRelation(name: string): never {
  refuse(
    "name.unknown-relation",
    `no grant covers ${quoted(name)}`,
    "List the tables of this grant in information_schema.tables, or ask for a grant that covers it.",
  );
}

/**
 * The same words for a column that is not granted and one that is not there.
 * @throws StatementRefused `name.unknown-column`
 */
export function refuseColumn(name: string, relation: string | null): never {
  refuse(
    "name.unknown-column",
    relation === null
      ? `no column ${quoted(name)} is covered here`
      : `no grant covers column ${quoted(name)} of ${quoted(relation)}`,
    "List the columns of this grant in information_schema.columns.",
  );
}

/**
 * The same words for a function that is not allowed and one that is not there.
 * @throws StatementRefused `grant.no-function`
 */
export function refuseFunction(name: string): never {
  refuse(
    "grant.no-function",
    `no grant covers function ${quoted(name)}`,
    "Use the built-in functions of PostgreSQL that only compute; functions of the database itself are not granted yet.",
  );
}

/** @throws StatementRefused `statement.unsupported` */
export function refuseUnsupported(what: string, nextStep: string): never {
  refuse("statement.unsupported", what, nextStep);
}

/** A name as a denial shows it. Names come from the client: they are cut, and control characters are taken out. */
export function quoted(name: string): string {
  const shown = name.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "?");
  return `"${shown.length > 100 ? `${shown.slice(0, 100)}…` : shown}"`;
}
