/** The ledger: drafts become entries, entries become durable, and only then is there a token. The one place that mints them. */
import type { KeyObject } from "node:crypto";

import type { Clock } from "#domain/clock.ts";
import type { AllowPure } from "#domain/decision.ts";
import { InvariantError, SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import type { PayloadFields } from "#domain/outcome.ts";
import type { Checkpoint } from "#tlog/checkpoint.ts";

import { canonicalJson, entryVersion } from "./entry.ts";
import type { Draft, Entry, EntryDraft, LedgerDraft } from "./entry.ts";
import { ledgerFailure } from "./failure.ts";
import { makeDurableDirectory, nodeFiles } from "./files.ts";
import type { Files } from "./files.ts";
import type { Unframed } from "./frame.ts";
import {
  destroyDataKey,
  doomDataKey,
  doomedDataKeys,
  markBegun,
  openDataKey,
  openKeys,
  readDataKeyNow,
} from "./keys.ts";
import type { KeyStore, LedgerKeys } from "./keys.ts";
import type { Ledger, LedgerStatus } from "./ledger.ts";
import { claimLog, processClaimant } from "./lock.ts";
import type { Claimant } from "./lock.ts";
import { assertReaches, readNewest, writeNewest } from "./newest.ts";
import { sealPayload } from "./payloads.ts";
import type { SealedPayload } from "./payloads.ts";
import { Publisher } from "./publish.ts";
import { mintEnqueued, mintRecorded } from "./recorded.ts";
import type { Enqueued, Recorded } from "./recorded.ts";
import {
  cutTornEnds,
  hasCheckpoint,
  loadTail,
  loadTree,
  prepareDirectory,
  removeSegments,
  trimPayloads,
} from "./recover.ts";
import type { Tail } from "./recover.ts";
import { scrubFields } from "./scrub.ts";
import { createSegment, Sequencer } from "./sequencer.ts";
import type { LedgerTuning } from "./sequencer.ts";

/** The data key for changes of the control plane; it is always open. */
export const nodeDataKey = "node";

/** Where the ledger is and what it needs. */
export interface LedgerOptions {
  /** The log. Made when missing; its parent must exist. */
  readonly directory: string;
  /** The signing key, the payload key and the wrapped data keys: apart from the log, and not backed up with it. */
  readonly keysDirectory: string;
  /** Names the log for good: the first line of its checkpoints. No spaces, no `+`. */
  readonly origin: string;
  readonly clock: Clock;
  readonly randomBytes: (length: number) => Uint8Array;
  readonly files?: Files;
  readonly claimant?: Claimant;
  readonly tuning?: Partial<LedgerTuning>;
}

const defaultTuning: LedgerTuning = {
  integrateAfterMs: 1000,
  integrateEntriesMax: 16_384,
  batchBytesMax: 1024 * 1024,
  heldBytesMax: limits.ledgerQueueBytesMax,
};

/** Data keys kept in memory: more than there are live sessions and runs. */
const dataKeysKeptMax = 2048;

/** The ledger with what only its owner does. */
export interface OpenLedger extends Ledger {
  /** Records that a data key is destroyed, then destroys it. Every proof still verifies; its payloads are gone. */
  destroyDataKey(key: string): Promise<void>;
}

/**
 * Opens a log, or begins one. What a crash left is made part of the tree first, by the same step as in normal work.
 * @throws SallyportError `ledger.locked`, `ledger.keys`, `ledger.corrupt` or `ledger.unavailable`.
 */
export async function openLedger(options: LedgerOptions): Promise<OpenLedger> {
  const files = options.files ?? nodeFiles;
  try {
    await makeDurableDirectory(files, options.directory);
    const release = await claimLog(files, options.directory, options.claimant ?? processClaimant());
    try {
      return await openClaimed(options, files, release);
    } catch (error) {
      // The first failure is the one to tell of; a claim that stays behind ends with this process.
      await release().catch(() => undefined);
      throw error;
    }
  } catch (error) {
    throw ledgerFailure(error, options.directory);
  }
}

async function openClaimed(options: LedgerOptions, files: Files, release: () => Promise<void>): Promise<OpenLedger> {
  const { directory, origin, keysDirectory, randomBytes } = options;
  const place = { directory, files };
  const keyStore = { directory: keysDirectory, files, randomBytes };
  const hasLog = await hasCheckpoint(place);
  const keys = await openKeys(keyStore, origin, hasLog);
  if (keys.isBegun && !hasLog) {
    throw new SallyportError("ledger.corrupt", "gateway", "The keys belong to a log that is not there any more.", {
      nextStep: `Restore ${directory} from a copy, or move ${keysDirectory} away to begin a new log.`,
    });
  }
  await prepareDirectory(place, origin, !hasLog);
  const newest = await readNewest(keyStore, origin, hasLog);
  const last = newest?.opening ?? 0;
  const edge = await loadTree(place, keys.signer);
  const tail = await loadTail(place, edge.size, { key: keys.segmentKey, opening: last });
  if (newest !== null) {
    await assertReaches({ place, signer: keys.signer, edge, pending: tail.pending }, newest);
  }
  // Everything was found in order; from here on things are changed.
  await cutTornEnds(place, tail);
  const payloads = await trimPayloads(place, edge.size, tail.pending);
  let opening = last;
  const note = (checkpoint: Checkpoint): Promise<void> => writeNewest(keyStore, { checkpoint, opening });
  const publisher = new Publisher({ directory, files, signer: keys.signer, edge, payloads, note });
  const openingEntry = openingEntryOf(origin, edge.size, tail);
  if (!hasLog) {
    await publisher.writeCheckpoint(publisher.checkpoint);
    // A crash here leaves an empty log, whose first entry is still to be written.
  }
  await markBegun(keyStore);
  if (tail.pending.length > 0) {
    await publisher.publish(tail.pending);
  }
  // A crash here leaves segments of the last opening, all of them in the tree: the next start removes them.
  opening = last + 1;
  await note(publisher.checkpoint);
  // From here on a segment of an earlier opening adds nothing to the log, whoever puts one back.
  const nodeKey = await openDataKey(keyStore, keys.kek, nodeDataKey);
  const head = { sequence: (tail.segments.at(-1) ?? 0) + 1, opening };
  const segment = await createSegment(place, head, keys.segmentKey);
  const tuning = { ...defaultTuning, ...options.tuning };
  const sequencer = new Sequencer({ directory, files, publisher, segment, opening, tuning });
  const ledger = new LedgerWriter({ options, release, keys, keyStore, sequencer, nodeKey });
  try {
    await removeSegments(place, tail.segments);
    await ledger.recordOwn(openingEntry);
    await ledger.finishDestructions();
  } catch (error) {
    // The first failure is the one to tell of.
    await segment.file.close().catch(() => undefined);
    throw error;
  }
  return ledger;
}

/**
 * A log that was closed has no segments, so any segment means that the last process ended otherwise. One that ended
 * before it recorded anything has not begun the log.
 */
function openingEntryOf(origin: string, size: number, tail: Tail): LedgerDraft {
  return tail.segments.length === 0 || size + tail.pending.length === 0
    ? { type: "ledger.opened", origin, size }
    : { type: "ledger.recovered", checkpoint: size, entries: tail.pending.length, tornBytes: tail.tornBytes };
}

interface WriterParts {
  readonly options: LedgerOptions;
  readonly release: () => Promise<void>;
  readonly keys: LedgerKeys;
  readonly keyStore: KeyStore;
  readonly sequencer: Sequencer;
  readonly nodeKey: KeyObject;
}

class LedgerWriter implements OpenLedger {
  readonly #parts: WriterParts;
  readonly #sequencer: Sequencer;
  /** Data keys in memory, by name, the one that was read longest ago first; one that is not here is read again. */
  readonly #dataKeys: Map<string, KeyObject>;
  /** Data keys whose destruction has begun: nothing more is encrypted under them. */
  readonly #destroyed = new Set<string>();
  readonly #random: (length: number) => Uint8Array;
  #atMs = Number.NaN;
  #at = "";

  constructor(parts: WriterParts) {
    this.#parts = parts;
    this.#sequencer = parts.sequencer;
    this.#dataKeys = new Map([[nodeDataKey, parts.nodeKey]]);
    this.#random = pooledRandom(parts.options.randomBytes);
  }

  get failed(): Promise<Error> {
    return this.#sequencer.failed;
  }

  record<S>(draft: Draft, subject: S): Promise<Recorded<S>> {
    return this.#whenDurable(
      () => this.#unframed(draft.entry, draft.payload),
      (index) => mintRecorded(subject, index),
    );
  }

  enqueue<S extends AllowPure>(draft: Draft, subject: S): Enqueued<S> {
    this.#sequencer.assertOpen();
    // The callers' own bounds (sessions, commands in a pipeline) hold back most; this stops what they do not.
    if (this.#sequencer.heldBytes > 2 * this.#tuning().heldBytesMax) {
      throw new SallyportError("limit.exceeded", "gateway", "Too much waits to be recorded.", {
        nextStep: "Send fewer commands at a time.",
      });
    }
    const { promise, resolve, reject } = Promise.withResolvers<Recorded<S>>();
    // Whoever releases the result awaits it; a session that is gone by then must not end the process.
    promise.catch(() => undefined);
    const unframed = this.#unframed(draft.entry, draft.payload);
    const settle = (): void => {
      resolve(mintRecorded(subject, index));
    };
    const index = this.#sequencer.append({ ...unframed, settle, fail: reject }, "soon");
    return mintEnqueued(subject, index, promise);
  }

  async openDataKey(key: string): Promise<void> {
    this.#sequencer.assertOpen();
    if (this.#destroyed.has(key)) {
      throw new InvariantError(`the data key ${key} was destroyed`);
    }
    if (!this.#dataKeys.has(key)) {
      const { keyStore, keys, options } = this.#parts;
      try {
        this.#keepDataKey(key, await openDataKey(keyStore, keys.kek, key));
      } catch (error) {
        throw ledgerFailure(error, options.keysDirectory);
      }
    }
  }

  #keepDataKey(name: string, key: KeyObject): void {
    for (const oldest of this.#dataKeys.keys()) {
      if (this.#dataKeys.size < dataKeysKeptMax) {
        break;
      }
      this.#dataKeys.delete(oldest);
    }
    this.#dataKeys.set(name, key);
  }

  async destroyDataKey(key: string): Promise<void> {
    if (key === nodeDataKey) {
      throw new InvariantError("the node's own data key is never destroyed");
    }
    this.#sequencer.assertOpen();
    const { keyStore, options } = this.#parts;
    try {
      await doomDataKey(keyStore, key);
      // A crash here leaves the mark: the next start records the destruction and carries it out.
      this.#destroyed.add(key);
      this.#dataKeys.delete(key);
      await this.recordOwn({ type: "payload.destroyed", key });
      // A crash here leaves a record of a destruction that is still to come: the next start carries it out.
      await destroyDataKey(keyStore, key);
    } catch (error) {
      throw ledgerFailure(error, options.keysDirectory);
    }
  }

  /** Carries out destructions that a crash interrupted. */
  async finishDestructions(): Promise<void> {
    for (const key of await doomedDataKeys(this.#parts.keyStore)) {
      await this.recordOwn({ type: "payload.destroyed", key });
      await destroyDataKey(this.#parts.keyStore, key);
    }
  }

  /** Records what only the ledger itself may say. */
  async recordOwn(entry: LedgerDraft): Promise<void> {
    await this.#whenDurable(
      () => this.#unframed(entry, undefined),
      () => undefined,
    );
  }

  async checkpoint(): Promise<LedgerStatus> {
    await this.#sequencer.integrate();
    return this.status();
  }

  status(): LedgerStatus {
    const { state, failure, durableSize, checkpoint } = this.#sequencer;
    return {
      origin: this.#parts.options.origin,
      size: durableSize,
      checkpointSize: checkpoint.size,
      rootHex: Buffer.from(checkpoint.root).toString("hex"),
      verifierKey: this.#parts.keys.signer.verifierKey,
      state,
      failure: failure?.message ?? null,
    };
  }

  async close(): Promise<void> {
    const { release, options } = this.#parts;
    try {
      try {
        await this.#sequencer.close();
      } finally {
        await release();
      }
    } catch (error) {
      throw ledgerFailure(error, options.directory);
    }
  }

  #tuning(): LedgerTuning {
    return { ...defaultTuning, ...this.#parts.options.tuning };
  }

  #whenDurable<T>(unframed: () => Unframed, value: (index: number) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const run = (): void => {
        try {
          const settle = (): void => {
            resolve(value(index));
          };
          const index = this.#sequencer.append({ ...unframed(), settle, fail: reject }, "now");
        } catch (error) {
          reject(ledgerFailure(error, this.#parts.options.directory));
        }
      };
      this.#sequencer.whenRoom(run, reject);
    });
  }

  /**
   * The entry's canonical text and its sealed payload.
   * @throws SallyportError `limit.exceeded` when either is too large; the ledger itself is none the worse.
   */
  #unframed(draft: EntryDraft | LedgerDraft, payload: Draft["payload"]): Unframed {
    const sealed = payload === undefined ? null : this.#seal(payload.key, payload.fields);
    const head = { v: entryVersion, at: this.#time(), mono: this.#parts.options.clock.monotonicUs() } as const;
    const entry: Entry =
      sealed === null
        ? { ...draft, ...head }
        : { ...draft, ...head, commitments: sealed.commitments, payload: sealed.payload };
    const entryText = canonicalJson(entry);
    const entryBytes = Buffer.byteLength(entryText, "utf8");
    if (entryBytes > limits.entryBytesMax) {
      throw tooLarge(`An entry of type ${draft.type} would have ${entryBytes} bytes`, limits.entryBytesMax);
    }
    return { entryText, entryBytes, payload: sealed?.ciphertext ?? null };
  }

  #seal(key: string, fields: PayloadFields): SealedPayload {
    const { fields: clean, scrubbed } = scrubFields(fields);
    const sealed = sealPayload(key, this.#dataKey(key), clean, this.#random);
    if (sealed.payload.bytes > limits.payloadBytesMax) {
      throw tooLarge(`A payload would have ${sealed.payload.bytes} bytes`, limits.payloadBytesMax);
    }
    return scrubbed === null ? sealed : { ...sealed, payload: { ...sealed.payload, scrubbed } };
  }

  #dataKey(name: string): KeyObject {
    const kept = this.#dataKeys.get(name);
    if (kept !== undefined) {
      return kept;
    }
    const { keyStore, keys } = this.#parts;
    const key = this.#destroyed.has(name) ? null : readDataKeyNow(keyStore, keys.kek, name);
    if (key === null) {
      throw new InvariantError(`the data key ${name} was not opened, or was destroyed`);
    }
    this.#keepDataKey(name, key);
    return key;
  }

  /** The time as an entry has it; most entries share their millisecond with the one before. */
  #time(): string {
    const nowMs = this.#parts.options.clock.nowMs();
    if (nowMs !== this.#atMs) {
      this.#atMs = nowMs;
      this.#at = new Date(nowMs).toISOString();
    }
    return this.#at;
  }
}

function tooLarge(what: string, bytesMax: number): SallyportError {
  return new SallyportError("limit.exceeded", "client", `${what}; at most ${bytesMax} can be recorded.`, {
    nextStep: "Send a smaller statement.",
  });
}

/** Nonces and salts come from one larger draw: a draw from the system for each costs more than the encryption. */
function pooledRandom(randomBytes: (length: number) => Uint8Array): (length: number) => Uint8Array {
  const poolBytes = 16 * 1024;
  let pool: Uint8Array = new Uint8Array(0);
  return (length) => {
    if (length > pool.length) {
      pool = randomBytes(Math.max(poolBytes, length));
    }
    const bytes = pool.subarray(0, length);
    pool = pool.subarray(length);
    return bytes;
  };
}
