/**
 * The queue of the log and its group commit.
 *
 *     append ─► queue ─► write + fdatasync (one batch at a time) ─► sequenced: durable, the caller is told
 *                                                                     │ every second, or sooner when much has come
 *                                                                     ▼
 *                             tiles, bundles, payload files, checkpoint ─► integrated: in the signed tree
 *
 * A failed write or sync is fatal and never tried again: after a failed `fdatasync` nobody but recovery, which reads it
 * back, knows what is on the disk. So the ledger fails once, for good, and with it everything that waits for it.
 */
import type { KeyObject } from "node:crypto";
import { join } from "node:path";

import type { Checkpoint } from "#tlog/checkpoint.ts";

import { ledgerClosed, ledgerFailure } from "./failure.ts";
import { writeAll } from "./files.ts";
import type { Files, WritableFile } from "./files.ts";
import { encodeBatch, encodeSegmentHead, recordBytes } from "./frame.ts";
import type { Pending, SegmentChain, SegmentHead, Unframed } from "./frame.ts";
import { segmentDirectory, segmentName } from "./layout.ts";
import type { Publisher } from "./publish.ts";
import { removeSegments } from "./recover.ts";
import type { LogPlace } from "./recover.ts";

/** How the ledger paces itself. */
export interface LedgerTuning {
  /** Integrated at the latest this long after it became durable. */
  readonly integrateAfterMs: number;
  /** Integrated once this many durable entries wait. */
  readonly integrateEntriesMax: number;
  /** One write: more waits for the next batch. A single entry with its payload may be larger. */
  readonly batchBytesMax: number;
  /** Entries and payloads in memory, waiting for a sync or for integration; past it, `record` waits. */
  readonly heldBytesMax: number;
}

/** An entry in the queue, and what to do when it is durable or never will be. */
export interface Queued extends Unframed {
  readonly settle: () => void;
  readonly fail: (error: Error) => void;
}

/** A write-ahead segment open for writing. */
export interface OpenSegment {
  readonly sequence: number;
  readonly file: WritableFile;
  /** What the next batch is bound to. */
  readonly chain: SegmentChain;
}

export interface SequencerParts {
  readonly directory: string;
  readonly files: Files;
  readonly publisher: Publisher;
  readonly segment: OpenSegment;
  /** Goes into the heads of further segments. */
  readonly opening: number;
  readonly tuning: LedgerTuning;
}

interface Waiter {
  readonly run: () => void;
  readonly refuse: (error: Error) => void;
}

/** What a finished segment holds: the entries that it alone makes durable until they are in the tree. */
interface Finished {
  readonly segment: OpenSegment;
  readonly entries: readonly Pending[];
}

/** Part of `heldBytesMax` at which integration begins early, so that waiting for it is rare. */
const earlyIntegrationPart = 4;

/** The intent of a short read goes to disk together with its outcome, which comes sooner than this. */
const soonMs = 1;

/** Creates a segment whose name is durable before the first batch goes into it. */
export async function createSegment(
  { directory, files }: LogPlace,
  head: SegmentHead,
  key: KeyObject,
): Promise<OpenSegment> {
  const file = await files.open(join(directory, segmentDirectory, segmentName(head.sequence)), "create");
  const { bytes, chain } = encodeSegmentHead(head, key);
  try {
    writeAll(file, bytes);
    await file.sync();
    // A crash here leaves an empty segment, or no name for it: there is nothing in it yet.
    await files.syncDirectory(join(directory, segmentDirectory));
  } catch (error) {
    await file.close();
    throw error;
  }
  return { sequence: head.sequence, file, chain };
}

/** Owns the queue and the segments. Indexes are given in the order of `append`, which is the order in the log. */
export class Sequencer {
  readonly #parts: SequencerParts;
  #state: "open" | "failed" | "closed" = "open";
  #failure: Error | null = null;
  /** Set when `close` begins: what is queued is still written, nothing more is taken. */
  #isClosing = false;
  #queue: Queued[] = [];
  #nextIndex: number;
  #durableSize: number;
  #heldBytes = 0;
  readonly #waiters: Waiter[] = [];
  #isWriting = false;
  #isScheduled = false;
  #soon: NodeJS.Timeout | null = null;
  #idle: (() => void)[] = [];
  #segment: OpenSegment;
  /** Durable entries that are in `#segment` and not in the tree. */
  #tail: Pending[] = [];
  #tailBytes = 0;
  /** The next segment, ready to take over between two batches. */
  #relief: { readonly segment: OpenSegment; readonly done: PromiseWithResolvers<Finished> } | null = null;
  #integration: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;
  readonly #failed = Promise.withResolvers<Error>();

