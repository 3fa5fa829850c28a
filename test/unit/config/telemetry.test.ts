import { describe, expect, test } from "vitest";
import { SallyportError } from "#domain/errors.ts";
import { type LogFields, createLog } from "#telemetry.ts";

function write(
  work: (log: ReturnType<typeof createLog>) => void,
  level: "debug" | "warn" = "debug",
): readonly Record<string, unknown>[] {
  const lines: Record<string, unknown>[] = [];
  work(createLog({ level, stream: { write: (line) => void lines.push(JSON.parse(line)) } }));
  return lines;
}

describe("diagnostics", () => {
  test("hold a message, a time and the fields of the list", () => {
    const [line] = write((log) => log.info("a session ended", { session: "ses_1", durationMs: 12, count: 3 }));
    expect(line).toMatchObject({
      msg: "a session ended",
      session: "ses_1",
      durationMs: 12,
      count: 3,
      time: expect.stringMatching(/Z$/),
    });
  });

  test("hold nothing that is not on the list, whatever a caller passes", () => {
    // What JavaScript without types could do.
    const loose = {
      password: "hunter2",
      authorization: "hunter2",
      sql: "hunter2",
      session: { token: "hunter2" },
    } as unknown as LogFields;
    const lines = write((log) => log.error("refused", loose));
    expect(lines).toHaveLength(1);
    expect(JSON.stringify(lines)).not.toContain("hunter2");
  });

  test("take from a library's error its name, code and places, not its words", () => {
    const cause = Object.assign(new Error('duplicate key value violates "x": Key (ssn)=(hunter2)'), {
      code: "23505",
      detail: "hunter2",
    });
    const error = new SallyportError("store.conflict", "gateway", "another row has the same key", { cause });
    const lines = write((log) => log.warn("the store refused", { error }));
    expect(JSON.stringify(lines)).not.toContain("hunter2");
    expect(lines).toMatchObject([
      {
        error: {
          code: "store.conflict",
          message: "another row has the same key",
          cause: { name: "Error", code: "23505" },
        },
      },
    ]);
  });

  test("survive a cause that is its own, and what is no error", () => {
    const error = new Error("x");
    error.cause = error;
    const lines = write((log) => {
      log.error("one", { error });
      log.error("two", { error: "hunter2" });
      log.error("three", { error: null });
    });
    expect(lines).toHaveLength(3);
    expect(JSON.stringify(lines)).not.toContain("hunter2");
  });

  test("below their level are not written", () => {
    expect(write((log) => log.info("x"), "warn")).toEqual([]);
  });
});
