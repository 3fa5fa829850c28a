/**
 * The tokens of law 1. `protocols/driver.ts` asks for them in its signatures, so a program that forwards or releases
 * without a record does not compile; a private WeakSet catches casts and copies at run time.
 * Only `ledger/append.ts` may import the mints (`test/architecture.test.ts`).
 */
import type { AllowPure } from "#domain/decision.ts";
import { InvariantError } from "#domain/errors.ts";

const genuine = new WeakSet<object>();

let makeRecorded: <S>(subject: S, index: number) => Recorded<S>;
let makeEnqueued: <S extends AllowPure>(subject: S, index: number, durable: Promise<Recorded<S>>) => Enqueued<S>;

/** `subject` is on stable storage as entry `index` of this node's log. */
export class Recorded<out S> {
  static {
    makeRecorded = (subject, index) => new Recorded(subject, index);
  }
  readonly #token = true;
  readonly subject: S;
  /** The entry's index in the log, from 0. */
  readonly index: number;

  private constructor(subject: S, index: number) {
    this.subject = subject;
    this.index = index;
    genuine.add(this);
  }

  /** Keeps the private field in use: it is what makes the class nominal. */
  get isToken(): boolean {
    return this.#token;
  }
}

/** The record of a pure read is being written. It may be forwarded; nothing of its result is released before `durable`. */
export class Enqueued<out S extends AllowPure> {
  static {
    makeEnqueued = (subject, index, durable) => new Enqueued(subject, index, durable);
  }
  readonly #token = true;
  readonly subject: S;
  readonly index: number;
  /** Rejects when the record could not be made durable; then the command's session ends. */
  readonly durable: Promise<Recorded<S>>;

  private constructor(subject: S, index: number, durable: Promise<Recorded<S>>) {
    this.subject = subject;
    this.index = index;
    this.durable = durable;
    genuine.add(this);
  }

  get isToken(): boolean {
    return this.#token;
  }
}

/** For `ledger/append.ts` only. */
export function mintRecorded<S>(subject: S, index: number): Recorded<S> {
  return makeRecorded(subject, index);
}

/** For `ledger/append.ts` only. */
export function mintEnqueued<S extends AllowPure>(
  subject: S,
  index: number,
  durable: Promise<Recorded<S>>,
): Enqueued<S> {
  return makeEnqueued(subject, index, durable);
}

/**
 * Refuses a token that the ledger did not mint.
 * @throws InvariantError when `token` is a cast or a copy.
 */
export function assertGenuine(token: object): void {
  if (!genuine.has(token)) {
    throw new InvariantError("a record token was not minted by the ledger");
  }
}
