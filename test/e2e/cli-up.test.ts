import { type ChildProcess, execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findFreePort } from "#store/postgres-process.ts";
import { noteSigner } from "#tlog/note.ts";
import { type CliResult, type RunningNode, sallyport as runSallyport, startUp } from "./cli-node.ts";

const program = join(import.meta.dirname, "../../src/cli/main.ts");

let directory = "";
let config = "";
const started: ChildProcess[] = [];

const sallyport = (...given: readonly string[]): Promise<CliResult> => runSallyport(directory, given);

async function up(): Promise<RunningNode> {
  const node = await startUp(directory);
  started.push(node.child);
  return node;
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "sallyport cli up "));
  await sallyport("init", directory, "--name", "cli-test");
  config = join(directory, "sallyport.yaml");
  const [postgres, control] = [await findFreePort(), await findFreePort()];
  const text = await readFile(config, "utf8");
  await writeFile(config, text.replace(":7432", `:${postgres}`).replace(":7400", `:${control}`));
});

afterAll(async () => {
  for (const child of started) {
    child.kill("SIGKILL");
  }
  await rm(directory, { recursive: true, force: true });
});

describe("a node from its configuration to its verified ledger", () => {
  let key = "";
  const ledger = (): string => join(directory, ".sallyport/ledger");

  test("up says where it listens, the verbs reach it, and SIGTERM stops it in order", async () => {
    const node = await up();
    expect(node.ready).toMatchObject({ ready: true, status: { liveSessions: 0, ledger: { state: "open" } } });
    const status = await sallyport("ledger", "status", "--json");
    expect(JSON.parse(status.out)).toMatchObject({
      running: true,
      ledger: { origin: "sallyport.local/cli-test", state: "open" },
    });
    key = JSON.parse(status.out).ledger.verifierKey;
    expect(JSON.parse((await sallyport("grant", "ls", "--json")).out)).toEqual({ grants: [] });
    expect(JSON.parse((await sallyport("session", "ls", "--json")).out)).toEqual({ sessions: [] });
    const doctor = await sallyport("doctor", "--json");
    const { findings }: { readonly findings: readonly { readonly verdict: string }[] } = JSON.parse(doctor.out);
    expect(findings.filter((one) => one.verdict === "failure")).toEqual([]);
    expect(doctor.code).toBe(0);
    const second = await sallyport("up", "--json");
    expect(second.code).toBe(1);
    expect(JSON.parse(second.out).error.nextStep).toEqual(expect.any(String));
    node.child.kill("SIGTERM");
    expect(await node.exited).toBe(0);
  });

  test("the ledger verifies offline with the key from outside, and is read without a gateway", async () => {
    const verified = await sallyport("ledger", "verify", ledger(), "--key", key, "--json");
    expect(JSON.parse(verified.out)).toMatchObject({ verified: true, integrity: "intact", completeness: "complete" });
    expect(verified.code).toBe(0);
    const status = await sallyport("ledger", "status", "--json");
    expect(JSON.parse(status.out)).toMatchObject({
      running: false,
      ledger: { verifierKey: key, size: JSON.parse(verified.out).size },
    });
  });

  test("one flipped byte in a copy is found and located, with exit code 6", async () => {
    const copy = join(directory, "copy");
    await cp(ledger(), copy, { recursive: true });
    const { files }: { readonly files: readonly string[] } = JSON.parse(
      (await sallyport("ledger", "verify", copy, "--key", key, "--json")).out,
    );
    const file =
      files.find((name) => name.startsWith("tile/entries/")) ?? files.find((name) => name.startsWith("wal/")) ?? "";
    const bytes = await readFile(join(copy, file));
    const middle = bytes.length >> 1;
    bytes[middle] = (bytes[middle] ?? 0) ^ 1;
    await writeFile(join(copy, file), bytes);
    const result = await sallyport("ledger", "verify", copy, "--key", key, "--json");
    expect(result.code).toBe(6);
    expect(JSON.parse(result.out)).toMatchObject({
      verified: false,
      faults: expect.arrayContaining([expect.objectContaining({ file })]),
    });
    const words = await sallyport("ledger", "verify", copy, "--key", key);
    expect(words.out).toContain("NOT verified");
    expect(words.out).toContain(file);
  });

  test("another key does not verify it", async () => {
    const other = `${key.slice(0, -4)}${key.endsWith("AAAA") ? "BBBB" : "AAAA"}`;
    expect([2, 6]).toContain((await sallyport("ledger", "verify", ledger(), "--key", other)).code);
    const { verifierKey } = noteSigner("sallyport.local/cli-test", Buffer.alloc(32, 7));
    const foreign = await sallyport("ledger", "verify", ledger(), "--key", verifierKey, "--json");
    expect(foreign.code).toBe(6);
    expect(JSON.parse(foreign.out)).toMatchObject({ verified: false, completeness: "unknown" });
    const words = await sallyport("ledger", "verify", ledger(), "--key", verifierKey);
    expect(words.out).toMatch(/^ {2}completeness {2}not checked$/m);
  });

  test("Ctrl-C stops it in order too, and is an interruption", async () => {
    const node = await up();
    node.child.kill("SIGINT");
    expect(await node.exited).toBe(130);
    expect(JSON.parse((await sallyport("ledger", "verify", ledger(), "--key", key, "--json")).out)).toMatchObject({
      verified: true,
    });
  });

  test("killed hard, it starts again, and the ledger still verifies", async () => {
    const first = await up();
    first.child.kill("SIGKILL");
    await first.exited;
    const again = await up();
    again.child.kill("SIGTERM");
    expect(await again.exited).toBe(0);
    expect(JSON.parse((await sallyport("ledger", "verify", ledger(), "--key", key, "--json")).out)).toMatchObject({
      verified: true,
    });
  });
});

