/**
 * The token of law 2. Every byte that leaves towards a client is a `Masked`; only `mask/` mints one.
 */
import { InvariantError } from "#domain/errors.ts";
import type { Redaction } from "#domain/outcome.ts";

const genuine = new WeakSet<object>();
let make: <R>(reply: R, redactions: readonly Redaction[]) => Masked<R>;

/** A reply that has passed the masker. */
export class Masked<out R> {
  static {
    make = (reply, redactions) => new Masked(reply, redactions);
  }
  readonly #token = true;
  readonly reply: R;
  /** What this reply redacted, counted by output; the command's outcome sums them. */
  readonly redactions: readonly Redaction[];

  private constructor(reply: R, redactions: readonly Redaction[]) {
    this.reply = reply;
    this.redactions = redactions;
    genuine.add(this);
  }

  get isToken(): boolean {
    return this.#token;
  }
}

/** A masked output of a statement: which column's label it carries. */
export interface MaskedOutput {
  /** Output ordinal, from 1. */
  readonly output: number;
  readonly sources: readonly { readonly label: string; readonly ruleId: string; readonly source: string }[];
}

/** What the masker is to hold a statement's results against: from lineage, made when the statement was decided. */
export interface MaskPlan {
  /** Number of output columns that the analysis expects; null when the statement returns no rows. */
  readonly columns: number | null;
  readonly outputs: readonly MaskedOutput[];
  /** True when a relation with masked columns is touched: errors of class 22 and 23 lose their details. */
  readonly touchesMasked: boolean;
}

/**
 * What a protocol gives the masker to read a reply with: it checks the reply's shape against the plan, takes out what may
 * not leave, and says how many cells of each output it carries.
 * @throws when the reply cannot be read: then nothing of it leaves.
 */
export interface MaskCodec<R> {
  readonly inspect: (reply: R, plan: MaskPlan) => { readonly reply: R; readonly rows: number };
}

/**
 * Masks one reply.
 * @throws InvariantError or what the codec throws when the reply cannot be read; the session ends.
 */
export function mask<R>(reply: R, plan: MaskPlan, codec: MaskCodec<R>): Masked<R> {
  const inspected = codec.inspect(reply, plan);
  if (inspected.rows === 0 || plan.outputs.length === 0) {
    return make(inspected.reply, []);
  }
  const redactions: Redaction[] = [];
  for (const output of plan.outputs) {
    for (const source of output.sources) {
      redactions.push({
        label: source.label,
        ruleId: source.ruleId,
        source: source.source,
        output: output.output,
        cells: inspected.rows,
        layer: "view",
      });
    }
  }
  return make(inspected.reply, redactions);
}

/** @throws InvariantError when `token` is a cast or a copy. */
export function assertMasked(token: object): void {
  if (!genuine.has(token)) {
    throw new InvariantError("a reply was not minted by the masker");
  }
}
