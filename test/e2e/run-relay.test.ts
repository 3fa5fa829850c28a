import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import { FakeControl } from "../support/fake-control.ts";
import { request, rpcServer, startRunHarness } from "../support/run-harness.ts";

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** A zombie has ended, though its entry is still there when nobody reaps it. */
async function hasEnded(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => "");
  return !isAlive(pid) || /\) [ZX] /.test(status);
}

describe("sallyport run: the client's lines", () => {
  test("reach the server byte for byte, and its answers the client", async () => {
    const run = startRunHarness();
    const line =
      '{ "jsonrpc":"2.0",\t"id" : "\\u0041-1", "method":"echo","params":{"n":1.0e2,"s":"\\u00e9é", "x":{}} }';
    run.send(line);
    const answer = await run.answer(1);
    expect(answer).toEqual({ jsonrpc: "2.0", id: "A-1", result: { line } });
    run.stdin.end();
    expect(await run.exit).toBe(0);
    expect(run.control.opened()).toEqual([
      { method: "echo", tool: null, parameters: '{"n":1.0e2,"s":"\\u00e9é", "x":{}}' },
    ]);
    expect(run.control.closed()).toEqual([{ status: "ok", bytes: Buffer.byteLength(run.received[0] ?? "") }]);
    expect(run.control.lines.at(-1)).toEqual({ what: "end", reason: "the client closed its end" });
  });

  test("are held until they are recorded, and the server is not even started before", async () => {
    const control = new FakeControl();
    const gate = Promise.withResolvers<void>();
    control.beforeOpen = () => gate.promise;
    const directory = await mkdtemp(join(tmpdir(), "sallyport-test-"));
    const marker = join(directory, "started");
    const run = startRunHarness({
      control,
      command: [
        process.execPath,
        "-e",
        `require("fs").writeFileSync(${JSON.stringify(marker)}, ""); process.stdin.resume()`,
      ],
    });
    run.send(request(1, "initialize"));
    await delay(400);
    await expect(readFile(marker)).rejects.toThrow();
    gate.resolve();
    await expect
      .poll(
        () =>
          readFile(marker).then(
            () => true,
            () => false,
          ),
        { timeout: 10_000 },
      )
      .toBe(true);
    run.stop("SIGTERM");
    expect(await run.exit).toBe(143);
    await rm(directory, { recursive: true });
  });

  test("are not passed on when they could not be recorded, and the client reads why", async () => {
    const control = new FakeControl();
    const run = startRunHarness({ control });
    run.send(request(1, "echo"));
    await run.answer(1);
    control.beforeOpen = () =>
      Promise.reject(
        new SallyportError("ledger.unavailable", "gateway", "the ledger cannot write", { nextStep: "free the disk" }),
      );
    run.send(request(2, "exit", { code: 9 }));
    const refused = await run.answer(2);
    expect(refused.id).toBe(2);
    expect(refused.error?.message).toBe("Sallyport: the ledger cannot write. Next: free the disk.");
    expect(refused.error?.data).toEqual({
      code: "ledger.unavailable",
      reason: "the ledger cannot write",
      nextStep: "free the disk",
    });
    control.beforeOpen = () => Promise.reject(new Error("connect ECONNREFUSED 10.1.2.3:99"));
    run.send(request(3, "exit", { code: 9 }));
    const gone = await run.answer(3);
    expect(gone.error?.data?.["nextStep"]).toContain("sallyport up");
    expect(JSON.stringify(gone)).not.toContain("10.1.2.3");
    control.beforeOpen = () => Promise.resolve();
    run.send(request(4, "echo"));
    expect((await run.answer(4)).result).toBeDefined();
    run.stdin.end();
    expect(await run.exit).toBe(0);
  });

  test("keep their order, notifications included", async () => {
    const control = new FakeControl();
    let slow = 5;
    control.beforeOpen = () => delay((slow -= 1) * 20);
    const run = startRunHarness({ control });
    const sent = [
      request(1, "echo"),
      { jsonrpc: "2.0", method: "notifications/progress" },
      request(2, "echo"),
      { jsonrpc: "2.0", method: "notifications/roots/list_changed" },
      request(3, "echo"),
    ];
    sent.forEach((line) => run.send(line));
    await run.answer(3);
    expect(run.received.map((line) => JSON.parse(line).id)).toEqual([1, 2, 3]);
    run.stdin.end();
    expect(await run.exit).toBe(0);
  });

  test("with an id in flight, too long, ambiguous or not JSON are refused, recorded and not passed on", async () => {
    const run = startRunHarness();
    run.send(request(1, "hang"));
    run.send(request(1, "exit", { code: 9 }));
    const duplicate = await run.answer(1);
    expect(duplicate.id).toBeNull();
    expect(duplicate.error?.data?.["code"]).toBe("mcp.duplicate-id");
    run.send('{"jsonrpc":"2.0","id":2,"method":"ping","method":"exit"}');
    const ambiguous = await run.answer(2);
    expect(ambiguous.error?.data).toMatchObject({ code: "mcp.ambiguous" });
    expect(ambiguous.error?.data?.["call"]).toMatch(/^call_/);
    run.send("this is not JSON");
    expect((await run.answer(3)).error?.code).toBe(-32700);
    run.send(`{"jsonrpc":"2.0","id":4,"method":"exit","params":{"x":"${"x".repeat(limits.callParametersBytesMax)}"}}`);
    expect((await run.answer(4)).error?.data?.["code"]).toBe("limit.exceeded");
    run.send(`{"jsonrpc":"2.0","method":"exit","params":{"x":"${"x".repeat(limits.rpcLineBytesMax)}"},"id":5}`);
    const long = await run.answer(5);
    expect(long.id).toBe(5);
    expect(long.error?.data?.["code"]).toBe("limit.exceeded");
    run.send(request(6, "echo"));
    expect((await run.answer(6)).id).toBe(6);
    expect(run.control.opened().map(({ method }) => method)).toEqual([
      "hang",
      ...Array(5).fill("sallyport/refused"),
      "echo",
    ]);
    run.stop("SIGINT");
    expect(await run.exit).toBe(130);
  });

  test("past the limit of calls in flight are refused", async () => {
    const run = startRunHarness();
    for (let id = 1; id <= limits.callsInFlightMax; id += 1) {
      run.send(request(id, "hang"));
    }
    run.send(request("one more", "hang"));
    const refused = await run.answer(1);
    expect(refused.id).toBe("one more");
    expect(refused.error?.data?.["code"]).toBe("limit.exceeded");
    run.stop("SIGTERM");
    await run.exit;
    expect(run.control.closed().filter(({ status }) => status === "lost")).toHaveLength(limits.callsInFlightMax);
  });

  test("of a batch are each recorded, and answered by one line", async () => {
    const run = startRunHarness();
    run.send([
      request(1, "raw", {
        text: '[{"jsonrpc":"2.0","id":2,"result":{}},{"jsonrpc":"2.0","id":1,"result":{"isError":true}}]\n',
      }),
      request(2, "hang"),
    ]);
    await run.answer(1);
    expect(run.control.opened().map(({ method }) => method)).toEqual(["raw", "hang"]);
    expect(
      run.control
        .closed()
        .map(({ status }) => status)
        .toSorted(),
    ).toEqual(["ok", "tool-error"]);
    run.stdin.end();
    expect(await run.exit).toBe(0);
  });
});

