import { execFile, spawn } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "#store/embedded-postgres.ts";
import { createDatabase, runSql, startPostgres } from "../support/postgres.ts";

const execFileAsync = promisify(execFile);
const asRoot = process.getuid?.() === 0;

let scratch = "";
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "sallyport embedded "));
  await chmod(scratch, 0o755);
});
afterAll(async () => {
  await rm(scratch, { recursive: true, force: true });
});

function addressOf(server: EmbeddedPostgres): Parameters<typeof runSql>[0] {
  return { host: server.host, port: server.port, user: server.user, password: server.password, database: "postgres" };
}

async function setting(server: EmbeddedPostgres, name: string): Promise<unknown> {
  const [row] = await runSql(addressOf(server), `select current_setting('${name}') as value`);
  return row?.["value"];
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function waitForEnd(pid: number): Promise<boolean> {
  for (let waitedMs = 0; waitedMs < 10_000 && isAlive(pid); waitedMs += 50) {
    await delay(50);
  }
  return !isAlive(pid);
}

describe("the embedded PostgreSQL", () => {
  test("keeps its data, its password and its log over a second start, which is quick", async () => {
    const directory = join(scratch, "kept data");
    const first = await startEmbeddedPostgres({ directory, durable: true, superuser: "owner" });
    await runSql(addressOf(first), "create table kept (n int); insert into kept values (42)");
    expect(first.version).toMatch(/^18\.\d+$/);
    expect(first.user).toBe("owner");
    expect(await setting(first, "fsync")).toBe("on");
    await first.stop();

    const startMs = performance.now();
    const second = await startEmbeddedPostgres({ directory, durable: true, superuser: "owner" });
    expect(performance.now() - startMs).toBeLessThan(2000);
    expect(await runSql(addressOf(second), "select n from kept")).toEqual([{ n: 42 }]);
    expect(second.password).toBe(first.password);
    expect(await readFile(second.logFile, "utf8")).toContain("database system is shut down");
    await second.stop();
  });

  test("is reached on loopback only, with its password only", async () => {
    await using server = await startPostgres();
    expect(server.host).toBe("127.0.0.1");
    const [row] = await runSql(
      server,
      `select current_setting('listen_addresses') as addresses, current_setting('unix_socket_directories') as sockets,
              current_setting('password_encryption') as passwords`,
    );
    expect(row).toEqual({ addresses: "127.0.0.1", sockets: "", passwords: "scram-sha-256" });
    await expect(runSql({ ...server, password: "wrong" }, "select 1")).rejects.toThrow(
      /password authentication failed/,
    );
    await expect(runSql({ ...server, password: "" }, "select 1")).rejects.toThrow();
  });

  test("keeps its password where others cannot read it, and not in its arguments or environment", async () => {
    const directory = join(scratch, "secret");
    await using server = await startEmbeddedPostgres({ directory, durable: false });
    expect((await stat(join(directory, "password"))).mode & 0o077).toBe(0);
    expect((await stat(join(directory, "data"))).mode & 0o077).toBe(0);
    expect(server.password.length).toBeGreaterThanOrEqual(32);
    if (process.platform === "linux") {
      const [line, environment] = await Promise.all([
        readFile(`/proc/${server.pid}/cmdline`, "utf8"),
        readFile(`/proc/${server.pid}/environ`, "utf8"),
      ]);
      expect(line).toContain("postgres");
      expect(line + environment).not.toContain(server.password);
      expect(environment).not.toContain("HOME=");
    }
    expect(await readFile(server.logFile, "utf8")).not.toContain(server.password);
  });

  test("takes the caller's settings, but not those that would open it up", async () => {
    await using server = await startPostgres({
      settings: { work_mem: "7MB", listen_addresses: "*", unix_socket_directories: "/tmp" },
    });
    expect(await setting(server, "work_mem")).toBe("7MB");
    expect(await setting(server, "listen_addresses")).toBe("127.0.0.1");
    expect(await setting(server, "unix_socket_directories")).toBe("");
  });

  test("stops at once though a transaction is open, and a second stop waits for the same", async () => {
    const server = await startPostgres();
    const idle = runSql(server, "begin; select pg_sleep(60)").then(
      () => "answered",
      () => "ended",
    );
    await delay(200);
    const startMs = performance.now();
    await Promise.all([server.stop(), server.stop()]);
    expect(performance.now() - startMs).toBeLessThan(5000);
    expect(await idle).toBe("ended");
    expect(await server.exited).toBe("exit code 0");
    expect(isAlive(server.pid)).toBe(false);
  });

  test("says that it has ended when something else ended it", async () => {
    await using server = await startPostgres();
    process.kill(server.pid, "SIGKILL");
    expect(await server.exited).toBe("SIGKILL");
  });

  test.runIf(asRoot)("does not run as root, nor leave anything of its data to root's account", async () => {
    const directory = join(scratch, "as nobody");
    await using server = await startEmbeddedPostgres({ directory, durable: false });
    const nobody = Number((await execFileAsync("id", ["-u", "nobody"])).stdout);
    expect((await stat(`/proc/${server.pid}`)).uid).toBe(nobody);
    expect((await stat(join(directory, "data/PG_VERSION"))).uid).toBe(nobody);
  });

  test.runIf(asRoot)("works in a directory that its account cannot reach", async () => {
    const closed = join(scratch, "closed home");
    await mkdir(closed, { mode: 0o700 });
    const directory = join(closed, "checkout/.sallyport/postgres");
    const first = await startEmbeddedPostgres({ directory, durable: false });
    await runSql(addressOf(first), "create table kept (n int)");
    await first.stop();
    const second = await startEmbeddedPostgres({ directory, durable: false });
    expect(await runSql(addressOf(second), "select count(*)::int as n from kept")).toEqual([{ n: 0 }]);
    const [row] = await runSql(addressOf(second), "select current_setting('data_directory') as place");
    await second.stop();
    expect(row?.["place"]).not.toContain("closed home");
    await rm(String(row?.["place"]), { recursive: true });
  });

  test("gives every test a cluster of its own", async () => {
    await using one = await startPostgres();
    await using other = await startPostgres();
    const database = await createDatabase(one, `odd "name"`);
    await runSql(database, "create table only_here (n int)");
    const names = await runSql(other, "select datname from pg_database where datname like 'odd%'");
    expect(names).toEqual([]);
    expect(await runSql(database, "select count(*)::int as n from only_here")).toEqual([{ n: 0 }]);
  });
});

describe("an orphan", () => {
  /** A process that starts a server and then waits; resolves with the server's pid. */
  async function startInOwnProcess(directory: string): Promise<{ readonly owner: number; readonly server: number }> {
    const module = join(import.meta.dirname, "../../src/store/embedded-postgres.ts");
    const text = `
      const { startEmbeddedPostgres } = await import(${JSON.stringify(module)});
      const server = await startEmbeddedPostgres({ directory: ${JSON.stringify(directory)}, durable: true });
      console.log(server.pid);
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", text], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const { pid } = child;
    if (pid === undefined) {
      throw new Error("no process");
    }
    const server = await new Promise<number>((settle) => {
      child.stdout.once("data", (chunk: Buffer) => settle(Number(chunk.toString("utf8"))));
    });
    return { owner: pid, server };
  }

  test("is stopped when the process that started it is killed", async () => {
    const { owner, server } = await startInOwnProcess(join(scratch, "orphaned"));
    expect(isAlive(server)).toBe(true);
    process.kill(owner, "SIGKILL");
    expect(await waitForEnd(server)).toBe(true);
  });

  test("whose guard was killed as well is stopped at the next start, which finds the data", async () => {
    const directory = join(scratch, "orphaned twice");
    const { owner, server } = await startInOwnProcess(directory);
    const { stdout } = await execFileAsync("pgrep", ["-f", `sallyport-postgres-guard ${server}$`]);
    process.kill(Number(stdout), "SIGKILL");
    process.kill(owner, "SIGKILL");
    await delay(300);
    expect(isAlive(server)).toBe(true);
    await using next = await startEmbeddedPostgres({ directory, durable: true });
    expect(isAlive(server)).toBe(false);
    expect(await runSql(addressOf(next), "select 1 as n")).toEqual([{ n: 1 }]);
  });

  test("is not what runs under a living owner: that one is left alone", async () => {
    const directory = join(scratch, "owned");
    const { owner, server } = await startInOwnProcess(directory);
    await expect(startEmbeddedPostgres({ directory, durable: true })).rejects.toMatchObject({
      code: "store.postgres-running",
      nextStep: expect.stringContaining(String(owner)) as unknown,
    });
    expect(isAlive(server)).toBe(true);
    process.kill(owner, "SIGTERM");
    expect(await waitForEnd(server)).toBe(true);
  });

  test("left only its pid file, whose number an unrelated program has by now", async () => {
    const directory = join(scratch, "stale pid");
    const first = await startEmbeddedPostgres({ directory, durable: true });
    await first.stop();
    await writeFile(join(directory, "data/postmaster.pid"), `${process.pid}\n${join(directory, "data")}\n`);
    await using next = await startEmbeddedPostgres({ directory, durable: true });
    expect(await runSql(addressOf(next), "select 1 as n")).toEqual([{ n: 1 }]);
  });

  test("left a crashed cluster, which the next start recovers", async () => {
    const directory = join(scratch, "crashed");
    const first = await startEmbeddedPostgres({ directory, durable: true });
    await runSql(addressOf(first), "create table kept (n int); insert into kept values (1)");
    process.kill(first.pid, "SIGKILL");
    await first.exited;
    await delay(500);
    await using next = await startEmbeddedPostgres({ directory, durable: true });
    expect(await runSql(addressOf(next), "select n from kept")).toEqual([{ n: 1 }]);
  });
});

describe("what cannot be done is told with the next step", () => {
  test("a port that another program has", async () => {
    const other = createServer();
    await new Promise<void>((settle) => {
      other.listen({ host: "127.0.0.1", port: 0 }, settle);
    });
    const address = other.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const start = startEmbeddedPostgres({ directory: join(scratch, "port"), durable: false, port });
    await expect(start).rejects.toMatchObject({
      code: "store.port-in-use",
      message: expect.stringContaining(String(port)) as unknown,
    });
    other.close();
  });

  test("a setting that PostgreSQL refuses", async () => {
    const start = startPostgres({ settings: { work_mem: "a lot" } });
    await expect(start).rejects.toMatchObject({
      code: "store.postgres-start",
      message: expect.stringContaining("work_mem") as unknown,
    });
  });

  test("data of another version", async () => {
    const directory = join(scratch, "old");
    const server = await startEmbeddedPostgres({ directory, durable: false });
    await server.stop();
    await writeFile(join(directory, "data/PG_VERSION"), "9.6\n");
    await expect(startEmbeddedPostgres({ directory, durable: false })).rejects.toMatchObject({
      code: "store.postgres-directory",
      message: expect.stringContaining("9.6") as unknown,
    });
  });

  test("programs that are not there", async () => {
    const start = startEmbeddedPostgres({ directory: join(scratch, "none"), durable: false, binaryDirectory: scratch });
    await expect(start).rejects.toMatchObject({ code: "store.postgres-missing" });
  });

  test("an initdb that was interrupted leaves nothing that the next start would take for a cluster", async () => {
    const directory = join(scratch, "interrupted");
    await mkdir(join(directory, "data.0123456789ab/data"), { recursive: true });
    await writeFile(join(directory, "data.0123456789ab/data/PG_VERSION"), "18\n");
    await using server = await startEmbeddedPostgres({ directory, durable: false });
    expect(await runSql(addressOf(server), "select 1 as n")).toEqual([{ n: 1 }]);
  });
});
