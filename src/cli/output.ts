/** Where a command's words go: data to standard output, everything else to standard error, and nothing that moves a cursor. */
import type { Readable, Writable } from "node:stream";
import { styleText } from "node:util";
import { SallyportError } from "#domain/errors.ts";
import { isRetryable } from "./exit-codes.ts";

/** The surroundings of one command. */
export interface CliIo {
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable & { readonly isTTY?: boolean };
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Options that every verb has. */
export interface CommonOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
  /** False with `--no-input`. */
  readonly input?: boolean;
  readonly config?: string;
}

type Tone = "ok" | "warning" | "failure" | "quiet";
const styleOfTone = { ok: "green", warning: "yellow", failure: "red", quiet: "gray" } as const;

/** The words of one command. With `--json` exactly one object goes to standard output, whatever happens. */
export class Output {
  readonly #io: CliIo;
  readonly #json: boolean;
  readonly #quiet: boolean;

  constructor(io: CliIo, options: Pick<CommonOptions, "json" | "quiet">) {
    this.#io = io;
    this.#json = options.json === true;
    this.#quiet = options.quiet === true;
  }

  /** The result: `object` for programs, `lines` for people. */
  result(object: object, lines: readonly string[]): void {
    this.#io.stdout.write(this.#json ? `${JSON.stringify(object)}\n` : lines.map((line) => `${line}\n`).join(""));
  }

  /** What is going on, for a person who waits; not with `--quiet` or `--json`. */
  progress(text: string): void {
    if (!this.#quiet && !this.#json) {
      this.#io.stderr.write(`${clean(text)}\n`);
    }
  }

  /** A failure, with what to do about it. */
  failure(error: unknown): void {
    const described = describeFailure(error);
    if (this.#json) {
      this.#io.stdout.write(`${JSON.stringify({ error: described })}\n`);
      return;
    }
    const reference = described.decisionId ?? described.requestId;
    // A message of several lines lists problems, each with its own fix.
    const hasFixes = described.message.includes("\n");
    this.#io.stderr.write(
      [
        `${this.tone("failure", "sallyport:")} ${clean(described.message, true)} (${[described.code, ...(reference === null ? [] : [reference])].join(" · ")})`,
        ...(described.nextStep === null || hasFixes ? [] : [`  next: ${clean(described.nextStep)}`]),
        "",
      ].join("\n"),
    );
  }

  /** Colours a word where the terminal wants colour (NO_COLOR, FORCE_COLOR); the word itself always says the same. */
  tone(tone: Tone, text: string): string {
    const { FORCE_COLOR: force, NO_COLOR: no } = this.#io.environment;
    const isWanted = force !== undefined ? force !== "0" : (no ?? "") === "" && this.#io.stdout.isTTY === true;
    return isWanted && !this.#json ? styleText(styleOfTone[tone], text, { validateStream: false }) : text;
  }
}

/** A failure as programs read it. */
export interface DescribedFailure {
  readonly code: string;
  readonly message: string;
  readonly nextStep: string | null;
  readonly retryable: boolean;
  readonly decisionId: string | null;
  readonly requestId: string | null;
  /** Only for a configuration: each problem with line, column and fix. */
  readonly problems?: unknown;
}

/** Takes a failure apart. What is no error of ours is a bug of ours, and is told without what it may quote. */
export function describeFailure(error: unknown): DescribedFailure {
  if (!(error instanceof SallyportError)) {
    const name = error instanceof Error ? error.name : typeof error;
    const code = error instanceof Error && "code" in error && typeof error.code === "string" ? ` ${error.code}` : "";
    return {
      code: "internal",
      message: `something that should not happen did: ${name}${code}`,
      nextStep: "run it again with SALLYPORT_DEBUG=1 and report what it prints",
      retryable: false,
      decisionId: null,
      requestId: null,
    };
  }
  const text = (key: "decisionId" | "requestId"): string | null => {
    const value = new Map<string, unknown>(Object.entries(error)).get(key);
    return typeof value === "string" ? value : null;
  };
  return {
    code: error.code,
    message: error.message,
    nextStep: error.nextStep,
    retryable: isRetryable(error.code),
    decisionId: text("decisionId"),
    requestId: text("requestId"),
    ...("problems" in error ? { problems: error.problems } : {}),
  };
}

/** Takes out what could steer a terminal or reorder a line: names and titles come from outside. */
export function clean(text: string, keepsLines = false): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (character) =>
    keepsLines && character === "\n" ? character : "\uFFFD",
  );
}

/** `1 finding`, `2 findings`: nouns whose plural is an `s`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Columns of equal width, two spaces apart; the last one is as long as it is. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const all = [header, ...rows.map((row) => row.map((cell) => clean(cell)))];
  const widths = header.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all.map((row) =>
    row
      .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
}

/** `in 14 min`, `2 h ago`: for lists; exact times are in `--json`. */
export function relativeTime(atMs: number, nowMs: number): string {
  const awayMs = Math.abs(atMs - nowMs);
  const [amount, unit] =
    awayMs < 90_000
      ? [awayMs / 1000, "s"]
      : awayMs < 90 * 60_000
        ? [awayMs / 60_000, "min"]
        : awayMs < 48 * 3_600_000
          ? [awayMs / 3_600_000, "h"]
          : [awayMs / 86_400_000, "d"];
  const text = `${Math.round(amount)} ${unit}`;
  return atMs >= nowMs ? `in ${text}` : `${text} ago`;
}
