/**
 * Secrets of a node: what a configuration refers to, and the keys that `sallyport init` makes. Nothing here is ever printed.
 */
import { type KeyObject, createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes } from "node:crypto";
import { chmod, mkdir, open, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { SallyportError } from "#domain/errors.ts";

/** A text that prints, serialises and interpolates as `[secret]`; `reveal` is the one way to read it. */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** The text itself, for the one place that presents it. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return "[secret]";
  }

  toJSON(): string {
    return "[secret]";
  }

  [inspect.custom](): string {
    return "[secret]";
  }
}

/** Where a node keeps what it must not lose, under `directory` of its configuration. */
export interface NodePlaces {
  readonly directory: string;
  /** Checkpoint, payload and rights keys. */
  readonly keys: string;
  /** Ed25519 private key (PKCS #8 PEM, 0600) that signs the rows that give rights. */
  readonly rightsKey: string;
  /** The bearer token of the control endpoint, 0600. */
  readonly controlToken: string;
  readonly ledger: string;
  readonly postgres: string;
}

/** The paths under a node's directory. Pure. */
export function nodePlaces(directory: string): NodePlaces {
  const keys = join(directory, "keys");
  return {
    directory,
    keys,
    rightsKey: join(keys, "rights.pem"),
    controlToken: join(directory, "control-token"),
    ledger: join(directory, "ledger"),
    postgres: join(directory, "postgres"),
  };
}

/** Bytes of randomness in the control token: no guessing, so no counting of wrong guesses. */
const tokenBytes = 32;
/** A key or a token is shorter; a longer file is something else. */
const secretFileBytesMax = 16 * 1024;

/**
 * Makes the directory (0700), the rights key and the control token (0600) where they are missing; what is there is left alone.
 * Each file is synced before the next step. A crash between the two leaves one of them, and the next call makes the other.
 * @returns the paths that were made now.
 */
export async function ensureNodeSecrets(directory: string): Promise<readonly string[]> {
  const places = nodePlaces(directory);
  const made: string[] = [];
  await makeDirectory(places.directory);
  await makeDirectory(places.keys);
  const key = (): string =>
    generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  if (await writeNew(places.rightsKey, key)) {
    made.push(places.rightsKey);
  }
  if (await writeNew(places.controlToken, () => `${randomBytes(tokenBytes).toString("base64url")}\n`)) {
    made.push(places.controlToken);
  }
  return made;
}

/** The key pair that signs rows that give rights. */
export interface RightsKey {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

/**
 * Reads the rights key.
 * @throws SallyportError `secret.missing`, `secret.open-to-others` or `secret.malformed`, each with what to do about it.
 */
export async function loadRightsKey(directory: string): Promise<RightsKey> {
  const path = nodePlaces(directory).rightsKey;
  const pem = await readSecretFile(path);
  try {
    const privateKey = createPrivateKey(pem);
    if (privateKey.asymmetricKeyType !== "ed25519") {
      throw malformed(path, "it is not an Ed25519 key", null);
    }
    return { privateKey, publicKey: createPublicKey(privateKey) };
  } catch (error) {
    if (error instanceof SallyportError) {
      throw error;
    }
    throw malformed(path, "it is not a private key in PEM form", error);
  }
}

/**
 * Reads the token of the control endpoint.
 * @throws SallyportError `secret.missing`, `secret.open-to-others` or `secret.malformed`.
 */
export async function loadControlToken(file: string): Promise<Secret> {
  const text = (await readSecretFile(file)).trim();
  if (!/^[A-Za-z0-9_-]{43}$/.test(text)) {
    throw malformed(file, "it does not hold a token of 43 base64url characters", null);
  }
  return new Secret(text);
}

function malformed(path: string, why: string, cause: unknown): SallyportError {
  return new SallyportError("secret.malformed", "gateway", `${path} cannot be used: ${why}`, {
    ...(cause === null ? {} : { cause }),
    nextStep: `restore ${path} from a copy; if there is none, move it away and run \`sallyport init\``,
  });
}

async function readSecretFile(path: string): Promise<string> {
  const info = await stat(path).catch((cause: unknown) => {
    throw new SallyportError("secret.missing", "gateway", `${path} cannot be read`, {
      cause,
      nextStep: "run `sallyport init` where the configuration is, as the account that runs the gateway",
    });
  });
  if ((info.mode & 0o077) !== 0) {
    throw new SallyportError("secret.open-to-others", "gateway", `${path} can be read by other accounts`, {
      nextStep: `chmod 600 ${path}, and replace it if others may have read it`,
    });
  }
  if (info.size > secretFileBytesMax) {
    throw malformed(path, "it is too large", null);
  }
  return readFile(path, "utf8");
}

async function makeDirectory(path: string): Promise<void> {
  const made = await mkdir(path, { recursive: true, mode: 0o700 });
  if (made !== undefined) {
    await chmod(path, 0o700);
  }
}

async function writeNew(path: string, content: () => string): Promise<boolean> {
  const file = await open(path, "wx", 0o600).catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") {
      return null;
    }
    throw error;
  });
  if (file === null) {
    return false;
  }
  try {
    await file.writeFile(content());
    await file.sync();
  } finally {
    await file.close();
  }
  return true;
}
