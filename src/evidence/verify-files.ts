/** The files of a log's directory, for reading only. */
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";

/** A log's directory as it was found. */
export interface LogFiles {
  /** Every file, relative to the directory, with `/` between the parts, sorted. */
  readonly paths: readonly string[];
  /** Links, devices and the like: nothing that a log has. */
  readonly strangers: readonly string[];
  /** A file's content; null when it is not there (any more). */
  read(path: string): Uint8Array | null;
}

/**
 * Lists a directory.
 * @throws Error when it cannot be read.
 */
export function openLogFiles(directory: string): LogFiles {
  const paths: string[] = [];
  const strangers: string[] = [];
  for (const item of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    const path = relative(directory, join(item.parentPath, item.name)).split(sep).join("/");
    if (item.isFile()) {
      paths.push(path);
    } else if (!item.isDirectory()) {
      strangers.push(path);
    }
  }
  return {
    paths: paths.toSorted(),
    strangers: strangers.toSorted(),
    read(path) {
      const full = join(directory, path);
      const status = lstatSync(full, { throwIfNoEntry: false });
      return status?.isFile() === true ? readFileSync(full) : null;
    },
  };
}