describe("sallyport run: the server's lines", () => {
  test("are released only when the outcome is recorded, with the status that they carry", async () => {
    const control = new FakeControl();
    const gate = Promise.withResolvers<void>();
    control.beforeClose = () => gate.promise;
    const run = startRunHarness({ control });
    run.send(request(1, "tool-error"));
    run.send(request(2, "fail"));
    await delay(500);
    expect(run.received).toEqual([]);
    gate.resolve();
    await run.answer(2);
    expect(control.closed().map(({ status }) => status)).toEqual(["tool-error", "error"]);
    run.stdin.end();
    await run.exit;
  });

  test("are withheld when the outcome cannot be recorded", async () => {
    const control = new FakeControl();
    control.beforeClose = () =>
      Promise.reject(new SallyportError("ledger.unavailable", "gateway", "the ledger cannot write"));
    const run = startRunHarness({ control });
    run.send(request(1, "echo", { secret: "do-not-release" }));
    const answer = await run.answer(1);
    expect(answer.error?.data?.["code"]).toBe("ledger.unavailable");
    expect(run.received.join()).not.toContain("do-not-release");
    run.stop("SIGTERM");
    await run.exit;
  });

  test("that answer nothing that was asked, answer twice or are no JSON-RPC are dropped", async () => {
    const run = startRunHarness();
    const answer = '{"jsonrpc":"2.0","id":1,"result":{"a":1}}\n';
    const text = `a banner on stdout\n{"jsonrpc":"2.0","id":99,"result":{}}\n${answer}${answer}{"jsonrpc":"2.0","method":"notifications/progress"}\n`;
    run.send(request(1, "raw", { text }));
    await run.answer(2);
    expect(run.received).toEqual([answer.trim(), '{"jsonrpc":"2.0","method":"notifications/progress"}']);
    expect(run.control.closed()).toHaveLength(1);
    expect(run.notes).toHaveLength(3);
    run.stdin.end();
    await run.exit;
  });

  test("that ask the client something pass, and so do its answers while requests wait their turn", async () => {
    const run = startRunHarness({ serializeCalls: true });
    run.send(request(1, "raw", { text: '{"jsonrpc":"2.0","id":1,"method":"roots/list"}\n' }));
    await run.answer(1);
    run.send(request(2, "echo"));
    run.send('{"jsonrpc":"2.0","id":1,"result":{"roots":[]}}');
    await delay(200);
    // Request 2 waits for the answer to request 1.
    expect(run.control.opened().map(({ method }) => method)).toEqual(["raw"]);
    run.stop("SIGTERM");
    await run.exit;
    expect(run.received.map((line) => JSON.parse(line).id)).toEqual([1, 2, 1]);
  });

  test("that are too long are answered with an error in their place", async () => {
    const run = startRunHarness();
    run.send(request(1, "long", { bytes: limits.rpcLineBytesMax }));
    const answer = await run.answer(1);
    expect(answer.id).toBe(1);
    expect(answer.error?.data?.["code"]).toBe("limit.exceeded");
    run.send(request(2, "echo"));
    expect((await run.answer(2)).id).toBe(2);
    run.stdin.end();
    await run.exit;
  });

  test("to a cancelled call are not waited for for ever", async () => {
    const run = startRunHarness();
    run.send(request(1, "hang"));
    run.send({ jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 1 } });
    await expect
      .poll(() => run.control.closed().map(({ status }) => status), { timeout: limits.cancelledCallMs + 5000 })
      .toEqual(["cancelled"]);
    run.stdin.end();
    expect(await run.exit).toBe(0);
    expect(run.received).toEqual([]);
  });
});

