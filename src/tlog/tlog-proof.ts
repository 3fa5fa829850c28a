/** C2SP `tlog-proof@v1` (`.tlog-proof`): one entry's place in a log, with the signed checkpoint that proves it. */
import { openCheckpoint } from "./checkpoint.ts";
import type { SignedCheckpoint } from "./checkpoint.ts";
import { hashBytes } from "./hash.ts";
import type { VerifierKey } from "./note.ts";
import { accepted, decodeBase64, parseDecimal, refused } from "./parsed.ts";
import type { Parsed } from "./parsed.ts";
import { verifyInclusion } from "./proof.ts";

const header = "c2sp.org/tlog-proof@v1";
/** A tree of safe-integer size is no deeper. */
const proofHashesMax = 63;

export interface TlogProof {
  readonly index: number;
  /** Inclusion proof, leaf to root. */
  readonly proof: readonly Uint8Array[];
  /** The signed checkpoint, a note. */
  readonly checkpoint: string;
  /** Opaque and not authenticated by the proof. */
  readonly extra: Uint8Array | null;
}

/** The proof as a `.tlog-proof` file has it. */
export function formatTlogProof(proof: TlogProof): string {
  const lines = [
    header,
    ...(proof.extra === null ? [] : [`extra ${Buffer.from(proof.extra).toString("base64")}`]),
    `index ${proof.index}`,
    ...proof.proof.map((hash) => Buffer.from(hash).toString("base64")),
  ];
  return `${lines.join("\n")}\n\n${proof.checkpoint}`;
}

/** Reads a `.tlog-proof` file. The checkpoint in it is not looked at yet. */
export function parseTlogProof(text: string): Parsed<TlogProof> {
  const separator = text.indexOf("\n\n");
  if (separator < 0) {
    return refused("no empty line before the checkpoint");
  }
  const [first, ...lines] = text.slice(0, separator).split("\n");
  if (first !== header) {
    return refused(`the first line is not ${header}`);
  }
  const extraText = lines[0]?.startsWith("extra ") === true ? lines.shift()?.slice("extra ".length) : undefined;
  const extra = extraText === undefined ? null : decodeBase64(extraText);
  if (extraText !== undefined && extra === null) {
    return refused("the extra data is not base64");
  }
  const indexLine = lines.shift() ?? "";
  const index = indexLine.startsWith("index ") ? parseDecimal(indexLine.slice("index ".length)) : null;
  if (index === null) {
    return refused("no index line, or not a decimal number without leading zero");
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
  return accepted({ index, proof, checkpoint: text.slice(separator + 2), extra });
}

/** Whether the leaf is in the log of `logKey` at the proof's index; the checkpoint that proves it, if so. */
export function verifyTlogProof(
  proof: TlogProof,
  leafHash: Uint8Array,
  logKey: VerifierKey,
  witnessKeys: readonly VerifierKey[] = [],
): Parsed<SignedCheckpoint> {
  const checkpoint = openCheckpoint(Buffer.from(proof.checkpoint, "utf8"), logKey, witnessKeys);
  if (!checkpoint.ok) {
    return checkpoint;
  }
  const { size, root } = checkpoint.value;
  const isIncluded = verifyInclusion({ index: proof.index, size, leafHash, proof: proof.proof, root });
  return isIncluded ? checkpoint : refused(`the entry is not number ${proof.index} of the tree of ${size}`);
}
