/** What the names of a session stand for, with the groups of messages that changed them. */
import type { Arrival, UnitRefusal } from "#protocols/driver.ts";
import type { IntakeParts, PostgresControl } from "./intake.ts";
import { changed, unitRefusal } from "./intake-words.ts";
import { Names } from "./names.ts";
import { refusal } from "./units.ts";
import type { Portal, PostgresUnit, Prepared } from "./units.ts";

export class SessionNames {
  readonly statements = new Names<Prepared>();
  readonly portals = new Names<Portal>();
  /** Counts Syncs and Queries: changes of names within one group need not wait for one another. */
  group = 0;
  readonly #parts: Pick<IntakeParts, "analyze" | "context">;

  constructor(parts: Pick<IntakeParts, "analyze" | "context">) {
    this.#parts = parts;
  }

  /** Asks the relay to wait when an earlier group may still change what `name` means upstream. */
  *settle(
    names: { isSettled(name: string, group: number): boolean },
    name: string,
  ): Generator<Arrival<PostgresUnit, PostgresControl>> {
    const group = this.group;
    if (!names.isSettled(name, group)) {
      yield { kind: "control", control: { kind: "settle", isSettled: () => names.isSettled(name, group) } };
    }
  }

  /**
   * What was decided is checked again at every run: the meaning of a statement is bound late, and the catalog may have changed.
   * Null when the statement still means the same.
   */
  stillMeans(prepared: Prepared): UnitRefusal | null {
    const context = this.#parts.context();
    if (context.catalog.version === prepared.catalogVersion) {
      return null;
    }
    const again = this.#parts.analyze(prepared.text, context);
    if (again.refused) {
      return unitRefusal(again, {});
    }
    if (JSON.stringify(again.statements) !== JSON.stringify([prepared.statement])) {
      return refusal("statement.changed", ...changed);
    }
    prepared.catalogVersion = context.catalog.version;
    return null;
  }
}
