/**
 * The parser is recursive and shared: a statement that overflows it must be refused before it gets there, and one that gets there
 * all the same must leave no trace.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { GrammarModule } from "#sql/grammar-module.ts";
import { parserOf } from "#sql/parse.ts";
import { StatementRefused } from "#sql/refused.ts";

const grammar = await GrammarModule.load();
const parse = parserOf(grammar);

/** What became of a text, and how often the parser's instance had to be replaced for it. */
function outcomeOf(text: string): { readonly outcome: string; readonly replacements: number } {
  const before = grammar.replacements;
  let outcome = "parsed";
  try {
    parse(text);
  } catch (error) {
    if (!(error instanceof StatementRefused)) {
      throw error;
    }
    outcome = error.code;
  }
  // A broken instance is replaced when the next text comes.
  parse("select 1");
  return { outcome, replacements: grammar.replacements - before };
}

const depth = 15_000;

/** Repeats `prefix` and `suffix` around a middle. */
function around(prefix: string, middle: string, suffix: string, count = depth): string {
  return `${prefix.repeat(count)}${middle}${suffix.repeat(count)}`;
}

describe("a statement that is too deep does not reach the parser, however it is dressed", () => {
  test.each<readonly [string, string]>([
    ["an escape string that goes on after a line break", `select e'a'\n'b\\'' , 1${"+1".repeat(depth)} -- '`],
    ["one that goes on after a comment", `select e'a' -- x\n -- '\n 'b\\'' , 1${"+1".repeat(depth)} -- '`],
    ["a doubled quote in an escape string", `select e'a''\\'', 1${"+1".repeat(depth)} -- '`],
    ["a doubled quote before an escaped one", `select e'''\\''||'' ${"+1".repeat(depth)} -- '`],
    ["a keyword after a number with a dot", `select 1${" at time zone 1. ".repeat(depth)} at time zone 1`],
    ["a keyword after a number that starts with a dot", `select .5${" at time zone 1.".repeat(depth)} at time zone 1`],
    ["a keyword after an exponent", `select 1${" collate a.b at time zone 1.e5 ".repeat(depth)}`],
    ["BETWEEN whose AND does not end it", `select ${"1 between 1 and not ".repeat(depth)} 1`],
    ["NOT BETWEEN SYMMETRIC", `select ${"1 not between symmetric 1 and not ".repeat(depth)} 1`],
    ["IS DISTINCT FROM", `select ${"1 is distinct from not ".repeat(depth)} 1`],
    ["IS NOT DISTINCT /* */ FROM", `select ${"1 is not distinct /* x */\n from not ".repeat(depth)} 1`],
    ["WITHIN GROUP", `select ${"f(1) within group (order by 1) + ".repeat(depth)} 1`],
    ["an output named end", `select * from ${around("(select 1 as end from ", "t", ") q")}`],
    ["a bare output named end", `select * from ${around("(select 1 end from ", "t", ") q")}`],
    ["an output named case", `select * from ${around("(select 1 as case, 2 as end from ", "t", ") q")}`],
    ["a parameter beside a dollar quote", `select $1$$ ' $$${"+1".repeat(depth)} -- $$ ' $$`],
    ["a name that holds a dollar quote", `select a$$ + b$$${"+1".repeat(depth)}`],
    ["plain brackets", `select ${around("(", "1", ")")}`],
    ["CASE", `select ${around("case when 1 then ", "1", " end")}`],
    ["ELSE CASE", `select ${around("case 1 when 1 then 1 else ", "1", " end")}`],
    ["joins", `select 1 from t ${"join t on 1 ".repeat(depth)}`],
    ["joins that lean to the right", `select 1 from ${around("t join ", "t", " on 1")}`],
    ["set operations", `select 1 ${"union all select 1 ".repeat(depth)}`],
    ["a range's bounds", `select ${around("a[1:", "1", "]")}`],
    ["typecasts", `select 1${"::int".repeat(depth)}`],
    ["prefix operators", `select ${"- ".repeat(depth)}1`],
    ["COLLATE", `select 'a'${' collate "C"'.repeat(depth)}`],
    ["many statements in a message", `${"select 1;".repeat(20)} select ${"- ".repeat(depth)}1`],
  ])("%s", (_, text) => {
    expect(outcomeOf(text).replacements).toBe(0);
  });
});

