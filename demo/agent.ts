/** The demo's agent: the official MCP client in front of a real MCP server, each behind `sallyport run`. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { CallToolResultSchema } from "@modelcontextprotocol/sdk/types.js";
import type { Output } from "./leaks.ts";
import { sallyport } from "./processes.ts";

/** A row as the model got it. */
export type Row = Readonly<Record<string, unknown>>;

/** What a statement came to, as the model reads it. */
export type Answer =
  | { readonly ok: true; readonly rows: readonly Row[]; readonly text: string }
  | { readonly ok: false; readonly text: string };

/** An MCP server that is connected, and what it is asked by the demo. */
export interface Agent extends AsyncDisposable {
  /** The package and version, such as `@bytebase/dbhub 1.4.0`. */
  readonly title: string;
  /** How the statement tool is called. */
  readonly tool: string;
  /** Names of the tables that it sees. */
  readonly listTables: () => Promise<readonly string[]>;
  readonly run: (sql: string) => Promise<Answer>;
  /** Everything it has sent so far, stderr included. */
  readonly outputs: () => readonly Output[];
  /** Requests `tools/call` so far. */
  readonly toolCalls: () => number;
}

/** Which MCP server, and how it wants to be started and asked. */
export interface ServerKind {
  readonly package: string;
  readonly tool: string;
  readonly variables: readonly string[];
  readonly parameters: readonly string[];
  readonly listTables: (ask: Ask) => Promise<readonly string[]>;
}

interface Ask {
  readonly resources: () => Promise<readonly string[]>;
  readonly tool: (name: string, input: Readonly<Record<string, unknown>>) => Promise<Answer>;
}

/** `@modelcontextprotocol/server-postgres`: one tool, and a resource for each table. */
export const serverPostgres: ServerKind = {
  package: "@modelcontextprotocol/server-postgres",
  tool: "query",
  variables: [],
  parameters: ["{{DATABASE_URL}}"],
  listTables: async (ask) => (await ask.resources()).map((name) => /^"(.*)" database schema$/.exec(name)?.[1] ?? name),
};

/** `@bytebase/dbhub`: it wants its database as a DSN with the password, which only its environment may hold. */
export const dbhub: ServerKind = {
  package: "@bytebase/dbhub",
  tool: "execute_sql",
  variables: ["--env", "DSN={{DATABASE_URL_WITH_PASSWORD}}"],
  parameters: ["--transport=stdio"],
  listTables: async (ask) => {
    const answer = await ask.tool("search_objects", { object_type: "table", schema: "public", detail_level: "names" });
    return answer.ok ? answer.rows.map((row) => String(row["name"])) : [];
  },
};

/** Starts a server behind `sallyport run` and connects the official client to it. */
export async function connectAgent(kind: ServerKind, config: string, task: string): Promise<Agent> {
  const { program, version } = await findServer(kind.package);
  const outputs: Output[] = [];
  const keep = (from: string, text: string): void => {
    outputs.push({ from: `${kind.package} ${from}`, text });
  };
  const who = ["--config", config, "--as", "support-copilot", "--task", task, "--resource", "billing"];
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [sallyport, "run", ...who, ...kind.variables, "--", process.execPath, program, ...kind.parameters],
    stderr: "pipe",
  });
  transport.stderr?.on("data", (data: Buffer) => keep("stderr", data.toString("utf8")));
  const client = new Client({ name: "sallyport-demo", version: "1.0.0" });
  try {
    await client.connect(transport);
  } catch (error) {
    await client.close();
    const written = outputs
      .map((output) => output.text)
      .join("")
      .trim();
    throw new Error(
      `${kind.package} did not start behind \`sallyport run\`${written === "" ? "" : `; it wrote:\n${written}`}`,
      { cause: error },
    );
  }
  let toolCalls = 0;
  const tool: Ask["tool"] = async (name, input) => {
    toolCalls += 1;
    const answer = await callTool(client, name, input);
    keep(`${name} ${JSON.stringify(input)}`, answer.text);
    return answer;
  };
  const resources: Ask["resources"] = async () => {
    const result = await client.listResources();
    keep("resources/list", JSON.stringify(result));
    return result.resources.map((resource) => resource.name);
  };
  return {
    title: `${kind.package} ${version}`,
    tool: kind.tool,
    listTables: () => kind.listTables({ resources, tool }),
    run: (sql) => tool(kind.tool, { sql }),
    outputs: () => outputs,
    toolCalls: () => toolCalls,
    [Symbol.asyncDispose]: () => client.close(),
  };
}

async function callTool(client: Client, name: string, input: Readonly<Record<string, unknown>>): Promise<Answer> {
  try {
    const result = await client.callTool({ name, arguments: { ...input } }, CallToolResultSchema);
    const parsed = CallToolResultSchema.parse(result);
    const text = parsed.content.map((block) => (block.type === "text" ? block.text : "")).join("\n");
    return parsed.isError === true ? { ok: false, text } : { ok: true, rows: rowsOf(text), text };
  } catch (error) {
    // A protocol error is what this server makes of a PostgreSQL error: the model reads its message.
    return { ok: false, text: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * Both servers answer with JSON text: server-postgres with an array of rows; dbhub with the rows of each statement, or with the
 * objects that a search found.
 */
function rowsOf(text: string): readonly Row[] {
  const value = parse(text);
  const statements = read(value, "data", "statements");
  const rows: unknown = Array.isArray(statements)
    ? read(statements[0], "rows")
    : (read(value, "data", "results") ?? value);
  return Array.isArray(rows) ? rows.filter(isRow) : [];
}

function parse(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return value;
  } catch {
    // Not JSON: then there are no rows, and the step that expected some says so.
    return null;
  }
}

function read(value: unknown, ...path: readonly string[]): unknown {
  return path.reduce<unknown>((at, key) => (isRow(at) ? at[key] : undefined), value);
}

function isRow(value: unknown): value is Row {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The server's program, of the version that package.json pins. */
async function findServer(name: string): Promise<{ readonly program: string; readonly version: string }> {
  const directory = join(import.meta.dirname, "../node_modules", name);
  const manifest = parse(await readFile(join(directory, "package.json"), "utf8"));
  const bin = read(manifest, "bin");
  const program = isRow(bin) ? Object.values(bin)[0] : undefined;
  const version = read(manifest, "version");
  if (typeof program !== "string" || typeof version !== "string") {
    throw new Error(`${directory} holds no MCP server`);
  }
  return { program: join(directory, program), version };
}
