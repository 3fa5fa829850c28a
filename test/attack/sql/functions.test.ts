/** The rules about functions name functions of PostgreSQL: held against what real servers have. */
import { Client } from "pg";
import { beforeAll, describe, expect, test } from "vitest";
import type { Catalog, CatalogFunction } from "#sql/catalog.ts";
import { judgeFunction, namedFunctions } from "#sql/functions.ts";
import { loadCatalog } from "#protocols/postgres/catalog-loader.ts";
import { startPostgres } from "../../support/postgres.ts";
import { postgres15 } from "../../support/requirements.ts";

async function catalogOf(binaryDirectory: string | null): Promise<Catalog> {
  await using server = await startPostgres(binaryDirectory === null ? {} : { binaryDirectory });
  const { host, port, user, password, database } = server;
  const client = new Client({ host, port, user, password, database });
  await client.connect();
  const catalog = await loadCatalog(client);
  await client.end();
  return catalog;
}

/** Newer than PostgreSQL 15. */
const since16 = new Set([
  "array_sample",
  "array_shuffle",
  "jsonb_populate_record_valid",
  "random_normal",
  "uuidv4",
  "uuidv7",
]);

const old = postgres15.find();

describe.each([
  { version: 18, directory: null, absent: new Set<string>(), isThere: true },
  { version: 15, directory: old, absent: since16, isThere: old !== null },
])("PostgreSQL $version", ({ directory, absent, isThere }) => {
  let catalog: Catalog;

  beforeAll(async () => {
    if (isThere) {
      catalog = await catalogOf(directory);
    }
  });

  function allowed(): readonly CatalogFunction[] {
    return [...catalog.functions.values()]
      .flat()
      .filter((routine) => judgeFunction(routine, catalog).kind !== "denied");
  }

  test.skipIf(!isThere)("has every function that the rules name, but for those that it is too old for", () => {
    const missing = [...namedFunctions].filter((name) => !catalog.functions.has(name));
    expect(missing.toSorted()).toEqual([...absent].toSorted());
  });

  test.skipIf(!isThere)("nothing about transactions, row versions or access lists is allowed", () => {
    const taking = allowed().filter(({ arguments: types, returns }) =>
      [...types, returns].some((type) =>
        ["xid", "xid8", "cid", "tid", "aclitem", "_aclitem", "pg_snapshot", "txid_snapshot"].includes(
          catalog.types.get(type)?.name ?? "",
        ),
      ),
    );
    expect(taking.map(({ name }) => name)).toEqual([]);
  });

  test.skipIf(!isThere)(
    "what takes an OID or returns a name is a helper, a question about rights, or only compares",
    () => {
      const plainOnOids = allowed().filter(
        (routine) =>
          judgeFunction(routine, catalog).kind === "plain" &&
          routine.arguments.some((type) => /^(oid|reg[a-z]+)$/.test(catalog.types.get(type)?.name ?? "")),
      );
      expect([...new Set(plainOnOids.map(({ name }) => name))].toSorted()).toEqual([
        "int8",
        "max",
        "min",
        "nameconcatoid",
        "oidlarger",
        "oidsmaller",
      ]);
    },
  );

  test.skipIf(!isThere)("no function that turns text into a row is allowed", () => {
    const populating = [...catalog.functions.keys()].filter((name) => name.includes("populate_record"));
    expect(populating.length).toBeGreaterThan(3);
    expect(allowed().filter(({ name }) => populating.includes(name))).toEqual([]);
  });
});
