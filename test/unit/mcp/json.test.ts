import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type JsonSpan, elementsOf, findFault, membersOf, rootOf, stringOf, textOf } from "#protocols/mcp/json.ts";

const depthMax = 64;
const runs = { numRuns: 2000 };

function bytesOf(text: string): Uint8Array {
  return Buffer.from(text, "utf8");
}

function parses(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The slow, obvious version: rebuilds the value from the spans. */
function rebuild(bytes: Uint8Array, span: JsonSpan): unknown {
  if (span.kind === "object") {
    return Object.fromEntries(membersOf(bytes, span).map((member) => [member.key, rebuild(bytes, member)]));
  }
  if (span.kind === "array") {
    return elementsOf(bytes, span).map((element) => rebuild(bytes, element));
  }
  return span.kind === "string" ? stringOf(bytes, span) : JSON.parse(textOf(bytes, span));
}

describe("the JSON reader", () => {
  test("accepts what JSON.parse accepts and reads the same from it", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), fc.constantFrom(0, 1, 3), (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        const bytes = bytesOf(text);
        expect(findFault(bytes, depthMax)).toBeNull();
        expect(rebuild(bytes, rootOf(bytes))).toEqual(JSON.parse(text));
      }),
      runs,
    );
  });

  test("agrees with JSON.parse on every text made of JSON's own characters", () => {
    const characters = fc.constantFrom(...'{}[]":,.-+0123eEutrfalsn\\/ \t\u00e9');
    fc.assert(
      fc.property(fc.string({ unit: characters, maxLength: 12 }), (text) => {
        const fault = findFault(bytesOf(text), depthMax);
        if (fault === null || fault.fault === "syntax") {
          expect(fault === null).toBe(parses(text));
        } else {
          expect(fault.fault).toBe("duplicate-key");
        }
      }),
      { ...runs, numRuns: 20_000 },
    );
  });

  test("agrees with JSON.parse after one byte of a JSON text was changed, taken away or put in", () => {
    fc.assert(
      fc.property(
        fc.jsonValue({ maxDepth: 4 }),
        fc.nat(),
        fc.constantFrom("change", "remove", "insert"),
        fc.integer({ min: 0x20, max: 0x7e }),
        (value, position, how, byte) => {
          const text = JSON.stringify(value);
          const at = position % (text.length + 1);
          const rest = how === "insert" ? text.slice(at) : text.slice(at + 1);
          const damaged = text.slice(0, at) + (how === "remove" ? "" : String.fromCharCode(byte)) + rest;
          const fault = findFault(bytesOf(damaged), depthMax);
          if (fault === null || fault.fault === "syntax") {
            expect(fault === null).toBe(parses(damaged));
          }
        },
      ),
      { ...runs, numRuns: 10_000 },
    );
  });

  test("finds no whole value in a value that was cut short", () => {
    const text = '{"jsonrpc":"2.0","id":1,"params":{"a":[1.5e3,"x\\u00e9\\"y",null,true]}}';
    for (let length = 0; length < text.length; length += 1) {
      expect(findFault(bytesOf(text.slice(0, length)), depthMax)?.fault).toBe("syntax");
    }
  });

  test("refuses a key that occurs twice, at any depth and however it is escaped", () => {
    for (const text of [
      '{"a":1,"a":2}',
      '{"a":1,"\\u0061":2}',
      '[{"b":{"a":1,"c":3,"a":2}}]',
      '{"":1,"":2}',
      '{"__proto__":1,"__proto__":2}',
    ]) {
      expect(findFault(bytesOf(text), depthMax)?.fault).toBe("duplicate-key");
    }
    expect(findFault(bytesOf('[{"a":1},{"a":2},{"b":{"a":1},"a":{"b":2}}]'), depthMax)).toBeNull();
  });

  test("refuses half of a surrogate pair in a key and leaves it in a value", () => {
    expect(findFault(bytesOf('{"\\ud800":1}'), depthMax)?.fault).toBe("ambiguous-key");
    expect(findFault(bytesOf('{"a":"\\ud800"}'), depthMax)).toBeNull();
  });

  test("refuses a carriage return anywhere but at the end", () => {
    expect(findFault(bytesOf('{"a":\r1}'), depthMax)?.fault).toBe("carriage-return");
    expect(findFault(bytesOf('{"a":1}\r\r'), depthMax)?.fault).toBe("carriage-return");
    expect(findFault(bytesOf('{"a":1}\r'), depthMax)).toBeNull();
  });

  test("refuses what is not UTF-8, overlong forms and encoded surrogates included", () => {
    for (const hex of ["22ff22", "22c0af22", "22eda08022", "22f490808022"]) {
      expect(findFault(Buffer.from(hex, "hex"), depthMax)?.fault).toBe("encoding");
    }
  });

  test("refuses nesting past the limit without using the call stack", () => {
    const bomb = "[".repeat(5_000_000);
    expect(findFault(bytesOf(bomb), depthMax)?.fault).toBe("depth");
    expect(findFault(bytesOf("[".repeat(depthMax) + "]".repeat(depthMax)), depthMax)).toBeNull();
    expect(findFault(bytesOf("[".repeat(depthMax + 1) + "]".repeat(depthMax + 1)), depthMax)?.fault).toBe("depth");
    const objects = '{"a":'.repeat(depthMax + 1) + "1" + "}".repeat(depthMax + 1);
    expect(findFault(bytesOf(objects), depthMax)?.fault).toBe("depth");
  });

  test("works on a view into the middle of a larger buffer", () => {
    const whole = bytesOf('xx{"k":"v\\n"}yy');
    const view = whole.subarray(2, whole.length - 2);
    expect(findFault(view, depthMax)).toBeNull();
    expect(rebuild(view, rootOf(view))).toEqual({ k: "v\n" });
  });
});