  constructor(parts: SequencerParts) {
    this.#parts = parts;
    this.#segment = parts.segment;
    this.#nextIndex = parts.publisher.checkpoint.size;
    this.#durableSize = this.#nextIndex;
  }

  get state(): "open" | "failed" | "closed" {
    return this.#state;
  }
  get failure(): Error | null {
    return this.#failure;
  }
  get failed(): Promise<Error> {
    return this.#failed.promise;
  }
  get durableSize(): number {
    return this.#durableSize;
  }
  get heldBytes(): number {
    return this.#heldBytes;
  }
  get checkpoint(): Checkpoint {
    return this.#parts.publisher.checkpoint;
  }

  /** Throws when nothing can be recorded any more. */
  assertOpen(): void {
    const refusal = this.#refusal();
    if (refusal !== null) {
      throw refusal;
    }
  }

  #refusal(): Error | null {
    return this.#state === "open" && !this.#isClosing ? null : (this.#failure ?? ledgerClosed());
  }

  /** Calls `run` now, or in turn once there is room; `refuse` when there never will be. */
  whenRoom(run: () => void, refuse: (error: Error) => void): void {
    const refusal = this.#refusal();
    if (refusal !== null) {
      refuse(refusal);
    } else if (this.#waiters.length === 0 && this.#heldBytes < this.#parts.tuning.heldBytesMax) {
      run();
    } else {
      this.#waiters.push({ run, refuse });
    }
  }

  /**
   * Puts an entry into the next batch and returns its index. `how` is `soon` when nobody waits for it alone: it then goes with
   * the next one that somebody does wait for, or after `soonMs`.
   */
  append(queued: Queued, how: "now" | "soon"): number {
    this.assertOpen();
    this.#queue.push(queued);
    this.#heldBytes += recordBytes(queued);
    if (how === "now") {
      this.#schedule();
    } else {
      this.#soon ??= setTimeout(() => {
        this.#soon = null;
        this.#schedule();
      }, soonMs);
    }
    return this.#nextIndex++;
  }

  /**
   * Writes when everything that runs now has had its say: callers that were told of the last batch and record again at
   * once then share the next one. Only what is appended `soon` is ever delayed.
   */
  #schedule(): void {
    if (!this.#isWriting && !this.#isScheduled) {
      this.#isScheduled = true;
      process.nextTick(() => {
        this.#isScheduled = false;
        void this.#flush();
      });
    }
  }

  /** One batch. Its promise never rejects: a failure goes to whoever waits, through `#fail`. */
  async #flush(): Promise<void> {
    if (this.#soon !== null) {
      clearTimeout(this.#soon);
      this.#soon = null;
    }
    const batch = this.#takeBatch();
    if (batch.length === 0 || this.#state === "failed") {
      this.#afterFlush();
      return;
    }
    this.#isWriting = true;
    const { bytes, pending, chain } = encodeBatch(this.#durableSize, batch, this.#segment.chain);
    this.#segment = { ...this.#segment, chain };
    try {
      writeAll(this.#segment.file, bytes);
      // A crash here leaves any part of the batch, or nothing: nobody was told of it, and recovery cuts off what is torn.
      await this.#segment.file.sync();
    } catch (error) {
      this.#isWriting = false;
      this.#fail(error, batch);
      return;
    }
    // A crash here leaves a durable batch that nobody was told of: recovery keeps it, as it may have been acted on.
    this.#isWriting = false;
    this.#durableSize += batch.length;
    for (const entry of pending) {
      this.#tail.push(entry);
    }
    this.#tailBytes += bytes.length;
    for (const queued of batch) {
      queued.settle();
    }
    this.#afterFlush();
  }

  #takeBatch(): readonly Queued[] {
    const max = this.#parts.tuning.batchBytesMax;
    let bytes = 0;
    const count = this.#queue.findIndex((queued, i) => {
      bytes += recordBytes(queued);
      return bytes > max && i > 0;
    });
    const batch = count < 0 ? this.#queue : this.#queue.slice(0, count);
    this.#queue = count < 0 ? [] : this.#queue.slice(count);
    return batch;
  }

  #afterFlush(): void {
    if (this.#state === "failed") {
      return;
    }
    this.#changeSegments();
    if (this.#queue.length > 0) {
      this.#schedule();
    } else {
      for (const wake of this.#idle.splice(0)) {
        wake();
      }
    }
    this.#planIntegration();
  }

  #planIntegration(): void {
    const { integrateEntriesMax, heldBytesMax, integrateAfterMs } = this.#parts.tuning;
    if (this.#tail.length === 0 || this.#integration !== null || this.#state !== "open") {
      return;
    }
    if (this.#tail.length >= integrateEntriesMax || this.#tailBytes >= heldBytesMax / earlyIntegrationPart) {
      void this.#startIntegration();
    } else if (this.#timer === null) {
      this.#timer = setTimeout(() => {
        this.#timer = null;
        void this.#startIntegration();
      }, integrateAfterMs);
      this.#timer.unref();
    }
  }

  /** The running integration, or a new one. Never rejects: a failure is the ledger's. */
  #startIntegration(): Promise<void> {
    this.#integration ??= this.#integrate()
      .catch((error: unknown) => {
        this.#fail(error, []);
      })
      .finally(() => {
        this.#integration = null;
        this.#planIntegration();
      });
    return this.#integration;
  }

  async #integrate(): Promise<void> {
    const { directory, files, publisher, opening } = this.#parts;
    if (this.#timer !== null) {
      clearTimeout(this.#timer);
      this.#timer = null;
    }
    const head = { sequence: this.#segment.sequence + 1, opening };
    const segment = await createSegment({ directory, files }, head, this.#segment.chain.key);
    const done = Promise.withResolvers<Finished>();
    this.#relief = { segment, done };
    if (this.#state === "failed") {
      await segment.file.close();
      return;
    }
    if (!this.#isWriting) {
      this.#changeSegments();
    }
    const finished = await done.promise;
    await publisher.publish(finished.entries);
    // A crash here leaves a segment whose entries are all in the tree: the next start skips them and removes it.
    await finished.segment.file.close();
    await removeSegments({ directory, files }, [finished.segment.sequence]);
    const bytes = finished.entries.reduce((sum, entry) => sum + pendingBytes(entry), 0);
    this.#release(bytes);
  }

  /** Between two batches: from here on, what is written goes into the next segment. */
  #changeSegments(): void {
    if (this.#relief === null) {
      return;
    }
    const finished = { segment: this.#segment, entries: this.#tail };
    this.#segment = this.#relief.segment;
    this.#tail = [];
    this.#tailBytes = 0;
    this.#relief.done.resolve(finished);
    this.#relief = null;
  }

  #release(bytes: number): void {
    this.#heldBytes -= bytes;
    while (this.#heldBytes < this.#parts.tuning.heldBytesMax) {
      const waiter = this.#waiters.shift();
      if (waiter === undefined) {
        return;
      }
      waiter.run();
    }
  }

  /** The end: everything that waits is refused, and so is everything that comes. */
  #fail(cause: unknown, batch: readonly Queued[]): void {
    if (this.#state === "failed") {
      return;
    }
    const error = ledgerFailure(cause, this.#parts.directory);
    this.#state = "failed";
    this.#failure = error;
    for (const queued of [...batch, ...this.#queue.splice(0)]) {
      queued.fail(error);
    }
    for (const waiter of this.#waiters.splice(0)) {
      waiter.refuse(error);
    }
    this.#relief?.done.reject(error);
    for (const wake of this.#idle.splice(0)) {
      wake();
    }
    this.#failed.resolve(error);
  }

  /**
   * Integrates everything that is durable now.
   * @throws SallyportError `ledger.unavailable` when that failed.
   */
  async integrate(): Promise<Checkpoint> {
    this.assertOpen();
    await this.#integrateUpTo(this.#durableSize);
    if (this.#failure !== null) {
      throw this.#failure;
    }
    return this.checkpoint;
  }

  async #integrateUpTo(size: number): Promise<void> {
    while (this.#state === "open" && this.checkpoint.size < size) {
      await this.#startIntegration();
    }
  }

  /**
   * Writes and integrates what is queued, and closes the files. A failed ledger only closes them.
   * @throws SallyportError `ledger.unavailable` when it fails now.
   */
  async close(): Promise<void> {
    if (this.#isClosing) {
      return;
    }
    this.#isClosing = true;
    const failureBefore = this.#failure;
    for (const waiter of this.#waiters.splice(0)) {
      waiter.refuse(ledgerClosed());
    }
    this.#schedule();
    while (this.#state === "open" && (this.#queue.length > 0 || this.#isWriting)) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#idle.push(resolve);
      await promise;
    }
    await this.#integrateUpTo(this.#durableSize);
    await this.#integration;
    if (this.#timer !== null) {
      clearTimeout(this.#timer);
    }
    await this.#segment.file.close();
    if (this.#state === "open") {
      // Without segments the next start knows that this was a clean end. A crash before this is an unclean one.
      await removeSegments(this.#parts, [this.#segment.sequence]);
      this.#state = "closed";
    } else if (this.#failure !== null && failureBefore === null) {
      throw this.#failure;
    }
  }
}

function pendingBytes(pending: Pending): number {
  const { entry, payload } = pending;
  const unframed = { entryText: "", entryBytes: entry.length, payload };
  return recordBytes(unframed);
}
