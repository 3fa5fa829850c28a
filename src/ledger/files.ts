/**
 * The file operations of the ledger, behind a port so that a test can fail, shorten or forget any of them.
 * A path's meaning is the platform's; nothing is durable until a sync says so.
 */
import { fdatasync, readFileSync, writeSync } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rmdir, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { dirname } from "node:path";

/** A file open for writing at its end. */
export interface WritableFile {
  /** Writes at the end; may write fewer bytes than given, and returns how many. Blocks: the data goes to the page cache. */
  write(bytes: Uint8Array): number;
  /** Makes what was written durable (`fdatasync`). The file's name is durable only once its directory is synced. */
  sync(): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  close(): Promise<void>;
}

export interface Files {
  /** Creates a directory whose parent exists; nothing happens when it is there. */
  makeDirectory(path: string): Promise<void>;
  /** Names in a directory, sorted; empty when there is no such directory. */
  list(path: string): Promise<readonly string[]>;
  /** The whole file; null when there is none. */
  read(path: string): Promise<Uint8Array | null>;
  /** The same, at once: for a small file that a caller cannot wait for. */
  readNow(path: string): Uint8Array | null;
  /** `create` fails when the file exists, `replace` empties it, `append` keeps what is in it. */
  open(path: string, how: "create" | "replace" | "append"): Promise<WritableFile>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file; nothing happens when it is not there. */
  remove(path: string): Promise<void>;
  /** Removes an empty directory; nothing happens when it is not there. */
  removeDirectory(path: string): Promise<void>;
  /** Makes the names in a directory durable: files created, renamed and removed in it. */
  syncDirectory(path: string): Promise<void>;
}

/** The `code` of a system error, such as `ENOSPC`; null for any other error. */
export function systemErrorCode(error: unknown): string | null {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : null;
}

/** What `action` answers; null when what it needs is not there. */
async function unlessMissing<T>(action: Promise<T>): Promise<T | null> {
  try {
    return await action;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") {
      return null;
    }
    throw error;
  }
}

const flags = { create: "ax", replace: "w", append: "a" } as const;
/** Owner only: entries are opaque, but whom they concern is nobody else's business on this machine. */
const fileMode = 0o600;
const directoryMode = 0o700;

function nodeFile(handle: FileHandle): WritableFile {
  return {
    write: (bytes) => writeSync(handle.fd, bytes),
    // The callback form: it costs a third of the promise form, and it is paid for every group commit.
    sync: () =>
      new Promise((resolve, reject) => {
        fdatasync(handle.fd, (error) => {
          if (error === null) {
            resolve();
          } else {
            reject(error);
          }
        });
      }),
    truncate: (sizeBytes) => handle.truncate(sizeBytes),
    close: () => handle.close(),
  };
}

/** The operating system's files. */
export const nodeFiles: Files = {
  async makeDirectory(path) {
    try {
      await mkdir(path, { mode: directoryMode });
    } catch (error) {
      if (systemErrorCode(error) !== "EEXIST") {
        throw error;
      }
    }
  },
  async list(path) {
    const names = await unlessMissing(readdir(path));
    return names === null ? [] : names.toSorted();
  },
  read: (path) => unlessMissing(readFile(path)),
  readNow(path) {
    try {
      return readFileSync(path);
    } catch (error) {
      if (systemErrorCode(error) === "ENOENT") {
        return null;
      }
      throw error;
    }
  },
  async open(path, how) {
    return nodeFile(await open(path, flags[how], fileMode));
  },
  rename: (from, to) => rename(from, to),
  async remove(path) {
    await unlessMissing(unlink(path));
  },
  async removeDirectory(path) {
    await unlessMissing(rmdir(path));
  },
  async syncDirectory(path) {
    const directory = await open(path, "r");
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  },
};

/**
 * Writes all bytes, however short each write is.
 * @throws Error when a write makes no progress.
 */
export function writeAll(file: WritableFile, bytes: Uint8Array): void {
  let written = 0;
  while (written < bytes.length) {
    const count = file.write(written === 0 ? bytes : bytes.subarray(written));
    if (count <= 0) {
      throw new Error("a write made no progress");
    }
    written += count;
  }
}

/** Writes a file whole and makes its content durable; its name is durable once the directory is synced. */
export async function writeWhole(
  files: Files,
  path: string,
  how: "create" | "replace",
  pieces: readonly Uint8Array[],
): Promise<void> {
  const file = await files.open(path, how);
  try {
    for (const piece of pieces) {
      writeAll(file, piece);
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Makes a directory whose parent exists. Its name is durable even if a killed process had made it and not synced it. */
export async function makeDurableDirectory(files: Files, path: string): Promise<void> {
  await files.makeDirectory(path);
  await files.syncDirectory(dirname(path));
}
