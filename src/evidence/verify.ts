/**
 * Verifies a log's directory offline, with a key from outside. It trusts neither the directory nor the process that
 * wrote it, shares no code with the writer but the entry format, and needs nothing but Node.
 */
import { setTimeout as sleep } from "node:timers/promises";

import { equalBytes, leafHash } from "#tlog/hash.ts";
import { openCheckpoint } from "#tlog/checkpoint.ts";
import type { Checkpoint } from "#tlog/checkpoint.ts";
import { parseNote, parseVerifierKey } from "#tlog/note.ts";
import type { VerifierKey } from "#tlog/note.ts";
import { bundleReader, tileWidth } from "#tlog/tile.ts";
import { canonicalJson } from "#ledger/entry.ts";
import type { Entry } from "#ledger/entry.ts";

import { verifyExtras } from "./verify-extras.ts";
import { openLogFiles } from "./verify-files.ts";
import type { LogFiles } from "./verify-files.ts";
import { Findings, firstDifference } from "./verify-findings.ts";
import type { LedgerFault } from "./verify-findings.ts";
import { LinkChecker } from "./verify-links.ts";
import type { OpenIntent } from "./verify-links.ts";
import { countIgnoredSignatures, noticesOf, UnsignedTimes } from "./verify-notices.ts";
import type { UnsignedEntries } from "./verify-notices.ts";
import { hashOfCiphertext, PayloadWalk } from "./verify-payloads.ts";
import { judgeEntry } from "./verify-shapes.ts";
import { readTail } from "./verify-tail.ts";
import type { TailRecord } from "./verify-tail.ts";
import { verifyTree } from "./verify-tree.ts";
import type { TreeEdges } from "./verify-tree.ts";

export interface VerifyOptions {
  readonly directory: string;
  /** `name+id+key`, from outside what is verified. */
  readonly verifierKey: string;
}

/**
 * What verification comes to. The verdicts speak for the entries under the signed checkpoint. Those past it were looked
 * over for damage, and a fault in them counts; that there is none says nothing about who wrote them (see `unsigned`).
 */
export interface LedgerVerification {
  /** Whether nothing was changed. `unknown` when nothing could be checked, as the checkpoint is not there. */
  readonly integrity: "intact" | "broken" | "unknown";
  /**
   * Whether nothing is missing, as far as the log itself can tell. That its end was cut off, or that an older copy was put
   * in its place, only a witness can tell from outside, and the node when it starts. `unknown` when nothing could be checked, as no
   * checkpoint opens with the key.
   */
  readonly completeness: "complete" | "incomplete" | "unknown";
  readonly faults: readonly LedgerFault[];
  /** Faults in all; the list above ends at a bound. */
  readonly faultCount: number;
  /** Files in which a changed byte would have been found. */
  readonly files: readonly string[];
  /** Files that hold no evidence and were not read. */
  readonly filesNotCovered: readonly string[];
  readonly origin: string;
  /** Entries under the signed checkpoint. */
  readonly checkpointSize: number;
  /** Entries in all, the ones that nothing signs yet included. */
  readonly size: number;
  /** Entries past the checkpoint: only the node can vouch for them, as only it has the key of their macs. */
  readonly unsigned: UnsignedEntries;
  /** Signature lines on the checkpoint by keys that were not given: nothing was checked of them. */
  readonly signaturesIgnored: number;
  /** What a reader of the verdicts has to know besides, in plain sentences. */
  readonly notices: readonly string[];
  readonly rootHex: string;
  /** Intents without an outcome: each may have run. */
  readonly mayHaveRun: readonly OpenIntent[];
  /** Payloads that are gone because their data key was destroyed, as the log says. */
  readonly payloadsDestroyed: number;
}

/** How often, and how long apart, a write that looks unfinished is looked at again: it may only be under way. */
const secondLooksMax = 10;
const secondLookMs = 20;

/**
 * Verifies a log.
 * @throws RangeError when the key is not a verifier key, Error when the directory cannot be read.
 */
export async function verifyLedgerDirectory(options: VerifyOptions): Promise<LedgerVerification> {
  const key = parseVerifierKey(options.verifierKey.trim());
  if (!key.ok) {
    throw new RangeError(`The verifier key was refused: ${key.reason}.`);
  }
  return verifyFiles(await settledFiles(options.directory), key.value);
}

/** The directory at a moment in which no write is half done, unless one has been left so. */
async function settledFiles(directory: string): Promise<LogFiles> {
  let files = openLogFiles(directory);
  for (let look = 0; look < secondLooksMax; look++) {
    const findings = new Findings();
    readTail(files, findings);
    if (findings.count("completeness") === 0) {
      break;
    }
    await sleep(secondLookMs);
    files = openLogFiles(directory);
  }
  return files;
}