describe("sallyport run: one call at a time when asked", () => {
  test("a request waits until the one before has been answered", async () => {
    const run = startRunHarness({ serializeCalls: true });
    for (const id of [1, 2, 3]) {
      run.send(request(id, "late", { ms: 50 }));
    }
    await run.answer(3);
    expect(run.control.lines.slice(1).map((line) => line.what)).toEqual([
      "open",
      "close",
      "open",
      "close",
      "open",
      "close",
    ]);
    run.stdin.end();
    expect(await run.exit).toBe(0);
  });

  test("a waiting request that is cancelled never reaches the server", async () => {
    const run = startRunHarness({ serializeCalls: true });
    run.send(request(1, "late", { ms: 300 }));
    run.send(request(2, "exit", { code: 9 }));
    run.send({ jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 2 } });
    run.send(request(3, "echo"));
    await run.answer(2);
    expect(run.received.map((line) => JSON.parse(line).id)).toEqual([1, 3]);
    run.stdin.end();
    expect(await run.exit).toBe(0);
  });
});

describe("sallyport run: the end", () => {
  test("the server's exit code is returned, and what was in flight is answered and recorded as lost", async () => {
    const run = startRunHarness();
    run.send(request(1, "hang"));
    run.send(request(2, "exit", { code: 7 }));
    expect(await run.exit).toBe(7);
    expect(run.received.map((line) => JSON.parse(line).error.data.code)).toEqual([
      "mcp.server-ended",
      "mcp.server-ended",
    ]);
    expect(run.control.closed().map(({ status }) => status)).toEqual(["lost", "lost"]);
  });

  test("a server that a signal ended gives 128 and its number", async () => {
    const run = startRunHarness();
    run.send(request(1, "kill"));
    expect(await run.exit).toBe(137);
  });

  test("a program that is not there gives 127 and says so", async () => {
    const run = startRunHarness({ command: ["/no/such/program"] });
    run.send(request(1, "initialize"));
    expect((await run.answer(1)).error?.message).toContain("could not be started");
    expect(await run.exit).toBe(127);
  });

  test("the whole tree dies with the run, what left the group and ignores SIGTERM too", async () => {
    const directory = await mkdtemp(join(tmpdir(), "sallyport-test-"));
    const pidFile = join(directory, "pids");
    const run = startRunHarness({ command: [process.execPath, rpcServer, "--stay", "--ignore-sigterm"] });
    run.send(request(1, "tree", { pidFile }));
    await expect.poll(() => readFile(pidFile, "utf8").catch(() => ""), { timeout: 10_000 }).toContain("]");
    const pids: readonly number[] = JSON.parse(await readFile(pidFile, "utf8"));
    expect(pids).toHaveLength(5);
    expect(pids.every(isAlive)).toBe(true);
    run.stdin.end();
    expect(await run.exit).toBe(0);
    expect(await Promise.all(pids.map(hasEnded))).toEqual(Array(5).fill(true));
    await rm(directory, { recursive: true });
  });

  test("a client that closes its end still gets the answers to what it asked", async () => {
    const run = startRunHarness();
    run.stdin.end(`${JSON.stringify(request(1, "late", { ms: 400 }))}\n`);
    expect(await run.exit).toBe(0);
    expect(run.received).toHaveLength(1);
  });

  test("when the gateway goes, nothing passes any more and each request is answered with why", async () => {
    const run = startRunHarness();
    run.send(request(1, "hang"));
    await expect.poll(() => run.control.opened().length).toBe(1);
    run.control.end(new Error("socket hang up"));
    expect((await run.answer(1)).error?.data?.["code"]).toBe("gateway.unavailable");
    run.send(request(2, "exit", { code: 9 }));
    const refused = await run.answer(2);
    expect(refused.error?.message).toContain("sallyport up");
    run.stdin.end();
    expect(await run.exit).toBe(1);
    expect(run.control.opened()).toHaveLength(1);
  });

  test("when the gateway ends the run, its reason is what the model reads", async () => {
    const run = startRunHarness();
    run.send(request(1, "echo"));
    await run.answer(1);
    run.control.end({ kind: "ended", reason: "the grant was revoked: ticket closed" });
    await expect.poll(() => run.notes.length).toBe(1);
    run.send(request(2, "echo"));
    expect((await run.answer(2)).error?.message).toContain("the grant was revoked: ticket closed");
    run.stdin.end();
    expect(await run.exit).toBe(1);
  });

  test("a run that the gateway does not start starts no server", async () => {
    const control = new FakeControl();
    control.startFailure = new SallyportError("gateway.unreachable", "gateway", "no gateway answers", {
      nextStep: "start one with `sallyport up`",
    });
    const run = startRunHarness({ control });
    await expect(run.exit).rejects.toThrow("no gateway answers");
  });
});

