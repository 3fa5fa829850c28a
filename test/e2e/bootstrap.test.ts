import { execFile } from "node:child_process";
import { access, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fetchNode, nodePackages } from "../../scripts/bootstrap/runtime.mjs";

const execFileAsync = promisify(execFile);
const wanted = nodePackages[`${process.platform}-${process.arch}`] ?? { name: "", version: "", integrity: "" };

let root = "";
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "sallyport fetched node "));
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

test("the pinned Node of this platform comes from the registry, whole, and runs", async () => {
  const directory = join(root, ".cache", "node");
  await fetchNode(root, wanted, directory);
  const { stdout } = await execFileAsync(join(directory, "bin/node"), ["--version"]);
  expect(stdout.trim()).toBe(`v${wanted.version}`);
  expect((await readdir(directory)).toSorted()).toEqual(["LICENSE", "bin"]);
});

test("a package that is not the pinned one is refused, and nothing of it is left to run", async () => {
  const directory = join(root, ".cache", "other");
  const integrity = wanted.integrity.replace(/^sha512-./, (start) => (start.endsWith("A") ? "sha512-B" : "sha512-A"));
  await expect(fetchNode(root, { ...wanted, integrity }, directory)).rejects.toThrow(/is not the pinned one/);
  await expect(access(directory)).rejects.toThrow();
  await expect(access(`${directory}.unfinished`)).rejects.toThrow();
});
