/**
 * Texts that belong to an entry but must not stand in it: encrypted under a data key, and committed to field by field.
 *
 * Plaintext: canonical JSON `{"<field>":["<salt>","<text>"],…}`, a salt of 128 bits a field, base64url, nowhere else.
 * Ciphertext: `nonce (12) || AES-256-GCM || tag (16)`, with the data key's name as additional data.
 * Commitment: base64url SHA-256 of `sallyport-payload-field-v1 LF field LF salt LF text`; a field's name has no LF and a
 * salt has 22 characters, so no two fields, salts and texts make the same input.
 */
import { createCipheriv, createDecipheriv, hash } from "node:crypto";
import type { KeyObject } from "node:crypto";

import type { PayloadFields } from "#domain/outcome.ts";

import { canonicalJson } from "./entry.ts";
import type { EntryPayload } from "./entry.ts";

const nonceBytes = 12;
const tagBytes = 16;
const saltBytes = 16;
const saltPattern = /^[A-Za-z0-9_-]{22}$/;
const fieldPattern = /^[A-Za-z][A-Za-z0-9._-]{0,63}$/;

/** A payload as the ledger stores it, and what its entry says of it. */
export interface SealedPayload {
  readonly ciphertext: Uint8Array;
  readonly payload: EntryPayload;
  readonly commitments: { readonly [field: string]: string };
}

/** One field as it was before it was sealed: enough to check its commitment, and to show it to somebody else. */
export interface OpenedField {
  readonly salt: string;
  readonly text: string;
}

/** The commitment of a field. Anyone who is given the field and its salt can compute it. */
export function commitmentOf(field: string, opened: OpenedField): string {
  return hash("sha256", `sallyport-payload-field-v1\n${field}\n${opened.salt}\n${opened.text}`, "base64url");
}

function additionalData(keyName: string): Buffer {
  return Buffer.from(`sallyport-payload-v1\n${keyName}`, "utf8");
}

/**
 * Encrypts the fields under `key` and commits to each.
 * @throws RangeError for a field name with other characters than letters, digits, `.`, `_` and `-`.
 */
export function sealPayload(
  keyName: string,
  key: KeyObject,
  fields: PayloadFields,
  randomBytes: (length: number) => Uint8Array,
): SealedPayload {
  const names = Object.keys(fields);
  const drawn = randomBytes(nonceBytes + saltBytes * names.length);
  const random = Buffer.from(drawn.buffer, drawn.byteOffset, drawn.length);
  const commitments: { [field: string]: string } = {};
  const plain: { [field: string]: readonly [string, string] } = {};
  names.forEach((name, i) => {
    if (!fieldPattern.test(name)) {
      throw new RangeError("a payload field's name has letters, digits, '.', '_' and '-' only");
    }
    const start = nonceBytes + saltBytes * i;
    const salt = random.toString("base64url", start, start + saltBytes);
    const text = (fields[name] ?? "").toWellFormed();
    commitments[name] = commitmentOf(name, { salt, text });
    plain[name] = [salt, text];
  });
  const nonce = random.subarray(0, nonceBytes);
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  cipher.setAAD(additionalData(keyName));
  const body = cipher.update(canonicalJson(plain), "utf8");
  cipher.final();
  const ciphertext = Buffer.concat([nonce, body, cipher.getAuthTag()]);
  return {
    ciphertext,
    payload: { key: keyName, hash: payloadHash(ciphertext), bytes: ciphertext.length },
    commitments,
  };
}

/** A payload's address. */
export function payloadHash(ciphertext: Uint8Array): string {
  return hash("sha256", ciphertext, "base64url");
}

/** What opening a payload comes to. */
export type OpenedPayload =
  | { readonly ok: true; readonly fields: ReadonlyMap<string, OpenedField> }
  | { readonly ok: false; readonly reason: string };

/** Decrypts a payload and checks each field against the commitment in its entry. */
export function unsealPayload(
  sealed: { readonly ciphertext: Uint8Array; readonly keyName: string; readonly key: KeyObject },
  commitments: { readonly [field: string]: string },
): OpenedPayload {
  const text = decrypt(sealed.ciphertext, sealed.keyName, sealed.key);
  if (text === null) {
    return { ok: false, reason: "the payload does not decrypt with this key" };
  }
  const fields = new Map<string, OpenedField>();
  for (const [name, member] of Object.entries(parseObject(text))) {
    const pair: readonly unknown[] = Array.isArray(member) ? member : [];
    const [salt, value] = pair;
    if (typeof salt !== "string" || typeof value !== "string" || !saltPattern.test(salt)) {
      return { ok: false, reason: `the payload's field ${name} is malformed` };
    }
    if (commitments[name] !== commitmentOf(name, { salt, text: value })) {
      return { ok: false, reason: `the payload's field ${name} is not the one that the entry commits to` };
    }
    fields.set(name, { salt, text: value });
  }
  if (fields.size !== Object.keys(commitments).length) {
    return { ok: false, reason: "the payload lacks a field that the entry commits to" };
  }
  return { ok: true, fields };
}

function parseObject(text: string): { readonly [name: string]: unknown } {
  const value: unknown = JSON.parse(text);
  return typeof value === "object" && value !== null ? { ...value } : {};
}

/** The plaintext; null when the key is another one or a byte was changed (GCM's tag covers every byte). */
function decrypt(ciphertext: Uint8Array, keyName: string, key: KeyObject): string | null {
  if (ciphertext.length < nonceBytes + tagBytes) {
    return null;
  }
  const decipher = createDecipheriv("aes-256-gcm", key, ciphertext.subarray(0, nonceBytes));
  decipher.setAAD(additionalData(keyName));
  decipher.setAuthTag(ciphertext.subarray(-tagBytes));
  try {
    const body = decipher.update(ciphertext.subarray(nonceBytes, -tagBytes));
    return Buffer.concat([body, decipher.final()]).toString("utf8");
  } catch {
    return null;
  }
}

/**
 * Wraps a data key under the key-encryption key: `nonce (12) || AES-256-GCM || tag (16)`, bound to the data key's name.
 * The name is part of what is authenticated, so that a wrapped key cannot be passed off as another's.
 */
export function wrapDataKey(keyName: string, kek: KeyObject, dataKey: Uint8Array, nonce: Uint8Array): Uint8Array {
  const cipher = createCipheriv("aes-256-gcm", kek, nonce);
  cipher.setAAD(Buffer.from(`sallyport-data-key-v1\n${keyName}`, "utf8"));
  const body = cipher.update(dataKey);
  cipher.final();
  return Buffer.concat([nonce, body, cipher.getAuthTag()]);
}

/** The data key; null when it was wrapped under another key-encryption key or another name. */
export function unwrapDataKey(keyName: string, kek: KeyObject, wrapped: Uint8Array): Uint8Array | null {
  if (wrapped.length < nonceBytes + tagBytes) {
    return null;
  }
  const decipher = createDecipheriv("aes-256-gcm", kek, wrapped.subarray(0, nonceBytes));
  decipher.setAAD(Buffer.from(`sallyport-data-key-v1\n${keyName}`, "utf8"));
  decipher.setAuthTag(wrapped.subarray(-tagBytes));
  try {
    return Buffer.concat([decipher.update(wrapped.subarray(nonceBytes, -tagBytes)), decipher.final()]);
  } catch {
    return null;
  }
}
