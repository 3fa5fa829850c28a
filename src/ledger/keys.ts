/**
 * The ledger's keys, in a directory apart from the log: `signing.seed` (Ed25519), `payload.kek` (AES-256, wraps data
 * keys), `segment.key` (HMAC-SHA-256, vouches for entries that are durable and not signed yet), `verifier.key` (public: what
 * to give an assessor), `data/<name>.key` (one wrapped data key a session or run).
 */
import { createSecretKey } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { join } from "node:path";

import { SallyportError } from "#domain/errors.ts";
import { noteSigner } from "#tlog/note.ts";
import type { NoteSigner } from "#tlog/note.ts";

import { makeDurableDirectory, writeWhole } from "./files.ts";
import type { Files } from "./files.ts";
import { unwrapDataKey, wrapDataKey } from "./payloads.ts";

const keyBytes = 32;
const nonceBytes = 12;
const signingFile = "signing.seed";
const kekFile = "payload.kek";
const segmentKeyFile = "segment.key";
/** The public verifier key, as text: what `sallyport ledger verify --key` is given. */
export const verifierKeyFile = "verifier.key";
const dataDirectory = "data";
/** Written once the log's first checkpoint is durable: from then on, an empty log directory is a loss. */
const begunFile = "log.begun";

const namePattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;

/** The parts that every key operation needs. */
export interface KeyStore {
  readonly directory: string;
  readonly files: Files;
  readonly randomBytes: (length: number) => Uint8Array;
}

/** The keys of one log, open. */
export interface LedgerKeys {
  readonly signer: NoteSigner;
  readonly kek: KeyObject;
  /** Makes the macs of the write-ahead segments. */
  readonly segmentKey: KeyObject;
  /** Whether the log was begun: its first checkpoint has been durable once. */
  readonly isBegun: boolean;
}

async function readKey(store: KeyStore, name: string): Promise<Uint8Array | null> {
  const bytes = await store.files.read(join(store.directory, name));
  if (bytes === null) {
    return null;
  }
  const key = Buffer.from(Buffer.from(bytes).toString("latin1").trim(), "base64");
  if (key.length !== keyBytes) {
    throw new SallyportError("ledger.keys", "gateway", `The key file ${name} is damaged.`, {
      nextStep: `Restore ${join(store.directory, name)} from a copy.`,
    });
  }
  return key;
}

/** Writes a file so that it is there whole or not at all. */
export async function writeDurably(store: KeyStore, directory: string, name: string, bytes: Uint8Array): Promise<void> {
  const draft = join(directory, `${name}.new`);
  await writeWhole(store.files, draft, "replace", [bytes]);
  // A crash here leaves the draft, which the next attempt replaces.
  await store.files.rename(draft, join(directory, name));
  // A crash here leaves either no file or the whole file, and both are handled.
  await store.files.syncDirectory(directory);
}

async function keyOrNew(store: KeyStore, name: string, isBegun: boolean): Promise<Uint8Array> {
  const existing = await readKey(store, name);
  if (existing !== null) {
    return existing;
  }
  if (isBegun) {
    throw new SallyportError("ledger.keys", "gateway", `The key file ${name} of a log that exists is missing.`, {
      nextStep: `Restore ${join(store.directory, name)} from a copy; a new key cannot continue this log.`,
    });
  }
  const key = store.randomBytes(keyBytes);
  const text = Buffer.from(`${Buffer.from(key).toString("base64")}\n`, "latin1");
  await writeDurably(store, store.directory, name, text);
  return key;
}

/**
 * Reads the keys, or makes them for a new log.
 * @throws SallyportError `ledger.keys` when a key of an existing log is missing or damaged.
 */
export async function openKeys(store: KeyStore, origin: string, hasLog: boolean): Promise<LedgerKeys> {
  await makeDurableDirectory(store.files, store.directory);
  await makeDurableDirectory(store.files, join(store.directory, dataDirectory));
  await store.files.syncDirectory(join(store.directory, dataDirectory));
  const begun = await store.files.read(join(store.directory, begunFile));
  const isBegun = hasLog || begun !== null;
  const signer = noteSigner(origin, await keyOrNew(store, signingFile, isBegun));
  const kek = createSecretKey(await keyOrNew(store, kekFile, isBegun));
  const segmentKey = createSecretKey(await keyOrNew(store, segmentKeyFile, isBegun));
  const verifierKey = Buffer.from(`${signer.verifierKey}\n`, "utf8");
  const published = await store.files.read(join(store.directory, verifierKeyFile));
  if (published === null || !verifierKey.equals(published)) {
    await writeDurably(store, store.directory, verifierKeyFile, verifierKey);
  }
  return { signer, kek, segmentKey, isBegun };
}

