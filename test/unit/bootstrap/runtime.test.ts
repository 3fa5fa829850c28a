import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { extract, isNewEnough, nodePackages, verifyIntegrity } from "../../../scripts/bootstrap/runtime.mjs";

let directory = "";
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "sallyport run time "));
});
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

test.each([
  ["v18.0.0", false],
  ["v20.20.2", false],
  ["v22.99.9", false],
  ["v24.0.0", false],
  ["v24.10.9", false],
  ["v24.11.0", true],
  ["v24.21.0", true],
  ["v26.0.0", true],
])("%s can run the program: %s", (version, answer) => {
  expect(isNewEnough(version)).toBe(answer);
});

test("every platform's package is pinned to one version, new enough, and one SHA-512", () => {
  expect(Object.keys(nodePackages).toSorted()).toEqual(["darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64"]);
  for (const { version, integrity } of Object.values(nodePackages)) {
    expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(isNewEnough(version)).toBe(true);
    expect(Buffer.from(integrity.replace(/^sha512-/, ""), "base64")).toHaveLength(64);
  }
});

test("a file that differs from the pinned one in a single bit is refused", async () => {
  const bytes = randomBytes(300_000);
  const integrity = `sha512-${createHash("sha512").update(bytes).digest("base64")}`;
  const wanted = { name: "node-of-this-test", version: "24.21.0", integrity };
  const path = join(directory, "tarball");
  await writeFile(path, bytes);
  await verifyIntegrity(path, wanted);
  bytes.writeUInt8(bytes.readUInt8(150_000) ^ 1, 150_000);
  await writeFile(path, bytes);
  await expect(verifyIntegrity(path, wanted)).rejects.toThrow(/node-of-this-test@24\.21\.0 is not the pinned one/);
});

describe("a member of the package is taken out as it was", () => {
  const binary = randomBytes(200_001);
  const members: readonly (readonly [name: string, content: Buffer])[] = [
    ["package/LICENSE", Buffer.from("licence\n")],
    ["package/empty", Buffer.alloc(0)],
    ["package/one-block", randomBytes(512)],
    ["package/bin/node", binary],
    ["package/last", randomBytes(513)],
  ];

  test.each(members)("%s", async (name, content) => {
    const tarball = join(directory, "members.tgz");
    await writeFile(tarball, gzipSync(tar(members)));
    const target = join(directory, name.replaceAll("/", "-"));
    await extract(tarball, name, target);
    expect((await readFile(target)).equals(content)).toBe(true);
  });

  test("one that is not there is an error", async () => {
    const tarball = join(directory, "other.tgz");
    await writeFile(tarball, gzipSync(tar(members)));
    await expect(extract(tarball, "package/bin/npm", join(directory, "npm"))).rejects.toThrow(/is missing/);
  });

  test("one that is cut short is an error", async () => {
    const tarball = join(directory, "short.tgz");
    await writeFile(tarball, gzipSync(tar(members).subarray(0, 100_000)));
    await expect(extract(tarball, "package/bin/node", join(directory, "short"))).rejects.toThrow(/is missing/);
  });
});

/** POSIX ustar, as npm packs. */
function tar(members: readonly (readonly [name: string, content: Buffer])[]): Buffer {
  const blocks = members.flatMap(([name, content]) => {
    const header = Buffer.alloc(512);
    header.write(name, 0, "utf8");
    header.write(`${content.length.toString(8).padStart(11, "0")} `, 124, "latin1");
    header.write("0ustar\u000000", 156, "latin1");
    return [header, content, Buffer.alloc((512 - (content.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}
