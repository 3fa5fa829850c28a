/**
 * The MCP server as a process with all that it starts. It stands in a session and process group of its own, everything in its
 * tree carries a mark in its environment, and the tree is looked at while it lives, so that what leaves the group is found too.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { limits } from "#domain/limits.ts";
import { type RunGuard, markVariable } from "./run-guard.ts";
import type { ServerCommand } from "./run-placeholders.ts";
import { ProcessTree } from "./run-tree.ts";

const pollIntervalMs = 20;
/** How often the tree is looked at: a look costs some tenths of a millisecond. */
const lookMs = { busy: 25, idle: 250 } as const;
/** A server that was sent something may start others for this long; after that, looks are rarer. */
const busyMs = 1000;

/** How a process ended. */
export type ProcessEnd =
  | { readonly kind: "exit"; readonly code: number }
  | { readonly kind: "signal"; readonly signal: NodeJS.Signals }
  | { readonly kind: "not-started"; readonly error: Error };

/** One run of an MCP server. `stop` has one owner: the run's session. */
export class ServerProcess {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #guard: RunGuard;
  /** Null when the program could not be started. */
  readonly #tree: ProcessTree | null;
  #stopping: Promise<"ended" | "stuck"> | null = null;
  #lookTimer: NodeJS.Timeout | null = null;
  #busyUntilMs = 0;
  /** Resolves when the program that was started has ended; others of its tree may still run. */
  readonly ended: Promise<ProcessEnd>;

  private constructor(child: ChildProcessByStdio<Writable, Readable, null>, mark: string, guard: RunGuard) {
    this.#child = child;
    this.#guard = guard;
    this.#tree = child.pid === undefined ? null : new ProcessTree(child.pid, mark);
    this.ended = new Promise((settle) => {
      child.once("error", (error) => settle({ kind: "not-started", error }));
      child.once("exit", (code, signal) =>
        settle(signal === null ? { kind: "exit", code: code ?? 1 } : { kind: "signal", signal }),
      );
    });
    // A broken pipe is told by the write that met it.
    child.stdin.on("error", () => {});
    this.#cover();
    this.#keepLooking();
  }

  /**
   * Starts the server; its stderr is this process's own. When it cannot be started, `ended` says why.
   * @param guard armed already: there is no moment at which the server would outlive this process.
   */
  static start(command: ServerCommand, mark: string, guard: RunGuard): ServerProcess {
    const child = spawn(command.program, command.parameters, {
      env: { ...command.environment, [markVariable]: mark },
      stdio: ["pipe", "pipe", "inherit"],
      detached: true,
    });
    return new ServerProcess(child, mark, guard);
  }

  get output(): Readable {
    return this.#child.stdout;
  }

  /** Resolves when the bytes are in the pipe. @throws the error of the pipe when the server has closed its end. */
  write(bytes: Uint8Array): Promise<void> {
    const nowMs = performance.now();
    const wasIdle = nowMs >= this.#busyUntilMs;
    this.#busyUntilMs = nowMs + busyMs;
    if (wasIdle) {
      this.#keepLooking();
    }
    return new Promise((settle, fail) => {
      this.#child.stdin.write(bytes, (error) => (error === null || error === undefined ? settle() : fail(error)));
    });
  }

  closeInput(): void {
    this.#child.stdin.end();
  }

  /**
   * Ends the whole tree: asks, waits `runStopGraceMs`, kills. `stuck` when something does not die (uninterruptible in the
   * kernel): the guard, still armed, tries once more when this process goes.
   */
  stop(): Promise<"ended" | "stuck"> {
    this.#stopping ??= this.#stop().finally(() => clearTimeout(this.#lookTimer ?? undefined));
    return this.#stopping;
  }

  async #stop(): Promise<"ended" | "stuck"> {
    const group = this.#child.pid;
    if (group === undefined || this.#tree === null) {
      return "ended";
    }
    const signals = [
      ["SIGTERM", limits.runStopGraceMs],
      ["SIGKILL", limits.runStopGraceMs],
    ] as const;
    for (const [signal, graceMs] of signals) {
      const deadlineMs = performance.now() + graceMs;
      let signalled = false;
      for (;;) {
        const members = await this.#tree.living();
        if (members.length === 0) {
          // Its number may go to another process from now on.
          this.#guard.cover(null, []);
          return "ended";
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
    return "stuck";
  }

  #keepLooking(): void {
    clearTimeout(this.#lookTimer ?? undefined);
    if (this.#tree === null || this.#stopping !== null) {
      return;
    }
    if (this.#tree.look()) {
      this.#cover();
    }
    const pauseMs = performance.now() < this.#busyUntilMs ? lookMs.busy : lookMs.idle;
    this.#lookTimer = setTimeout(() => this.#keepLooking(), pauseMs).unref();
  }

  #cover(): void {
    if (this.#tree !== null) {
      this.#guard.cover(this.#child.pid ?? null, this.#tree.seen);
    }
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended meanwhile: that is what was wanted.
  }
}
