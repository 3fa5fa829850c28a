import type { RelationKey } from "./scope.ts";

/**
 * - `select`: SELECT, VALUES, TABLE, WITH without writes, and EXPLAIN of those (`explain`)
 * - `transaction`: BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE, ROLLBACK TO
 * - `session`: SET, RESET, SHOW, DISCARD of what is allowed
 * - `empty`: nothing but white space and comments
 */
export type StatementKind = "select" | "insert" | "update" | "delete" | "explain" | "transaction" | "session" | "empty";

export type TransactionAction = "begin" | "commit" | "rollback" | "savepoint" | "release" | "rollback-to";

/** One relation, function or setting that a statement touches. */
export type Effect =
  | {
      readonly kind: "read";
      /** A granted relation: the base table, also when the statement is spliced onto its view. */
      readonly relation: RelationKey;
      /** Columns used anywhere in the statement, sorted. */
      readonly columns: readonly string[];
    }
  | { readonly kind: "catalog"; readonly relation: RelationKey }
  | {
      readonly kind: "write";
      readonly verb: "insert" | "update" | "delete";
      readonly relation: RelationKey;
      readonly columns: readonly string[];
    }
  | { readonly kind: "call"; readonly function: string }
  | { readonly kind: "setting"; readonly name: string; readonly access: "read" | "write" };
