/** Small readings of parse tree nodes. */
import type { Node } from "libpg-query";
import { refuseUnsupported } from "./refused.ts";
import type { StatementState } from "./statement-state.ts";

/**
 * The parts of a name, or a list of names.
 * @throws StatementRefused `statement.unsupported` when a part is not a plain name
 */
export function namesOf(nodes: readonly Node[] | undefined, state: StatementState): readonly string[] {
  return (nodes ?? []).map((node) => {
    state.claim(node);
    return "String" in node
      ? (node.String.sval ?? "")
      : refuseUnsupported("a name has a part that is not a name", "Write plain names.");
  });
}

/** The items of a list node, or the node itself. */
export function itemsOf(node: Node | undefined, state: StatementState): readonly Node[] {
  if (node === undefined) {
    return [];
  }
  if (!("List" in node)) {
    return [node];
  }
  state.claim(node);
  return node.List.items ?? [];
}

/** True for the `{}` that stands in a list where nothing is. */
export function isAbsent(node: Node): boolean {
  return Object.keys(node).length === 0;
}

/** Every tagged node of a tree that `state` has not been told of; null when there is none. */
export function findUnclaimed(node: unknown, state: StatementState): string | null {
  if (Array.isArray(node)) {
    for (const item of node) {
      const found = findUnclaimed(item, state);
      if (found !== null) {
        return found;
      }
    }
    return null;
  }
  if (typeof node !== "object" || node === null) {
    return null;
  }
  const keys = Object.keys(node);
  const [only] = keys;
  if (keys.length === 1 && only !== undefined && /^[A-Z]/.test(only) && !state.isClaimed(node)) {
    return only;
  }
  for (const value of Object.values(node)) {
    const found = findUnclaimed(value, state);
    if (found !== null) {
      return found;
    }
  }
  return null;
}
