/** The dependencies, as the lock file has them. */
import { createHash } from "node:crypto";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { withLock } from "./lock.mjs";
import { runNpm } from "./npm.mjs";
import { reportStep } from "./report.mjs";

/**
 * Installs when the lock file is another than the one that `node_modules` was installed from. No package's own install
 * script is run. A checkout without a lock file is an installed package, and its dependencies came with it.
 */
export async function ensureDependencies(root) {
  const wanted = await expectedStamp(root);
  if (wanted === null || (await readStamp(root)) === wanted) {
    return;
  }
  await withLock(root, async () => {
    if ((await readStamp(root)) === wanted) {
      return;
    }
    if (!(await isInstalled(root))) {
      await reportStep("dependencies", "from the lock file", () => install(root));
    }
    // Written last: an install that was interrupted has no stamp, and is done again from the start.
    await writeFile(stampPath(root), wanted);
  });
}

/** True when there is nothing to do; the quick way past all of this. */
export async function hasDependencies(root) {
  const wanted = await expectedStamp(root);
  return wanted === null || (await readStamp(root)) === wanted;
}

function stampPath(root) {
  return join(root, "node_modules", ".sallyport-installed");
}

/** The lock file's hash and the platform: packages of another platform do not run here. Null without a lock file. */
async function expectedStamp(root) {
  const lock = await readFile(join(root, "package-lock.json")).catch(() => null);
  if (lock === null) {
    return null;
  }
  return `${createHash("sha512").update(lock).digest("hex")} ${process.platform}-${process.arch}\n`;
}

async function readStamp(root) {
  return readFile(stampPath(root), "utf8").catch(() => null);
}

async function install(root) {
  await rm(stampPath(root), { force: true });
  await runNpm(
    [
      "ci",
      "--ignore-scripts",
      // Whatever NODE_ENV or the user's configuration leaves out: the tests and the demo need both.
      "--include=dev",
      "--include=optional",
      // The Node that npm runs on may be older than the one that the dependencies will run on.
      "--engine-strict=false",
      "--no-audit",
      "--no-fund",
      "--loglevel=error",
    ],
    root,
  );
}

/** True when someone ran npm by hand: its own list of what is in `node_modules` is all that the lock file names. */
async function isInstalled(root) {
  const [wanted, present] = await Promise.all([
    readPackages(join(root, "package-lock.json")),
    readPackages(join(root, "node_modules", ".package-lock.json")),
  ]);
  return (
    wanted !== null &&
    present !== null &&
    Object.entries(wanted).every(([path, { version, integrity, optional }]) => {
      const found = present[path];
      // An optional package for another platform is not installed. One for this platform is, or npm would have tried again.
      return (
        path === "" ||
        (found === undefined ? optional === true : found.version === version && found.integrity === integrity)
      );
    })
  );
}

async function readPackages(path) {
  const text = await readFile(path, "utf8").catch(() => null);
  return text === null ? null : (JSON.parse(text).packages ?? {});
}
