/** How the gateway's own SQL gets into the ledger: an intent before it runs, an outcome after. */
import type { ProvisionJournal } from "#protocols/driver.ts";

export type JournalAction = Parameters<ProvisionJournal["begin"]>[0];

/** The entries of one change: an intent when `begin` is called, its outcome when it has ended; nothing when it never began. */
export class Recording {
  readonly #journal: ProvisionJournal;
  readonly #action: JournalAction;
  readonly #object: string;
  #finish: Awaited<ReturnType<ProvisionJournal["begin"]>> | null = null;

  constructor(journal: ProvisionJournal, action: JournalAction, object: string) {
    this.#journal = journal;
    this.#action = action;
    this.#object = object;
  }

  async begin(statements: readonly string[]): Promise<void> {
    this.#finish = await this.#journal.begin(this.#action, this.#object, statements);
  }

  async end(status: "ok" | "failed", sqlState: string | null, attested: boolean | null): Promise<void> {
    const finish = this.#finish;
    this.#finish = null;
    await finish?.({ status, sqlState, attested });
  }
}
