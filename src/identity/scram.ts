/**
 * SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides, without channel binding. Pure: nonces and salts come in as arguments.
 *
 *   client-first   n,,n=,r=<client nonce>
 *   server-first   r=<client nonce><server nonce>,s=<salt>,i=<iterations>
 *   client-final   c=biws,r=<both nonces>,p=<proof>
 *   server-final   v=<server signature>
 */
import { createHash, createHmac, pbkdf2, pbkdf2Sync, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";

import { SallyportError } from "#domain/errors.ts";
import type { Whose } from "#domain/errors.ts";
import type { ScramVerifier } from "#domain/grant.ts";
import { limits } from "#domain/limits.ts";
import { preparePassword } from "./saslprep.ts";

/** The one mechanism that is spoken. */
export const scramMechanism = "SCRAM-SHA-256";

/** Rounds of PBKDF2 in the verifiers that we make: PostgreSQL's own default, and the least that RFC 7677 allows. */
export const scramIterations = 4096;

/** Bytes of a salt, and random bytes of a nonce (PostgreSQL's own sizes). */
export const scramSaltBytes = 16;
export const scramNonceBytes = 18;

const keyBytes = 32;

/** What a server needs to check `password` and cannot learn it from. About 2 ms of the thread. */
export function makeVerifier(password: string, salt: Uint8Array, iterations: number): ScramVerifier {
  const salted = pbkdf2Sync(preparePassword(password), salt, iterations, keyBytes, "sha256");
  return {
    iterations,
    saltBase64: Buffer.from(salt).toString("base64"),
    storedKeyBase64: sha256(hmac(salted, "Client Key")).toString("base64"),
    serverKeyBase64: hmac(salted, "Server Key").toString("base64"),
  };
}

/**
 * A verifier for a login that does not exist: always the same for one login, so that asking twice does not tell, and met
 * by no password. `key` is a secret of the node.
 */
export function mockVerifier(key: Uint8Array, login: string): ScramVerifier {
  const derive = (purpose: string): Buffer => hmac(key, `${purpose}\0${login}`);
  return {
    iterations: scramIterations,
    saltBase64: derive("salt").subarray(0, scramSaltBytes).toString("base64"),
    storedKeyBase64: derive("stored key").toString("base64"),
    serverKeyBase64: derive("server key").toString("base64"),
  };
}

/** The verifier as `CREATE ROLE … PASSWORD` takes it, so that the password itself never reaches the database. */
export function verifierToPostgres(verifier: ScramVerifier): string {
  const { iterations, saltBase64, storedKeyBase64, serverKeyBase64 } = verifier;
  return `${scramMechanism}$${iterations}:${saltBase64}$${storedKeyBase64}:${serverKeyBase64}`;
}

/** The server's side between its two messages. */
export interface ScramChallenge {
  /** server-first, to be sent. */
  readonly message: string;
  readonly gs2Header: string;
  readonly clientFirstBare: string;
  readonly nonce: string;
  readonly verifier: ScramVerifier;
}

/**
 * The server's answer to client-first. `serverNonce` is printable ASCII without commas.
 * @throws SallyportError `protocol.violation` (client) when the message is malformed, asks for channel binding, which is
 * not offered, for an authorization identity, or for a mandatory extension.
 */
export function challengeClient(clientFirst: string, verifier: ScramVerifier, serverNonce: string): ScramChallenge {
  const parts = /^([^,]*),([^,]*),(n=(?:[^,=]|=2C|=3D)*,r=([!-+\--~]+)(?:,.*)?)$/su.exec(clientFirst);
  const [, binding, identity, bare, clientNonce] = parts ?? [];
  if (binding === undefined || bare === undefined || clientNonce === undefined) {
    throw violation("client", "client-first-message is malformed");
  }
  // `y`: the client could bind channels and sees that we do not offer it, which is so.
  if (binding !== "n" && binding !== "y") {
    throw violation("client", "channel binding is not offered");
  }
  if (identity !== "") {
    throw violation("client", "an authorization identity is not supported");
  }
  const nonce = clientNonce + serverNonce;
  return {
    message: `r=${nonce},s=${verifier.saltBase64},i=${verifier.iterations}`,
    gs2Header: `${binding},,`,
    clientFirstBare: bare,
    nonce,
    verifier,
  };
}

/**
 * Checks client-final: server-final, or null when the proof is wrong. The comparison takes the same time for any proof.
 * @throws SallyportError `protocol.violation` (client) when the message is malformed or not of this exchange.
 */
export function verifyClient(challenge: ScramChallenge, clientFinal: string): string | null {
  const parts = /^(c=([^,]*),r=([^,]*)(?:,.*?)?),p=([^,]*)$/su.exec(clientFinal);
  const [, withoutProof, binding, nonce, proofBase64] = parts ?? [];
  if (withoutProof === undefined || binding === undefined || proofBase64 === undefined) {
    throw violation("client", "client-final-message is malformed");
  }
  if (binding !== Buffer.from(challenge.gs2Header, "latin1").toString("base64")) {
    throw violation("client", "the channel binding of client-final is not the one of client-first");
  }
  if (nonce !== challenge.nonce) {
    throw violation("client", "the nonce is not the one of this exchange");
  }
  const proof = decodeBase64(proofBase64);
  if (proof === null || proof.length !== keyBytes) {
    throw violation("client", "the proof is malformed");
  }
  const message = `${challenge.clientFirstBare},${challenge.message},${withoutProof}`;
  const storedKey = Buffer.from(challenge.verifier.storedKeyBase64, "base64");
  const clientKey = xor(proof, hmac(storedKey, message));
  if (!timingSafeEqual(sha256(clientKey), storedKey)) {
    return null;
  }
  const serverKey = Buffer.from(challenge.verifier.serverKeyBase64, "base64");
  return `v=${hmac(serverKey, message).toString("base64")}`;
}

/** The client's side after its first message. */
export interface ScramClientFirst {
  /** client-first, to be sent. */
  readonly message: string;
  readonly bare: string;
  readonly nonce: string;
}

/** The name stays empty: PostgreSQL takes it from the startup packet. */
export function startClient(clientNonce: string): ScramClientFirst {
  const bare = `n=,r=${clientNonce}`;
  return { message: `n,,${bare}`, bare, nonce: clientNonce };
}

export interface ScramClientFinal {
  /** client-final, to be sent. */
  readonly message: string;
  /** What server-final must be: only a server that holds the verifier can know it. */
  readonly expectedServerFinal: string;
}

/**
 * The client's answer to server-first. The rounds run off the thread.
 * @throws SallyportError `upstream.authentication` (upstream) when the message is malformed, its nonce is not an extension
 * of ours, or its rounds are fewer than RFC 7677 allows or more than `limits.scramIterationsMax`.
 */
export async function answerServer(
  first: ScramClientFirst,
  serverFirst: string,
  password: string,
): Promise<ScramClientFinal> {
  const parts = /^r=([!-+\--~]+),s=([^,]+),i=([1-9]\d{0,9})(?:,.*)?$/su.exec(serverFirst);
  const [, nonce, saltBase64, rounds] = parts ?? [];
  const salt = saltBase64 === undefined ? null : decodeBase64(saltBase64);
  if (nonce === undefined || salt === null) {
    throw violation("upstream", "server-first-message is malformed");
  }
  if (!nonce.startsWith(first.nonce) || nonce.length === first.nonce.length) {
    throw violation("upstream", "the server's nonce does not extend ours");
  }
  const iterations = Number(rounds);
  if (iterations < scramIterations || iterations > limits.scramIterationsMax) {
    throw violation("upstream", `the server asks for ${iterations} rounds of PBKDF2`);
  }
  const salted = await derive(preparePassword(password), salt, iterations, keyBytes, "sha256");
  const withoutProof = `c=biws,r=${nonce}`;
  const message = `${first.bare},${serverFirst},${withoutProof}`;
  const clientKey = hmac(salted, "Client Key");
  const proof = xor(clientKey, hmac(sha256(clientKey), message));
  return {
    message: `${withoutProof},p=${proof.toString("base64")}`,
    expectedServerFinal: `v=${hmac(hmac(salted, "Server Key"), message).toString("base64")}`,
  };
}

/** Whether server-final proves that the server holds the verifier. Takes the same time for any signature. */
export function isServerProven(final: ScramClientFinal, serverFinal: string): boolean {
  const expected = Buffer.from(final.expectedServerFinal, "utf8");
  const actual = Buffer.from(serverFinal, "utf8");
  return actual.length === expected.length && timingSafeEqual(actual, expected);
}

/** A nonce of random bytes, as it is written in a message. */
export function encodeNonce(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}

const derive = promisify(pbkdf2);

function hmac(key: Uint8Array, message: string): Buffer {
  return createHmac("sha256", key).update(message, "utf8").digest();
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}

function xor(a: Buffer, b: Buffer): Buffer {
  return Buffer.from(a.map((byte, i) => byte ^ (b[i] ?? 0)));
}

/** Strict: Node's own decoder skips what it does not know. */
function decodeBase64(text: string): Buffer | null {
  const bytes = Buffer.from(text, "base64");
  return bytes.toString("base64") === text ? bytes : null;
}

function violation(whose: Whose & ("client" | "upstream"), reason: string): SallyportError {
  const code = whose === "client" ? "protocol.violation" : "upstream.authentication";
  return new SallyportError(code, whose, `SCRAM: ${reason}`);
}
