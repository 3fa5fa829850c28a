import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { findBreaches, mayImport, moduleOf } from "./support/architecture.ts";

const source = join(import.meta.dirname, "../src");
/** A floor, to be raised as the tree grows: a reader that sees less has been pointed at the wrong place. */
const filesMin = 40;

async function readTree(): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const name of await readdir(source, { recursive: true })) {
    if (name.endsWith(".ts")) {
      files.set(name, await readFile(join(source, name), "utf8"));
    }
  }
  return files;
}

function breachesOf(path: string, text: string): readonly string[] {
  return findBreaches(new Map([[path, text]]), 1);
}

describe("the may-import table", () => {
  test("holds for the whole of src", async () => {
    expect(findBreaches(await readTree(), filesMin)).toEqual([]);
  });

  test("fails when too few files were read", () => {
    expect(findBreaches(new Map([["domain/ids.ts", ""]]), filesMin)).toEqual([
      `only 1 files were read, of at least ${filesMin}`,
    ]);
  });

  test("names every module of src", async () => {
    const entries = await readdir(source, { withFileTypes: true });
    const names = entries.filter((entry) => entry.isDirectory() || entry.name.endsWith(".ts")).map(({ name }) => name);
    expect(names.filter((name) => !(moduleOf(name) in mayImport))).toEqual([]);
  });
});

describe("a planted breach is found", () => {
  const planted: readonly (readonly [what: string, path: string, text: string])[] = [
    ["a static import", "domain/x.ts", `import { a } from "#ledger/entry.ts";`],
    ["one over several lines", "domain/x.ts", `import {\n  a,\n  type B,\n} from "#ledger/entry.ts";`],
    ["a default and a namespace", "domain/x.ts", `import a, * as b from "#ledger/entry.ts";`],
    ["a side effect", "domain/x.ts", `import "#ledger/entry.ts";`],
    ["a re-export", "domain/x.ts", `export { a } from "#ledger/entry.ts";`],
    ["a re-export of all", "domain/x.ts", `export * from "#ledger/entry.ts";`],
    ["a re-export under a name", "domain/x.ts", `export * as entry from '#ledger/entry.ts';`],
    ["a dynamic import", "domain/x.ts", `const a = await import("#ledger/entry.ts");`],
    ["a computed import", "domain/x.ts", "const a = await import(`#ledger/${name}.ts`);"],
    ["a required module", "domain/x.ts", `const a = require("./y.ts");`],
    ["a type", "domain/x.ts", `import type { A } from "#ledger/entry.ts";`],
    ["a type in place", "domain/x.ts", `let a: import("#ledger/entry.ts").A;`],
    ["an import that cannot be read", "domain/x.ts", `import { a /* } */ } from "#ledger/entry.ts";`],
    ["a way up", "ledger/append.ts", `import { a } from "../domain/ids.ts";`],
    ["a hidden way up", "ledger/append.ts", `import { a } from "./../domain/ids.ts";`],
    ["a file without its ending", "ledger/append.ts", `import { a } from "#domain/ids";`],
    ["the long way inside a module", "ledger/append.ts", `import { a } from "#ledger/entry.ts";`],
    ["a package in domain", "domain/x.ts", `import { z } from "zod";`],
    ["a builtin in domain", "domain/x.ts", `import { join } from "node:path";`],
    ["another builtin in tlog", "tlog/x.ts", `import { readFile } from "node:fs/promises";`],
    ["a package in tlog", "tlog/x.ts", `import { z } from "zod";`],
    ["domain in tlog", "tlog/x.ts", `import type { A } from "#domain/ids.ts";`],
    ["store in policy", "policy/x.ts", `import { a } from "#store/a.ts";`],
    ["a value of sql in mask", "mask/x.ts", `import { analyze } from "#sql/analysis.ts";`],
    ["a value among types of sql in mask", "mask/x.ts", `import { type A, analyze } from "#sql/analysis.ts";`],
    ["ledger in identity", "identity/x.ts", `import { a } from "#ledger/entry.ts";`],
    ["gateway in ledger", "ledger/x.ts", `import type { A } from "#gateway/relay.ts";`],
    ["the writer in the verifier", "evidence/verify.ts", `import { a } from "#ledger/append.ts";`],
    ["domain in the verifier", "evidence/verify.ts", `import { a } from "#domain/ids.ts";`],
    ["a neighbour in the verifier", "evidence/verify.ts", `import { a } from "./bundle.ts";`],
    ["a package in the verifier", "evidence/verify.ts", `import { canonicalize } from "canonicalize";`],
    ["another file of identity in a driver", "protocols/postgres/x.ts", `import { a } from "#identity/ports.ts";`],
    ["the writer in a driver", "protocols/postgres/x.ts", `import { a } from "#ledger/append.ts";`],
    ["a driver in a driver", "protocols/postgres/x.ts", `import { a } from "#protocols/mcp/codec.ts";`],
    ["a driver in the gateway", "gateway/x.ts", `import { a } from "#protocols/postgres/codec.ts";`],
    ["sql in the gateway", "gateway/x.ts", `import type { A } from "#sql/analysis.ts";`],
    ["a value of a port's owner in store", "store/x.ts", `import { a } from "#identity/ports.ts";`],
    ["something else of a port's owner in store", "store/x.ts", `import type { A } from "#gateway/relay.ts";`],
    ["gateway in api", "api/x.ts", `import type { A } from "#gateway/relay.ts";`],
    ["main, not lazily, in cli", "cli/x.ts", `import { main } from "#main.ts";`],
    ["the writer in cli", "cli/x.ts", `const a = await import("#ledger/append.ts");`],
    ["main in gateway", "gateway/x.ts", `const { main } = await import("#main.ts");`],
    ["main in config", "config.ts", `import { main } from "./main.ts";`],
    ["a module that nobody named", "common/x.ts", `import { a } from "#domain/ids.ts";`],
    ["a mint in the gateway", "gateway/x.ts", `import { mintRecorded } from "#ledger/recorded.ts";`],
    ["a mint under another name", "ledger/x.ts", `import { mintEnqueued as b } from "./recorded.ts";`],
    ["a mint that is handed on", "ledger/x.ts", `export * from "./recorded.ts";`],
    ["mints in a namespace", "gateway/x.ts", `import * as recorded from "#ledger/recorded.ts";`],
    ["mints loaded later", "gateway/x.ts", `const r = await import("#ledger/recorded.ts");`],
    ["a token made by hand", "gateway/x.ts", `const r = new Recorded(decision, 1);`],
    ["a masked reply made by hand", "protocols/postgres/x.ts", `const m = new Masked(reply, []);`],
    ["a token by cast", "gateway/x.ts", `const r = decision as unknown as Recorded<Allow>;`],
    ["a masked reply by cast", "gateway/x.ts", `const m = reply as Masked<Uint8Array>;`],
  ];

  test.each(planted)("%s", (_what, path, text) => {
    expect(breachesOf(path, text)).toHaveLength(1);
  });
});

