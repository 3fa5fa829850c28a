/** `--table schema.table:verbs[:columns]`, as a grant's table. Pure. */
import { splitDottedName } from "#config-names.ts";
import type { TableGrant, TableVerb } from "#domain/grant.ts";
import { usageError } from "./exit-codes.ts";

const verbs = ["select", "insert", "update", "delete"] as const satisfies readonly TableVerb[];

function isVerb(text: string): text is TableVerb {
  return verbs.some((verb) => verb === text);
}

/**
 * Reads one `--table`. Without a third part it means all columns.
 * @throws SallyportError `usage` that says which part is wrong and how it is written.
 */
export function parseTableOption(text: string): TableGrant {
  const match = /^((?:"(?:[^"]|"")*"|[^":])+):([^:]*)(?::(.+))?$/s.exec(text);
  if (match === null) {
    throw usageError(
      `--table ${text} is not schema.table:verbs or schema.table:verbs:columns`,
      "write it such as public.customers:select:id,name, or public.invoices:select for all columns",
    );
  }
  const [, name = "", verbList = "", columnList = "all"] = match;
  const [schema, table] = splitDottedName(name, 2) ?? [];
  if (schema === undefined || table === undefined) {
    throw usageError(
      `${name} does not name a table`,
      "write schema.table, with double quotes around a part that has capitals: 'public.\"Orders\"'",
    );
  }
  const wanted = verbList.split(",").map((verb) => verb.trim());
  const unknown = wanted.find((verb) => !isVerb(verb));
  if (unknown !== undefined) {
    throw usageError(
      unknown === "" ? `--table ${name} has no verb` : `${unknown} is not a verb`,
      `use ${verbs.join(", ")}`,
    );
  }
  return { schema, table, verbs: [...new Set(wanted.filter(isVerb))], columns: parseColumns(name, columnList) };
}

function parseColumns(name: string, text: string): "all" | readonly string[] {
  if (text === "all") {
    return "all";
  }
  const columns = (text.match(/"(?:[^"]|"")*"|[^,]+|(?<=,|^)(?=,|$)/g) ?? []).map(
    (part) => splitDottedName(part.trim(), 1)?.[0],
  );
  const known = columns.filter((column) => column !== undefined);
  if (known.length === 0 || known.length !== columns.length) {
    throw usageError(`--table ${name} has a column that is no name`, "write names with commas between, or `all`");
  }
  return [...new Set(known)];
}