/** What can stand around an expression and nest it one level deeper, and what can stand beside it. */
const wraps: readonly (readonly [string, string])[] = [
  ["(", ")"],
  ["not ", ""],
  ["- ", ""],
  ["+", ""],
  ["1 + ", ""],
  ["1 between 1 and not ", ""],
  ["1 between 1 and - ", ""],
  ["1 is distinct from not ", ""],
  ["1 and not ", ""],
  ["1 or not ", ""],
  ["1 at time zone 1. + ", ""],
  ["e'a'\n'\\'' || ", ""],
  ["e'''\\'' || ", ""],
  ["U&'\\0041''' || ", ""],
  ["$$ ' $$ || ", ""],
  ["$a$ $$ ' $a$ || ", ""],
  ['"a""b" || ', ""],
  ["/* ' /* \" */ ' */ 1 + ", ""],
  ["1 -- '\n + ", ""],
  ["case when ", " then 1 end"],
  ["case when 1 then 1 else ", " end"],
  ["case ", " when 1 then 1 end"],
  ["f(", ")"],
  ["f(1) within group (order by 1) + ", ""],
  ["f(1) filter (where ", ")"],
  ["f(a => ", ")"],
  ["array[", "]"],
  ["row(1, ", ")"],
  ["(select ", " as end)"],
  ["(select 1 end, ", ")"],
  ["(select 1 as case, ", " as end)"],
  ["(select 1 from t where ", " order by 1 limit 1)"],
  ["exists (select ", ")"],
  ["coalesce(1, ", ")"],
  ["extract(year from ", ")"],
  ["substring('a' from ", " for 1)"],
  ["trim(both from ", ")"],
  ["overlay('a' placing ", " from 1)"],
  ["cast(", " as int)"],
  ["1 in (2, ", ")"],
  ["1 like ", ""],
  ["1 like 2 escape ", ""],
  ["x.and.", ""],
  ["json_object('a': ", ")"],
  ["json_value('{}', '$' default ", " on empty)"],
  ["", "::int"],
  ["", " is null"],
  ["", " isnull"],
  ["", " is not distinct from 1 and 1"],
  ["", " between 1 and 2 or 1"],
  ["", " collate x.end"],
  ["", " at local"],
  ["", "[1]"],
  ["", ".end"],
  ["", " + f(1) over (order by 1)"],
  ["", " operator(pg_catalog.+) 1."],
];

test("random nestings of everything are refused or read, and none breaks the parser", () => {
  const pick = fc.array(fc.constantFrom(...wraps), { minLength: 1, maxLength: 5 });
  const count = fc.constantFrom(50, 300, 2000, 8000);
  fc.assert(
    fc.property(pick, pick, count, count, (outer, inner, outerCount, innerCount) => {
      const nest = (parts: typeof outer, middle: string, times: number): string =>
        around(
          parts.map(([prefix]) => prefix).join(""),
          middle,
          parts
            .toReversed()
            .map(([, suffix]) => suffix)
            .join(""),
          Math.ceil(times / parts.length),
        );
      const text = `select ${nest(outer, nest(inner, "1", innerCount), outerCount)} from t`;
      expect([outcomeOf(text).replacements, text.slice(0, 300)]).toEqual([0, text.slice(0, 300)]);
    }),
    { numRuns: 400 },
  );
}, 60_000);

test("what is not too deep is read, with many statements, joins and lists", () => {
  expect(outcomeOf(`select 1 where ${"a = 1 and b between 1 and 2 or ".repeat(150)} true`).outcome).toBe("parsed");
  expect(outcomeOf("select 1 from a join b using (x) join c using (y);".repeat(90)).outcome).toBe("parsed");
  expect(outcomeOf(`select ${"case when a then 1 end, ".repeat(800)} 1`).outcome).toBe("parsed");
  expect(outcomeOf(`values ${"(1, 'a', -1.5e-3, e'x\\'y', $1),".repeat(5000)} (1)`).outcome).toBe("parsed");
  expect(outcomeOf("select 1. as end, a.end, t.case from t").outcome).toBe("parsed");
});

describe("a broken parser is replaced before the next text", () => {
  test("a hundred overflows in one go leave the next statement as it was", async () => {
    const own = await GrammarModule.load();
    const expected = own.parse("select a.b, 'x' from c a where d = $1");
    const deep = `select ${"1+".repeat(30_000)}1`;
    for (let i = 1; i <= 100; i++) {
      expect(own.parse(deep).kind).toBe("broken");
      expect(own.parse("select a.b, 'x' from c a where d = $1")).toEqual(expected);
      expect(own.parse("select from from").kind).toBe("error");
      expect(own.replacements).toBe(i);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(own.parse("select a.b, 'x' from c a where d = $1")).toEqual(expected);
  }, 60_000);
});
