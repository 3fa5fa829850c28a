/**
 * C2SP signed notes (signed-note 1.0.0) and the Ed25519 cosignatures on them (tlog-cosignature, type 0x04).
 * A note is text, an empty line, and signature lines `— <name> base64(key id || signature)`.
 */
import { createPrivateKey, createPublicKey, hash, sign, verify } from "node:crypto";
import type { KeyObject } from "node:crypto";

import { accepted, decodeBase64, refused } from "./parsed.ts";
import type { Parsed } from "./parsed.ts";

/** Signature types of C2SP that we verify. Others come from keys that we do not know, and are ignored. */
const algorithms = { ed25519: 0x01, cosignature: 0x04 } as const;

/** Longest note that is read. */
export const noteBytesMax = 1_000_000;
/** Most signature lines of a note; C2SP asks for at least 16, the Go implementation refuses more than 100. */
export const noteSignaturesMax = 100;

const keyIdBytes = 4;
const publicKeyBytes = 32;
const signatureBytes = 64;
const timestampBytes = 8;

/** Who may sign a note: a name, and a public key that is bound to the name by the key id. */
export interface VerifierKey {
  readonly kind: "ed25519" | "cosignature";
  readonly name: string;
  /** The first four bytes of SHA-256(name, LF, type, public key), hex. */
  readonly idHex: string;
  readonly publicKey: KeyObject;
}

/** Signs notes under a name. */
export interface NoteSigner {
  readonly name: string;
  readonly idHex: string;
  /** `name+id+key`: what a verifier is given. */
  readonly verifierKey: string;
  readonly privateKey: KeyObject;
}

export interface NoteSignature {
  readonly name: string;
  readonly idHex: string;
  readonly signature: Uint8Array;
}

/** A note whose form is right; nothing about its signatures is known yet. */
export interface Note {
  /** The signed text, with its final LF. */
  readonly text: string;
  readonly signatures: readonly NoteSignature[];
}

/** A signature that was checked with a key that the caller gave. */
export interface VerifiedSignature {
  readonly key: VerifierKey;
  /** Of a cosignature: when it was made, POSIX seconds. Null for a plain signature. */
  readonly timestampSeconds: number | null;
}

function isKeyName(name: string): boolean {
  return name !== "" && name.isWellFormed() && !/[\s+\p{Cc}]/u.test(name);
}

function keyIdHex(name: string, type: number, publicKey: Uint8Array): string {
  const input = Buffer.concat([Buffer.from(`${name}\n`, "utf8"), Buffer.from([type]), publicKey]);
  return hash("sha256", input, "hex").slice(0, keyIdBytes * 2);
}

function ed25519PublicKey(raw: Uint8Array): KeyObject {
  return createPublicKey({
    key: { kty: "OKP", crv: "Ed25519", x: Buffer.from(raw).toString("base64url") },
    format: "jwk",
  });
}

/** Reads `name+hex8(id)+base64(type || key)`; the id must be that of the key under that name. */
export function parseVerifierKey(text: string): Parsed<VerifierKey> {
  const [name, idHex, ...rest] = text.split("+");
  if (name === undefined || idHex === undefined || rest.length === 0) {
    return refused("a verifier key has three parts, name+id+key");
  }
  const data = decodeBase64(rest.join("+"));
  if (!isKeyName(name) || !/^[0-9a-f]{8}$/.test(idHex) || data === null) {
    return refused("a verifier key is name+id+key, with the id as 8 hex digits and the key in base64");
  }
  const type = data[0];
  const kind = type === algorithms.ed25519 ? "ed25519" : type === algorithms.cosignature ? "cosignature" : null;
  const raw = data.subarray(1);
  if (kind === null || type === undefined) {
    return refused(`unknown key algorithm ${type ?? "none"}`);
  }
  if (raw.length !== publicKeyBytes) {
    return refused(`an Ed25519 key is ${publicKeyBytes} bytes, this one ${raw.length}`);
  }
  if (keyIdHex(name, type, raw) !== idHex) {
    return refused("the key id does not belong to this name and key");
  }
  return accepted({ kind, name, idHex, publicKey: ed25519PublicKey(raw) });
}

/** An Ed25519 signer (type 0x01) from a 32-byte seed (RFC 8032 private key). */
export function noteSigner(name: string, seed: Uint8Array): NoteSigner {
  if (!isKeyName(name) || seed.length !== publicKeyBytes) {
    throw new RangeError("a signer needs a name without spaces or '+', and a seed of 32 bytes");
  }
  // RFC 8410 section 7: the fixed start of an Ed25519 private key in PKCS #8.
  const pkcs8 = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
  const privateKey = createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" });
  const raw = Buffer.from(createPublicKey(privateKey).export({ format: "jwk" }).x ?? "", "base64url");
  const idHex = keyIdHex(name, algorithms.ed25519, raw);
  const key = Buffer.concat([Buffer.from([algorithms.ed25519]), raw]).toString("base64");
  return { name, idHex, verifierKey: `${name}+${idHex}+${key}`, privateKey };
}

/** One signature line, with its LF. */
function formatSignatureLine(name: string, idHex: string, signature: Uint8Array): string {
  const data = Buffer.concat([Buffer.from(idHex, "hex"), signature]);
  return `\u2014 ${name} ${data.toString("base64")}\n`;
}

