/**
 * Holds the rows that give rights against the ledger, at start: a signature proves that a row was once ours, and the ledger that
 * it is still the newest. Without this, whoever can write to the state store could bring back an ended grant while the node is
 * down. What a start has read is kept beside the keys, so that a start reads the log's new entries only.
 */
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { z } from "zod";

import { SallyportError } from "#domain/errors.ts";
import { readLedger } from "#ledger/reader.ts";

/** Index of the newest recorded change of each object, by its id. */
export interface RightsHeads {
  /** Entries of the log that have been looked at. */
  readonly size: number;
  readonly heads: ReadonlyMap<string, number>;
}

/** A row as the state store has it. */
export interface StoredRow {
  readonly table: string;
  readonly id: string;
  readonly entryIndex: number;
}

const keptSchema = z.object({
  size: z.int().nonnegative(),
  heads: z.array(z.tuple([z.string(), z.int().nonnegative()])),
});

const fileName = "rights-heads.json";
const outcomeMark = Buffer.from('"type":"change.outcome"');

/** Reads the changes of the log, from where the last start left off. */
export async function readRightsHeads(ledgerDirectory: string, keysDirectory: string): Promise<RightsHeads> {
  const reader = await readLedger(ledgerDirectory);
  const known = await readKept(join(keysDirectory, fileName), reader.size);
  const heads = new Map(known.heads);
  for await (const { index, bytes, entry } of reader.entries({ from: known.size })) {
    if (!Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).includes(outcomeMark)) {
      continue;
    }
    // An intent without an outcome may or may not have reached its row: only what was concluded is held against it.
    if (entry.type === "change.outcome" && entry.status === "ok") {
      heads.set(entry.object, entry.intent ?? index);
    }
  }
  return { size: reader.size, heads };
}

/** Keeps what is known for the next start. A crash before the rename leaves the older file, which is read on from. */
export async function keepRightsHeads(known: RightsHeads, keysDirectory: string): Promise<void> {
  const file = join(keysDirectory, fileName);
  await writeFile(`${file}.new`, JSON.stringify({ size: known.size, heads: [...known.heads] }), { mode: 0o600 });
  await rename(`${file}.new`, file);
}

/**
 * @throws SallyportError `store.tampered` for a row that is older than its newest recorded change, or that no entry speaks of.
 */
export function checkRows(rows: readonly StoredRow[], known: RightsHeads): void {
  for (const { table, id, entryIndex } of rows) {
    const newest = known.heads.get(id) ?? -1;
    if (entryIndex < newest || entryIndex >= known.size) {
      throw new SallyportError(
        "store.tampered",
        "gateway",
        `the row ${id} of ${table} is of entry ${entryIndex}, and the ledger's newest change of it is entry ${newest}`,
        {
          nextStep:
            "Somebody has put an older row back into the state store. Restore the state store from a backup that belongs to this ledger.",
        },
      );
    }
  }
}

async function readKept(file: string, size: number): Promise<RightsHeads> {
  const nothing: RightsHeads = { size: 0, heads: new Map() };
  let parsed: unknown;
  try {
    parsed = JSON.parse(await readFile(file, "utf8"));
  } catch {
    // Missing or torn: everything is read again, which is slower and says the same.
    return nothing;
  }
  const kept = keptSchema.safeParse(parsed);
  if (!kept.success || kept.data.size > size) {
    return nothing;
  }
  return { size: kept.data.size, heads: new Map(kept.data.heads) };
}
