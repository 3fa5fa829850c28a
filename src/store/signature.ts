/** The signature on rows that give rights: whoever can write to the database cannot make the gateway believe a row. Pure. */
import { type KeyObject, sign, verify } from "node:crypto";
import canonicalize from "canonicalize";
import { InvariantError } from "#domain/errors.ts";

/** Keeps these signatures apart from every other use of an Ed25519 key. */
const domain = "sallyport rights row v1\n";

/** What is signed. The table is in it, so that a row cannot be copied into another table. */
export interface SignedContent {
  readonly table: string;
  readonly entryIndex: number;
  readonly body: unknown;
}

/** The signed bytes: a domain line, then canonical JSON (RFC 8785) of `{body, entryIndex, table}`. */
export function signedBytes(content: SignedContent): Buffer {
  const text = canonicalize({ table: content.table, entryIndex: content.entryIndex, body: content.body });
  if (text === undefined) {
    throw new InvariantError("a row has no canonical form");
  }
  return Buffer.from(domain + text, "utf8");
}

/** Signs a row with the rights key (Ed25519, RFC 8032): 64 bytes. */
export function signRow(content: SignedContent, privateKey: KeyObject): Buffer {
  return sign(null, signedBytes(content), privateKey);
}

/** True when the rights key signed exactly this content. */
export function verifyRow(content: SignedContent, signature: Uint8Array, publicKey: KeyObject): boolean {
  return signature.length === 64 && verify(null, signedBytes(content), publicKey, signature);
}
