/**
 * Files in memory that know what is on stable storage and what is not: content since the last sync of the file, and
 * names since the last sync of the directory, can be lost. Every operation has a number, and a fault can be planned at it.
 */
import { posix } from "node:path";

import type { Files, WritableFile } from "#ledger/files.ts";

interface FileNode {
  readonly kind: "file";
  data: Buffer;
  durable: Buffer;
}
interface DirectoryNode {
  readonly kind: "directory";
  names: Map<string, Node>;
  durable: Map<string, Node>;
}
type Node = FileNode | DirectoryNode;

/** What happens at a planned operation. */
export type Fault =
  /** It fails and has no effect. */
  | { readonly kind: "fail"; readonly code: string }
  /** A write writes half and says so. Other operations are left alone. */
  | { readonly kind: "short" }
  /** A write writes half and fails. Other operations fail. */
  | { readonly kind: "short-then-fail"; readonly code: string }
  /** The machine stops before it, and everything later fails too. */
  | { readonly kind: "crash" };

/** What is left of unsynced bytes and names when the machine comes back. */
export type Survival = "nothing" | "everything" | "half";

/** An error as the operating system gives it. */
function systemError(code: string, operation: string): Error {
  return Object.assign(new Error(`${code}: planned fault, ${operation}`), { code });
}

const newDirectory = (): DirectoryNode => ({ kind: "directory", names: new Map(), durable: new Map() });

/** A machine's disk. `files()` gives a process's view of it, which ends when the process is killed. */
export class MemoryDisk {
  #root = newDirectory();
  #generation = 0;
  #isDown = false;
  #plan: { readonly at: number; readonly fault: Fault } | null = null;
  #wasHit = false;
  #isPersistent = false;
  #lies: "sync" | "syncDirectory" | null = null;
  /** Names of the operations so far, in order. */
  readonly operations: string[] = [];

  /** Plans a fault at operation `at`, from 1; a persistent one repeats at every later operation of the same name. */
  plan(at: number, fault: Fault, isPersistent = false): void {
    this.#plan = { at, fault };
    this.#isPersistent = isPersistent;
    this.#wasHit = false;
  }

  /** From here on, this operation says that it was done and does nothing: a writer that forgot it looks the same. */
  lieAbout(operation: "sync" | "syncDirectory"): void {
    this.#lies = operation;
  }

  get wasHit(): boolean {
    return this.#wasHit;
  }

  /** Ends every process: their files do nothing any more. Nothing is lost. */
  kill(): void {
    this.#generation += 1;
  }

  /** Ends every process and loses what was not synced. Faults are over. */
  restart(survival: Survival): void {
    this.kill();
    this.#isDown = false;
    this.#plan = null;
    if (survival !== "everything") {
      settle(this.#root, survival);
    }
  }

  /** Every file with its content. */
  contents(): ReadonlyMap<string, Buffer> {
    const found = new Map<string, Buffer>();
    const walk = (directory: DirectoryNode, path: string): void => {
      for (const [name, node] of directory.names) {
        if (node.kind === "file") {
          found.set(`${path}/${name}`, node.data);
        } else {
          walk(node, `${path}/${name}`);
        }
      }
    };
    walk(this.#root, "");
    return found;
  }

  /** Counts an operation and plays its fault. Returns true when a write is to be cut short. */
  #operate(name: string, generation: number): boolean {
    if (generation !== this.#generation) {
      throw systemError("EBADF", `${name} by a process that was killed`);
    }
    if (this.#isDown) {
      throw systemError("EIO", `${name} on a machine that is down`);
    }
    this.operations.push(name);
    const plan = this.#plan;
    const at = this.operations.length;
    const isDue =
      plan !== null && (plan.at === at || (this.#isPersistent && at > plan.at && this.#isSame(name, plan.at)));
    if (!isDue) {
      return false;
    }
    this.#wasHit = true;
    switch (plan.fault.kind) {
      case "fail":
        throw systemError(plan.fault.code, name);
      case "crash":
        this.#isDown = true;
        throw systemError("EIO", `${name} as the machine went down`);
      case "short":
        return name === "write";
      case "short-then-fail":
        if (name !== "write") {
          throw systemError(plan.fault.code, name);
        }
        return true;
      default:
        return plan.fault satisfies never;
    }
  }

  #isSame(name: string, at: number): boolean {
    return this.operations[at - 1] === name;
  }

  #directory(path: string): DirectoryNode {
    let node: Node = this.#root;
    for (const part of path.split("/").filter((name) => name !== "")) {
      const next: Node | undefined = node.kind === "directory" ? node.names.get(part) : undefined;
      if (next === undefined) {
        throw systemError("ENOENT", path);
      }
      node = next;
    }
    if (node.kind !== "directory") {
      throw systemError("ENOTDIR", path);
    }
    return node;
  }

  #find(path: string): Node | null {
    try {
      return this.#directory(posix.dirname(path)).names.get(posix.basename(path)) ?? null;
    } catch {
      return null;
    }
  }

