/** A small checkout of its own for tests of the bootstrap, in a path with spaces, with an npm that installs two empty packages. */
import { spawn } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const source = join(import.meta.dirname, "../..");

/** Writes what npm would: the packages, its own list of them, and a line for each call. FAKE_NPM says how it goes wrong. */
const npmProgram = `
import { appendFileSync, copyFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
appendFileSync("npm-calls", process.argv.slice(2).join(" ") + "\\n");
rmSync("node_modules", { recursive: true, force: true });
mkdirSync("node_modules/a", { recursive: true });
await new Promise((settle) => setTimeout(settle, Number(process.env.FAKE_NPM_MS ?? 0)));
if (process.env.FAKE_NPM !== undefined) {
  process.stderr.write("npm error code " + process.env.FAKE_NPM + "\\n");
  process.exit(1);
}
copyFileSync("package-lock.json", "node_modules/.package-lock.json");
`;

/** Says how it was started, and then ends as it was told to. */
const echoProgram = `
const [how, ...rest]: readonly string[] = process.argv.slice(2);
const inner = await import("node:child_process");
const nodeOnPath = inner.execFileSync("node", ["-p", "process.execPath"], { encoding: "utf8" }).trim();
process.once("SIGTERM", () => process.exit(9));
process.stdout.write(JSON.stringify({ arguments: rest, nodeOnPath, node: process.execPath }) + "\\n");
if (how === "wait") {
  setInterval(() => {}, 1000);
} else if (how === "die") {
  process.kill(process.pid, "SIGKILL");
} else {
  process.exitCode = Number(how);
}
`;

export interface Run {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Checkout extends AsyncDisposable {
  readonly root: string;
  /** Runs `node scripts/bootstrap.mjs echo.ts` with these arguments. */
  readonly run: (parameters: readonly string[], options?: RunOptions) => Promise<Run>;
  readonly npmCalls: () => Promise<readonly string[]>;
  readonly writeLock: (version: string) => Promise<void>;
}

export interface RunOptions {
  readonly environment?: Readonly<Record<string, string>>;
  /** Called when the program has said how it was started. */
  readonly onStarted?: (bootstrapPid: number) => void;
  /** Called right after the spawn. */
  readonly onSpawned?: (bootstrapPid: number) => void;
}

/** Makes a checkout that nothing was ever installed in. */
export async function makeCheckout(): Promise<Checkout> {
  const root = await mkdtemp(join(tmpdir(), "sallyport check out "));
  await cp(join(source, "scripts"), join(root, "scripts"), { recursive: true });
  await writeFile(join(root, "package.json"), `{ "type": "module" }`);
  await writeFile(join(root, "echo.ts"), echoProgram);
  await mkdir(join(root, "bin"));
  await writeFile(join(root, "bin/npm-cli.mjs"), npmProgram);
  const writeLock = (version: string): Promise<void> =>
    writeFile(
      join(root, "package-lock.json"),
      JSON.stringify({
        packages: {
          "": { name: "checkout" },
          "node_modules/a": { version, integrity: `sha512-${version}` },
          "node_modules/other-platform": { version: "1.0.0", integrity: "sha512-b", optional: true },
        },
      }),
    );
  await writeLock("1.0.0");
  return {
    root,
    run: (parameters, options = {}) => runBootstrap(root, parameters, options),
    npmCalls: async () => {
      const calls = await readFile(join(root, "npm-calls"), "utf8").catch(() => "");
      return calls.split("\n").filter((line) => line !== "");
    },
    writeLock,
    [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }),
  };
}

function runBootstrap(root: string, parameters: readonly string[], options: RunOptions): Promise<Run> {
  const child = spawn(process.execPath, [join(root, "scripts/bootstrap.mjs"), "echo.ts", ...parameters], {
    // Not the checkout: where it is started from must not matter.
    cwd: tmpdir(),
    env: { PATH: "/usr/bin:/bin", npm_execpath: join(root, "bin/npm-cli.mjs"), ...options.environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const { pid } = child;
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    if (pid !== undefined && stdout.includes("\n")) {
      options.onStarted?.(pid);
    }
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  if (pid !== undefined) {
    options.onSpawned?.(pid);
  }
  return new Promise((settle, fail) => {
    child.once("error", fail);
    child.once("close", (code, signal) => settle({ code, signal, stdout, stderr }));
  });
}
