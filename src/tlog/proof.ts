/** Verification of Merkle proofs: the loops of RFC 9162 sections 2.1.3.2 and 2.1.4.2, on safe integers. */
import { emptyRoot, equalBytes, hashBytes, nodeHash } from "./hash.ts";

/** A leaf's place in a tree, and the path that proves it. */
export interface InclusionClaim {
  readonly index: number;
  readonly size: number;
  readonly leafHash: Uint8Array;
  readonly proof: readonly Uint8Array[];
}

/** Two trees, and the path that proves that the second extends the first. */
export interface ConsistencyClaim {
  readonly firstSize: number;
  readonly secondSize: number;
  readonly firstRoot: Uint8Array;
  readonly secondRoot: Uint8Array;
  readonly proof: readonly Uint8Array[];
}

const isSize = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
const areHashes = (hashes: readonly Uint8Array[]): boolean => hashes.every((hash) => hash.length === hashBytes);
const half = (value: number): number => Math.floor(value / 2);
const isOdd = (value: number): boolean => value % 2 === 1;

/** The root that an inclusion proof leads to; null when the proof has the wrong length or shape for its place. */
export function rootFromInclusion(claim: InclusionClaim): Uint8Array | null {
  const { index, size, leafHash, proof } = claim;
  if (!isSize(index) || !isSize(size) || index >= size || !areHashes([leafHash, ...proof])) {
    return null;
  }
  let node = index;
  let last = size - 1;
  let root = leafHash;
  for (const sibling of proof) {
    if (last === 0) {
      return null;
    }
    if (isOdd(node) || node === last) {
      root = nodeHash(sibling, root);
      while (!isOdd(node) && node !== 0) {
        node = half(node);
        last = half(last);
      }
    } else {
      root = nodeHash(root, sibling);
    }
    node = half(node);
    last = half(last);
  }
  return last === 0 ? root : null;
}

/** Whether the leaf stands at its index in the tree with that root. */
export function verifyInclusion(claim: InclusionClaim & { readonly root: Uint8Array }): boolean {
  const root = rootFromInclusion(claim);
  return root !== null && equalBytes(root, claim.root);
}

/**
 * Whether the second tree extends the first.
 *
 * The rule for an empty first tree: everything extends it, by an empty proof and with the empty tree's own root, as
 * tlog-witness has it ("old 0"). RFC 9162 leaves the case open, and some libraries refuse it.
 */
export function verifyConsistency(claim: ConsistencyClaim): boolean {
  const { firstSize, secondSize, firstRoot, secondRoot, proof } = claim;
  if (!isSize(firstSize) || !isSize(secondSize) || firstSize > secondSize) {
    return false;
  }
  if (firstSize === secondSize) {
    return proof.length === 0 && equalBytes(firstRoot, secondRoot) && (firstSize > 0 || isEmptyRoot(firstRoot));
  }
  if (!areHashes([firstRoot, secondRoot, ...proof])) {
    return false;
  }
  if (firstSize === 0) {
    return proof.length === 0 && isEmptyRoot(firstRoot);
  }
  return verifyExtension(claim);
}

function isEmptyRoot(root: Uint8Array): boolean {
  return equalBytes(root, emptyRoot());
}

/** RFC 9162 section 2.1.4.2, for `0 < firstSize < secondSize`. */
function verifyExtension(claim: ConsistencyClaim): boolean {
  const { firstSize, secondSize, firstRoot, secondRoot, proof } = claim;
  if (proof.length === 0) {
    return false;
  }
  const isPowerOfTwo = Number.isInteger(Math.log2(firstSize)) && 2 ** Math.log2(firstSize) === firstSize;
  const path = isPowerOfTwo ? [firstRoot, ...proof] : proof;
  let node = firstSize - 1;
  let last = secondSize - 1;
  while (isOdd(node)) {
    node = half(node);
    last = half(last);
  }
  const [seed, ...rest] = path;
  if (seed === undefined) {
    return false;
  }
  let first = seed;
  let second = seed;
  for (const sibling of rest) {
    if (last === 0) {
      return false;
    }
    if (isOdd(node) || node === last) {
      first = nodeHash(sibling, first);
      second = nodeHash(sibling, second);
      while (!isOdd(node) && node !== 0) {
        node = half(node);
        last = half(last);
      }
    } else {
      second = nodeHash(second, sibling);
    }
    node = half(node);
    last = half(last);
  }
  return last === 0 && equalBytes(first, firstRoot) && equalBytes(second, secondRoot);
}
