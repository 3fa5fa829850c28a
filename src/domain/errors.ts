/** Whose fault a failure is: it decides what the client may read and what an operator is told. */
export type Whose = "client" | "principal" | "upstream" | "gateway";

/**
 * A failure with a stable code. The message is for operators; what a client may read of it is decided where it leaves.
 */
export class SallyportError extends Error {
  readonly code: string;
  readonly whose: Whose;
  /** What the reader can do about it; null when there is nothing. */
  readonly nextStep: string | null;

  constructor(
    code: string,
    whose: Whose,
    message: string,
    options: { readonly cause?: unknown; readonly nextStep?: string } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = "SallyportError";
    this.code = code;
    this.whose = whose;
    this.nextStep = options.nextStep ?? null;
  }
}

/** Something that cannot be was. The session that saw it ends. */
export class InvariantError extends SallyportError {
  constructor(message: string, options: { readonly cause?: unknown } = {}) {
    super("invariant", "gateway", message, options);
    this.name = "InvariantError";
  }
}
