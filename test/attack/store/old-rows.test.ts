/** Whoever can write to the state store while the node is down cannot bring back what has ended. */
import { expect, test } from "vitest";

import { startGateway } from "../../support/gateway.ts";
import { runSql } from "../../support/postgres.ts";

test("a revoked grant that is put back as it once was, signature and all, stops the next start", async () => {
  const gateway = await startGateway();
  try {
    const { grant } = await gateway.grant();
    const state = { ...gateway.database, database: "state" };
    await runSql(state, "create table kept as select * from sallyport.grants");
    await gateway.control.revokeGrant(grant.id, "over");
    await gateway.restart(async () => {
      const before = await runSql(state, "select body->>'state' as state from sallyport.grants");
      expect(before).toEqual([{ state: "ended" }]);
    });
    await expect(
      gateway.restart(async () => {
        await runSql(
          state,
          "update sallyport.grants g set body = k.body, entry_index = k.entry_index, signature = k.signature from kept k where k.id = g.id",
        );
      }),
    ).rejects.toMatchObject({ code: "store.tampered" });
  } finally {
    await gateway.stop();
  }
});
