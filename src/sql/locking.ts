/** FOR UPDATE and FOR SHARE: a lock is a change that others see, and it needs the right to change the row. */
import type { Node } from "libpg-query";
import { relationKey } from "#domain/scope.ts";
import type { QueryScope } from "./namespace.ts";
import { quoted, refuse, refuseRelation, refuseUnsupported } from "./refused.ts";

/** @throws StatementRefused unless every relation that is locked may be changed and is a table that the statement sees itself */
export function checkLocking(clauses: readonly Node[] | undefined, scope: QueryScope): void {
  for (const node of clauses ?? []) {
    scope.state.claim(node);
    if (!("LockingClause" in node)) {
      refuseUnsupported("a lock has an unknown form", "Read without FOR UPDATE.");
    }
    scope.state.impure = true;
    const named = (node.LockingClause.lockedRels ?? []).map((relation) => {
      scope.state.claim(relation);
      return "RangeVar" in relation && relation.RangeVar.schemaname === undefined
        ? (relation.RangeVar.relname ?? "")
        : "";
    });
    for (const name of named) {
      if (!scope.visible.some(({ item, byName }) => byName && item.name === name)) {
        refuseRelation(name);
      }
    }
    const locked = scope.visible.filter(({ item }) => named.length === 0 || named.includes(item.name ?? ""));
    for (const use of new Set(locked.flatMap(({ item }) => item.uses))) {
      const isWritable =
        use.kind === "granted" &&
        use.scoped.write !== null &&
        (use.scoped.write.updateColumns.length > 0 || use.scoped.write.delete);
      if (!isWritable || use.scoped.maskedColumns.length > 0) {
        const name = use.kind === "granted" ? relationKey(use.scoped.base) : relationKey(use.shadow);
        refuse(
          "grant.no-verb",
          `the grant on ${quoted(name)} does not allow locking rows`,
          "Read without FOR UPDATE or FOR SHARE.",
        );
      }
    }
    // A lock without names reaches into subqueries: those are not followed.
    if (locked.some(({ item }) => item.base === null && item.name !== null)) {
      refuseUnsupported("FOR UPDATE reaches into a subquery", "Name the tables to lock: FOR UPDATE OF ….");
    }
  }
}
