/** Whatever a client pipelines, it is answered as PostgreSQL itself would answer it: random message sequences, direct and through. */
import fc from "fast-check";
import { expect, test } from "vitest";

import { startGateway } from "../../support/gateway.ts";
import { answersAgree } from "../../support/pipelines.ts";

test("every sequence of messages, cut anywhere, is answered as PostgreSQL answers it", async () => {
  await using gateway = await startGateway();
  const { connection } = await gateway.grant([
    { schema: "public", table: "invoices", verbs: ["select", "update"], columns: "all" },
  ]);
  const runs = 150;
  await fc.assert(answersAgree({ ...gateway.database, expiresAtMs: 0 }, connection), { numRuns: runs });
  // The gateway saw them all: each run opened a session of its own.
  const opened = (await gateway.entries()).filter(({ entry }) => entry.type === "session.opened");
  expect(opened.length).toBeGreaterThanOrEqual(runs);
}, 120_000);
