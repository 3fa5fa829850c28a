/** The demo against a server of one's own: Debian's PostgreSQL 15, with its statement log as the judge. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

import { expect, test } from "vitest";

import { startPostgres } from "../support/postgres.ts";
import { postgres15 } from "../support/requirements.ts";

const binaryDirectory = postgres15.find();

test.skipIf(binaryDirectory === null)(
  "the demo ends in success on PostgreSQL 15",
  async () => {
    await using server = await startPostgres({
      binaryDirectory: binaryDirectory ?? "",
      settings: { log_statement: "all", log_line_prefix: "%m [%p] %q%u@%d " },
    });
    const { host, port, user, password } = server;
    const child = spawn(process.execPath, [fileURLToPath(new URL("../../demo/main.ts", import.meta.url)), "--json"], {
      env: {
        ...process.env,
        SALLYPORT_DATABASE_URL: `postgres://${user}:${encodeURIComponent(password)}@${host}:${port}/postgres`,
        SALLYPORT_POSTGRES_LOG: server.logFile,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    let err = "";
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      err += chunk.toString();
    });
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect(code, err).toBe(0);
    const result: unknown = JSON.parse(out.trim().split("\n").at(-1) ?? "");
    expect(result).toMatchObject({ verified: true, tamperDetected: true });
    if (typeof result === "object" && result !== null && "linked" in result && "statements" in result) {
      expect(result.linked).toBe(result.statements);
    }
    expect(err + out).not.toContain("left out");
  },
  120_000,
);
