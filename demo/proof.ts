/** The end of the story: the ledger is counted, verified and tampered with, each by a process of its own. */
import { cp, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
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
  // Made by recount.ts, next door.
  return JSON.parse(stdout) as Recount;
}

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
export async function tamperWithCopy(ledger: string, copy: string): Promise<{ readonly file: string; readonly byte: number }> {
  await cp(ledger, copy, { recursive: true });
  const names = (await readdir(copy, { recursive: true })).filter((name) => /(^|\/)(entries|wal)\//.test(name));
  const sizes = await Promise.all(names.map(async (name) => ({ name, size: (await stat(join(copy, name))).size, isFile: (await stat(join(copy, name))).isFile() })));
  const entries = sizes.filter((file) => file.isFile && file.size > 0);
  const [largest] = (entries.some((file) => file.name.includes("entries")) ? entries.filter((file) => file.name.includes("entries")) : entries).toSorted(
    (a, b) => b.size - a.size,
  );
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
  const names = await readdir(directory, { recursive: true });
  const texts = await Promise.all(
    names.map(async (name) => ((await stat(join(directory, name))).isFile() ? readFile(join(directory, name), "latin1") : "")),
  );
  return texts.join("\n");
}

function wordsOf(end: VerbEnd): string {
  try {
    const value: unknown = JSON.parse(end.stdout);
    if (typeof value === "object" && value !== null && "faults" in value && Array.isArray(value.faults)) {
      const [fault]: { readonly file?: unknown; readonly entry?: unknown; readonly words?: unknown }[] = value.faults;
      return fault === undefined ? "intact and complete" : `${String(fault.file)}${typeof fault.entry === "number" ? `, entry ${fault.entry}` : ""}: ${String(fault.words)}`;
    }
  } catch {
    // Not JSON: its own words then.
  }
  return (end.stderr.trim() || end.stdout.trim()).split("\n")[0] ?? "";
}
