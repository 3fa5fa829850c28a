import { describe, expect, test } from "vitest";
import { outputsOf, verdictOf } from "../../support/sql-analysis.ts";
import { lineageCases } from "../../support/sql-lineage.ts";

describe.each(Object.entries(lineageCases))("every output knows the masked columns behind it: %s", (_, cases) => {
  test.each(cases.map(([text, ...outputs]) => ({ text, outputs })))("$text", ({ text, outputs }) => {
    expect(outputsOf(text)).toEqual(outputs);
  });
});

describe("a name of WITH is visible where PostgreSQL lets it be", () => {
  test.each([
    [
      "a later name is not visible before",
      "with a as (select * from b), b as (select 1) select * from a",
      "name.unknown-relation",
    ],
    [
      "a name ends with its query",
      "select * from (with x as (select 1) select * from x) s, x",
      "name.unknown-relation",
    ],
    [
      "a qualified name is never a common table",
      "with payment_methods as (select 1) select * from public.payment_methods",
      "name.unknown-relation",
    ],
    [
      "a name is not visible to a sibling's inside",
      "select (with x as (select 1 as a) select a from x), (select a from x)",
      "name.unknown-relation",
    ],
    [
      "recursion without RECURSIVE reads the table",
      "with payment_methods as (select * from payment_methods) select 1",
      "name.unknown-relation",
    ],
    ["recursion needs a base", "with recursive a as (select * from a) select 1", "statement.unsupported"],
    [
      "two rounds of recursion cannot name each other",
      "with recursive a as (select 1 union select * from b), b as (select * from a) select * from a",
      "statement.unsupported",
    ],
  ])("%s", (_, text, code) => {
    expect(verdictOf(text)).toBe(code);
  });
});
