import { describe, expect, test } from "vitest";
import { programVersion } from "#cli/version.ts";
import { relativeTime, table } from "#cli/output.ts";
import { examineRuntime } from "#cli/doctor.ts";
import { onlyObject, sallyport } from "./terminal.ts";

const verbs: readonly (readonly string[])[] = [
  ["init"],
  ["up"],
  ["doctor"],
  ["run"],
  ["grant", "add"],
  ["grant", "ls"],
  ["grant", "revoke"],
  ["session", "ls"],
  ["ledger", "status"],
  ["ledger", "verify"],
];

describe("help", () => {
  test.each(verbs.map((words) => [words.join(" "), words] as const))(
    "%s has a description, --json and examples",
    async (_, words) => {
      const result = await sallyport([...words, "--help"]);
      expect(result.code).toBe(0);
      expect(result.out).toContain(`Usage: sallyport ${words.join(" ")}`);
      expect(result.out).toContain("--json");
      expect(result.out).toMatch(/Examples:\n {2}sallyport /);
      expect((await sallyport(["help", ...words])).out).toBe(result.out);
    },
  );

  test("no verb takes a secret as an argument", async () => {
    for (const words of verbs) {
      expect((await sallyport([...words, "--help"])).out).not.toMatch(/--(password|token|secret|url)\b/);
    }
  });

  test("exit-codes lists each code once", async () => {
    const { out } = await sallyport(["help", "exit-codes"]);
    expect(Array.from(out.matchAll(/^ +(\d+) {2}/gm), (match) => Number(match[1]))).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 130,
    ]);
  });

  test("topics are found, and an unknown one names them", async () => {
    expect((await sallyport(["help", "environment"])).out).toContain("SALLYPORT_DATABASE_URL");
    expect((await sallyport(["help", "output"])).out).toContain("one JSON object");
    const unknown = await sallyport(["help", "toString"]);
    expect([unknown.code, unknown.err]).toEqual([2, expect.stringContaining("exit-codes, environment, output")]);
  });

  test("nothing at all shows what there is", async () => {
    const result = await sallyport([]);
    expect([result.code, result.out]).toEqual([0, expect.stringContaining("sallyport init")]);
  });

  test("the version is the package's", async () => {
    const result = await sallyport(["--version"]);
    expect([result.code, result.out]).toEqual([0, `${programVersion()}\n`]);
    expect(result.out).toMatch(/^\d+\.\d+\.\d+/);
  });
});

describe("a command line that is wrong", () => {
  test.each([
    [["grnat"], "unknown command 'grnat'", "Did you mean grant?"],
    [["grant", "lss"], "unknown command 'lss'", "Did you mean ls?"],
    [["grant", "ls", "--jsn"], "unknown option '--jsn'", "Did you mean --json?"],
    [["run", "--as", "x"], "--task", "--help"],
    [["ledger", "verify", "a", "b"], "too many arguments", "--help"],
    [["grant", "ls", "--state"], "argument missing", "--help"],
  ])("%j is a usage error with a suggestion", async (given, message, next) => {
    const result = await sallyport(given);
    expect(result.code).toBe(2);
    expect(result.out).toBe("");
    expect(result.err).toContain(message);
    expect(result.err).toContain(`next: `);
    expect(result.err).toContain(next);
  });

  test("with --json is an error object on standard output, and nothing else", async () => {
    const result = await sallyport(["grant", "ls", "--jsn", "--json"]);
    expect(onlyObject(result)).toMatchObject({ error: { code: "usage", retryable: false } });
    expect([result.code, result.err]).toEqual([2, ""]);
  });

  test("a --json after -- belongs to the server that is run", async () => {
    const result = await sallyport(["run", "--as", "x", "--", "server", "--json"]);
    expect([result.code, result.out]).toEqual([2, ""]);
  });

  test("a group without a verb shows its verbs", async () => {
    const result = await sallyport(["grant"]);
    expect([result.code, result.err]).toEqual([2, expect.stringContaining("revoke")]);
  });
});

test("tables line up, and relative times are short", () => {
  expect(
    table(
      ["A", "B"],
      [
        ["1", "two"],
        ["three", "4"],
      ],
    ),
  ).toEqual(["A      B", "1      two", "three  4"]);
  expect(
    [30_000, 20 * 60_000, 5 * 3_600_000, 9 * 86_400_000].map((awayMs) => relativeTime(1e12 + awayMs, 1e12)),
  ).toEqual(["in 30 s", "in 20 min", "in 5 h", "in 9 d"]);
  expect(relativeTime(1e12 - 60_000, 1e12)).toBe("60 s ago");
});

test("an old Node.js is a failure with its fix", () => {
  expect(examineRuntime("24.1.0")).toMatchObject({ verdict: "ok", fix: null });
  expect(examineRuntime("22.9.0")).toMatchObject({ verdict: "failure", fix: expect.stringContaining("24") });
});
