/** Changes of the control plane as entries: intent, then the change, then outcome (DESIGN.md, "The ledger"). */
import type { ChangeId, IdSource } from "#domain/ids.ts";
import { SallyportError } from "#domain/errors.ts";
import type { ChangeKind, EntryActor } from "#ledger/entry.ts";
import type { Ledger } from "#ledger/ledger.ts";

/** Facts of a change that may stand in the log: ids, names of schema objects, times; never personal data. */
export type ChangeDetail = { readonly [key: string]: string | number | boolean | null | readonly string[] };

export interface Change {
  readonly kind: ChangeKind;
  /** The id of what is changed. */
  readonly object: string;
  readonly by: EntryActor;
  readonly detail: ChangeDetail;
  /** Texts for the encrypted payload: titles, reasons, names. */
  readonly texts?: { readonly [name: string]: string };
}

/** The data key of the control plane's payloads. */
export const nodeDataKey = "node";

/**
 * Makes a change: its intent is durable before `make` runs. `make` gets the intent's index, for the rows that it signs. A change
 * that takes rights away has already acted when this is called; then `make` is what remains to be done (rows, dropping roles).
 * @throws what `make` throws, after the failed outcome was recorded.
 */
export async function makeChange<T>(
  parts: { readonly ledger: Ledger; readonly ids: IdSource },
  change: Change,
  make: (entryIndex: number) => Promise<T>,
): Promise<T> {
  const id = parts.ids("chg");
  const intent = await recordIntent(parts.ledger, id, change);
  try {
    const made = await make(intent);
    await recordOutcome(parts.ledger, id, change, intent, null);
    return made;
  } catch (error) {
    await recordOutcome(parts.ledger, id, change, intent, error instanceof SallyportError ? error.code : "internal");
    throw error;
  }
}

async function recordIntent(ledger: Ledger, id: ChangeId, change: Change): Promise<number> {
  const { kind, object, by, detail } = change;
  const recorded = await ledger.record(
    {
      entry: { type: "change.intent", change: id, kind, object, by, detail },
      ...(change.texts === undefined ? {} : { payload: { key: nodeDataKey, fields: change.texts } }),
    },
    id,
  );
  return recorded.index;
}

async function recordOutcome(
  ledger: Ledger,
  id: ChangeId,
  change: Change,
  intent: number,
  code: string | null,
): Promise<void> {
  const { kind, object } = change;
  const status = code === null ? "ok" : "failed";
  await ledger.record(
    { entry: { type: "change.outcome", change: id, kind, object, intent, status, code, detail: {} } },
    id,
  );
}
