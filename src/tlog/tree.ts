/**
 * The Merkle tree of RFC 6962 section 2.1, over a reader of complete subtrees. Sizes and indexes are safe integers,
 * so nothing here uses bitwise operators, which cut to 32 bits.
 */
import { emptyRoot, nodeHash } from "./hash.ts";

/**
 * Hash of the complete subtree of `2 ** level` leaves that starts at leaf `index * 2 ** level`.
 * Level 0 is a leaf hash.
 */
export type NodeReader = (level: number, index: number) => Uint8Array;

/** The largest power of two smaller than `size`, which must be at least 2: where RFC 6962 splits a tree. */
export function splitPoint(size: number): number {
  let power = 1;
  while (power * 2 < size) {
    power *= 2;
  }
  return power;
}

/** Root of a tree whose leaf *hashes* are given; also of a tree of complete subtrees, the last of which may be smaller. */
export function rootOfHashes(hashes: readonly Uint8Array[]): Uint8Array {
  // A stack of complete subtrees, largest first; equal neighbours merge as in a binary counter.
  const stack: { readonly size: number; readonly hash: Uint8Array }[] = [];
  for (const hash of hashes) {
    let top = { size: 1, hash };
    for (let below = stack.at(-1); below !== undefined && below.size === top.size; below = stack.at(-1)) {
      stack.pop();
      top = { size: top.size * 2, hash: nodeHash(below.hash, top.hash) };
    }
    stack.push(top);
  }
  let root = stack.pop()?.hash;
  if (root === undefined) {
    return emptyRoot();
  }
  for (let below = stack.pop(); below !== undefined; below = stack.pop()) {
    root = nodeHash(below.hash, root);
  }
  return root;
}

/** Hash of the leaves `[start, end)`, where the range is one that RFC 6962's splitting makes. */
function rangeHash(start: number, end: number, read: NodeReader): Uint8Array {
  const size = end - start;
  const level = Math.round(Math.log2(size));
  if (2 ** level === size) {
    return read(level, start / size);
  }
  const middle = start + splitPoint(size);
  return nodeHash(rangeHash(start, middle, read), rangeHash(middle, end, read));
}

/** Root of the tree of the first `size` leaves. */
export function treeRoot(size: number, read: NodeReader): Uint8Array {
  return size === 0 ? emptyRoot() : rangeHash(0, size, read);
}

/**
 * Inclusion proof of leaf `index` in the tree of `size` leaves, leaf to root (RFC 6962 section 2.1.1).
 * @throws RangeError when `index` is not in the tree.
 */
export function buildInclusionProof(index: number, size: number, read: NodeReader): readonly Uint8Array[] {
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(size) || index < 0 || index >= size) {
    throw new RangeError(`leaf ${index} is not in a tree of ${size}`);
  }
  const proof: Uint8Array[] = [];
  let start = 0;
  let end = size;
  while (end - start > 1) {
    const middle = start + splitPoint(end - start);
    if (index < middle) {
      proof.push(rangeHash(middle, end, read));
      end = middle;
    } else {
      proof.push(rangeHash(start, middle, read));
      start = middle;
    }
  }
  return proof.toReversed();
}

/**
 * Consistency proof between the trees of `first` and `second` leaves (RFC 6962 section 2.1.2).
 * Empty from the empty tree and between equal trees.
 * @throws RangeError when `first` is greater than `second`.
 */
export function buildConsistencyProof(first: number, second: number, read: NodeReader): readonly Uint8Array[] {
  if (!Number.isSafeInteger(first) || !Number.isSafeInteger(second) || first < 0 || first > second) {
    throw new RangeError(`a tree of ${first} is not part of a tree of ${second}`);
  }
  if (first === 0 || first === second) {
    return [];
  }
  const proof: Uint8Array[] = [];
  let start = 0;
  let end = second;
  let wholeFirst = true;
  while (first < end) {
    const middle = start + splitPoint(end - start);
    if (first <= middle) {
      proof.push(rangeHash(middle, end, read));
      end = middle;
    } else {
      proof.push(rangeHash(start, middle, read));
      start = middle;
      wholeFirst = false;
    }
  }
  // The verifier knows the first root already, so it is left out when it is itself a node of the second tree.
  if (!wholeFirst) {
    proof.push(rangeHash(start, end, read));
  }
  return proof.toReversed();
}
