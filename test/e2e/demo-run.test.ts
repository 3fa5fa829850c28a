/** The demo itself, as a process: its last line, its exit code, and what it leaves. */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";

const program = join(import.meta.dirname, "../../demo/main.ts");

interface DemoEnd {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface RunningDemo {
  readonly directory: string;
  readonly interrupt: () => void;
  readonly stdout: () => string;
}

/** The process of `sallyport up` whose configuration lies in a directory. */
async function gatewayOf(directory: string): Promise<number> {
  for (const name of await readdir("/proc")) {
    const words = (await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => "")).split("\0");
    if (words.includes("up") && words.some((word) => word.startsWith(directory))) {
      return Number(name);
    }
  }
  throw new Error("the demo has no gateway");
}

/** Runs the demo in a temporary directory of its own, whose name has a space. */
async function runDemo(
  words: readonly string[],
  meanwhile: (demo: RunningDemo) => Promise<void> = () => Promise.resolve(),
): Promise<DemoEnd & { readonly left: readonly string[] }> {
  const directory = await mkdtemp(join(tmpdir(), "sallyport demo test "));
  const child = spawn(process.execPath, [program, ...words], {
    env: { ...process.env, TMPDIR: directory, NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const texts = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (texts.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (texts.stderr += text));
  const ended = new Promise<number | null>((settle) => child.once("close", settle));
  await meanwhile({ directory, interrupt: () => child.kill("SIGINT"), stdout: () => texts.stdout });
  const code = await ended;
  const left = await readdir(directory);
  await rm(directory, { recursive: true, force: true });
  return { code, ...texts, left };
}

describe("the demo", () => {
  test("passes every step, links every statement, verifies, detects tampering, and leaves nothing", async () => {
    const { code, stdout, stderr, left } = await runDemo(["--json"]);
    expect({ code, story: stderr.includes("✗") ? stderr : "" }).toEqual({ code: 0, story: "" });
    const summary: Record<string, unknown> = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
    expect(summary).toEqual({
      toolCalls: 13,
      statements: expect.any(Number),
      allowed: summary["statements"],
      denied: expect.any(Number),
      maskedCells: 28,
      linked: summary["statements"],
      entries: expect.any(Number),
      verified: true,
      tamperDetected: true,
      seconds: expect.any(Number),
    });
    expect(stderr).toContain("0 denied ones got through");
    expect(left).toEqual([]);
  });

  test("stops at Ctrl-C, and leaves nothing", async () => {
    const { code, left } = await runDemo([], async (demo) => {
      await delay(4000);
      demo.interrupt();
    });
    expect({ code, left }).toEqual({ code: 130, left: [] });
  });

  test.runIf(process.platform === "linux")(
    "that is kept says that its gateway was killed, fails, and leaves nothing",
    async () => {
      const { code, stdout, left } = await runDemo(["--keep"], async (demo) => {
        await expect.poll(demo.stdout, { timeout: 45_000, interval: 100 }).toContain("until Ctrl-C");
        process.kill(await gatewayOf(demo.directory), "SIGKILL");
      });
      expect({ code, left }).toEqual({ code: 1, left: [] });
      expect(stdout).toContain("the gateway ended");
      expect(stdout).toContain("SIGKILL");
    },
  );

  test("refuses an option that it does not know", async () => {
    const { code, stderr } = await runDemo(["--jsno"]);
    expect(code).toBe(2);
    expect(stderr).toContain("usage: sallyport demo");
  });
});
