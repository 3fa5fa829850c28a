/** The `sallyport` command line as the demo uses it: a gateway that runs, and verbs that end. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type ControlClient, createControlClient } from "#api/client.ts";
import { SallyportError } from "#domain/errors.ts";

/** The program behind `sallyport`. */
export const sallyport = join(import.meta.dirname, "../bin/sallyport.mjs");

const startTimeoutMs = 30_000;
const stopTimeoutMs = 10_000;
const pollIntervalMs = 30;
/** Of what a program wrote, shown when it failed. */
const outputLinesMax = 20;

export interface DemoGateway extends AsyncDisposable {
  readonly control: ControlClient;
  /** Everything that it has written. */
  readonly output: () => string;
  /** Resolves with how it ended, whoever ended it. */
  readonly ended: Promise<string>;
  /** Drains and ends it. A second call waits for the same end. */
  readonly stop: () => Promise<void>;
}

/** How a verb ended. */
export interface VerbEnd {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The demo's own settings and secrets are not its children's. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith("SALLYPORT_") && !name.startsWith("PG")),
  );
}

/**
 * Runs `sallyport up` and resolves when it answers.
 * @throws Error with what it wrote when it ends instead.
 */
export async function startGateway(config: string, controlPort: number, tokenFile: string): Promise<DemoGateway> {
  const child = spawn(process.execPath, [sallyport, "up", "--config", config], {
    env: environment(),
    stdio: ["ignore", "pipe", "pipe"],
    // Ctrl-C reaches the demo only, which then stops the gateway in order.
    detached: true,
  });
  const output: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => output.push(text));
  }
  const ended = new Promise<string>((settle) => {
    child.once("error", (error) => settle(error.message));
    child.once("exit", (code, signal) => settle(signal ?? `exit code ${code}`));
  });
  const guard = guardProcess(child);
  let stopping: Promise<void> | null = null;
  const stop = (): Promise<void> => {
    stopping ??= stopChild(child, ended).finally(guard);
    return stopping;
  };
  try {
    const control = await connect(controlPort, tokenFile, ended);
    const close = async (): Promise<void> => {
      await control.close();
      await stop();
    };
    return { control, output: () => output.join(""), ended, stop, [Symbol.asyncDispose]: close };
  } catch (error) {
    await stop();
    const written = output.join("").trim().split("\n").slice(-outputLinesMax).join("\n");
    throw new Error(`the gateway did not start${written === "" ? "" : `; it wrote:\n${written}`}`, { cause: error });
  }
}

/** Runs a verb to its end. */
export function runVerb(words: readonly string[]): Promise<VerbEnd> {
  return runNode([sallyport, ...words]);
}

/** Runs a Node program to its end. */
export function runNode(words: readonly string[]): Promise<VerbEnd> {
  const child = spawn(process.execPath, words, { env: environment(), stdio: ["ignore", "pipe", "pipe"] });
  const texts = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (texts.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (texts.stderr += text));
  return new Promise((settle, fail) => {
    child.once("error", fail);
    child.once("close", (code) => settle({ code, ...texts }));
  });
}

/** Ports that nothing listens on now, all different. */
export async function findFreePorts(total: number): Promise<readonly number[]> {
  const servers = Array.from({ length: total }, () => createServer());
  await Promise.all(servers.map((server) => new Promise<void>((settle) => server.listen(0, "127.0.0.1", settle))));
  const ports = servers.map((server) => {
    const address = server.address();
    return address !== null && typeof address === "object" ? address.port : 0;
  });
  await Promise.all(servers.map((server) => new Promise((settle) => server.close(settle))));
  return ports;
}

async function connect(port: number, tokenFile: string, ended: Promise<string>): Promise<ControlClient> {
  const end: { how: string | null } = { how: null };
  void ended.then((how) => (end.how = how));
  const deadlineMs = performance.now() + startTimeoutMs;
  for (;;) {
    const token = await readFile(tokenFile, "utf8").catch(() => "");
    if (token !== "") {
      const control = createControlClient({ host: "127.0.0.1", port, token: token.trim() });
      try {
        await control.status();
        return control;
      } catch (error) {
        await control.close();
        // Not listening yet; anything else will not get better by asking again.
        if (!(error instanceof SallyportError && error.code === "gateway.not-running")) {
          throw error;
        }
      }
    }
    if (end.how !== null || performance.now() > deadlineMs) {
      throw new Error(
        end.how === null ? `it did not answer within ${startTimeoutMs / 1000} s` : `it ended: ${end.how}`,
      );
    }
    await delay(pollIntervalMs);
  }
}

async function stopChild(child: ChildProcess, ended: Promise<string>): Promise<void> {
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), stopTimeoutMs);
  await ended;
  clearTimeout(timer);
}

/** A shell that ends the gateway when the demo is killed; the returned function calls it off. */
function guardProcess(child: ChildProcess): () => void {
  const guard = spawn("/bin/sh", ["-c", 'read -r _ || kill -TERM "$1"', "sallyport-demo-guard", String(child.pid)], {
    cwd: "/",
    env: {},
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  guard.on("error", () => {});
  guard.stdin.on("error", () => {});
  guard.unref();
  return () => guard.stdin.end("\n");
}
