/** The pipelines of `test/attack/wire`, for as long as somebody waits: results in RESULTS.md. */
import fc from "fast-check";
import { expect, test } from "vitest";

import { verifyLedgerDirectory } from "#evidence/verify.ts";

import { startGateway } from "../support/gateway.ts";
import { answersAgree } from "../support/pipelines.ts";

const runs = Number(process.env["SALLYPORT_SOAK_RUNS"] ?? "5000");

test(
  `${runs} sequences of messages are answered as PostgreSQL answers them, and the record of them verifies`,
  async () => {
    await using gateway = await startGateway();
    const { connection } = await gateway.grant(
      [{ schema: "public", table: "invoices", verbs: ["select", "update"], columns: "all" }],
      24 * 3600 * 1000,
    );
    const heapBytes = process.memoryUsage().heapUsed;
    const started = performance.now();
    await fc.assert(answersAgree({ ...gateway.database, expiresAtMs: 0 }, connection), { numRuns: runs });
    const seconds = (performance.now() - started) / 1000;
    const { ledger } = await gateway.control.status();
    const found = await verifyLedgerDirectory({ directory: ledger.directory, verifierKey: ledger.verifierKey });
    expect(found.faults).toEqual([]);
    const grownMiB = (process.memoryUsage().heapUsed - heapBytes) / 2 ** 20;
    process.stdout.write(
      `soak: ${runs} sequences in ${seconds.toFixed(0)} s, ${ledger.size} entries, heap grew by ${grownMiB.toFixed(0)} MiB\n`,
    );
  },
  24 * 3600 * 1000,
);
