/** `sallyport run` as a process: killed, told to stop, and in front of real MCP servers that a real client drives. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type TestPostgres, runSql, startPostgres } from "../support/postgres.ts";
import { request, rpcServer } from "../support/run-harness.ts";

const runProcess = join(import.meta.dirname, "../support/run-process.ts");
const packages = join(import.meta.dirname, "../../node_modules");

async function hasEnded(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => "");
  return status === "" || /\) [ZX] /.test(status);
}

async function plantTree(shell: readonly string[]): Promise<{
  readonly run: ChildProcess;
  readonly pids: readonly number[];
  readonly passwordFile: string;
  readonly stop: () => Promise<void>;
}> {
  const directory = await mkdtemp(join(tmpdir(), "sallyport-test-"));
  const pidFile = join(directory, "pids");
  const run = spawn(
    process.execPath,
    [
      runProcess,
      "FILE={{PASSWORD_FILE}}",
      "--",
      ...shell,
      process.execPath,
      rpcServer,
      "--stay",
      "--ignore-sigterm",
      "{{PASSWORD_FILE}}",
    ],
    { stdio: ["pipe", "pipe", "inherit"] },
  );
  const lines = createInterface({ input: run.stdout })[Symbol.asyncIterator]();
  run.stdin.write(`${JSON.stringify(request(1, "environment"))}\n${JSON.stringify(request(2, "tree", { pidFile }))}\n`);
  const first = await lines.next();
  const answer: { readonly result: { readonly arguments: readonly string[] } } = JSON.parse(String(first.value));
  await expect.poll(() => readFile(pidFile, "utf8").catch(() => ""), { timeout: 15_000 }).toContain("]");
  return {
    run,
    pids: JSON.parse(await readFile(pidFile, "utf8")),
    passwordFile: answer.result.arguments.at(-1) ?? "",
    stop: () => rm(directory, { recursive: true }),
  };
}

describe.runIf(process.platform === "linux")("the tree of the server", () => {
  test.each([
    ["started directly", []],
    ["started through a shell, as npx does", ["/bin/sh", "-c", '"$0" "$@"; true']],
  ])("ends when the run is killed with SIGKILL: %s", async (_, shell) => {
    const { run, pids, passwordFile, stop } = await plantTree(shell);
    expect(await Promise.all(pids.map(hasEnded))).toEqual(Array(5).fill(false));
    expect(existsSync(passwordFile)).toBe(true);
    run.kill("SIGKILL");
    await expect.poll(() => Promise.all(pids.map(hasEnded)), { timeout: 10_000 }).toEqual(Array(5).fill(true));
    await expect.poll(() => existsSync(passwordFile), { timeout: 5000 }).toBe(false);
    await stop();
  });

  test("ends when the run is told to, and the exit code names the signal", async () => {
    const { run, pids, stop } = await plantTree([]);
    const exited = new Promise((settle) => run.once("exit", settle));
    run.kill("SIGTERM");
    expect(await exited).toBe(143);
    expect(await Promise.all(pids.map(hasEnded))).toEqual(Array(5).fill(true));
    await stop();
  });
});

describe.runIf(process.platform === "linux")(
  "a daemon of the server that has left its group, session, parents and environment",
  () => {
    test.each(["SIGTERM", "SIGKILL"] as const)("ends with the run, told by %s", async (signal) => {
      const directory = await mkdtemp(join(tmpdir(), "sallyport-test-"));
      const pidFile = join(directory, "pid");
      const run = spawn(process.execPath, [runProcess, "--", process.execPath, rpcServer], {
        stdio: ["pipe", "ignore", "inherit"],
      });
      run.stdin.write(`${JSON.stringify(request(1, "daemon", { pidFile, ms: 300 }))}\n`);
      await expect.poll(() => readFile(pidFile, "utf8").catch(() => ""), { timeout: 15_000 }).toMatch(/\n$/);
      const pid = Number(await readFile(pidFile, "utf8"));
      const parentOf = async (): Promise<number> =>
        Number(/\) \S (\d+)/.exec(await readFile(`/proc/${pid}/stat`, "latin1"))?.[1]);
      const parent = await parentOf();
      await expect.poll(parentOf, { timeout: 5000 }).not.toBe(parent);
      expect(await readFile(`/proc/${pid}/environ`, "latin1")).not.toContain("SALLYPORT");
      expect(await hasEnded(pid)).toBe(false);
      run.kill(signal);
      await expect.poll(() => hasEnded(pid), { timeout: 10_000 }).toBe(true);
      await rm(directory, { recursive: true });
    });
  },
);

describe("the files with the password", () => {
  test("go with a run that is killed before its first request", async () => {
    const directory = await mkdtemp(join(tmpdir(), "sallyport test "));
    const run = spawn(process.execPath, [runProcess, "FILE={{PGPASSFILE}}", "--", process.execPath, rpcServer], {
      env: { ...process.env, TMPDIR: directory },
      stdio: ["pipe", "ignore", "inherit"],
    });
    const files = async (): Promise<readonly string[]> => readdir(directory, { recursive: true });
    await expect.poll(files, { timeout: 15_000 }).toHaveLength(2);
    run.kill("SIGKILL");
    await expect.poll(files, { timeout: 5000 }).toEqual([]);
    await rm(directory, { recursive: true });
  });
});

describe("a real MCP server behind the relay", () => {
  let server: TestPostgres;
  let directory: string;
  beforeAll(async () => {
    server = await startPostgres();
    directory = await mkdtemp(join(tmpdir(), "sallyport test "));
    await runSql(
      server,
      "create table invoices (id int primary key, note text); insert into invoices values (1, 'first')",
    );
  });
  afterAll(async () => {
    await server?.stop();
    await rm(directory, { recursive: true, force: true });
  });

  async function connect(variables: readonly string[], command: readonly string[], log: string): Promise<Client> {
    const { host, port, user, password, database } = server;
    const transport = new StdioClientTransport({
      command: process.execPath,
      args: [runProcess, ...variables, "--", process.execPath, ...command],
      env: {
        PATH: process.env["PATH"] ?? "",
        RUN_LOG: log,
        RUN_CONNECTION: JSON.stringify({ host, port, user, password, database }),
      },
      stderr: "pipe",
    });
    const client = new Client({ name: "sallyport-test", version: "1.0.0" });
    await client.connect(transport);
    return client;
  }

  async function recorded(log: string): Promise<readonly string[]> {
    const lines = (await readFile(log, "utf8")).trim().split("\n");
    return lines.map((text) => {
      const line: { what: string; input?: { method?: string; tool?: string | null; status?: string } } =
        JSON.parse(text);
      return [line.what, line.input?.method ?? line.input?.status, line.input?.tool].filter(Boolean).join(" ");
    });
  }

  test("@modelcontextprotocol/server-postgres answers with the URL that carries no password", async () => {
    const log = join(directory, "server-postgres.log");
    const program = join(packages, "@modelcontextprotocol/server-postgres/dist/index.js");
    const client = await connect([], [program, "{{DATABASE_URL}}"], log);
    const result = await client.callTool({ name: "query", arguments: { sql: "select note from invoices" } });
    expect(JSON.stringify(result)).toContain("first");
    await expect(client.callTool({ name: "query", arguments: { sql: "select nothing from nowhere" } })).rejects.toThrow(
      "nowhere",
    );
    await client.close();
    expect(await recorded(log)).toEqual([
      "start",
      "open initialize",
      "close ok",
      "open tools/call query",
      "close ok",
      "open tools/call query",
      "close error",
      "end",
    ]);
  });

  test.each([
    ["an argument without the password", [], ["--dsn={{DATABASE_URL}}"]],
    ["a DSN in its environment", ["DSN={{DATABASE_URL_WITH_PASSWORD}}"], []],
  ])("@bytebase/dbhub answers with %s", async (how, variables, parameters) => {
    const log = join(directory, `dbhub ${how}.log`);
    const program = join(packages, "@bytebase/dbhub/dist/index.js");
    const client = await connect(variables, [program, "--transport=stdio", ...parameters], log);
    const result = await client.callTool({ name: "execute_sql", arguments: { sql: "select note from invoices" } });
    expect(JSON.stringify(result)).toContain("first");
    await client.close();
    expect(await recorded(log)).toContain("open tools/call execute_sql");
  });
});
