/** What the full tier needs beyond Node and the registry. A test asks here; `scripts/test-full.ts` sees to it that it is there. */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

export interface Requirement {
  readonly name: string;
  readonly debianPackages: readonly string[];
  /** Where it is on this machine; null when it is not. */
  readonly find: () => string | null;
}

/** The real client. */
export const psql: Requirement = {
  name: "psql",
  debianPackages: ["postgresql-client"],
  find: () => findProgram("psql", (process.env["PATH"] ?? "").split(delimiter)),
};

/** Another PostgreSQL than the embedded one, and the oldest that is supported; found is the directory of its programs. */
export const postgres15: Requirement = {
  name: "PostgreSQL 15",
  debianPackages: ["postgresql-15"],
  find: () => {
    const directory = "/usr/lib/postgresql/15/bin";
    return findProgram("initdb", [directory]) === null ? null : directory;
  },
};

/** All of them. */
export const requirements: readonly Requirement[] = [psql, postgres15];

function findProgram(name: string, directories: readonly string[]): string | null {
  return directories.map((directory) => join(directory, name)).find(isExecutable) ?? null;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
