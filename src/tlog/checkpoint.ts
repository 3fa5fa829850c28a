/** C2SP tlog-checkpoint 1.0.0: a tree head as the text of a signed note. */
import { equalBytes, hashBytes } from "./hash.ts";
import { parseNote, signNote, verifyNote } from "./note.ts";
import type { NoteSigner, VerifiedSignature, VerifierKey } from "./note.ts";
import { accepted, decodeBase64, parseDecimal, refused } from "./parsed.ts";
import type { Parsed } from "./parsed.ts";

export interface Checkpoint {
  /** Names the log; it is also the name of the log's key. */
  readonly origin: string;
  /** Leaves in the tree. */
  readonly size: number;
  readonly root: Uint8Array;
  /** Further lines, which C2SP discourages; ours has none. */
  readonly extensions: readonly string[];
}

/** The checkpoint's text: origin, size and root, a line each. */
export function formatCheckpoint(checkpoint: Checkpoint): string {
  const lines = [
    checkpoint.origin,
    String(checkpoint.size),
    Buffer.from(checkpoint.root).toString("base64"),
    ...checkpoint.extensions,
  ];
  return `${lines.join("\n")}\n`;
}

/** Reads a checkpoint's text (without the signatures). */
export function parseCheckpoint(text: string): Parsed<Checkpoint> {
  if (!text.endsWith("\n")) {
    return refused("a checkpoint ends with LF");
  }
  const [origin, sizeText, rootText, ...extensions] = text.slice(0, -1).split("\n");
  if (origin === undefined || origin === "" || sizeText === undefined || rootText === undefined) {
    return refused("a checkpoint has an origin, a size and a root, a line each");
  }
  const size = parseDecimal(sizeText);
  if (size === null) {
    return refused("the checkpoint's size is not a decimal number without leading zero");
  }
  const root = decodeBase64(rootText);
  if (root === null || root.length !== hashBytes) {
    return refused("the checkpoint's root is not a SHA-256 hash in base64");
  }
  if (extensions.includes("")) {
    return refused("an empty extension line");
  }
  return accepted({ origin, size, root, extensions });
}

/** The checkpoint as a signed note. */
export function signCheckpoint(checkpoint: Checkpoint, signers: readonly NoteSigner[]): string {
  return signNote(formatCheckpoint(checkpoint), signers);
}

/** A checkpoint with the signatures on it that the given keys made. */
export interface SignedCheckpoint extends Checkpoint {
  readonly signatures: readonly VerifiedSignature[];
}

/**
 * Reads a signed checkpoint of the log that `logKey` belongs to: the log must have signed it, its origin must be the
 * key's name, and cosignatures by any of `witnessKeys` must verify.
 */
export function openCheckpoint(
  bytes: Uint8Array,
  logKey: VerifierKey,
  witnessKeys: readonly VerifierKey[] = [],
): Parsed<SignedCheckpoint> {
  const note = parseNote(bytes);
  if (!note.ok) {
    return note;
  }
  const signatures = verifyNote(note.value, [logKey, ...witnessKeys]);
  if (!signatures.ok) {
    return signatures;
  }
  if (!signatures.value.some((signature) => signature.key === logKey)) {
    return refused("the log itself has not signed this checkpoint");
  }
  const checkpoint = parseCheckpoint(note.value.text);
  if (!checkpoint.ok) {
    return checkpoint;
  }
  if (checkpoint.value.origin !== logKey.name) {
    return refused(`the checkpoint is of ${checkpoint.value.origin}, the key of ${logKey.name}`);
  }
  return accepted({ ...checkpoint.value, signatures: signatures.value });
}

/** Whether two checkpoints name the same tree. */
export function isSameTree(a: Checkpoint, b: Checkpoint): boolean {
  return a.origin === b.origin && a.size === b.size && equalBytes(a.root, b.root);
}
