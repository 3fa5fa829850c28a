/**
 * A PostgreSQL client that does as little as a client can: log in, then one transaction at a time, answers walked and not
 * decoded. What it costs is taken from the same cores as what it measures.
 */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";

/** Where and as whom to connect. */
export interface Login {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
}

/** What one transaction sends, ready to be written. */
export interface Request {
  readonly bytes: Buffer;
}

const rowFrame = 0x44;
const errorFrame = 0x45;
const readyFrame = 0x5a;
const headerBytes = 5;

/** One frontend message. */
export function message(type: string, ...parts: readonly (string | Buffer)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(`${part}\0`) : part)));
  const head = Buffer.alloc(headerBytes);
  head.write(type, 0, "latin1");
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

/** A connection on which one request is answered before the next is sent. Its socket has one owner, the load loop. */
export class Connection {
  readonly #socket: Socket;
  #pending: Buffer | null = null;
  #rows = 0;
  #error: string | null = null;
  #onReady: (rows: number, error: string | null) => void = () => undefined;
  #onFrame: ((type: number, body: Buffer) => void) | null;
  #onLost: (error: Error) => void = () => undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#onFrame = null;
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => {
      this.#read(chunk);
    });
    socket.on("error", (error) => {
      this.#onLost(error);
    });
    socket.on("close", () => {
      this.#onLost(new Error("the connection was closed"));
    });
  }

  /** Connects and logs in (SCRAM-SHA-256, or no password at all). */
  static async open(login: Login): Promise<Connection> {
    const socket = connect(login.port, login.host);
    const connection = new Connection(socket);
    await connection.#logIn(login);
    return connection;
  }

  /** Calls `onReady` for each answered request with the number of its rows and an error's text. */
  onReady(onReady: (rows: number, error: string | null) => void, onLost: (error: Error) => void): void {
    this.#onReady = onReady;
    this.#onLost = onLost;
  }

  send(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  close(): void {
    this.#onLost = () => undefined;
    this.#socket.end(message("X"));
  }

  #read(arrived: Buffer): void {
    const chunk = this.#pending === null ? arrived : Buffer.concat([this.#pending, arrived]);
    let offset = 0;
    let isReady = false;
    while (chunk.length - offset >= headerBytes) {
      const end = offset + 1 + chunk.readInt32BE(offset + 1);
      if (end > chunk.length) {
        break;
      }
      const type = chunk[offset];
      if (type === rowFrame) {
        this.#rows += 1;
      } else if (type === readyFrame) {
        isReady = true;
      } else if (type === errorFrame) {
        this.#error = errorText(chunk.subarray(offset + headerBytes, end));
      }
      this.#onFrame?.(type ?? 0, chunk.subarray(offset + headerBytes, end));
      offset = end;
    }
    this.#pending = offset === chunk.length ? null : chunk.subarray(offset);
    if (isReady) {
      const rows = this.#rows;
      const error = this.#error;
      this.#rows = 0;
      this.#error = null;
      this.#onReady(rows, error);
    }
  }

  async #logIn(login: Login): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.onReady((_rows, error) => {
      if (error === null) {
        resolve(undefined);
      } else {
        reject(new Error(error));
      }
    }, reject);
    let proveTo: ((serverFirst: string) => string) | null = null;
    this.#onFrame = (type, body) => {
      if (type === errorFrame) {
        reject(new Error(errorText(body)));
      }
      if (type !== 0x52) {
        return;
      }
      const step = body.readInt32BE(0);
      if (step === 10) {
        const nonce = randomBytes(18).toString("base64");
        const first = Buffer.from(`n,,n=,r=${nonce}`);
        const length = Buffer.alloc(4);
        length.writeInt32BE(first.length);
        proveTo = (serverFirst) => scramFinal(login.password, nonce, serverFirst);
        this.send(message("p", "SCRAM-SHA-256", length, first));
      } else if (step === 11 && proveTo !== null) {
        this.send(message("p", Buffer.from(proveTo(body.subarray(4).toString()))));
      } else if (step !== 0 && step !== 12) {
        reject(new Error(`authentication request ${step} is not supported here`));
      }
    };
    const parameters = Buffer.from(`user\0${login.user}\0database\0${login.database}\0application_name\0bench\0\0`);
    const head = Buffer.alloc(8);
    head.writeInt32BE(parameters.length + 8, 0);
    head.writeInt32BE(196_608, 4);
    this.send(Buffer.concat([head, parameters]));
    await promise;
    this.#onFrame = null;
  }
}

/** RFC 5802, client-final-message, for SCRAM-SHA-256 without channel binding. The server's own proof is not looked at. */
function scramFinal(password: string, nonce: string, serverFirst: string): string {
  const fields = new Map(serverFirst.split(",").map((field) => [field.slice(0, 1), field.slice(2)]));
  const salt = Buffer.from(fields.get("s") ?? "", "base64");
  const salted = pbkdf2Sync(password.normalize("NFKC"), salt, Number(fields.get("i")), 32, "sha256");
  const clientKey = createHmac("sha256", salted).update("Client Key").digest();
  const storedKey = createHash("sha256").update(clientKey).digest();
  const withoutProof = `c=biws,r=${fields.get("r") ?? ""}`;
  const signed = `n=,r=${nonce},${serverFirst},${withoutProof}`;
  const signature = createHmac("sha256", storedKey).update(signed).digest();
  const proof = clientKey.map((byte, i) => byte ^ (signature[i] ?? 0));
  return `${withoutProof},p=${Buffer.from(proof).toString("base64")}`;
}

/** Severity, code and message of an ErrorResponse. */
function errorText(body: Buffer): string {
  const fields = new Map(
    body
      .toString()
      .split("\0")
      .map((field) => [field.slice(0, 1), field.slice(1)]),
  );
  return `${fields.get("S") ?? ""} ${fields.get("C") ?? ""}: ${fields.get("M") ?? ""}`;
}