  #openFile(node: FileNode, generation: number): WritableFile {
    const fault = (): Fault | null => this.#plan?.fault ?? null;
    return {
      write: (bytes) => {
        const isShort = this.#operate("write", generation) && bytes.length > 1;
        const count = isShort ? Math.floor(bytes.length / 2) : bytes.length;
        node.data = Buffer.concat([node.data, bytes.subarray(0, count)]);
        const planned = fault();
        if (isShort && planned?.kind === "short-then-fail") {
          throw systemError(planned.code, "write");
        }
        return count;
      },
      sync: async () => {
        this.#operate("sync", generation);
        if (this.#lies !== "sync") {
          node.durable = node.data;
        }
      },
      truncate: async (sizeBytes) => {
        this.#operate("truncate", generation);
        node.data = Buffer.from(node.data.subarray(0, sizeBytes));
      },
      // Closing makes nothing durable, so its number would say nothing.
      close: async () => undefined,
    };
  }

  /** The view of one process. */
  files(): Files {
    const generation = this.#generation;
    return {
      makeDirectory: async (path) => {
        this.#operate("makeDirectory", generation);
        const parent = this.#directory(posix.dirname(path));
        if (!parent.names.has(posix.basename(path))) {
          parent.names.set(posix.basename(path), newDirectory());
        }
      },
      list: async (path) => {
        this.#operate("list", generation);
        const node = this.#find(path);
        return node?.kind === "directory" ? [...node.names.keys()].toSorted() : [];
      },
      read: async (path) => {
        this.#operate("read", generation);
        const node = this.#find(path);
        return node?.kind === "file" ? Buffer.from(node.data) : null;
      },
      readNow: (path) => {
        this.#operate("readNow", generation);
        const node = this.#find(path);
        return node?.kind === "file" ? Buffer.from(node.data) : null;
      },
      open: async (path, how) => {
        this.#operate("open", generation);
        const directory = this.#directory(posix.dirname(path));
        const existing = directory.names.get(posix.basename(path));
        if (existing?.kind === "file" && how !== "create") {
          existing.data = how === "replace" ? Buffer.alloc(0) : existing.data;
          return this.#openFile(existing, generation);
        }
        if (existing !== undefined) {
          throw systemError("EEXIST", path);
        }
        const node: FileNode = { kind: "file", data: Buffer.alloc(0), durable: Buffer.alloc(0) };
        directory.names.set(posix.basename(path), node);
        return this.#openFile(node, generation);
      },
      rename: async (from, to) => {
        this.#operate("rename", generation);
        const source = this.#directory(posix.dirname(from)).names;
        const node = source.get(posix.basename(from));
        if (node === undefined) {
          throw systemError("ENOENT", from);
        }
        source.delete(posix.basename(from));
        this.#directory(posix.dirname(to)).names.set(posix.basename(to), node);
      },
      remove: async (path) => {
        this.#operate("remove", generation);
        if (this.#find(path)?.kind === "file") {
          this.#directory(posix.dirname(path)).names.delete(posix.basename(path));
        }
      },
      removeDirectory: async (path) => {
        this.#operate("removeDirectory", generation);
        const node = this.#find(path);
        if (node?.kind === "directory") {
          if (node.names.size > 0) {
            throw systemError("ENOTEMPTY", path);
          }
          this.#directory(posix.dirname(path)).names.delete(posix.basename(path));
        }
      },
      syncDirectory: async (path) => {
        this.#operate("syncDirectory", generation);
        const directory = this.#directory(path);
        if (this.#lies !== "syncDirectory") {
          directory.durable = new Map(directory.names);
        }
      },
    };
  }
}

/** What a directory is after a power cut. `half` keeps unsynced names, and the first half of unsynced bytes. */
function settle(directory: DirectoryNode, survival: "nothing" | "half"): void {
  if (survival === "nothing") {
    directory.names = new Map(directory.durable);
  }
  for (const node of directory.names.values()) {
    if (node.kind === "directory") {
      settle(node, survival);
      continue;
    }
    const { data, durable } = node;
    const common = Math.min(data.length, durable.length);
    const isAppended = data.length > durable.length && data.subarray(0, common).equals(durable);
    node.data =
      survival === "half" && isAppended
        ? Buffer.from(data.subarray(0, common + Math.floor((data.length - common) / 2)))
        : durable;
  }
  // What has survived is on the disk.
  directory.durable = new Map(directory.names);
  for (const node of directory.names.values()) {
    if (node.kind === "file") {
      node.durable = node.data;
    }
  }
}