describe("a command line that is quick", () => {
  const loadedBy = async (...given: readonly string[]): Promise<string> => {
    const trace = join(directory, "loaded.mjs");
    await writeFile(
      trace,
      `import { registerHooks } from "node:module";
       const seen = new Set();
       registerHooks({ load(url, context, next) { seen.add(url); return next(url, context); } });
       process.on("exit", () => process.stderr.write([...seen].join("\\n")));`,
    );
    return new Promise((settle) => {
      execFile(process.execPath, ["--import", trace, program, ...given], { cwd: directory }, (_, __, err) =>
        settle(err),
      );
    });
  };
  const heavy = /node_modules\/(fastify|pg|kysely|libpg-query|@cedar-policy|pino|zod|yaml)\//;

  test("the version and the help load nothing heavy", async () => {
    expect(await loadedBy("--version")).not.toMatch(/node_modules/);
    expect(await loadedBy("grant", "--help")).not.toMatch(heavy);
    expect(await loadedBy("help", "exit-codes")).not.toMatch(heavy);
  });

  test("a verb of the gateway loads a client, and neither server nor database nor policy", async () => {
    expect(await loadedBy("grant", "ls")).not.toMatch(
      /node_modules\/(fastify|pg|kysely|libpg-query|@cedar-policy|pino)\//,
    );
  });

  test("the version answers inside the budget of 150 ms of processor time", async () => {
    const script = `process.on("exit", () => {
      const { userCPUTime, systemCPUTime } = process.resourceUsage();
      process.stderr.write(String((userCPUTime + systemCPUTime) / 1000));
    });`;
    const preload = `data:text/javascript,${encodeURIComponent(script)}`;
    const usage = await new Promise<string>((settle) => {
      execFile(process.execPath, ["--import", preload, program, "--version"], (_, __, err) => settle(err));
    });
    expect(Number(usage)).toBeGreaterThan(0);
    expect(Number(usage)).toBeLessThan(150);
  });
});
