/** Runs the project's own tools, each as a process on this Node. */
import { spawn } from "node:child_process";
import { join } from "node:path";

/** The checkout. */
export const root = join(import.meta.dirname, "..");

export const vitest = join(root, "node_modules/vitest/vitest.mjs");

/** How a tool ended and, unless it had the terminal, what it wrote. */
export interface Ending {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly output: string;
}

/** Runs a Node program in the checkout. `output: "shown"` gives it the terminal; "kept" hands its output back. */
export function runNode(parameters: readonly string[], output: "shown" | "kept"): Promise<Ending> {
  const child = spawn(process.execPath, parameters, {
    cwd: root,
    stdio: output === "shown" ? "inherit" : ["ignore", "pipe", "pipe"],
  });
  const chunks: Buffer[] = [];
  const keep = (chunk: Buffer): void => {
    chunks.push(chunk);
  };
  child.stdout?.on("data", keep);
  child.stderr?.on("data", keep);
  return new Promise((settle, fail) => {
    child.once("error", fail);
    child.once("close", (code) => settle({ code, output: Buffer.concat(chunks).toString("utf8") }));
  });
}
