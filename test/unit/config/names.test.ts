import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseDurationMs, splitDottedName, suggestWord } from "#config-names.ts";

describe("dotted names", () => {
  test("split as PostgreSQL splits them, but never fold capitals", () => {
    expect(splitDottedName("public.customers", 2)).toEqual(["public", "customers"]);
    expect(splitDottedName('public."Order Items"', 2)).toEqual(["public", "Order Items"]);
    expect(splitDottedName('"a.b"."c""d"', 2)).toEqual(["a.b", 'c"d']);
    for (const text of [
      "",
      ".",
      "a.",
      ".a",
      "a",
      "a.b.c",
      "A.b",
      "a b.c",
      'a."',
      'a.""',
      "a.b ",
      "1a.b",
      'a."b"c',
      `a.${"x".repeat(64)}`,
    ]) {
      expect(splitDottedName(text, 2)).toBeNull();
    }
  });

  test("that were quoted come back as they were", () => {
    const part = fc
      .string({ minLength: 1, maxLength: 20 })
      .filter((text) => !text.includes("\0") && Buffer.byteLength(text) <= 63);
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), (parts) => {
        const text = parts.map((one) => `"${one.replaceAll('"', '""')}"`).join(".");
        expect(splitDottedName(text, parts.length)).toEqual(parts);
        expect(splitDottedName(text, parts.length + 1)).toBeNull();
      }),
    );
  });
});

test("durations have a unit and are not zero", () => {
  expect(["45s", "30m", "8h", "7d"].map(parseDurationMs)).toEqual([45_000, 1_800_000, 28_800_000, 604_800_000]);
  expect(["", "0m", "30", "m", "-5m", "5 m", "1.5h", "5w", "99999999s"].map(parseDurationMs)).toEqual(
    Array(9).fill(null),
  );
});

test("a word nearly right is recognised, a different one is not", () => {
  const known = ["principal", "resource", "task", "expires"];
  expect(suggestWord("principle", known)).toBe("principal");
  expect(suggestWord("resuorce", known)).toBe("resource");
  expect(suggestWord("taks", known)).toBe("task");
  expect(suggestWord("EXPIRE", known)).toBe("expires");
  expect(suggestWord("columns", known)).toBeNull();
  expect(suggestWord("x".repeat(100_000), known)).toBeNull();
});
