import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { builtinModules } from "node:module";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { makeCheckout } from "../support/checkout.ts";
import { readImports } from "../support/imports.ts";

const stamp = "node_modules/.sallyport-installed";

describe("dependencies", () => {
  test("are installed from the lock file at the first start, which says so in one line", async () => {
    await using checkout = await makeCheckout();
    const first = await checkout.run(["0"]);
    expect(first.code).toBe(0);
    expect(first.stderr).toMatch(/^✓ dependencies +from the lock file +\d+\.\d s\n$/);
    const calls = await checkout.npmCalls();
    expect(calls).toHaveLength(1);
    expect(calls[0]).toMatch(/^ci /);
    // No package's script is run, and what tests and demo need is there whatever NODE_ENV says.
    expect(calls[0]).toContain("--ignore-scripts");
    expect(calls[0]).toContain("--include=dev");
  });

  test("are left alone at the second start, which is silent and quick", async () => {
    await using checkout = await makeCheckout();
    await checkout.run(["0"]);
    const startMs = performance.now();
    const second = await checkout.run(["0"]);
    expect(second.stderr).toBe("");
    expect(await checkout.npmCalls()).toHaveLength(1);
    expect(performance.now() - startMs).toBeLessThan(2000);
  });

  test("are installed again when the lock file has changed", async () => {
    await using checkout = await makeCheckout();
    await checkout.run(["0"]);
    await checkout.writeLock("2.0.0");
    await checkout.run(["0"]);
    expect(await checkout.npmCalls()).toHaveLength(2);
  });

  test("are installed again after a failed install", async () => {
    await using checkout = await makeCheckout();
    expect((await checkout.run(["0"], { environment: { FAKE_NPM: "ENOSPC" } })).code).toBe(1);
    const next = await checkout.run(["0"]);
    expect(next.code).toBe(0);
    expect(await checkout.npmCalls()).toHaveLength(2);
  });

  test("are installed again after an install that was killed, though it held the lock", async () => {
    await using checkout = await makeCheckout();
    const killed = await checkout.run(["0"], {
      environment: { FAKE_NPM_MS: "1500" },
      onSpawned: (pid) => {
        setTimeout(() => process.kill(pid, "SIGKILL"), 700);
      },
    });
    expect(killed.signal).toBe("SIGKILL");
    expect(await readdir(join(checkout.root, ".cache"))).toContain("bootstrap.lock");
    // The orphaned npm goes on for a moment; it writes no stamp.
    await delay(1200);
    expect((await checkout.run(["0"])).code).toBe(0);
    expect(await readFile(join(checkout.root, stamp), "utf8")).not.toBe("");
  });

  test("are installed once by any number of starts at the same time, and all of them run", async () => {
    await using checkout = await makeCheckout();
    const runs = await Promise.all(
      Array.from({ length: 5 }, (_, index) => checkout.run([String(index)], { environment: { FAKE_NPM_MS: "300" } })),
    );
    expect(runs.map(({ code }) => code)).toEqual([0, 1, 2, 3, 4]);
    expect(await checkout.npmCalls()).toHaveLength(1);
  });

  test("that someone installed by hand are taken as they are", async () => {
    await using checkout = await makeCheckout();
    await mkdir(join(checkout.root, "node_modules"));
    const lock = await readFile(join(checkout.root, "package-lock.json"), "utf8");
    const installed: unknown = JSON.parse(lock, (key, value: unknown) => (key.includes("other") ? undefined : value));
    await writeFile(join(checkout.root, "node_modules/.package-lock.json"), JSON.stringify(installed));
    expect((await checkout.run(["0"])).stderr).toBe("");
    expect(await checkout.npmCalls()).toEqual([]);
  });

  test("of another version, installed by hand, are not", async () => {
    await using checkout = await makeCheckout();
    await mkdir(join(checkout.root, "node_modules"));
    const lock = await readFile(join(checkout.root, "package-lock.json"), "utf8");
    const other = lock.replaceAll("1.0.0", "0.9.0");
    await writeFile(join(checkout.root, "node_modules/.package-lock.json"), other);
    await checkout.run(["0"]);
    expect(await checkout.npmCalls()).toHaveLength(1);
  });
});

