/** What upstream will answer, one by one. */
import { InvariantError } from "#domain/errors.ts";
import type { MaskPlan } from "#mask/masker.ts";
import type { Progress } from "#protocols/driver.ts";
import type { StatementAnalysis } from "#sql/analysis.ts";
import type { NameChange } from "./names.ts";
import type { Portal } from "./units.ts";

/** One message that upstream will answer. */
export type Item =
  | {
      readonly kind: "query";
      readonly progresses: readonly Progress[];
      readonly statements: readonly StatementAnalysis[];
      readonly plans: readonly MaskPlan[];
      /** What a PREPARE or DEALLOCATE in it does to a name. */
      readonly change: NameChange | null;
      /** Which statement is being answered, from 0. */
      current: number;
      rows: number;
      bytes: number;
      failed: boolean;
    }
  | { readonly kind: "parse"; readonly progress: Progress; readonly plan: MaskPlan; readonly change: NameChange }
  | { readonly kind: "bind"; readonly progress: Progress; readonly portal: Portal; readonly change: NameChange }
  | { readonly kind: "describe"; readonly plan: MaskPlan; readonly rewritten: boolean }
  | {
      readonly kind: "execute";
      readonly progress: Progress;
      readonly portal: Portal;
      rows: number;
      bytes: number;
    }
  | { readonly kind: "close"; readonly change: NameChange | null }
  | { readonly kind: "sync" }
  /** A message that was denied: `error` is the answer, already recorded. `cycle` simple ends with a ReadyForQuery. */
  | { readonly kind: "denied"; readonly cycle: "simple" | "extended"; readonly error: Buffer };

/** Answered items are dropped in blocks: a shift each would cost as much as there are. */
const compactAfter = 256;

/** A plan for what belongs to no statement: nothing may be in it. */
export const openPlan: MaskPlan = { columns: null, outputs: [], touchesMasked: false };

/** What the masker holds a reply to this item against. */
export function planOf(item: Item): MaskPlan {
  switch (item.kind) {
    case "query":
      return item.plans[item.current] ?? item.plans.find((plan) => plan.touchesMasked) ?? openPlan;
    case "execute":
    case "bind":
      return item.portal.plan;
    case "parse":
    case "describe":
      return item.plan;
    default:
      return openPlan;
  }
}

/** The resource answered with something that this item cannot be answered with. */
export function unexpected(what: string, item: Item): InvariantError {
  return new InvariantError(`the resource sent ${what} while a ${item.kind} was to be answered`);
}

/** The statements that an item runs. */
export function statementsOf(item: Item): readonly StatementAnalysis[] {
  if (item.kind === "query") {
    return item.statements;
  }
  return item.kind === "execute" ? [item.portal.prepared.statement] : [];
}

/** Items in the order of asking. */
export class ItemQueue {
  readonly #items: Item[] = [];
  #head = 0;
  #waiting: (() => void)[] = [];

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: Item): void {
    this.#items.push(item);
  }

  oldest(): Item | undefined {
    return this.#items[this.#head];
  }

  all(): readonly Item[] {
    return this.#items.slice(this.#head);
  }

  /** Removes the oldest: it has been answered, or will not be. */
  pop(): void {
    this.#head++;
    if (this.#head === this.#items.length) {
      this.#items.length = 0;
      this.#head = 0;
    } else if (this.#head >= compactAfter) {
      this.#items.splice(0, this.#head);
      this.#head = 0;
    }
    this.notify();
  }

  /** Wakes who waits for a change. */
  notify(): void {
    const waiting = this.#waiting;
    if (waiting.length > 0) {
      this.#waiting = [];
      for (const resolve of waiting) {
        resolve();
      }
    }
  }

  /** Resolves at the next `pop` or `notify`. */
  changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }
}
