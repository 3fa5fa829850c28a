/** One bootstrap at a time in a checkout: others wait, and then find the work done. */
import { constants } from "node:fs";
import { access, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { BootstrapError } from "./report.mjs";

const pollIntervalMs = 100;
const waitMsMax = 15 * 60_000;
/** Between making the directory and writing the owner into it, a lock looks ownerless. */
const ownerlessPollsMax = 20;

/** Does `work` alone. A lock whose owner has died is taken over. */
export async function withLock(root, work) {
  const cache = join(root, ".cache");
  const lock = join(cache, "bootstrap.lock");
  await makeWritable(cache);
  await acquire(lock);
  try {
    return await work();
  } finally {
    await rm(lock, { recursive: true, force: true });
  }
}

async function makeWritable(cache) {
  try {
    await mkdir(cache, { recursive: true });
    await access(cache, constants.W_OK);
  } catch (error) {
    throw new BootstrapError(
      `this checkout is not ready to run, and cannot be made so by this account (${error.code})`,
      "run the same command once as the account that owns the checkout",
    );
  }
}

async function acquire(lock) {
  const deadlineMs = Date.now() + waitMsMax;
  let ownerlessPolls = 0;
  while (!(await tryAcquire(lock))) {
    const owner = Number.parseInt(await readFile(join(lock, "owner"), "utf8").catch(() => ""), 10);
    ownerlessPolls = Number.isNaN(owner) ? ownerlessPolls + 1 : 0;
    if (Number.isNaN(owner) ? ownerlessPolls > ownerlessPollsMax : !isAlive(owner)) {
      await rm(lock, { recursive: true, force: true });
      ownerlessPolls = 0;
    } else if (Date.now() > deadlineMs) {
      throw new BootstrapError(
        `process ${owner} has been setting up this checkout for too long`,
        `stop it, then start again`,
      );
    } else {
      await delay(pollIntervalMs);
    }
  }
}

async function tryAcquire(lock) {
  try {
    await mkdir(lock);
  } catch (error) {
    if (error.code === "EEXIST") {
      return false;
    }
    throw error;
  }
  await writeFile(join(lock, "owner"), String(process.pid));
  return true;
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code !== "ESRCH";
  }
}
