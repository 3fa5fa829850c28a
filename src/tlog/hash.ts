/** RFC 6962 section 2.1 hashing (the same as RFC 9162): the only hash in the log is SHA-256. */
import { hash } from "node:crypto";

/** Length of every hash in the tree, bytes. */
export const hashBytes = 32;

const leafPrefix = 0x00;
const nodePrefix = 0x01;

/** SHA-256 of nothing: the root of the empty tree. */
export function emptyRoot(): Uint8Array {
  return hash("sha256", "", "buffer");
}

/** `SHA-256(0x00 || entry)`. */
export function leafHash(entry: Uint8Array): Uint8Array {
  const input = Buffer.allocUnsafe(entry.length + 1);
  input[0] = leafPrefix;
  input.set(entry, 1);
  return sha256(input);
}

/** `SHA-256(0x01 || left || right)`. */
export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  const input = Buffer.allocUnsafe(1 + left.length + right.length);
  input[0] = nodePrefix;
  input.set(left, 1);
  input.set(right, 1 + left.length);
  return sha256(input);
}

/** Through a string: Node makes one a good deal faster than it makes a Buffer. */
function sha256(input: Uint8Array): Uint8Array {
  return Buffer.from(hash("sha256", input, "binary"), "binary");
}

/** Compares public values: no secret is a hash of the tree, so no constant time is needed. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}
