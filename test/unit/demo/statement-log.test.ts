import { describe, expect, test } from "vitest";
import { readStatementLog } from "../../../demo/statement-log.ts";

const role = "grant_role";

function line(user: string, rest: string): string {
  return `2026-11-25 03:02:50.126 UTC [5255] ${user}@billing ${rest}\n`;
}

function read(log: string): ReturnType<typeof readStatementLog> {
  return readStatementLog(log, new Set([role]));
}

describe("reading PostgreSQL's statement log", () => {
  test("counts the statements of the given roles, simple and extended", () => {
    const log =
      line(role, "LOG:  statement: select 1") +
      line("gateway", "LOG:  statement: create role x") +
      line(role, "LOG:  execute <unnamed>: \n\tselect 2") +
      line(role, "DETAIL:  Parameters: $1 = 'public'") +
      line(role, "LOG:  execute s1/p1: select 3") +
      line(role, "LOG:  execute fetch from s1/p1: select 3") +
      line(role, "LOG:  duration: 3 ms");
    expect(read(log)).toMatchObject({ messages: 3, denied: 0, texts: ["select 1", "\n\tselect 2", "select 3"] });
  });

  test("counts what stood in for denied statements", () => {
    const log =
      line(role, 'ERROR:  syntax error at or near "SALLYPORT" at character 1') +
      line(role, "STATEMENT:  SALLYPORT DENIED dec_1") +
      line("other", "STATEMENT:  SALLYPORT DENIED dec_2");
    expect(read(log)).toMatchObject({ messages: 0, denied: 1 });
  });

  test("is not taken in by a statement that holds a line like its own", () => {
    const forged = `select '\n\t${line(role, "LOG:  statement: forged").trim()}'`;
    expect(read(line(role, `LOG:  statement: ${forged}`)).messages).toBe(1);
    expect(read(line("other", `LOG:  statement: ${forged}`)).messages).toBe(0);
  });
});
