/**
 * Where transactions begin and end, from what PostgreSQL says: the tags of transaction statements and ReadyForQuery's status.
 * A transaction's end is an entry of its own, since the rows of an outcome may have been rolled back. An implicit transaction of
 * pure reads has nothing to roll back and gets none.
 */
import type { TransactionEnd } from "#protocols/driver.ts";
import type { StatementAnalysis } from "#sql/analysis.ts";

export class TransactionBook {
  #first: number | null = null;
  #commands = 0;
  #impure = false;
  #explicit = false;
  #failed = false;

  /** A command with the intent at `index` ran, or tried to. */
  began(index: number, statement: StatementAnalysis): void {
    this.#first ??= index;
    this.#commands++;
    // BEGIN and COMMIT are recorded as not pure so that they wait for their record; by themselves they change nothing.
    this.#impure ||= !statement.pure && statement.transaction === null;
  }

  /** A statement completed with `tag`; the end of a transaction when it ended one. */
  completed(statement: StatementAnalysis, tag: string | null): TransactionEnd | null {
    switch (statement.transaction) {
      case "begin":
        this.#explicit = true;
        return null;
      case "commit":
      case "rollback":
        // COMMIT of a failed transaction answers ROLLBACK: the tag tells what happened.
        return this.#end(tag === "COMMIT" ? "commit" : "rollback");
      default:
        return null;
    }
  }

  failed(): void {
    this.#failed = true;
  }

  /** ReadyForQuery with a transaction open: a failure before it belongs to that transaction, not to the next. */
  open(): void {
    this.#explicit = true;
    this.#failed = false;
  }

  /** ReadyForQuery with none open: an implicit transaction that wrote ended with it. */
  idle(): TransactionEnd | null {
    return this.#end(this.#failed ? "rollback" : "commit");
  }

  #end(how: "commit" | "rollback"): TransactionEnd | null {
    const end =
      this.#first === null || !(this.#explicit || this.#impure)
        ? null
        : { how, explicit: this.#explicit, first: this.#first, commands: this.#commands };
    this.#first = null;
    this.#commands = 0;
    this.#impure = false;
    this.#explicit = false;
    this.#failed = false;
    return end;
  }
}
