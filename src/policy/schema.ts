/**
 * What policies are written about. Every policy, ours or an operator's, is validated against this schema before it decides
 * anything. Language: Cedar schema, https://docs.cedarpolicy.com/schema/human-readable-schema.html
 */
import type { TableVerb } from "#domain/grant.ts";

/** Cedar schema text. Its words are those of the domain; `docs/policies.md` describes each for those who write policies. */
export const policySchema = `
type Request = {
  now: Long,
  statement: String,
  columns: Set<String>,
  grant: Grant,
  actor: Principal,
  onBehalfOf?: Principal,
};

entity Grant {
  title: String,
  ticket?: String,
  state: String,
  createdAt: Long,
  expiresAt: Long,
};
entity Principal in [Grant] {
  kind: String,
  name: String,
  status: String,
  owner?: String,
  expiresAt?: Long,
};
entity Resource {
  name: String,
};
entity Table in [Resource] {
  schema: String,
  name: String,
};
entity Catalog in [Resource] {
  name: String,
};
entity Function in [Resource] {
  name: String,
};
entity Setting in [Resource] {
  name: String,
};

action read;
action write;
action select in [read] appliesTo { principal: Principal, resource: Table, context: Request };
action insert, update, delete in [write] appliesTo { principal: Principal, resource: Table, context: Request };
action catalog in [read] appliesTo { principal: Principal, resource: Catalog, context: Request };
action call appliesTo { principal: Principal, resource: Function, context: Request };
action show, set appliesTo { principal: Principal, resource: Setting, context: Request };
action statement, transaction appliesTo { principal: Principal, resource: Resource, context: Request };
`;

/**
 * What is asked about: one for each effect of a command, and one for the command itself (`transaction` for a statement of
 * kind transaction, `statement` for any other).
 */
export type PolicyAction = TableVerb | "catalog" | "call" | "show" | "set" | "statement" | "transaction";

/** Entity types that an action can be about. */
export type PolicyObjectType = "Table" | "Catalog" | "Function" | "Setting" | "Resource";
