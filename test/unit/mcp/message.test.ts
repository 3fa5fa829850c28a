import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { limits } from "#domain/limits.ts";
import { type RpcLine, errorLine, guessIds, readLine } from "#protocols/mcp/message.ts";

function read(line: string): RpcLine {
  return readLine(Buffer.from(`${line}\n`, "utf8"), limits);
}

function single(line: string): unknown {
  const result = read(line);
  return result.kind === "single" ? result.message : result;
}

describe("reading a line of JSON-RPC", () => {
  test("a tool call keeps its id, its tool and its parameters as they were sent", () => {
    expect(
      single(
        '{"jsonrpc":"2.0","id":"a\\u0062","method":"tools/call","params":{ "name":"query", "arguments":{"sql":"s\\u0065lect 1"}}}',
      ),
    ).toEqual({
      kind: "request",
      id: { key: '"ab"', literal: '"a\\u0062"' },
      method: "tools/call",
      tool: "query",
      parameters: '{ "name":"query", "arguments":{"sql":"s\\u0065lect 1"}}',
    });
  });

  test("every request that the official client can make reads as what it is", () => {
    const id = fc.oneof(fc.integer({ min: -1e14, max: 1e14 }), fc.string({ maxLength: 40 }));
    const parameters = fc.option(fc.dictionary(fc.string({ maxLength: 8 }), fc.jsonValue({ maxDepth: 3 })), {
      nil: undefined,
    });
    fc.assert(
      fc.property(
        id,
        fc.constantFrom("initialize", "ping", "tools/list", "resources/read"),
        parameters,
        (value, method, params) => {
          const message = single(JSON.stringify({ method, params, jsonrpc: "2.0", id: value }));
          expect(message).toEqual({
            kind: "request",
            id: { key: JSON.stringify(value), literal: JSON.stringify(value) },
            method,
            tool: null,
            parameters: params === undefined ? "" : JSON.stringify(params),
          });
        },
      ),
      { numRuns: 1000 },
    );
  });

  test("tells notifications, and which request a cancellation names", () => {
    expect(single('{"jsonrpc":"2.0","method":"notifications/initialized"}')).toEqual({
      kind: "notification",
      method: "notifications/initialized",
      cancels: null,
    });
    expect(
      single('{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"reason":"x"}}'),
    ).toEqual({
      kind: "notification",
      method: "notifications/cancelled",
      cancels: { key: "7", literal: "7" },
    });
  });

  test("tells a result, a tool's own error and a protocol error", () => {
    const status = (line: string): unknown => {
      const result = read(line);
      return result.kind === "single" && result.message.kind === "response" ? result.message.status : result;
    };
    expect(status('{"jsonrpc":"2.0","id":1,"result":{"content":[]}}')).toBe("ok");
    expect(status('{"jsonrpc":"2.0","id":1,"result":{"content":[{"isError":true}],"isError":false}}')).toBe("ok");
    expect(status('{"jsonrpc":"2.0","id":1,"result":{"isError":true}}')).toBe("tool-error");
    expect(status('{"jsonrpc":"2.0","id":1,"result":true}')).toBe("ok");
    expect(status('{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"x"}}')).toBe("error");
    expect(status('{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}')).toBe("error");
  });

  test("reads every message of a batch", () => {
    const result = read(
      '[{"jsonrpc":"2.0","id":1,"method":"ping"}, {"jsonrpc":"2.0","method":"notifications/x"},{"jsonrpc":"2.0","id":2,"result":{}}]',
    );
    expect(result.kind === "batch" ? result.messages.map((message) => message.kind) : result).toEqual([
      "request",
      "notification",
      "response",
    ]);
  });

  test("the number 1 and the string 1 are different requests", () => {
    const keys = ["1", '"1"'].map((id) => {
      const message = read(`{"jsonrpc":"2.0","id":${id},"method":"ping"}`);
      return message.kind === "single" && message.message.kind === "request" ? message.message.id.key : "";
    });
    expect(new Set(keys).size).toBe(2);
  });

  test("blank lines are blank, and a line of spaces is not a message", () => {
    expect(readLine(Buffer.from("\n"), limits).kind).toBe("blank");
    expect(readLine(Buffer.from("\r\n"), limits).kind).toBe("blank");
    expect(read("   ").kind).toBe("refused");
  });

  test("never throws, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        expect(["blank", "single", "batch", "refused"]).toContain(readLine(bytes, limits).kind);
      }),
      { numRuns: 5000 },
    );
  });

  test("a message damaged in one place is never read as another request", () => {
    const line =
      '{"jsonrpc":"2.0","id":12,"method":"tools/call","params":{"name":"query","arguments":{"sql":"select 1"}}}';
    fc.assert(
      fc.property(fc.nat({ max: line.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const bytes = Buffer.from(line, "utf8");
        bytes[at] = (bytes[at] ?? 0) ^ flip;
        const result = readLine(bytes, limits);
        if (result.kind === "single" && result.message.kind === "request" && !bytes.includes(0x0a)) {
          // What still reads as a request is what a plain parser sees too.
          const plain: unknown = JSON.parse(bytes.toString("utf8"));
          expect(plain).toMatchObject({ method: result.message.method, id: JSON.parse(result.message.id.literal) });
        }
      }),
      { numRuns: 5000 },
    );
  });

  test("an error line is one line of JSON with the id as it was sent", () => {
    const line = errorLine(
      { key: '"a\\n"', literal: '"a\\n"' },
      { rpcCode: -32001, message: "no\nway", data: { code: "x" } },
    );
    const text = Buffer.from(line).toString("utf8");
    expect(text.indexOf("\n")).toBe(text.length - 1);
    expect(JSON.parse(text)).toEqual({
      jsonrpc: "2.0",
      id: "a\n",
      error: { code: -32001, message: "no\nway", data: { code: "x" } },
    });
  });

  test("the id of an unreadable line is found where clients put it", () => {
    const ids = (text: string): readonly string[] => guessIds(Buffer.from(text), limits).map((id) => id.literal);
    expect(ids('{"method":"tools/call","params":{"id":9,"x":"… cut … "},"jsonrpc":"2.0","id":5}\n')).toEqual(["5"]);
    expect(ids('{"jsonrpc":"2.0","id":"q-1","method":"tools/call","params":{')).toEqual(['"q-1"']);
    expect(ids("garbage")).toEqual([]);
    expect(ids('{"params":{"id":5}}')).toEqual([]);
  });
});
