/** Lines that one parser reads as harmless and another as a tool call. None may pass unrecorded, so none passes. */
import { describe, expect, test } from "vitest";
import { limits } from "#domain/limits.ts";
import { readLine } from "#protocols/mcp/message.ts";

const call =
  '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query","arguments":{"sql":"drop table invoices"}}}';

const attacks: readonly (readonly [string, string | Uint8Array])[] = [
  ["the method twice", '{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"query"}}'],
  [
    "the method twice, once escaped",
    '{"jsonrpc":"2.0","id":1,"method":"ping","\\u006dethod":"tools/call","params":{"name":"query"}}',
  ],
  ["the id twice", '{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}'],
  ["an id for some readers only", '{"jsonrpc":"2.0","ID":1,"method":"tools/call","params":{"name":"query"}}'],
  ["the method in another case", '{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}'],
  ["the method in another case alone", '{"jsonrpc":"2.0","id":1,"METHOD":"tools/call"}'],
  ["a long s in params", '{"jsonrpc":"2.0","id":1,"method":"ping","param\u017f":{}}'],
  ["a full-width letter in method", '{"jsonrpc":"2.0","id":1,"method":"ping","\uff4dethod":"tools/call"}'],
  ["tools/call in another case", '{"jsonrpc":"2.0","id":1,"method":"Tools/Call","params":{"name":"query"}}'],
  ["the tool's name twice", '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"query"}}'],
  [
    "the tool's name in another case",
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"query"}}',
  ],
  [
    "an argument twice",
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"q","arguments":{"sql":"select 1","sql":"drop table x"}}}',
  ],
  [
    "a request that is also a response",
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"q"},"result":{}}',
  ],
  ["a result and an error", '{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}'],
  ["a call between carriage returns", `{"jsonrpc":"2.0","method":"notifications/x","params":\r${call}\r}`],
  ["a call behind a byte order mark", Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(call)])],
  ["a call after another value", `{} ${call}`],
  ["a call after a NUL", `{"jsonrpc":"2.0","method":"x"}\0${call}`],
  [
    "overlong UTF-8 in the method",
    Buffer.concat([
      Buffer.from('{"jsonrpc":"2.0","id":1,"method":"tools'),
      Buffer.from([0xc0, 0xaf]),
      Buffer.from('call"}'),
    ]),
  ],
  ["UTF-16", Buffer.from(call, "utf16le")],
  ["a member that is not looked at", '{"jsonrpc":"2.0","id":1,"method":"ping","tool":"query"}'],
  ["a request with the id null", '{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"query"}}'],
  ["a call without an id", '{"jsonrpc":"2.0","method":"tools/call","params":{"name":"query"}}'],
  ["a call without an id in a batch", `[${call},{"jsonrpc":"2.0","method":"tools/call","params":{"name":"query"}}]`],
  ["another request without an id", '{"jsonrpc":"2.0","method":"resources/read","params":{"uri":"postgres://x"}}'],
  ["a notification in another case", '{"jsonrpc":"2.0","method":"Notifications/initialized"}'],
  ["a notification behind a space", '{"jsonrpc":"2.0","method":" notifications/initialized"}'],
  ["a notification behind a zero-width space", '{"jsonrpc":"2.0","method":"\\u200bnotifications/initialized"}'],
  ["a notification in full-width letters", '{"jsonrpc":"2.0","method":"\uff4eotifications/initialized"}'],
  ["a notification with a full-width slash", '{"jsonrpc":"2.0","method":"notifications\uff0finitialized"}'],
  ["a notification without a name", '{"jsonrpc":"2.0","method":"notifications/"}'],
  ["a notification without its slash", '{"jsonrpc":"2.0","method":"notifications"}'],
  ["a notification with the id null", '{"jsonrpc":"2.0","id":null,"method":"notifications/initialized"}'],
  ["a notification with an id for some readers", '{"jsonrpc":"2.0","Id":1,"method":"notifications/initialized"}'],
  ["a notification with a result", '{"jsonrpc":"2.0","method":"notifications/initialized","result":{}}'],
  ["a response that is also a call", '{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""},"method":"tools/call"}'],
  ["a response with parameters", '{"jsonrpc":"2.0","id":1,"result":{},"params":{"name":"query"}}'],
  ["tools/call before a space", '{"jsonrpc":"2.0","id":1,"method":"tools/call ","params":{"name":"query"}}'],
  ["tools/call with a soft hyphen", '{"jsonrpc":"2.0","id":1,"method":"tools/\\u00adcall","params":{"name":"query"}}'],
  [
    "tools/call with a Cyrillic letter",
    '{"jsonrpc":"2.0","id":1,"method":"tools/\u0441all","params":{"name":"query"}}',
  ],
  ["an id that is an object", '{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}'],
  ["an id that is a truth value", '{"jsonrpc":"2.0","id":true,"method":"ping"}'],
  ["an id past 2^53", '{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}'],
  ["an id past every float", '{"jsonrpc":"2.0","id":1e999,"method":"ping"}'],
  ["an id with a fraction", '{"jsonrpc":"2.0","id":1.0,"method":"ping"}'],
  ["an id of minus zero", '{"jsonrpc":"2.0","id":-0,"method":"ping"}'],
  ["an id of half a surrogate pair", '{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}'],
  ["an id that is too long", `{"jsonrpc":"2.0","id":"${"x".repeat(300)}","method":"ping"}`],
  ["a method with a line feed", '{"jsonrpc":"2.0","id":1,"method":"ping\\n"}'],
  ["a method that is no string", '{"jsonrpc":"2.0","id":1,"method":["tools/call"]}'],
  ["an empty method", '{"jsonrpc":"2.0","id":1,"method":""}'],
  ["a tool that is no string", '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":{"a":1}}}'],
  ["a call without parameters", '{"jsonrpc":"2.0","id":1,"method":"tools/call"}'],
  ["a call with parameters by position", '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["query"]}'],
  ["another version", '{"jsonrpc":"1.0","id":1,"method":"ping"}'],
  ["no version", '{"id":1,"method":"tools/call","params":{"name":"query"}}'],
  ["an empty batch", "[]"],
  ["a batch in a batch", `[[${call}]]`],
  ["a batch with one bad message", `[${call},{"jsonrpc":"2.0","id":2,"method":"ping","method":"x"}]`],
  ["a batch with one id twice", `[${call},${call}]`],
  [
    "a batch that is too long",
    `[${Array.from({ length: 65 }, (_, id) => `{"jsonrpc":"2.0","id":${id},"method":"ping"}`).join(",")}]`,
  ],
  ["a comment", `/* */${call}`],
  ["a trailing comma", '{"jsonrpc":"2.0","id":1,"method":"ping",}'],
  ["single quotes", "{'jsonrpc':'2.0','id':1,'method':'ping'}"],
  ["a bare word", '{"jsonrpc":"2.0","id":NaN,"method":"ping"}'],
  ["a nesting bomb", `{"jsonrpc":"2.0","id":1,"method":"ping","params":${"[".repeat(100_000)}${"]".repeat(100_000)}}`],
];

describe("a line that two parsers could read differently is refused", () => {
  test.each(attacks)("%s", (_, line) => {
    const result = readLine(typeof line === "string" ? Buffer.from(`${line}\n`, "utf8") : line, limits);
    expect(result.kind).toBe("refused");
  });

  test("and the honest call passes", () => {
    expect(readLine(Buffer.from(`${call}\n`), limits).kind).toBe("single");
    expect(readLine(Buffer.from(`${call}\r\n`), limits).kind).toBe("single");
  });
});
