import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { afterAll, expect, test } from "vitest";

import { openLedger } from "#ledger/append.ts";

const child = fileURLToPath(new URL("kill-child.ts", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "ledger-zombie-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function stateOf(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  return stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3);
}

test.runIf(process.platform === "linux")(
  "a killed process that its parent never asks after does not keep the ledger locked",
  async () => {
    // The shell becomes a `sleep`, which waits for no child: what it has started stays a zombie when it ends.
    const script = '"$0" "$1" "$2" zombie & echo "pid $!"; exec sleep 120';
    const parent = spawn("sh", ["-c", script, process.execPath, child, scratch], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    try {
      const out = await new Promise<string>((resolve) => {
        let text = "";
        parent.stdout.setEncoding("utf8").on("data", (piece: string) => {
          text += piece;
          if (text.includes("open\n") && /pid \d+\n/.test(text) && /^\d+ zombie/m.test(text)) {
            resolve(text);
          }
        });
      });
      const pid = Number(/pid (\d+)/.exec(out)?.[1]);
      const options = {
        directory: join(scratch, "log"),
        keysDirectory: join(scratch, "keys"),
        origin: "kill.example/log",
        clock: { nowMs: () => Date.now(), monotonicUs: () => 0 },
        randomBytes: (length: number) => randomBytes(length),
      };
      await expect(openLedger(options)).rejects.toMatchObject({ code: "ledger.locked" });
      process.kill(pid, "SIGKILL");
      // Its first thread is a zombie at once; the others may still be ending.
      await expect.poll(() => [stateOf(pid), readdirSync(`/proc/${pid}/task`).length]).toEqual(["Z", 1]);
      const ledger = await openLedger(options);
      expect(ledger.status().size).toBeGreaterThan(1);
      expect(stateOf(pid)).toBe("Z");
      await ledger.close();
    } finally {
      parent.kill("SIGKILL");
    }
  },
);
