/**
 * The processes that a server has started, as /proc shows them. A process can leave its group, its session and its parent, and
 * empty its environment; that it was once seen under the server stays true. So the tree is looked at while it lives, and what was
 * seen is remembered by process id and start time, which together never name another process.
 */
import { execFile } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { promisify } from "node:util";
import { markVariable } from "./run-guard.ts";

const execFileAsync = promisify(execFile);

/** Sessions that are remembered when their leader has gone; the oldest are forgotten. A long run may start very many. */
const sessionsMax = 1024;

export interface TreeMember {
  readonly pid: number;
  readonly inGroup: boolean;
}

/** Of `/proc/<pid>/stat` (proc(5)). */
interface ProcessStatus {
  readonly pid: number;
  readonly ended: boolean;
  readonly parent: number;
  readonly group: number;
  readonly session: number;
  /** In clock ticks since the machine started. */
  readonly started: string;
}

/** The tree under one process, which leads a process group of its own. Owned by its `ServerProcess`. */
export class ProcessTree {
  readonly #group: number;
  readonly #mark: string;
  /** Start times of the processes seen in the tree. */
  readonly #seen = new Map<number, string>();
  /** Start times of the leaders of the tree's sessions: a session outlives its leader. */
  readonly #sessions = new Map<number, string>();

  /** @param group the process id of the first process. */
  constructor(group: number, mark: string) {
    this.#group = group;
    this.#mark = mark;
    const first = readStatus(group);
    if (first !== null) {
      this.#remember(first);
    }
  }

  /** Processes seen and not known to have ended, as `pid:start time`. */
  get seen(): readonly string[] {
    return [...this.#seen].map(([pid, started]) => `${pid}:${started}`);
  }

  /** Follows the tree downwards from everything seen so far; true when it has changed. A few reads for each process. */
  look(): boolean {
    const waiting = [...this.#seen.keys()];
    let changed = false;
    for (const pid of waiting) {
      const status = readStatus(pid);
      const started = this.#seen.get(pid);
      if (status === null || status.ended || (started !== undefined && started !== status.started)) {
        changed = this.#seen.delete(pid) || changed;
        continue;
      }
      changed ||= started === undefined;
      this.#remember(status);
      waiting.push(...childrenOf(pid).filter((child) => !this.#seen.has(child) && !waiting.includes(child)));
    }
    return changed;
  }

  /**
   * Everything of the tree that has not ended: what was seen in it, what is in its group or one of its sessions, what carries the
   * mark, and what any of these have started. On systems without /proc only the group.
   */
  async living(): Promise<readonly TreeMember[]> {
    if (process.platform !== "linux") {
      return membersFromPs(this.#group);
    }
    const all = readdirSync("/proc")
      .filter((name) => /^[0-9]+$/.test(name))
      .flatMap((name) => readStatus(Number(name)) ?? [])
      .filter((status) => !status.ended && status.pid !== process.pid);
    for (const { pid, started } of all) {
      if (this.#sessions.has(pid) && this.#sessions.get(pid) !== started) {
        // The number has been given to another process: the session is over.
        this.#sessions.delete(pid);
      }
    }
    const members = new Map<number, TreeMember>();
    let found: readonly ProcessStatus[] = all.filter((status) => this.#isOurs(status));
    while (found.length > 0) {
      for (const status of found) {
        this.#remember(status);
        members.set(status.pid, { pid: status.pid, inGroup: status.group === this.#group });
      }
      found = all.filter(
        ({ pid, parent, session }) => !members.has(pid) && (members.has(parent) || this.#sessions.has(session)),
      );
    }
    return [...members.values()];
  }

  #isOurs({ pid, group, session, started }: ProcessStatus): boolean {
    return (
      group === this.#group ||
      this.#seen.get(pid) === started ||
      this.#sessions.has(session) ||
      `\0${read(`/proc/${pid}/environ`)}`.includes(`\0${markVariable}=${this.#mark}\0`)
    );
  }

  #remember({ pid, session, started }: ProcessStatus): void {
    this.#seen.set(pid, started);
    if (session !== pid) {
      return;
    }
    this.#sessions.set(pid, started);
    const [oldest] = this.#sessions.keys();
    if (oldest !== undefined && this.#sessions.size > sessionsMax) {
      this.#sessions.delete(oldest);
    }
  }
}

/** Null when there is no such process. */
function readStatus(pid: number): ProcessStatus | null {
  const text = read(`/proc/${pid}/stat`);
  // pid (name) state parent group session …; the name may hold anything, parentheses too.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state = "", parent = "", group = "", session = ""] = fields;
  return text === ""
    ? null
    : {
        pid,
        ended: state === "Z" || state === "X",
        parent: Number(parent),
        group: Number(group),
        session: Number(session),
        started: fields[19] ?? "",
      };
}

/** Each thread has its own list. */
function childrenOf(pid: number): readonly number[] {
  return list(`/proc/${pid}/task`).flatMap((thread) =>
    read(`/proc/${pid}/task/${thread}/children`)
      .split(" ")
      .filter((child) => child !== "")
      .map(Number),
  );
}

/** A process that has gone meanwhile, or belongs to another account, has nothing to say. */
function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function list(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

async function membersFromPs(group: number): Promise<readonly TreeMember[]> {
  const { stdout } = await execFileAsync("ps", ["-axo", "pid=,pgid=,state="]);
  return stdout.split("\n").flatMap((line) => {
    const [pid, itsGroup, state = "Z"] = line.trim().split(/ +/);
    return Number(itsGroup) === group && !state.startsWith("Z") ? [{ pid: Number(pid), inGroup: true }] : [];
  });
}
