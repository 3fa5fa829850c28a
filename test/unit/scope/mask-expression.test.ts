import { describe, expect, test } from "vitest";
import type { MaskOperator } from "#domain/resource.ts";
import { maskExpression } from "#protocols/postgres/mask-expression.ts";
import type { MaskedInput } from "#protocols/postgres/mask-expression.ts";

function input(name: string, changes: Partial<MaskedInput> = {}): MaskedInput {
  const category = name === "text" ? "S" : "N";
  const type = { name, schema: "pg_catalog", kind: "b", category, sql: name, modifier: -1, collation: null };
  return { column: 'the "column"', type, notNull: false, virtual: false, unicode: true, ...changes };
}

const operators: readonly MaskOperator[] = [
  { kind: "redact" },
  { kind: "null" },
  { kind: "partial", keepLast: 4 },
  { kind: "email" },
  { kind: "date", precision: "month" },
  { kind: "number", roundTo: 100 },
];

describe("a mask's expression", () => {
  test("reads nothing of a column whose reading can fail", () => {
    for (const operator of operators) {
      expect(maskExpression(operator, input("text", { virtual: true })).sql).not.toContain("column");
      expect(maskExpression(operator, input("int4", { virtual: true })).sql).not.toContain("column");
    }
  });

  test("reads nothing to redact a column that has no NULL", () => {
    expect(maskExpression({ kind: "redact" }, input("text", { notNull: true })).sql).toBe(
      "CAST(CAST('•••••' AS pg_catalog.text) AS text)",
    );
    expect(maskExpression({ kind: "redact" }, input("int4", { notNull: true })).sql).toBe("CAST(0 AS int4)");
  });

  test("falls back to redact where it does not fit, and says so", () => {
    const kinds = (name: string): readonly string[] =>
      operators.map((operator) => maskExpression(operator, input(name)).operator.kind);
    expect(kinds("text")).toEqual(["redact", "null", "partial", "email", "redact", "redact"]);
    expect(kinds("int4")).toEqual(["redact", "null", "redact", "redact", "redact", "number"]);
    expect(kinds("timestamptz")).toEqual(["redact", "null", "redact", "redact", "date", "redact"]);
    expect(kinds("bool")).toEqual(["redact", "null", "redact", "redact", "redact", "redact"]);
  });

  test("keeps no more than it says when nothing is to be kept", () => {
    expect(maskExpression({ kind: "partial", keepLast: 0 }, input("text")).sql).toContain("|| ''");
  });

  test("has no dot where the database's encoding has none", () => {
    for (const operator of operators) {
      // eslint-disable-next-line no-control-regex -- all of ASCII
      expect(maskExpression(operator, input("text", { unicode: false })).sql).toMatch(/^[\x00-\x7f]*$/);
    }
  });

  test("truncates moments in UTC, whatever zone a session sets", () => {
    expect(maskExpression({ kind: "date", precision: "month" }, input("timestamptz")).sql).toContain("'UTC'");
  });

  test("refuses a step that is none", () => {
    for (const roundTo of [0, -5, 1.5, Number.NaN]) {
      expect(maskExpression({ kind: "number", roundTo }, input("int4")).operator.kind).toBe("redact");
    }
  });
});
