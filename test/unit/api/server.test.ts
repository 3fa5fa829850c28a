import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { type ClientRequest, type IncomingMessage, createServer, request as startRequest } from "node:http";
import { connect } from "node:net";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type ControlClient, createControlClient } from "#api/client.ts";
import { RemoteError } from "#api/problem.ts";
import { type ControlServer, type RefusedRequest, startControlServer } from "#api/server.ts";
import type { RunEvent } from "#domain/control.ts";
import { InvariantError, SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import { type NotingControl, addedGrant, grantView, id, notingControl, sessionView, statusView } from "./control.ts";

const token = "t".repeat(43);
let control: NotingControl;
let server: ControlServer;
let client: ControlClient;
let refused: RefusedRequest[];
let internal: { readonly error: unknown; readonly requestId: string }[];

beforeEach(async () => {
  control = notingControl();
  refused = [];
  internal = [];
  server = await startControlServer({
    control,
    host: "127.0.0.1",
    port: 0,
    token,
    onRefused: (one) => refused.push(one),
    onInternalError: (error, requestId) => internal.push({ error, requestId }),
  });
  client = createControlClient({ host: "127.0.0.1", port: server.port, token });
});

afterEach(async () => {
  await client.close();
  await server.close();
});

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

interface RawRequest {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

function raw(request: RawRequest): Promise<Answer> {
  return new Promise((settle, fail) => {
    const { method = "GET", path, headers = {}, body } = request;
    const authorization = { authorization: `Bearer ${token}` };
    const sent: ClientRequest = startRequest(
      { host: "127.0.0.1", port: server.port, method, path, headers: { ...authorization, ...headers } },
      (response: IncomingMessage) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("end", () =>
          settle({
            status: response.statusCode ?? 0,
            type: response.headers["content-type"] ?? "",
            text: Buffer.concat(chunks).toString(),
          }),
        );
      },
    );
    sent.on("error", fail);
    sent.end(body);
  });
}

const json = { "content-type": "application/json" };

describe("every method of the control plane passes through unchanged", () => {
  test("reads", async () => {
    expect(await client.status()).toEqual(statusView);
    expect(await client.listGrants({})).toEqual([grantView]);
    expect(await client.listGrants({ state: "active" })).toEqual([grantView]);
    expect(await client.listSessions()).toEqual([sessionView]);
    expect(control.asked).toEqual([
      ["status"],
      ["listGrants", {}],
      ["listGrants", { state: "active" }],
      ["listSessions"],
    ]);
  });

  test("changes", async () => {
    const input = {
      principal: "support-copilot",
      resource: "billing",
      task: { title: "T-88" },
      tables: [{ schema: "public", table: "customers", verbs: ["select" as const], columns: "all" as const }],
      lifetimeMs: 60_000,
    };
    const run = { principal: "support-copilot", resource: "billing", task: "T-88", command: "npx" };
    const call = { method: "tools/call", tool: "query", parameters: '{"sql":"select 1"}' };
    expect(await client.addGrant(input)).toEqual(addedGrant);
    expect(await client.revokeGrant(grantView.id, "done")).toMatchObject({ state: "ended" });
    expect(await client.startRun(run)).toMatchObject({ runId: "run_r1" });
    expect(await client.openCall(id("run", "r1"), call)).toEqual({ callId: "call_k1" });
    await client.closeCall(id("run", "r1"), id("call", "k1"), { status: "ok", bytes: 10 });
    await client.endRun(id("run", "r1"), "the child exited");
    expect(control.asked).toEqual([
      ["addGrant", input],
      ["revokeGrant", grantView.id, "done"],
      ["startRun", run],
      ["openCall", "run_r1", call],
      ["closeCall", "run_r1", "call_k1", { status: "ok", bytes: 10 }],
      ["endRun", "run_r1", "the child exited"],
    ]);
  });
});

describe("who is let in", () => {
  test.each([
    ["no token", { authorization: "" }],
    ["another token", { authorization: `Bearer ${"u".repeat(43)}` }],
    ["the start of the token", { authorization: `Bearer ${token.slice(0, -1)}` }],
    ["the token with more after it", { authorization: `Bearer ${token}t` }],
    ["the token in another scheme", { authorization: `Basic ${token}` }],
    ["a very long token", { authorization: `Bearer ${"t".repeat(5000)}` }],
  ])("a request with %s is answered 401, is heard of, and reaches nothing", async (_, headers) => {
    const answer = await raw({ path: "/v1/status?x=1", headers });
    expect(answer.status).toBe(401);
    expect(answer.type).toContain("application/problem+json");
    expect(JSON.parse(answer.text)).toMatchObject({ code: "request.token", status: 401, whose: "client" });
    expect(answer.text).not.toContain(token);
    expect(refused).toMatchObject([{ code: "request.token", method: "GET", path: "/v1/status" }]);
    expect(control.asked).toEqual([]);
  });

  test("without the token, routes that are there and routes that are not look the same", async () => {
    const headers = { authorization: "" };
    const answers = await Promise.all(["/v1/status", "/v1/nothing", "/"].map((path) => raw({ path, headers })));
    expect(answers.map((answer) => answer.status)).toEqual([401, 401, 401]);
  });

  test("a name that was rebound to this machine gets nothing, with the right token too", async () => {
    for (const host of ["evil.example", `evil.example:${server.port}`, "127.0.0.1:1", "127.0.0.1"]) {
      const answer = await raw({ path: "/v1/status", headers: { host } });
      expect(JSON.parse(answer.text)).toMatchObject({ code: "request.host", status: 421 });
    }
    expect((await raw({ path: "/v1/status", headers: { host: `localhost:${server.port}` } })).status).toBe(200);
    expect(control.asked).toEqual([["status"]]);
  });

  test.each([{ origin: "https://evil.example" }, { origin: "null" }, { "sec-fetch-site": "cross-site" }])(
    "a web page is not let in: %o",
    async (headers) => {
      const answer = await raw({ path: "/v1/status", headers });
      expect(JSON.parse(answer.text)).toMatchObject({ code: "request.origin", status: 403 });
      expect(control.asked).toEqual([]);
    },
  );

  test("a huge body is not read when the token is wrong", async () => {
    const body = Buffer.alloc(limits.controlBodyBytesMax * 2, 32);
    const sent = raw({ method: "POST", path: "/v1/grants", headers: { ...json, authorization: "Bearer x" }, body });
    // The answer comes before the body has gone out; whether the client still reads it is the socket's luck.
    const answer = await sent.catch(() => null);
    expect(answer === null || answer.status === 401).toBe(true);
    await vi.waitFor(() => expect(refused).toHaveLength(1));
    expect(control.asked).toEqual([]);
  });
});

describe("bad input is a problem with a code, and reaches nothing", () => {
  const post = { method: "POST", path: "/v1/grants", headers: json };

  test.each([
    ["a body that is not JSON", { ...post, body: "{" }, 400, "request.invalid"],
    ["no body", { ...post }, 400, "request.invalid"],
    ["an empty object", { ...post, body: "{}" }, 400, "request.invalid"],
    ["a list", { ...post, body: "[]" }, 400, "request.invalid"],
    ["invalid UTF-8", { ...post, body: Buffer.from([0x22, 0xff, 0xfe, 0x22]) }, 400, "request.invalid"],
    ["text", { ...post, headers: { "content-type": "text/plain" }, body: "x" }, 415, "request.media-type"],
    [
      "a form",
      { ...post, headers: { "content-type": "application/x-www-form-urlencoded" }, body: "a=b" },
      415,
      "request.media-type",
    ],
    ["__proto__", { ...post, body: '{"__proto__":{"principal":"x"}}' }, 400, "request.invalid"],
    ["an unknown route", { path: "/v1/secrets" }, 404, "request.route"],
    ["another method", { method: "DELETE", path: "/v1/grants" }, 404, "request.route"],
    [
      "an id of another kind",
      { method: "POST", path: "/v1/grants/ses_a1/revoke", headers: json, body: '{"reason":"x"}' },
      400,
      "request.invalid",
    ],
    ["a path out of the tree", { path: "/v1/../../etc/passwd" }, 404, "request.route"],
    ["a broken escape", { path: "/v1/runs/%zz/events" }, 400, "request.invalid"],
    ["an unknown filter", { path: "/v1/grants?state=gone" }, 400, "request.invalid"],
    ["an unknown parameter", { path: "/v1/grants?limit=1" }, 400, "request.invalid"],
  ])("%s", async (_, request, status, code) => {
    const answer = await raw(request);
    expect(JSON.parse(answer.text)).toMatchObject({
      status,
      code,
      requestId: expect.stringMatching(/^req_[0-9a-f]{16}$/),
    });
    expect(answer.status).toBe(status);
    expect(answer.type).toContain("application/problem+json");
    expect(control.asked).toEqual([]);
    expect(internal).toEqual([]);
  });

  test("a field that is wrong is named, and its value is not repeated", async () => {
    const body = JSON.stringify({
      principal: "p",
      resource: "r",
      task: { title: "t" },
      lifetimeMs: 60_000,
      tables: [{ schema: "s", table: "t", verbs: ["s3cret-verb"], columns: "all" }],
    });
    const answer = await raw({ ...post, body });
    expect(JSON.parse(answer.text).detail).toContain("body.tables.0.verbs.0");
    expect(answer.text).not.toContain("s3cret-verb");
  });

  test("a body over the limit is refused", async () => {
    const body = Buffer.alloc(limits.controlBodyBytesMax + 1, 32);
    const answer = await raw({ ...post, body }).catch(() => null);
    expect(answer === null || JSON.parse(answer.text).code === "request.too-large").toBe(true);
    expect(control.asked).toEqual([]);
    expect((await client.status()).version).toBe("0.1.0");
  });

  test("a lifetime over the limit of grants is refused", async () => {
    const input = {
      principal: "p",
      resource: "r",
      task: { title: "t" },
      tables: [{ schema: "s", table: "t", verbs: ["select" as const], columns: "all" as const }],
    };
    const sent = client.addGrant({ ...input, lifetimeMs: limits.grantLifetimeMsMax + 1 });
    await expect(sent).rejects.toMatchObject({ code: "request.invalid" });
  });
});

describe("failures", () => {
  test("of ours come back whole: code, whose, message, next step and decision", async () => {
    const thrown = new SallyportError("grant.expired", "principal", "the grant has expired", {
      nextStep: "ask for a new one",
    });
    control.fail = Object.assign(thrown, { decisionId: "dec_7q2" });
    const error = await client.listSessions().catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(RemoteError);
    expect(error).toMatchObject({
      code: "grant.expired",
      whose: "principal",
      message: "the grant has expired",
      nextStep: "ask for a new one",
      decisionId: "dec_7q2",
    });
  });

  test.each([
    ["a bug", new TypeError("cannot read password hunter2 of undefined")],
    ["a broken invariant", new InvariantError("hunter2 in two states")],
  ])("%s leaks nothing: a code and a request id, and the log has the rest", async (_, thrown) => {
    control.fail = thrown;
    const answer = await raw({ path: "/v1/status" });
    expect(answer.status).toBe(500);
    expect(answer.text).not.toContain("hunter2");
    const problem = JSON.parse(answer.text);
    expect(problem.code).toBe("internal");
    expect(internal).toEqual([{ error: thrown, requestId: problem.requestId }]);
  });

  test("an answer with more than the contract says loses the rest", async () => {
    vi.spyOn(control, "status").mockResolvedValue(Object.assign({}, statusView, { password: "hunter2" }));
    expect((await raw({ path: "/v1/status" })).text).not.toContain("hunter2");
  });

  test.each([
    ["grant.unknown", "client", 404],
    ["grant.ended", "principal", 409],
    ["credential.invalid", "client", 400],
    ["ledger.unavailable", "gateway", 503],
    ["resource.unavailable", "upstream", 502],
    ["limit.exceeded", "client", 429],
  ] as const)("%s has its own status", async (code, whose, status) => {
    control.fail = new SallyportError(code, whose, "…");
    expect((await raw({ path: "/v1/status" })).status).toBe(status);
  });
});

describe("the events of a run", () => {
  test("arrive as they happen, and the stream's end ends the run", async () => {
    const leave = new AbortController();
    const seen: RunEvent[] = [];
    const reading = (async () => {
      for await (const event of client.runEvents(id("run", "r1"), leave.signal)) {
        seen.push(event);
      }
    })();
    await vi.waitFor(() => expect(seen).toEqual([{ kind: "hello", runId: "run_r1" }]));
    control.send({ kind: "ended", reason: "the grant was revoked" });
    await vi.waitFor(() => expect(seen).toHaveLength(2));
    expect(control.streamsEnded()).toBe(0);
    leave.abort();
    await reading;
    await vi.waitFor(() => expect(control.streamsEnded()).toBe(1));
  });

  test("end when the reader's process is gone without a word", async () => {
    const socket = connect(server.port, "127.0.0.1");
    const head = `GET /v1/runs/run_r1/events HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nAuthorization: Bearer ${token}\r\n\r\n`;
    socket.write(head);
    const first = await new Promise<string>((settle) => socket.once("data", (data) => settle(String(data))));
    expect(first).toContain("application/x-ndjson");
    socket.destroy();
    await vi.waitFor(() => expect(control.streamsEnded()).toBe(1));
  });

  test("of an unknown run are a problem, not an empty stream", async () => {
    control.fail = new SallyportError("run.unknown", "client", "no such run");
    const events = client.runEvents(id("run", "zz"), new AbortController().signal);
    await expect(events[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: "run.unknown" });
  });

  test("end when the gateway closes, at once", async () => {
    const events = client.runEvents(id("run", "r1"), new AbortController().signal)[Symbol.asyncIterator]();
    await events.next();
    const started = performance.now();
    await server.close();
    expect(await events.next()).toEqual({ done: true, value: undefined });
    expect(performance.now() - started).toBeLessThan(limits.drainMs / 2);
    await vi.waitFor(() => expect(control.streamsEnded()).toBe(1));
  });
});

describe("a client", () => {
  test("of no gateway says how to start one", async () => {
    await server.close();
    await expect(client.status()).rejects.toMatchObject({
      code: "gateway.not-running",
      nextStep: expect.stringContaining("sallyport up"),
    });
  });

  test("of another program says so", async () => {
    const other = createServer((_, response) => response.end("<html>"));
    await new Promise<void>((settle) => other.listen(0, "127.0.0.1", settle));
    const address = other.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const lost = createControlClient({ host: "127.0.0.1", port, token });
    await expect(lost.status()).rejects.toMatchObject({ code: "gateway.unreadable" });
    await lost.close();
    other.close();
  });

  test("does not wait for ever", async () => {
    vi.spyOn(control, "status").mockReturnValue(new Promise(() => {}));
    const hasty = createControlClient({ host: "127.0.0.1", port: server.port, token, timeoutMs: 100 });
    await expect(hasty.status()).rejects.toMatchObject({ code: "gateway.timeout" });
    await hasty.close();
    vi.restoreAllMocks();
  });

  test("uses one connection for one call after the other", async () => {
    let connections = 0;
    const count = (): void => {
      connections += 1;
    };
    subscribe("net.client.socket", count);
    await client.status();
    await client.listSessions();
    await client.endRun(id("run", "r1"), "done");
    unsubscribe("net.client.socket", count);
    expect(connections).toBe(1);
  });
});

test("a port that is taken is said so", async () => {
  const second = startControlServer({
    control,
    host: "127.0.0.1",
    port: server.port,
    token,
    onRefused: () => {},
    onInternalError: () => {},
  });
  await expect(second).rejects.toMatchObject({ code: "control.port-in-use" });
});
