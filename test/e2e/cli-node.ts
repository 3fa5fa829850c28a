/** The command line as a process, and a node that it runs. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { join } from "node:path";

const program = join(import.meta.dirname, "../../src/cli/main.ts");

export interface CliResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs one command to its end. */
export function sallyport(
  directory: string,
  given: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<CliResult> {
  return new Promise((settle) => {
    const options = { cwd: directory, env: { ...process.env, ...environment } };
    const child = execFile(process.execPath, [program, ...given], options, (_, out, err) => {
      settle({ code: child.exitCode ?? -1, out, err });
    });
  });
}

export interface RunningNode {
  readonly child: ChildProcess;
  /** The one object that `up --json` writes when it is ready. */
  readonly ready: Record<string, unknown>;
  readonly exited: Promise<number | null>;
}

/** Starts `sallyport up --json` and resolves when it is ready. */
export async function startUp(
  directory: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<RunningNode> {
  const child = spawn(process.execPath, [program, "up", "--json"], {
    cwd: directory,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  const exited = new Promise<number | null>((settle) => child.once("exit", settle));
  let out = "";
  let err = "";
  child.stderr.on("data", (chunk) => {
    err += String(chunk);
  });
  const line = await new Promise<string>((settle, fail) => {
    child.stdout.on("data", (chunk) => {
      out += String(chunk);
      if (out.includes("\n")) {
        settle(out);
      }
    });
    void exited.then((code) => fail(new Error(`up ended with ${code}: ${out}${err}`)));
  });
  const ready: Record<string, unknown> = JSON.parse(line);
  return { child, ready, exited };
}
