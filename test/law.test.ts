import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Allow, AllowPure } from "#domain/decision.ts";
import { assertGenuine, mintEnqueued, mintRecorded } from "#ledger/recorded.ts";
import { assertMasked, mask } from "#mask/masker.ts";

const root = join(import.meta.dirname, "..");
const directive = /^\s*\/\/ @ts-expect-error (\d+): .+$/;

/** What `tsc` says of a program of ours, as `line code`. */
async function compile(directory: string, name: string, text: string): Promise<readonly string[]> {
  await writeFile(join(directory, `${name}.ts`), text);
  const config = { extends: join(root, "tsconfig.json"), files: [`${name}.ts`], include: [] };
  await writeFile(join(directory, `${name}.json`), JSON.stringify(config));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const output = await new Promise<string>((settle, fail) => {
    execFile(
      process.execPath,
      [tsc, "-p", `${name}.json`, "--pretty", "false"],
      { cwd: directory },
      (error, stdout) => {
        if (error !== null && stdout === "") {
          fail(new Error("tsc did not run", { cause: error }));
        } else {
          settle(stdout);
        }
      },
    );
  });
  const found = output.matchAll(new RegExp(String.raw`^${name}\.ts\((\d+),\d+\): error TS(\d+): `, "gm"));
  return Array.from(found, ([, line, code]) => `${line} ${code}`);
}

describe("programs that break a law do not compile", () => {
  let directory = "";
  let source = "";

  beforeAll(async () => {
    await mkdir(join(root, ".cache"), { recursive: true });
    // Inside the checkout, so that `#module/file.ts` means what it means in src.
    directory = await mkdtemp(join(root, ".cache/law-"));
    source = await readFile(join(import.meta.dirname, "law.test-d.ts"), "utf8");
  });

  afterAll(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  test("each for the reason that stands with it, and those that obey do compile", async () => {
    const lines = source.split("\n");
    const expected = lines.flatMap((line, index) => {
      const code = directive.exec(line)?.[1];
      return code === undefined ? [] : [`${index + 2} ${code}`];
    });
    expect(expected.length).toBeGreaterThan(25);
    const undirected = lines.map((line) => (directive.test(line) ? "//" : line)).join("\n");
    expect(await compile(directory, "without-directives", undirected)).toEqual(expected);
  });

  test("and the check fails when a law is weakened", async () => {
    const weakened = source.replace(
      "readonly upstream: Upstream<",
      "readonly upstream: { send: (...a: unknown[]) => Promise<void> } & Upstream<",
    );
    expect(weakened).not.toBe(source);
    const errors = await compile(directory, "weakened", weakened);
    // An expected error that did not come.
    expect(errors.filter((error) => error.endsWith(" 2578")).length).toBeGreaterThan(3);
  });
});

describe("a token that was not minted is caught at run time", () => {
  const allow: Allow = {
    id: "dec_1" as Allow["id"],
    effect: "allow",
    pure: false,
    obligations: [],
    policies: [],
    policySetHash: "",
  };
  const pure: AllowPure = { ...allow, pure: true };
  const record = mintRecorded(allow, 7);
  const enqueued = mintEnqueued(pure, 8, Promise.resolve(mintRecorded(pure, 8)));
  const masked = mask(
    "row",
    { columns: 1, outputs: [], touchesMasked: false },
    { inspect: (reply) => ({ reply, rows: 1 }) },
  );

  test("while those that were minted pass", () => {
    expect(() => assertGenuine(record)).not.toThrow();
    expect(() => assertGenuine(enqueued)).not.toThrow();
    expect(() => assertMasked(masked)).not.toThrow();
  });

  const forgeries: readonly (readonly [what: string, forge: (token: object) => object])[] = [
    ["a cast", (token) => ({ subject: allow, index: 7, isToken: true, token })],
    ["a copy", (token) => ({ ...token })],
    ["a clone", (token) => structuredClone({ ...token, durable: null })],
    ["an object of its prototype", (token) => Object.create(Object.getPrototypeOf(token) as object) as object],
    ["an heir of a genuine one", (token) => Object.create(token) as object],
    ["a proxy of a genuine one", (token) => new Proxy(token, {})],
  ];

  test.each(forgeries)("%s", (_what, forge) => {
    expect(() => assertGenuine(forge(record))).toThrow("was not minted");
    expect(() => assertGenuine(forge(enqueued))).toThrow("was not minted");
    expect(() => assertMasked(forge(masked))).toThrow("was not minted");
  });

  test("a record in the place of a masked reply, and the other way round", () => {
    expect(() => assertMasked(record)).toThrow("was not minted");
    expect(() => assertGenuine(masked)).toThrow("was not minted");
  });
});
