import { expect, test } from "vitest";
import { summarize } from "../../../scripts/summarize.mjs";

function report(
  passed: number,
  failed: number,
  files: readonly (readonly [status: string, tests: readonly string[]])[],
): string {
  return JSON.stringify({
    numPassedTests: passed,
    numFailedTests: failed,
    testResults: files.map(([status, tests]) => ({ status, assertionResults: tests.map((of) => ({ status: of })) })),
  });
}

test("what passed is counted", () => {
  expect(summarize(0, report(3, 0, [["passed", ["passed", "passed", "passed"]]]))).toEqual({ passed: 3, failed: 0 });
});

test("what failed is counted once", () => {
  expect(summarize(1, report(1, 1, [["failed", ["passed", "failed"]]]))).toEqual({ passed: 1, failed: 1 });
});

test("a file that failed before its first test is a failure", () => {
  const text = report(2, 1, [
    ["passed", ["passed", "passed"]],
    ["failed", []],
    ["failed", ["failed"]],
  ]);
  expect(summarize(1, text)).toEqual({ passed: 2, failed: 2 });
});

test.each([
  ["a run that left no report", 1, null],
  ["a run that left no report and says it went well", 0, null],
  ["a run that was killed", null, null],
  ["a run of no test at all", 0, report(0, 0, [])],
  ["a run that failed outside of its tests", 1, report(0, 0, [])],
] as const)("%s is a failure", (_what, code, text) => {
  expect(summarize(code, text)).toEqual({ passed: 0, failed: 1 });
});

test("a run that failed though each of its tests passed is a failure", () => {
  expect(summarize(1, report(2, 0, [["passed", ["passed", "passed"]]]))).toEqual({ passed: 2, failed: 1 });
});
