import { expect, test } from "vitest";
import { createDatabase, runSql, startPostgres } from "../support/postgres.ts";
import { postgres15 } from "../support/requirements.ts";

const binaryDirectory = postgres15.find();

test.skipIf(binaryDirectory === null)(
  "the launcher runs Debian's PostgreSQL 15 as it runs the embedded one",
  async () => {
    await using server = await startPostgres({ binaryDirectory: binaryDirectory ?? "" });
    expect(server.version).toMatch(/^15\.\d+$/);
    const database = await createDatabase(server, "billing");
    const [row] = await runSql(
      database,
      "select current_setting('server_version_num')::int / 10000 as major, current_setting('server_encoding') as encoding",
    );
    expect(row).toEqual({ major: 15, encoding: "UTF8" });
  },
);