async function verifyFiles(files: LogFiles, key: VerifierKey): Promise<LedgerVerification> {
  const findings = new Findings();
  const opened = readCheckpoint(files, key, findings);
  if (opened === null) {
    // Without a checkpoint nothing else was looked at, so that no fault was found says nothing.
    const result = resultOf(findings, { origin: key.name, size: 0, root: new Uint8Array(0), extensions: [] }, {});
    return {
      ...result,
      integrity: result.integrity === "intact" ? "unknown" : result.integrity,
      completeness: result.completeness === "complete" ? "unknown" : result.completeness,
    };
  }
  const { checkpoint, signaturesIgnored } = opened;
  checkMetadata(files, checkpoint.origin, findings);
  const tail = readTail(files, findings);
  const pass = new EntryPass(files, findings, checkpoint, tail);
  const edges = await verifyTree({ files, findings, checkpoint, onLeaf: (index, leaf) => pass.treeLeaf(index, leaf) });
  return pass.finish(edges, signaturesIgnored);
}

function readCheckpoint(
  files: LogFiles,
  key: VerifierKey,
  findings: Findings,
): { readonly checkpoint: Checkpoint; readonly signaturesIgnored: number } | null {
  findings.cover("checkpoint");
  const bytes = files.read("checkpoint");
  if (bytes === null) {
    findings.missing("checkpoint", "there is no signed checkpoint, so nothing here can be verified");
    return null;
  }
  const checkpoint = openCheckpoint(bytes, key);
  if (!checkpoint.ok) {
    const words = `the checkpoint was refused with the key of ${key.name}: ${checkpoint.reason}`;
    findings.broken("checkpoint", words);
    return null;
  }
  const note = parseNote(bytes);
  return {
    checkpoint: checkpoint.value,
    signaturesIgnored: note.ok ? countIgnoredSignatures(note.value, key, findings) : 0,
  };
}

/** Every byte of `log.json` follows from the log's name. */
function checkMetadata(files: LogFiles, origin: string, findings: Findings): void {
  const file = "log.json";
  const expected = Buffer.from(`${canonicalJson({ format: "sallyport-ledger/1", origin })}\n`, "utf8");
  findings.cover(file);
  const bytes = files.read(file);
  if (bytes === null) {
    findings.missing(file, "the file is missing");
  } else if (!equalBytes(bytes, expected)) {
    findings.broken(file, "the file is not the one of this log", { byte: firstDifference(bytes, expected) });
  }
}

/** Bundles kept parsed: outcomes come soon after their intents. */
const bundlesKeptMax = 64;

/** One pass over all entries, those of the tree and then those of the tail. */
class EntryPass {
  readonly #files: LogFiles;
  readonly #findings: Findings;
  readonly #checkpoint: Checkpoint;
  readonly #tail: readonly TailRecord[];
  readonly #tailByIndex: ReadonlyMap<number, TailRecord>;
  readonly #links: LinkChecker;
  readonly #payloads: PayloadWalk;
  /** Entries of the tree that are damaged or missing. */
  readonly #damaged = new Set<number>();
  readonly #unsigned = new UnsignedTimes();
  readonly #bundles = new Map<number, readonly Uint8Array[]>();

  constructor(files: LogFiles, findings: Findings, checkpoint: Checkpoint, tail: readonly TailRecord[]) {
    this.#files = files;
    this.#findings = findings;
    this.#checkpoint = checkpoint;
    this.#tail = tail;
    this.#tailByIndex = new Map(tail.map((record) => [record.index, record]));
    this.#links = new LinkChecker(findings, (index) => this.#entryAt(index));
    this.#payloads = new PayloadWalk(files, findings);
  }

  treeLeaf(
    index: number,
    leaf: { readonly bytes: Uint8Array; readonly file: string; readonly byte: number } | null,
  ): void {
    if (leaf === null) {
      this.#damaged.add(index);
      this.#payloads.skip(index);
      return;
    }
    const payload = this.#judge({ index, entry: leaf.bytes, file: leaf.file, byte: leaf.byte });
    if (payload !== null) {
      this.#payloads.next(index, payload);
    }
  }

