/**
 * One table of rows that give rights. A row is returned only when its signature holds, its body says what was asked for, and
 * it is not older than the row of that id which this process has already seen.
 *
 * Not covered here, because the database and its signatures alone cannot tell: while the gateway is down, somebody who can
 * write to the database deletes a row (rights are lost, not gained), or puts back an older signed row or the whole database.
 * `newest` gives the entry index of every row, so that the caller can hold them against the ledger at start.
 */
import type { KeyObject } from "node:crypto";
import { type Kysely, sql } from "kysely";
import type { z } from "zod";
import { SallyportError } from "#domain/errors.ts";
import { type SignedRow, type Tables, guardStore } from "./database.ts";
import { signRow, verifyRow } from "./signature.ts";

/** The tables with signed rows. */
export type SignedTableName = "principals" | "resources" | "grants" | "credentials";

/** The pair that signs and verifies; see `config-secrets.ts`. */
export interface RightsKeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

/** Which row, and the ledger entry that it was recorded by. */
export interface RowVersion {
  readonly table: SignedTableName;
  readonly id: string;
  readonly entryIndex: number;
}

interface TableParts<T> {
  readonly queries: Kysely<Tables>;
  readonly name: SignedTableName;
  readonly body: z.ZodType<T>;
  readonly key: RightsKeyPair;
}

type RawRow = Pick<SignedRow, "body" | "entry_index" | "signature"> & { readonly id: string };

/** A look-up column and the value that it must have, checked again in the signed body. */
export interface Lookup<T> {
  readonly column: "id" | "name" | "state" | "login" | "grant_id" | "run_id";
  readonly values: readonly string[];
  readonly valueOf: (item: T) => string | null;
}

interface SeenVersion {
  readonly entryIndex: number;
  /** When it was first seen, in sightings of this table. */
  readonly sighting: number;
}

/** Owner of what this process knows about the rows of one table. */
export class SignedTable<T extends { readonly id: string }> {
  readonly #parts: TableParts<T>;
  /** The newest version seen, by row id. Only grows: rows are never deleted by the gateway. */
  readonly #seen = new Map<string, SeenVersion>();
  /** Counts what was seen, so that a query is held only against what was known before it began. */
  #sightings = 0;

  constructor(parts: TableParts<T>) {
    this.#parts = parts;
  }

  /**
   * Writes a row, signed with the entry that recorded it; a row of that id is replaced.
   * @throws SallyportError `store.stale` when the row there is of a later entry, `store.conflict`, `store.unavailable`.
   */
  async put(item: T, entryIndex: number): Promise<void> {
    const { queries, name, key } = this.#parts;
    const signature = signRow({ table: name, entryIndex, body: item }, key.privateKey);
    const row = { body: JSON.stringify(item), entry_index: entryIndex, signature };
    const written = await guardStore(() =>
      queries
        .insertInto(name)
        .values(row)
        .onConflict((conflict) =>
          conflict
            .column("id")
            .doUpdateSet(row)
            .where(sql.ref(`${name}.entry_index`), "<=", entryIndex),
        )
        .returning("id")
        .execute(),
    );
    if (written.length !== 1) {
      throw new SallyportError(
        "store.stale",
        "gateway",
        `${name} ${item.id} was changed by an entry later than ${entryIndex}`,
      );
    }
    this.#see(item.id, entryIndex);
  }

  /** The one row with this value, or null. @throws SallyportError `store.tampered`, `store.unavailable`. */
  async one(lookup: Lookup<T>): Promise<T | null> {
    const [first] = await this.select(lookup);
    return first ?? null;
  }

  /**
   * All rows with one of these values, or every row when `lookup` is null; by entry index.
   * @throws SallyportError `store.tampered`, `store.unavailable`.
   */
  async select(lookup: Lookup<T> | null): Promise<readonly T[]> {
    // A row that is written while the query runs may come back as it was before: it is not held against that.
    const knownBefore = this.#sightings;
    const rows = await guardStore(() => this.#read(lookup));
    const items = rows.map((row) => this.#accept(row, knownBefore));
    for (const item of items) {
      const value = lookup?.valueOf(item) ?? null;
      if (lookup !== null && (value === null || !lookup.values.includes(value))) {
        throw this.#tampered(item.id, "its look-up columns do not say what its body says");
      }
    }
    this.#refuseMissing(lookup, items, knownBefore);
    return items;
  }

  /** Verifies every row. @throws SallyportError `store.tampered`, `store.unavailable`. */
  async newest(): Promise<readonly RowVersion[]> {
    const items = await this.select(null);
    return items.map((item) => ({
      table: this.#parts.name,
      id: item.id,
      entryIndex: this.#seen.get(item.id)?.entryIndex ?? 0,
    }));
  }

  async #read(lookup: Lookup<T> | null): Promise<readonly RawRow[]> {
    const { queries, name } = this.#parts;
    const all = queries.selectFrom(name).select(["id", "body", "entry_index", "signature"]);
    const some = lookup === null ? all : all.where(sql.ref<string>(lookup.column), "in", lookup.values);
    return some.orderBy("entry_index").orderBy("id").execute();
  }

  #accept(row: RawRow, knownBefore: number): T {
    const { name, body, key } = this.#parts;
    const entryIndex = row.entry_index;
    if (!verifyRow({ table: name, entryIndex, body: row.body }, row.signature, key.publicKey)) {
      throw this.#tampered(row.id, "its signature does not hold");
    }
    const parsed = body.safeParse(row.body);
    if (!parsed.success) {
      throw this.#tampered(row.id, "it was signed, but it is not of a form that this program knows");
    }
    const item = parsed.data;
    if (item.id !== row.id) {
      throw this.#tampered(row.id, "its id is not the one that was signed");
    }
    const known = this.#seen.get(item.id);
    if (known !== undefined && known.sighting <= knownBefore && known.entryIndex > entryIndex) {
      throw this.#tampered(item.id, `it is of entry ${entryIndex}, and entry ${known.entryIndex} was seen before`);
    }
    this.#see(item.id, entryIndex);
    return item;
  }

  #see(id: string, entryIndex: number): void {
    const known = this.#seen.get(id);
    if (known === undefined || known.entryIndex < entryIndex) {
      this.#sightings += 1;
      this.#seen.set(id, { entryIndex, sighting: this.#sightings });
    }
  }

  /** The gateway never deletes such a row, so one that was here and is gone was taken away by somebody else. */
  #refuseMissing(lookup: Lookup<T> | null, items: readonly T[], knownBefore: number): void {
    const expected = lookup === null ? [...this.#seen.keys()] : lookup.column === "id" ? lookup.values : [];
    const found = new Set(items.map((item) => item.id));
    const missing = expected.find((id) => (this.#seen.get(id)?.sighting ?? Infinity) <= knownBefore && !found.has(id));
    if (missing !== undefined) {
      throw this.#tampered(missing, "it was there before and has been deleted");
    }
  }

  #tampered(id: string, why: string): SallyportError {
    const { name } = this.#parts;
    return new SallyportError("store.tampered", "gateway", `row ${id} of sallyport.${name} is refused: ${why}`, {
      nextStep: "find out who can write to the state database; restore the row from a copy, or make what it gave anew",
    });
  }
}
