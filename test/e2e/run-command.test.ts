/** `sallyport run` against a control endpoint over HTTP. */
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ControlServer, startControlServer } from "#api/server.ts";
import type { ControlPlane } from "#domain/control.ts";
import { SallyportError } from "#domain/errors.ts";
import { FakeControl } from "../support/fake-control.ts";
import { request, rpcServer } from "../support/run-harness.ts";

const runCommand = join(import.meta.dirname, "../support/run-command.ts");
const token = "t".repeat(43);

/** What a run does not ask for is not there. */
function planeOf(control: FakeControl): ControlPlane {
  const refuse = (): Promise<never> => Promise.reject(new SallyportError("test", "client", "not in this test"));
  return {
    status: refuse,
    addGrant: refuse,
    listGrants: refuse,
    revokeGrant: refuse,
    listSessions: refuse,
    startRun: (input) => control.startRun(input),
    openCall: (run, input) => control.openCall(run, input),
    closeCall: (run, call, input) => control.closeCall(run, call, input),
    runEvents: (run, signal) => control.runEvents(run, signal),
    endRun: (run, reason) => control.endRun(run, reason),
  };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((settle) => server.listen(0, "127.0.0.1", settle));
  const address = server.address();
  await new Promise((settle) => server.close(settle));
  return address !== null && typeof address === "object" ? address.port : 0;
}

interface RunProcess {
  readonly send: (line: unknown) => void;
  readonly next: () => Promise<{
    readonly id?: unknown;
    readonly result?: unknown;
    readonly error?: { readonly message: string };
  }>;
  readonly end: () => void;
  readonly exit: Promise<{ readonly code: number | null; readonly stderr: string; readonly stdout: string }>;
}

describe("sallyport run over HTTP", () => {
  let directory: string;
  let config: string;
  let control: FakeControl;
  let server: ControlServer;
  let port: number;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "sallyport run test "));
    port = await freePort();
    config = join(directory, "sallyport.yaml");
    await mkdir(join(directory, ".sallyport"), { mode: 0o700 });
    await writeFile(join(directory, ".sallyport/control-token"), `${token}\n`, { mode: 0o600 });
    await writeFile(config, `version: 1\nnode: { name: test }\nlisten: { control: "127.0.0.1:${port}" }\n`);
  });
  afterAll(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  async function start(): Promise<void> {
    control = new FakeControl();
    server = await startControlServer({
      control: planeOf(control),
      host: "127.0.0.1",
      port,
      token,
      onRefused: () => {},
      onInternalError: () => {},
    });
  }

  function run(options: object, command: readonly string[]): RunProcess {
    const child = spawn(process.execPath, [runCommand, "--", ...command], {
      env: {
        PATH: process.env["PATH"] ?? "",
        RUN_OPTIONS: JSON.stringify({ as: "support-copilot", task: "T-88", resource: "billing", config, ...options }),
      },
      stdio: ["pipe", "pipe", "pipe"],
    });
    const texts = { stdout: "", stderr: "" };
    child.stderr.on("data", (data: Buffer) => (texts.stderr += data.toString()));
    const lines: string[] = [];
    const waiting: (() => void)[] = [];
    createInterface({ input: child.stdout }).on("line", (line) => {
      texts.stdout += `${line}\n`;
      lines.push(line);
      waiting.shift()?.();
    });
    return {
      send: (line) => child.stdin.write(`${JSON.stringify(line)}\n`),
      next: async () => {
        if (lines.length === 0) {
          await new Promise<void>((wake) => waiting.push(wake));
        }
        return JSON.parse(lines.shift() ?? "null");
      },
      end: () => child.stdin.end(),
      exit: new Promise((settle) => child.once("close", (code) => settle({ code, ...texts }))),
    };
  }

  test("relays, records, and ends the run at the gateway with the client", async () => {
    await start();
    const mcp = run({}, [process.execPath, rpcServer]);
    mcp.send(request(1, "echo"));
    expect((await mcp.next()).id).toBe(1);
    mcp.end();
    const { code, stderr } = await mcp.exit;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(control.lines.map((line) => line.what)).toEqual(["start", "open", "close", "end"]);
    expect(control.lines[0]).toEqual({
      what: "start",
      input: { principal: "support-copilot", resource: "billing", task: "T-88", command: "node (1 arguments)" },
    });
    await expect.poll(() => control.listening).toBe(false);
    await server.close();
  });

  test("costs a call a few milliseconds", async () => {
    await start();
    const mcp = run({}, [process.execPath, rpcServer]);
    const times: number[] = [];
    for (let id = 1; id <= 200; id += 1) {
      const startedMs = performance.now();
      mcp.send(request(id, "ping"));
      await mcp.next();
      times.push(performance.now() - startedMs);
    }
    const median = times.toSorted((a, b) => a - b)[100] ?? Infinity;
    console.log(`a call through run with two records over HTTP: median ${median.toFixed(2)} ms`);
    // Far above what it takes alone, for machines that run other tests at the same time.
    expect(median).toBeLessThan(25);
    mcp.end();
    await mcp.exit;
    await server.close();
  });

  test("a gateway that goes is told to the client, and nothing more passes", async () => {
    await start();
    const mcp = run({}, [process.execPath, rpcServer]);
    mcp.send(request(1, "echo"));
    await mcp.next();
    await server.close();
    mcp.send(request(2, "exit", { code: 9 }));
    const answer = await mcp.next();
    expect(answer.id).toBe(2);
    expect(answer.error?.message).toContain("sallyport up");
    mcp.end();
    const { code, stderr } = await mcp.exit;
    expect(code).toBe(1);
    expect(stderr).toContain("sallyport run: ");
  });

  test("without a gateway it says how to start one, at once, and writes nothing to stdout", async () => {
    const startedMs = performance.now();
    const { code, stdout, stderr } = await run({}, [process.execPath, rpcServer]).exit;
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain("sallyport up");
    expect(performance.now() - startedMs).toBeLessThan(5000);
  });

  test("without a configuration it says which one it looked for", async () => {
    const { code, stderr } = await run({ config: join(directory, "none.yaml") }, ["true"]).exit;
    expect(code).toBe(1);
    expect(stderr).toContain("none.yaml");
  });

  test("a password in an argument is refused before anything starts, and the way to give it is named", async () => {
    const mcp = run({ json: true }, ["server", "--dsn={{DATABASE_URL_WITH_PASSWORD}}"]);
    const { code, stdout, stderr } = await mcp.exit;
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    const { error }: { error: { code: string; nextStep: string } } = JSON.parse(stderr);
    expect(error.code).toBe("usage");
    expect(error.nextStep).toContain("--env 'DSN={{DATABASE_URL_WITH_PASSWORD}}'");
  });

  test("a refusal of the gateway is told with its reason and exit code 4", async () => {
    await start();
    control.startFailure = new SallyportError("grant.none", "principal", "no active grant is for this task", {
      nextStep: "ask for one",
    });
    const { code, stderr } = await run({}, ["true"]).exit;
    expect(code).toBe(4);
    expect(stderr).toContain("no active grant is for this task (grant.none)\n  ask for one");
    await server.close();
  });
});
