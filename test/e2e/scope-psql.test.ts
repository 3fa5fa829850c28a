import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { shadowedCatalogRelations } from "#sql/shadowed.ts";
import { postgres15, psql } from "../support/requirements.ts";
import { activate, logIn, readScope, startScopeDatabase } from "../support/scope-database.ts";
import type { ScopeDatabase } from "../support/scope-database.ts";

const execFileAsync = promisify(execFile);
const program = psql.find();
const builds = [undefined, postgres15.find()].filter((directory) => directory !== null);

/** What real psql asks for a meta-command, as the superuser: the queries that it prints with -E. */
async function queriesOf(database: ScopeDatabase, command: string): Promise<readonly string[]> {
  const { host, port, user, password, database: name } = database.admin;
  const { stdout } = await execFileAsync(
    program ?? "psql",
    ["-X", "-E", "-h", host, "-p", String(port), "-U", user, "-d", name, "-c", command],
    { env: { ...process.env, PGPASSWORD: password, LC_ALL: "C" } },
  );
  return [...stdout.matchAll(/^\/?\*+ QUERY \*+\/?\n([\s\S]*?)\n\/?\*{20,}\/?$/gm)].map((match) => match[1] ?? "");
}

/** The queries with every shadowed relation by its shadow, as the gate splices them. */
function splice(query: string): string {
  return shadowedCatalogRelations.reduce(
    (text, { schema, name }) =>
      text.replaceAll(new RegExp(`\\b${schema}\\.${name}\\b(?!\\()`, "g"), (found, offset: number) =>
        /(?:FROM|JOIN|,)\s+$/i.test(text.slice(0, offset)) ? `sallyport_shadow.${name}` : found,
      ),
    query,
  );
}

describe.skipIf(program === null).each(builds)("psql's own queries on shadow catalogs (%s)", (binaryDirectory) => {
  test("work, and show what is granted and nothing else", async () => {
    await using database = await startScopeDatabase(binaryDirectory === undefined ? {} : { binaryDirectory });
    await database.provisioner.prepare();
    await activate(database, readScope, "sp_grant_psql");
    const client = await logIn(database, "sp_grant_psql");
    const shown = async (command: string): Promise<string> => {
      const results: unknown[] = [];
      for (const query of await queriesOf(database, command)) {
        results.push((await client.query(splice(query))).rows);
      }
      return JSON.stringify(results);
    };
    for (const command of process.env["CMDS"]?.split(";") ?? []) console.log(command, (await shown(command)).slice(0, 6000));
    await client.end();
  });
});