describe("what the table allows is let through", () => {
  const allowed: readonly (readonly [what: string, path: string, text: string])[] = [
    ["a neighbour", "domain/x.ts", `import { a } from "./ids.ts";`],
    ["node:crypto in tlog", "tlog/x.ts", `import { createHash } from "node:crypto";`],
    ["types of sql in mask", "mask/x.ts", `import type { A } from "#sql/analysis.ts";`],
    ["types among names of sql in mask", "mask/x.ts", `import { type A, type B } from "#sql/analysis.ts";`],
    [
      "tlog, the entry format and builtins in the verifier",
      "evidence/verify.ts",
      `import { a } from "#tlog/proof.ts";\nimport { b } from "#ledger/entry.ts";\nimport "node:fs";`,
    ],
    ["the shared driver port in a driver", "protocols/postgres/x.ts", `import type { A } from "#protocols/driver.ts";`],
    ["its own driver", "protocols/postgres/x.ts", `import { a } from "./codec.ts";`],
    ["the driver port in the gateway", "gateway/x.ts", `import type { A } from "#protocols/driver.ts";`],
    ["port types in store", "store/x.ts", `import type { A } from "#identity/ports.ts";`],
    ["main, lazily, in cli", "cli/x.ts", `const { main } = await import("#main.ts");`],
    [
      "the tokens' types in a driver",
      "protocols/postgres/x.ts",
      `import { assertGenuine, type Recorded } from "#ledger/recorded.ts";`,
    ],
    ["the mints in the writer", "ledger/append.ts", `import { mintEnqueued, mintRecorded } from "./recorded.ts";`],
    ["SQL text", "store/x.ts", 'const sql = `select id from "grant"`;'],
  ];

  test.each(allowed)("%s", (_what, path, text) => {
    expect(breachesOf(path, text)).toEqual([]);
  });
});