  /** Checks one entry, and returns what it says of its payload. */
  #judge(record: {
    index: number;
    entry: Uint8Array;
    file: string;
    byte: number;
  }): NonNullable<Entry["payload"]> | null {
    const { index, entry: bytes, file, byte } = record;
    const judged = judgeEntry(bytes);
    if (index >= this.#checkpoint.size) {
      this.#unsigned.add(judged.ok ? judged.entry.at : null);
    }
    if (!judged.ok) {
      this.#findings.broken(file, `entry ${index} is not an entry: ${judged.reason}`, { entry: index, byte });
      return judged.payload;
    }
    this.#links.check({ index, entry: judged.entry, file, byte });
    return judged.entry.payload ?? null;
  }

  #leafAt(index: number): Uint8Array | null {
    if (index >= this.#checkpoint.size) {
      return this.#tailByIndex.get(index)?.entry ?? null;
    }
    const bundle = Math.floor(index / tileWidth);
    const kept = this.#bundles.get(bundle);
    if (kept !== undefined) {
      return kept[index % tileWidth] ?? null;
    }
    const width = Math.min(tileWidth, this.#checkpoint.size - bundle * tileWidth);
    const bundleFile = this.#files.readTile({ level: "entries", index: bundle, width });
    const leaves =
      bundleFile === null
        ? []
        : bundleReader()
            .push(bundleFile.bytes)
            .map(({ entry }) => entry);
    for (const oldest of this.#bundles.keys()) {
      if (this.#bundles.size < bundlesKeptMax) {
        break;
      }
      this.#bundles.delete(oldest);
    }
    this.#bundles.set(bundle, leaves);
    return leaves[index % tileWidth] ?? null;
  }

  #entryAt(index: number): Entry | null {
    const leaf = this.#damaged.has(index) ? null : this.#leafAt(index);
    const judged = leaf === null ? null : judgeEntry(leaf);
    return judged?.ok === true ? judged.entry : null;
  }

  finish(edges: TreeEdges, signaturesIgnored: number): LedgerVerification {
    const { size } = this.#checkpoint;
    let expected = Math.min(this.#tail[0]?.index ?? size, size);
    const past: TailRecord[] = [];
    for (const record of this.#tail) {
      if (record.index !== expected) {
        this.#gap(record, expected);
      }
      expected = record.index + 1;
      if (record.index < size) {
        this.#checkCovered(record);
      } else {
        past.push(record);
        this.#checkTailRecord(record);
      }
    }
    const payloadsDestroyed = this.#payloads.finish(past, this.#links.destroyedKeys);
    const filesNotCovered = verifyExtras({
      files: this.#files,
      findings: this.#findings,
      size,
      edges,
      tailLeaves: past.map((record) => leafHash(record.entry)),
      tailEntries: past.map((record) => record.entry),
      leafAt: (index) => this.#leafAt(index),
    });
    const mayHaveRun = this.#links.mayHaveRun;
    return resultOf(this.#findings, this.#checkpoint, {
      size: size + past.length,
      unsigned: this.#unsigned.result,
      signaturesIgnored,
      mayHaveRun,
      payloadsDestroyed,
      filesNotCovered,
    });
  }

  #gap(record: TailRecord, expected: number): void {
    const { file, byte, index } = record;
    if (index > expected) {
      const words = `entry ${index} follows where entry ${expected} should: the ones between are missing`;
      this.#findings.missing(file, words, { entry: expected, byte });
    } else {
      this.#findings.broken(file, `entry ${index} stands here a second time`, { entry: index, byte });
    }
  }

  /** A segment that outlived its publication holds the same entries as the tree. */
  #checkCovered(record: TailRecord): void {
    const leaf = this.#damaged.has(record.index) ? null : this.#leafAt(record.index);
    if (leaf !== null && !equalBytes(leaf, record.entry)) {
      const words = `entry ${record.index} is not the one that is in the tree`;
      this.#findings.broken(record.file, words, { entry: record.index, byte: record.byte });
    }
  }

  #checkTailRecord(record: TailRecord): void {
    const { file, byte, index } = record;
    const payload = this.#judge(record);
    const hash = record.payload === null ? null : hashOfCiphertext(record.payload);
    if ((payload?.hash ?? null) !== hash) {
      this.#findings.broken(file, `the payload of entry ${index} is not the one that was recorded`, {
        entry: index,
        byte,
      });
    }
  }
}

type Details = Partial<
  Pick<
    LedgerVerification,
    "size" | "unsigned" | "signaturesIgnored" | "mayHaveRun" | "payloadsDestroyed" | "filesNotCovered"
  >
>;

function resultOf(findings: Findings, checkpoint: Checkpoint, details: Details): LedgerVerification {
  const unsigned = details.unsigned ?? new UnsignedTimes().result;
  const signaturesIgnored = details.signaturesIgnored ?? 0;
  return {
    integrity: findings.count("integrity") === 0 ? "intact" : "broken",
    completeness: findings.count("completeness") === 0 ? "complete" : "incomplete",
    faults: findings.faults,
    faultCount: findings.count("integrity") + findings.count("completeness"),
    files: findings.files,
    filesNotCovered: details.filesNotCovered ?? [],
    origin: checkpoint.origin,
    checkpointSize: checkpoint.size,
    size: details.size ?? checkpoint.size,
    unsigned,
    signaturesIgnored,
    notices: noticesOf(unsigned, signaturesIgnored),
    rootHex: Buffer.from(checkpoint.root).toString("hex"),
    mayHaveRun: details.mayHaveRun ?? [],
    payloadsDestroyed: details.payloadsDestroyed ?? 0,
  };
}
