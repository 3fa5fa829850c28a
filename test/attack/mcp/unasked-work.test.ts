/** An agent that wants a query run without a record of the call: the server here does whatever `method` says, id or not. */
import { describe, expect, test } from "vitest";
import { refusedMethod } from "#cli/run-obstacle.ts";
import { request, startRunHarness } from "../../support/run-harness.ts";

/** `exit` ends the server at once, so that a line that reached it shows. */
const attacks: readonly (readonly [string, unknown])[] = [
  ["a request without an id", { jsonrpc: "2.0", method: "exit", params: { code: 9 } }],
  ["a request without an id in a batch", [request(7, "ping"), { jsonrpc: "2.0", method: "exit", params: { code: 9 } }]],
  [
    "a batch of a notification and a request without an id",
    [
      { jsonrpc: "2.0", method: "notifications/initialized" },
      { jsonrpc: "2.0", method: "exit", params: { code: 9 } },
    ],
  ],
  ["a request with the id null", { jsonrpc: "2.0", id: null, method: "exit", params: { code: 9 } }],
  ["a request that calls itself a notification", { jsonrpc: "2.0", method: "notifications/exit", params: { code: 9 } }],
  [
    "such a request in a batch",
    [request(7, "ping"), { jsonrpc: "2.0", method: "notifications/exit", params: { code: 9 } }],
  ],
  [
    "a path behind the prefix of notifications",
    { jsonrpc: "2.0", method: "notifications/../exit", params: { code: 9 } },
  ],
  [
    "a notification of MCP with something behind it",
    { jsonrpc: "2.0", method: "notifications/initialized/exit", params: { code: 9 } },
  ],
];

describe("what is no recorded request makes the server do nothing", () => {
  test.each(attacks)("%s", async (_, line) => {
    const run = startRunHarness();
    run.send(request(1, "hang"));
    run.send(line);
    const refusal = await run.answer(1);
    expect(refusal.error?.data?.["code"]).toBe("mcp.invalid");
    expect(refusal.error?.data?.["call"]).toMatch(/^call_/);
    run.send(request(2, "echo"));
    expect((await run.answer(2)).id).toBe(2);
    expect(run.control.opened().map((call) => call.method)).toEqual(["hang", refusedMethod, "echo"]);
    run.stop("SIGTERM");
    expect(await run.exit).toBe(143);
  });

  test("the notifications of MCP pass", async () => {
    const run = startRunHarness();
    run.send(request(1, "echo"));
    await run.answer(1);
    for (const name of ["initialized", "progress", "roots/list_changed"]) {
      run.send({ jsonrpc: "2.0", method: `notifications/${name}` });
    }
    run.send(request(2, "notes"));
    expect((await run.answer(2)).result).toEqual({
      methods: ["notifications/initialized", "notifications/progress", "notifications/roots/list_changed"],
    });
    run.stdin.end();
    expect(await run.exit).toBe(0);
  });
});