describe("sallyport run: the credential", () => {
  test("reaches the server by environment, and never by arguments", async () => {
    const run = startRunHarness({
      command: [process.execPath, rpcServer, "{{DATABASE_URL}}", "--user={{PGUSER}}"],
      variables: ["DSN={{DATABASE_URL_WITH_PASSWORD}}"],
      environment: { PGHOSTADDR: "192.0.2.1", PGSERVICE: "elsewhere", SALLYPORT_TOKEN: "control", KEPT: "yes" },
    });
    run.send(request(1, "environment"));
    const { result } = await run.answer(1);
    const url = "postgres://crd_test@127.0.0.1:1/billing?sslmode=disable";
    expect(result?.["arguments"]).toEqual([url, "--user=crd_test"]);
    expect(result?.["environment"]).toMatchObject({
      PGHOST: "127.0.0.1",
      PGPORT: "1",
      PGDATABASE: "billing",
      PGUSER: "crd_test",
      PGPASSWORD: "p@ss:word/with?signs",
      DSN: url.replace("crd_test", "crd_test:p%40ss%3Aword%2Fwith%3Fsigns"),
      KEPT: "yes",
    });
    for (const name of ["PGHOSTADDR", "PGSERVICE", "SALLYPORT_TOKEN"]) {
      expect(result?.["environment"]).not.toHaveProperty(name);
    }
    run.stdin.end();
    await run.exit;
  });

  test("can be a file, which then is the only place, and goes with the run", async () => {
    const run = startRunHarness({
      command: [process.execPath, rpcServer, "{{PASSWORD_FILE}}"],
      variables: ["PGPASSFILE={{PGPASSFILE}}"],
    });
    run.send(request(1, "environment"));
    const { result } = await run.answer(1);
    const [file] = Array.isArray(result?.["arguments"]) ? result["arguments"] : [];
    expect(await readFile(String(file), "utf8")).toBe("p@ss:word/with?signs");
    const pgpass = join(String(file), "../pgpass");
    expect(result?.["environment"]).toMatchObject({ PGPASSFILE: pgpass });
    expect(await readFile(pgpass, "utf8")).toBe("127.0.0.1:1:billing:crd_test:p@ss\\:word/with?signs\n");
    expect(JSON.stringify(result)).not.toContain("p@ss");
    run.stdin.end();
    await run.exit;
    await expect(readFile(String(file))).rejects.toThrow();
  });
});
