/**
 * One writer a log. Each process that wants the log puts a claim into `lock/`: an empty file whose name says which
 * process it is. A claim counts only while that process lives, so a killed one leaves nothing to clean up by hand.
 * Claim first, look second: of two processes that come at once, at least the later sees the other and withdraws.
 */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { SallyportError } from "#domain/errors.ts";

import { systemErrorCode } from "./files.ts";
import type { Files } from "./files.ts";
import { lockDirectory } from "./layout.ts";

/** Who claims, and whether another claimant is still there. An argument, so that a test can play two processes. */
export interface Claimant {
  /** `<pid>-<something that differs when the pid is used again>`, fit for a file name. */
  readonly name: string;
  readonly isAlive: (name: string) => boolean;
}

/**
 * When a process started, in the system's own words; null when there is no such process any more. One that has ended and
 * that its parent has not asked after yet (a zombie) runs nothing more, and is none.
 */
function processStart(pid: number): string | null {
  try {
    if (process.platform === "linux") {
      // proc(5): field 3, the state, and 22, the start in ticks since boot. Field 2, the program's name, may contain spaces.
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (isDeadState(fields[0]) && !hasThreadsLeft(pid)) {
        return null;
      }
      const boot = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").slice(0, 8);
      return `${fields[19] ?? ""}-${boot}`;
    }
    const line = execFileSync("ps", ["-o", "stat=,lstart=", "-p", String(pid)], { encoding: "latin1" }).trim();
    const [state, ...started] = line.split(/\s+/);
    return isDeadState(state) ? null : started.join("").replaceAll(/[^A-Za-z0-9]+/g, "");
  } catch {
    // No such process: neither `/proc` nor `ps` knows it.
    return null;
  }
}

function isDeadState(state: string | undefined): boolean {
  return state !== undefined && /^[ZXx]/.test(state);
}

/** A killed process is a zombie when its first thread has ended; another may still be in the middle of a disk write. */
function hasThreadsLeft(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).length > 1;
}

/** This process. Processes of another container's pid namespace cannot be seen, and count as dead. */
export function processClaimant(): Claimant {
  const start = processStart(process.pid) ?? "unknown";
  return {
    name: `${process.pid}-${start}`,
    isAlive: (name) => {
      const [pid, ...rest] = name.split("-");
      return processStart(Number(pid)) === rest.join("-");
    },
  };
}

/**
 * Claims the log in `directory` for `claimant`.
 * @throws SallyportError `ledger.locked` when another live process has it.
 */
export async function claimLog(files: Files, directory: string, claimant: Claimant): Promise<() => Promise<void>> {
  const claims = join(directory, lockDirectory);
  await files.makeDirectory(claims);
  const own = join(claims, claimant.name);
  try {
    const claim = await files.open(own, "create");
    await claim.close();
  } catch (error) {
    if (systemErrorCode(error) === "EEXIST") {
      throw locked(claimant.name, error);
    }
    throw error;
  }
  for (const name of await files.list(claims)) {
    if (name === claimant.name) {
      continue;
    }
    if (claimant.isAlive(name)) {
      await files.remove(own);
      throw locked(name);
    }
    await files.remove(join(claims, name));
  }
  return () => files.remove(own);
}

function locked(holder: string, cause?: unknown): SallyportError {
  return new SallyportError("ledger.locked", "gateway", `Process ${holder.split("-")[0]} has this ledger open.`, {
    cause,
    nextStep: "Stop that process, or give this one a directory of its own.",
  });
}