/**
 * The text with an empty line and a signature line for each signer.
 * @throws RangeError when `text` cannot stand in a note.
 */
export function signNote(text: string, signers: readonly NoteSigner[]): string {
  if (!text.endsWith("\n") || !isNoteText(text)) {
    throw new RangeError("a note's text ends with LF and has no control characters");
  }
  const lines = signers.map((signer) =>
    formatSignatureLine(signer.name, signer.idHex, sign(null, Buffer.from(text, "utf8"), signer.privateKey)),
  );
  return `${text}\n${lines.join("")}`;
}

function isNoteText(text: string): boolean {
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  return text.isWellFormed() && !/[\u0000-\u0009\u000b-\u001f\u007f]/.test(text);
}

/** Reads a note strictly: valid UTF-8, no control character but LF, and every signature line well formed. */
export function parseNote(bytes: Uint8Array): Parsed<Note> {
  if (bytes.length > noteBytesMax) {
    return refused(`a note of more than ${noteBytesMax} bytes`);
  }
  let note: string;
  try {
    note = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return refused("not valid UTF-8");
  }
  if (!isNoteText(note)) {
    return refused("a control character in the note");
  }
  const separator = note.lastIndexOf("\n\n");
  if (separator < 0 || !note.endsWith("\n")) {
    return refused("no empty line before the signatures, or no LF at the end");
  }
  const lines = note.slice(separator + 2, -1).split("\n");
  if (lines.length > noteSignaturesMax) {
    return refused(`more than ${noteSignaturesMax} signatures`);
  }
  const signatures: NoteSignature[] = [];
  for (const line of lines) {
    const signature = parseSignatureLine(line);
    if (signature === null) {
      return refused("a malformed signature line");
    }
    signatures.push(signature);
  }
  return accepted({ text: note.slice(0, separator + 1), signatures });
}

function parseSignatureLine(line: string): NoteSignature | null {
  const [dash, name, base64, ...more] = line.split(" ");
  if (dash !== "\u2014" || name === undefined || base64 === undefined || more.length > 0 || !isKeyName(name)) {
    return null;
  }
  const data = decodeBase64(base64);
  if (data === null || data.length <= keyIdBytes) {
    return null;
  }
  const idHex = Buffer.from(data.subarray(0, keyIdBytes)).toString("hex");
  return { name, idHex, signature: data.subarray(keyIdBytes) };
}

/**
 * Checks a note with the given keys. Lines of other keys are ignored; a line of a given key that does not verify
 * refuses the whole note, and so does a note that none of the keys signed.
 */
export function verifyNote(note: Note, keys: readonly VerifierKey[]): Parsed<readonly VerifiedSignature[]> {
  const verified: VerifiedSignature[] = [];
  for (const line of note.signatures) {
    const known = keys.filter((key) => key.name === line.name && key.idHex === line.idHex);
    const [key, ...others] = known;
    if (key === undefined) {
      continue;
    }
    if (others.length > 0) {
      return refused(`more than one given key has the name ${line.name} and the id ${line.idHex}`);
    }
    const signature = verifyLine(note.text, line.signature, key);
    if (signature === null) {
      return refused(`the signature of ${line.name}+${line.idHex} does not verify`);
    }
    verified.push(signature);
  }
  return verified.length > 0 ? accepted(verified) : refused("no signature by any of the given keys");
}

function verifyLine(text: string, field: Uint8Array, key: VerifierKey): VerifiedSignature | null {
  switch (key.kind) {
    case "ed25519":
      return field.length === signatureBytes && verify(null, Buffer.from(text, "utf8"), key.publicKey, field)
        ? { key, timestampSeconds: null }
        : null;
    case "cosignature": {
      const timestampSeconds = cosignatureTimestamp(field);
      if (timestampSeconds === null) {
        return null;
      }
      const message = Buffer.from(`cosignature/v1\ntime ${timestampSeconds}\n${text}`, "utf8");
      return verify(null, message, key.publicKey, field.subarray(timestampBytes)) ? { key, timestampSeconds } : null;
    }
    default:
      return key.kind satisfies never;
  }
}

/** When a cosignature (type 0x04: u64 big-endian POSIX seconds, then 64 bytes) was made; null when it is not one. */
export function cosignatureTimestamp(field: Uint8Array): number | null {
  if (field.length !== timestampBytes + signatureBytes) {
    return null;
  }
  const seconds = Number(Buffer.from(field).readBigUInt64BE(0));
  return Number.isSafeInteger(seconds) ? seconds : null;
}

/** Collects a note that arrives in pieces, and never more than `noteBytesMax` of it. */
export function noteCollector(): { push(piece: Uint8Array): void; finish(): Parsed<Note> } {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  return {
    push(piece) {
      bytes += piece.length;
      if (bytes <= noteBytesMax) {
        pieces.push(Uint8Array.from(piece));
      }
    },
    finish() {
      return bytes > noteBytesMax
        ? refused(`a note of more than ${noteBytesMax} bytes`)
        : parseNote(Buffer.concat(pieces));
    },
  };
}
