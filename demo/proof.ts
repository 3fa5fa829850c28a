/** The end of the story: the ledger is counted, verified and tampered with, each by a process of its own. */
import { cp, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Output } from "./leaks.ts";
import { type VerbEnd, runNode, runVerb } from "./processes.ts";
import type { Recount } from "./recount.ts";

/** `sallyport help exit-codes` */
const verificationFailed = 6;

export interface Verification {
  readonly passed: boolean;
  /** The verifier found that something is not as it was signed; false also when it could not run. */
  readonly failed: boolean;
  /** What it said, on one line. */
  readonly words: string;
  readonly output: Output;
}

/** Counts the ledger in a process of its own. @throws Error with what that wrote when it fails. */
export async function countLedger(ledger: string, logFile: string | null): Promise<Recount> {
  const program = join(import.meta.dirname, "recount.ts");
  const { code, stdout, stderr } = await runNode([program, ledger, ...(logFile === null ? [] : [logFile])]);
  if (code !== 0) {
    throw new Error(`counting the ledger failed:\n${stderr}`);
  }
  return recountSchema.parse(parseJson(stdout));
}

const count = z.int().min(0);
const recountSchema: z.ZodType<Recount> = z.object({
  toolCalls: count,
  statements: count,
  allowed: count,
  denied: count,
  maskedCells: count,
  linked: count,
  entries: count,
  log: z.object({ seen: count, recorded: count, escaped: count }).nullable(),
});

/** Verifies a ledger offline with a key from outside of it. */
export async function verifyLedger(ledger: string, key: string): Promise<Verification> {
  const end = await runVerb(["ledger", "verify", ledger, "--key", key, "--json"]);
  return {
    passed: end.code === 0,
    failed: end.code === verificationFailed,
    words: wordsOf(end),
    output: { from: "sallyport ledger verify", text: end.stdout + end.stderr },
  };
}

/** Copies a ledger and flips one bit in the middle of its entries. Returns where. */
export async function tamperWithCopy(
  ledger: string,
  copy: string,
): Promise<{ readonly file: string; readonly byte: number }> {
  await cp(ledger, copy, { recursive: true });
  const files = await filesOf(copy);
  const bundles = files.filter((file) => /(^|\/)entries\//.test(file.name));
  // A log that has just begun has its entries in write-ahead segments only.
  const candidates = bundles.length > 0 ? bundles : files.filter((file) => file.name.startsWith("wal/"));
  const [largest] = candidates.toSorted((a, b) => b.size - a.size);
  if (largest === undefined) {
    throw new Error(`${ledger} holds no entries to tamper with`);
  }
  const path = join(copy, largest.name);
  const bytes = await readFile(path);
  const byte = bytes.length >> 1;
  bytes[byte] = (bytes[byte] ?? 0) ^ 1;
  await writeFile(path, bytes);
  return { file: largest.name, byte };
}

/** Every file of a directory as one text, for a look at what must not be in it. */
export async function readEverything(directory: string): Promise<string> {
  const files = await filesOf(directory);
  const texts = await Promise.all(files.map((file) => readFile(join(directory, file.name), "latin1")));
  return texts.join("\n");
}

async function filesOf(directory: string): Promise<readonly { readonly name: string; readonly size: number }[]> {
  const names = await readdir(directory, { recursive: true });
  const infos = await Promise.all(names.map(async (name) => ({ name, info: await stat(join(directory, name)) })));
  return infos
    .filter(({ info }) => info.isFile() && info.size > 0)
    .map(({ name, info }) => ({ name, size: info.size }));
}

/** The shape of `sallyport ledger verify --json`, as far as the story tells it. */
const verdict = z.object({
  faults: z.array(z.object({ file: z.string(), entry: z.number().nullable(), words: z.string() })),
});

function wordsOf(end: VerbEnd): string {
  const parsed = verdict.safeParse(parseJson(end.stdout));
  if (!parsed.success) {
    return (end.stderr.trim() || end.stdout.trim()).split("\n")[0] ?? "";
  }
  const [fault] = parsed.data.faults;
  if (fault === undefined) {
    return "intact and complete";
  }
  return `${fault.file}${fault.entry === null ? "" : `, entry ${fault.entry}`}: ${fault.words}`;
}

function parseJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return value;
  } catch {
    // Not JSON: the caller shows the text itself.
    return null;
  }
}