describe("what cannot be done is told with the next step", () => {
  const failures: readonly (readonly [code: string, told: RegExp])[] = [
    ["ENOTFOUND", /registry cannot be reached \(ENOTFOUND\)\n {2}check the network/],
    ["ECONNREFUSED", /registry cannot be reached \(ECONNREFUSED\)\n {2}check the network/],
    ["SELF_SIGNED_CERT_IN_CHAIN", /certificate is not trusted .*\n {2}name your proxy's certificate/],
    ["EINTEGRITY", /not the one in the lock file .*nothing of it was run\n {2}run `npm cache verify`/],
    ["EUSAGE", /do not fit together\n {2}run `npm install`/],
    ["ENOSPC", /npm ci failed:\n {2}npm error code ENOSPC\n {2}put right/],
  ];

  test.each(failures)("%s", async (code, told) => {
    await using checkout = await makeCheckout();
    const run = await checkout.run(["0"], { environment: { FAKE_NPM: code } });
    expect(run.code).toBe(1);
    expect(run.stdout).toBe("");
    expect(run.stderr).toMatch(told);
    expect(run.stderr).not.toContain("    at ");
  });

  test("no npm", async () => {
    await using checkout = await makeCheckout();
    const run = await checkout.run(["0"], { environment: { npm_execpath: "", PATH: checkout.root } });
    expect(run.code).toBe(1);
    expect(run.stderr).toMatch(/npm is not on the PATH\n {2}install npm/);
  });
});

describe("the program", () => {
  test("gets its arguments as they were given", async () => {
    await using checkout = await makeCheckout();
    const given = ["--json", "two words", "", "$HOME", "--", "é\"'"];
    const { stdout } = await checkout.run(["0", ...given]);
    expect(JSON.parse(stdout)).toMatchObject({ arguments: given });
  });

  test("finds the same Node on its PATH", async () => {
    await using checkout = await makeCheckout();
    const { stdout } = await checkout.run(["0"]);
    expect(JSON.parse(stdout)).toMatchObject({ node: process.execPath });
    expect(JSON.parse(stdout)).toHaveProperty("nodeOnPath", process.execPath);
  });

  test.each([0, 1, 6, 130])("ends with its exit code: %i", async (code) => {
    await using checkout = await makeCheckout();
    expect((await checkout.run([String(code)])).code).toBe(code);
  });

  test("hears a signal that the bootstrap was sent", async () => {
    await using checkout = await makeCheckout();
    const run = await checkout.run(["wait"], { onStarted: (pid) => process.kill(pid, "SIGTERM") });
    expect(run.code).toBe(9);
  });

  test("that dies of a signal is reported as such", async () => {
    await using checkout = await makeCheckout();
    const run = await checkout.run(["die"]);
    expect(run.signal).toBe("SIGKILL");
  });
});

test("the bootstrap imports builtins and its own files only, so that it runs before anything is installed", async () => {
  const scripts = join(import.meta.dirname, "../../scripts");
  const names = (await readdir(scripts, { recursive: true })).filter((name) => name.endsWith(".mjs"));
  expect(names.length).toBeGreaterThan(6);
  for (const name of names) {
    const { imports, unread } = readImports(await readFile(join(scripts, name), "utf8"));
    expect(unread).toEqual([]);
    for (const { specifier } of imports) {
      const builtin = specifier.startsWith("node:") && builtinModules.includes(specifier.slice("node:".length));
      expect([specifier, builtin || /^\.\.?\/.*\.mjs$/.test(specifier)]).toEqual([specifier, true]);
    }
  }
});
