import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { limits } from "#domain/limits.ts";
import { estimateNesting } from "#sql/nesting.ts";
import { analyze, syntheticContext, verdictOf } from "../../support/sql-analysis.ts";

describe("text that cannot pass is refused before anything is made of it", () => {
  test.each([
    ["a zero byte", "select 1\u0000; drop table customers", "statement.encoding"],
    ["a lone surrogate", "select '\ud800'", "statement.encoding"],
    ["an oversized statement", `select '${"x".repeat(limits.statementBytesMax)}'`, "statement.too-large"],
    [
      "a comment that hides a statement past the limit",
      `/*${"x".repeat(limits.statementBytesMax)}*/ delete from customers`,
      "statement.too-large",
    ],
    ["too many statements", "select 1;".repeat(limits.statementsPerQueryMax + 1), "statement.too-large"],
    ["an unterminated comment", "select 1 /* ", "statement.syntax"],
    ["an unterminated string", "select 'x", "statement.syntax"],
    ["a nested comment left open", "select 1 /* /* */", "statement.syntax"],
  ])("%s", (_, text, code) => {
    expect(verdictOf(text)).toBe(code);
  });

  test("a syntax error says where, in characters", () => {
    const result = analyze("select 'é' frm x y", syntheticContext);
    expect(result).toMatchObject({ refused: true, code: "statement.syntax" });
    expect(result.refused && result.reason).toContain('syntax error at or near "x" at character 16');
  });

  test("as many statements as allowed pass, and each knows its bytes", () => {
    const result = analyze("select 'é'; select 2 ;select 3", syntheticContext);
    expect(result.refused ? null : result.statements.map(({ start, length }) => [start, length])).toEqual([
      [0, 11],
      [13, 9],
      [23, 8],
    ]);
  });

  test.each(["", "   ", "-- nothing", ";;", "/* a /* b */ c */"])("%j is one empty statement", (text) => {
    const result = analyze(text, syntheticContext);
    expect(result.refused ? result : result.statements.map(({ kind, pure }) => [kind, pure])).toEqual([
      ["empty", true],
    ]);
  });
});

describe("depth is bounded before the recursive parser sees the text", () => {
  const deep: readonly (readonly [string, (n: number) => string])[] = [
    ["operators", (n) => `select 1${"+1".repeat(n)}`],
    ["brackets", (n) => `select ${"(".repeat(n)}1${")".repeat(n)}`],
    ["subqueries", (n) => `select * from ${"(select * from ".repeat(n)}t${") x".repeat(n)}`],
    ["NOT", (n) => `select ${"not ".repeat(n)}true`],
    ["CASE", (n) => `select ${"case when true then ".repeat(n)}1${" end".repeat(n)}`],
    ["joins", (n) => `select 1 from a${" join b on true".repeat(n)}`],
    ["set operations", (n) => `select 1${" union select 1".repeat(n)}`],
    ["casts", (n) => `select 1${"::int".repeat(n)}`],
    ["IS NULL", (n) => `select 1${" is null".repeat(n)}`],
    ["COLLATE", (n) => `select 'a'${' collate "C"'.repeat(n)}`],
    ["names that look like AND", (n) => `select a.and${"+a.and".repeat(n)}`],
    ["names that look like AND behind a comment", (n) => `select a.and${"+a. /**/ and".repeat(n)}`],
    ["operators behind a string that ends in a backslash", (n) => `select x'\\'${"+1".repeat(n)}`],
    ["arrays", (n) => `select ${"array[".repeat(n)}${"]".repeat(n)}`],
    ["calls", (n) => `select ${"lower(".repeat(n)}'a'${")".repeat(n)}`],
  ];

  test.each(deep)("%s", (_, make) => {
    for (const n of [1000, 20_000, 100_000]) {
      expect(["statement.too-deep", "statement.syntax", "statement.too-large"]).toContain(verdictOf(make(n)));
    }
    // The parser is whole after all of it.
    expect(verdictOf("select 1")).toBe("accepted");
  });

  test("long flat lists pass", () => {
    const numbers = Array.from({ length: 20_000 }, (_, i) => String(i));
    expect(verdictOf(`select 1 from invoices where id in (${numbers.join(", ")})`)).toBe("accepted");
    expect(verdictOf(`select 1 where true${" and 1 = 1".repeat(5000)}`)).toBe("accepted");
    expect(verdictOf(`select '${"(".repeat(50_000)}', $x$${"(".repeat(50_000)}$x$ -- ${"(".repeat(1000)}`)).toBe(
      "accepted",
    );
  });

  test("the bound is at least the depth of the brackets outside of strings and comments", () => {
    const piece = fc.constantFrom(
      "(",
      "(",
      "[",
      "'((('",
      '"(("',
      "/* (( */",
      "$$((($$",
      "e'\\'(('",
      "x",
      "+",
      "-- ((\n",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
        const open = pieces.filter((one) => one === "(" || one === "[").length;
        expect(estimateNesting(pieces.join(" "))).toBeGreaterThanOrEqual(open);
      }),
    );
  });
});

describe("names are cut and folded as the server does, or refused", () => {
  test("a long name outside ASCII is refused, since the server could cut it elsewhere", () => {
    expect(verdictOf(`select id as "${"é".repeat(40)}" from invoices`)).toBe("name.unsupported-form");
    expect(verdictOf(`select id as "${"x".repeat(80)}" from invoices`)).toBe("accepted");
    expect(verdictOf('select id as "é" from invoices')).toBe("accepted");
  });

  test("where the server does not speak UTF-8, names are ASCII", () => {
    const context = { ...syntheticContext, catalog: { ...syntheticContext.catalog, encoding: "LATIN1" } };
    expect(verdictOf('select id as "é" from invoices', context)).toBe("name.unsupported-form");
    expect(verdictOf("select id from invoices", context)).toBe("accepted");
  });
});