/** Notes that the log exists, so that its loss is noticed at the next start. */
export async function markBegun(store: KeyStore): Promise<void> {
  if ((await store.files.read(join(store.directory, begunFile))) === null) {
    await writeDurably(store, store.directory, begunFile, Buffer.from("The log of these keys exists.\n", "latin1"));
  }
}

function dataKeyFile(name: string): string {
  if (!namePattern.test(name)) {
    throw new RangeError("a data key's name has letters, digits, '_' and '-' only, at most 64");
  }
  return `${name}.key`;
}

/** The data key of that name: the one on disk, or a new one that is durable when this returns. */
export async function openDataKey(store: KeyStore, kek: KeyObject, name: string): Promise<KeyObject> {
  const existing = await readDataKey(store, kek, name);
  if (existing !== null) {
    return existing;
  }
  const key = store.randomBytes(keyBytes);
  const wrapped = wrapDataKey(name, kek, key, store.randomBytes(nonceBytes));
  await writeDurably(store, join(store.directory, dataDirectory), dataKeyFile(name), wrapped);
  return createSecretKey(key);
}

/**
 * The data key of that name; null when there is none (never made, or destroyed).
 * @throws SallyportError `ledger.keys` when it was wrapped under another key-encryption key.
 */
export async function readDataKey(store: KeyStore, kek: KeyObject, name: string): Promise<KeyObject | null> {
  return unwrapped(kek, name, await store.files.read(dataKeyPath(store, name)));
}

/** The same, at once: for an entry that must not lose its place in the queue. */
export function readDataKeyNow(store: KeyStore, kek: KeyObject, name: string): KeyObject | null {
  return unwrapped(kek, name, store.files.readNow(dataKeyPath(store, name)));
}

function dataKeyPath(store: KeyStore, name: string): string {
  return join(store.directory, dataDirectory, dataKeyFile(name));
}

function unwrapped(kek: KeyObject, name: string, wrapped: Uint8Array | null): KeyObject | null {
  if (wrapped === null) {
    return null;
  }
  const key = unwrapDataKey(name, kek, wrapped);
  if (key === null) {
    throw new SallyportError("ledger.keys", "gateway", `The data key ${name} does not open with this payload key.`, {
      nextStep: "Restore the directory of keys from one and the same copy.",
    });
  }
  return createSecretKey(key);
}

const doomedSuffix = ".doomed";

/** Marks a data key as about to be destroyed, durably: what was begun is finished at the next start. */
export async function doomDataKey(store: KeyStore, name: string): Promise<void> {
  await writeDurably(
    store,
    join(store.directory, dataDirectory),
    `${dataKeyFile(name)}${doomedSuffix}`,
    Buffer.alloc(0),
  );
}

/** Names of data keys whose destruction was begun and not finished. */
export async function doomedDataKeys(store: KeyStore): Promise<readonly string[]> {
  const suffix = `.key${doomedSuffix}`;
  const names = await store.files.list(join(store.directory, dataDirectory));
  return names.filter((name) => name.endsWith(suffix)).map((name) => name.slice(0, -suffix.length));
}

/** Destroys a doomed data key. Its destruction must have been recorded. */
export async function destroyDataKey(store: KeyStore, name: string): Promise<void> {
  const directory = join(store.directory, dataDirectory);
  await store.files.remove(join(directory, dataKeyFile(name)));
  await store.files.syncDirectory(directory);
  // A crash here leaves the mark without the key; the next start records the destruction once more and removes the mark.
  await store.files.remove(join(directory, `${dataKeyFile(name)}${doomedSuffix}`));
  await store.files.syncDirectory(directory);
}

/** The key-encryption key alone, for a reader that does not write. Null when there is none. */
export async function readKek(store: KeyStore): Promise<KeyObject | null> {
  const key = await readKey(store, kekFile);
  return key === null ? null : createSecretKey(key);
}
