/**
 * The MCP server as a process with all that it starts. It stands in a session and process group of its own, and everything in
 * its tree carries a mark in its environment, so that what leaves the group is found too. A shell at the end of a pipe ends
 * the tree when this process is killed.
 */
import { type ChildProcessByStdio, execFile, spawn } from "node:child_process";
import { readFile, readdir } from "node:fs/promises";
import type { Readable, Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { limits } from "#domain/limits.ts";
import type { ServerCommand } from "./run-placeholders.ts";

const execFileAsync = promisify(execFile);

/** The mark: the run's id, which is no secret and opens nothing. */
export const markVariable = "SALLYPORT_RUN_ID";
const pollIntervalMs = 20;

/** How a process ended. */
export type ProcessEnd =
  | { readonly kind: "exit"; readonly code: number }
  | { readonly kind: "signal"; readonly signal: NodeJS.Signals }
  | { readonly kind: "not-started"; readonly error: Error };

/**
 * Reads the process group in its first line and the all-clear in its second. When the pipe breaks before the all-clear, it
 * ends the group, then whatever still carries the mark, and removes the directory with the password file.
 */
const watchdogScript = `
read -r group || group=
[ -n "$group" ] && read -r _ && exit 0
[ -n "$group" ] && kill -TERM -- "-$group" && sleep 1
[ -n "$group" ] && kill -KILL -- "-$group"
if [ -d /proc/self ]; then
  for file in $(grep -lsaF "$1" /proc/[0-9]*/environ); do
    pid=\${file#/proc/}
    kill -KILL "\${pid%/environ}"
  done
fi
[ -n "$2" ] && rm -rf -- "$2"
`;

/** One run of an MCP server. `stop` has one owner: the run's session. */
export class ServerProcess {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #mark: string;
  readonly #disarm: () => void;
  #stopping: Promise<void> | null = null;
  /** Resolves when the program that was started has ended; others of its tree may still run. */
  readonly ended: Promise<ProcessEnd>;

  private constructor(child: ChildProcessByStdio<Writable, Readable, null>, mark: string, disarm: () => void) {
    this.#child = child;
    this.#mark = mark;
    this.#disarm = disarm;
    this.ended = new Promise((settle) => {
      child.once("error", (error) => settle({ kind: "not-started", error }));
      child.once("exit", (code, signal) =>
        settle(signal === null ? { kind: "exit", code: code ?? 1 } : { kind: "signal", signal }),
      );
    });
    // A broken pipe is told by the write that met it.
    child.stdin.on("error", () => {});
  }

  /** Starts the server; its stderr is this process's own. When it cannot be started, `ended` says why. */
  static start(command: ServerCommand, mark: string, temporaryDirectory: string | null): ServerProcess {
    // Armed first: there is no moment at which the server would outlive this process.
    const watchdog = spawn(
      "/bin/sh",
      ["-c", watchdogScript, "sallyport-run-guard", `${markVariable}=${mark}`, temporaryDirectory ?? ""],
      {
        cwd: "/",
        env: { PATH: "/usr/bin:/bin" },
        stdio: ["pipe", "ignore", "ignore"],
        detached: true,
      },
    );
    watchdog.on("error", () => {});
    watchdog.stdin.on("error", () => {});
    watchdog.unref();
    const child = spawn(command.program, command.parameters, {
      env: { ...command.environment, [markVariable]: mark },
      stdio: ["pipe", "pipe", "inherit"],
      detached: true,
    });
    if (child.pid !== undefined) {
      watchdog.stdin.write(`${child.pid}\n`);
    }
    return new ServerProcess(child, mark, () => watchdog.stdin.end(child.pid === undefined ? "0\n\n" : "\n"));
  }

  get output(): Readable {
    return this.#child.stdout;
  }

  /** Resolves when the bytes are in the pipe. @throws the error of the pipe when the server has closed its end. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((settle, fail) => {
      this.#child.stdin.write(bytes, (error) => (error === null || error === undefined ? settle() : fail(error)));
    });
  }

  closeInput(): void {
    this.#child.stdin.end();
  }

  /** Ends the whole tree: asks, waits `runStopGraceMs`, kills. Resolves when nothing of it is left. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    const group = this.#child.pid;
    if (group === undefined) {
      this.#disarm();
      return;
    }
    const signals = [
      ["SIGTERM", limits.runStopGraceMs],
      ["SIGKILL", limits.runStopGraceMs],
    ] as const;
    for (const [signal, graceMs] of signals) {
      const deadlineMs = performance.now() + graceMs;
      let signalled = false;
      for (;;) {
        const members = await livingMembers(group, this.#mark);
        if (members.length === 0) {
          this.#disarm();
          return;
        }
        if (performance.now() > deadlineMs) {
          break;
        }
        // SIGKILL again and again: what was being forked at the first one is found at the second.
        if (!signalled || signal === "SIGKILL") {
          send(-group, signal);
          members.filter((member) => !member.inGroup).forEach((member) => send(member.pid, signal));
          signalled = true;
        }
        await delay(pollIntervalMs);
      }
    }
    // Something does not die (uninterruptible in the kernel): the watchdog stays armed and tries once more when we go.
  }
}

interface Member {
  readonly pid: number;
  readonly inGroup: boolean;
}

/** Processes of the group or with the mark that have not ended; a zombie has. */
async function livingMembers(group: number, mark: string): Promise<readonly Member[]> {
  return process.platform === "linux" ? membersFromProc(group, mark) : membersFromPs(group);
}

async function membersFromProc(group: number, mark: string): Promise<readonly Member[]> {
  const pids = (await readdir("/proc")).filter((name) => /^[0-9]+$/.test(name));
  const marked = `${markVariable}=${mark}\0`;
  const members = await Promise.all(
    pids.map(async (pid): Promise<readonly Member[]> => {
      // A process that has gone meanwhile, or belongs to another account, is none of ours.
      const status = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => "");
      // pid (name) state parent group …; the name may hold anything, parentheses too.
      const [state = "", , itsGroup = ""] = status.slice(status.lastIndexOf(")") + 2).split(" ");
      if (status === "" || state === "Z" || state === "X") {
        return [];
      }
      if (Number(itsGroup) === group) {
        return [{ pid: Number(pid), inGroup: true }];
      }
      const environment = await readFile(`/proc/${pid}/environ`, "latin1").catch(() => "");
      return `\0${environment}`.includes(`\0${marked}`) ? [{ pid: Number(pid), inGroup: false }] : [];
    }),
  );
  return members.flat();
}

async function membersFromPs(group: number): Promise<readonly Member[]> {
  const { stdout } = await execFileAsync("ps", ["-axo", "pid=,pgid=,state="]);
  return stdout.split("\n").flatMap((line) => {
    const [pid, itsGroup, state = "Z"] = line.trim().split(/ +/);
    return Number(itsGroup) === group && !state.startsWith("Z") ? [{ pid: Number(pid), inGroup: true }] : [];
  });
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended meanwhile: that is what was wanted.
  }
}
