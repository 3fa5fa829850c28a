/**
 * What a witness is asked and what it answers (C2SP tlog-witness, `add-checkpoint`). Pure: who serves it keeps the state
 * and must make the new one durable, in one step with the comparison, before it signs.
 */
import { openCheckpoint } from "./checkpoint.ts";
import type { SignedCheckpoint } from "./checkpoint.ts";
import { emptyRoot, hashBytes } from "./hash.ts";
import { parseNote } from "./note.ts";
import type { VerifierKey } from "./note.ts";
import { accepted, decodeBase64, parseDecimal, refused } from "./parsed.ts";
import type { Parsed } from "./parsed.ts";
import { verifyConsistency } from "./proof.ts";

const proofHashesMax = 63;

export interface AddCheckpointRequest {
  /** The size that the log believes the witness to have. */
  readonly oldSize: number;
  readonly proof: readonly Uint8Array[];
  /** The signed checkpoint, a note. */
  readonly checkpoint: Uint8Array;
}

/** Reads a request's body: `old <size>`, the proof, an empty line, the checkpoint. */
export function parseAddCheckpoint(body: Uint8Array): Parsed<AddCheckpointRequest> {
  const separator = Buffer.from(body.buffer, body.byteOffset, body.length).indexOf("\n\n");
  if (separator < 0) {
    return refused("no empty line before the checkpoint");
  }
  const [old, ...lines] = Buffer.from(body.subarray(0, separator)).toString("utf8").split("\n");
  const oldSize = old?.startsWith("old ") === true ? parseDecimal(old.slice("old ".length)) : null;
  if (oldSize === null) {
    return refused("the first line is not 'old' and a size");
  }
  if (lines.length > proofHashesMax) {
    return refused(`more than ${proofHashesMax} hashes`);
  }
  const proof: Uint8Array[] = [];
  for (const line of lines) {
    const hash = decodeBase64(line);
    if (hash === null || hash.length !== hashBytes) {
      return refused("a line of the proof is not a SHA-256 hash in base64");
    }
    proof.push(hash);
  }
  return accepted({ oldSize, proof, checkpoint: body.subarray(separator + 2) });
}

/** The newest tree of a log that a witness has cosigned. */
export interface WitnessedTree {
  readonly size: number;
  readonly root: Uint8Array;
}

/** A witness's answer; `status` is the HTTP status that tlog-witness gives it. */
export type AddCheckpointAnswer =
  | { readonly status: 200; readonly checkpoint: SignedCheckpoint; readonly text: string }
  | { readonly status: 400 | 403 | 422; readonly reason: string }
  | { readonly status: 409; readonly size: number };

/** Decides on a request for the log of `logKey`, of which `state` was cosigned last (null: nothing yet). */
export function judgeAddCheckpoint(
  request: AddCheckpointRequest,
  logKey: VerifierKey,
  state: WitnessedTree | null,
): AddCheckpointAnswer {
  const checkpoint = openCheckpoint(request.checkpoint, logKey);
  const note = parseNote(request.checkpoint);
  if (!checkpoint.ok) {
    return { status: 403, reason: checkpoint.reason };
  }
  if (!note.ok) {
    return { status: 403, reason: note.reason };
  }
  const known = state ?? { size: 0, root: emptyRoot() };
  const { size, root } = checkpoint.value;
  if (request.oldSize > size) {
    return { status: 400, reason: "the old size is greater than the new one" };
  }
  if (request.oldSize !== known.size) {
    return { status: 409, size: known.size };
  }
  const isConsistent = verifyConsistency({
    firstSize: known.size,
    secondSize: size,
    firstRoot: known.root,
    secondRoot: root,
    proof: request.proof,
  });
  return isConsistent
    ? { status: 200, checkpoint: checkpoint.value, text: note.value.text }
    : { status: 422, reason: "the consistency proof does not verify" };
}
