import { parseDurationMs } from "#config-names.ts";
import type { AddGrantInput, GrantView } from "#domain/control.ts";
import { SallyportError } from "#domain/errors.ts";
import type { GrantState, TableGrant } from "#domain/grant.ts";
import { limits } from "#domain/limits.ts";
import { askYesNo, mayAsk, withGateway } from "./context.ts";
import { exitCodes, usageError } from "./exit-codes.ts";
import { parseTableOption } from "./grant-table.ts";
import { type CliIo, type CommonOptions, type Output, clean, counted, relativeTime, table } from "./output.ts";

/** Options of `grant add`. */
export interface GrantAddOptions {
  readonly principal: string;
  readonly resource: string;
  readonly task: string;
  readonly table: readonly string[];
  readonly for: string;
  readonly ticket?: string;
  readonly purpose?: string;
  readonly onBehalfOf?: string;
  readonly dryRun?: boolean;
}

/** What `--dry-run` looks at, and what only the real thing finds out. */
const dryRunChecks = {
  checked: ["syntax", "resource"],
  notChecked: ["principal", "tables", "rights", "policies"],
} as const;

/** `sallyport grant add`: `{grant: GrantView, connection: ConnectionDetails}`; with `--dry-run` `{dryRun: true, checked, notChecked, grant: AddGrantInput}`. */
export async function grantAdd(options: GrantAddOptions & CommonOptions, io: CliIo, output: Output): Promise<number> {
  const input = readInput(options);
  if (options.dryRun === true) {
    const status = await withGateway(options, io, (client) => client.status());
    if (!status.resources.some((one) => one.name === input.resource)) {
      throw new SallyportError("resource.unknown", "client", `the gateway has no resource ${input.resource}`, {
        nextStep: `it has ${status.resources.map((one) => one.name).join(", ") || "none: add one to the configuration"}`,
      });
    }
    output.result({ dryRun: true, ...dryRunChecks, grant: input }, [
      `Would grant ${clean(input.principal)} on ${clean(input.resource)} for ${options.for}:`,
      ...input.tables.map((one) => `  ${describeTable(one)}`),
      "Checked: how it is written, and that the gateway has this resource.",
      "Not checked: the principal, the tables and their columns, the rights at the database, the policies.",
    ]);
    return exitCodes.ok;
  }
  const added = await withGateway(options, io, (client) => client.addGrant(input));
  const { grant, connection } = added;
  output.result(added, [
    `Granted ${grant.id}: ${clean(grant.principal)} on ${clean(grant.resource)}, ends ${relativeTime(grant.expiresAtMs, Date.now())}`,
    ...grant.tables.map((one) => `  ${describeTable(one)}`),
    "",
    `  PGHOST=${connection.host}`,
    `  PGPORT=${connection.port}`,
    `  PGDATABASE=${clean(connection.database)}`,
    `  PGUSER=${clean(connection.user)}`,
    `  PGPASSWORD=${clean(connection.password)}`,
    "  PGSSLMODE=disable",
  ]);
  output.progress("The password is shown this once and kept nowhere.");
  return exitCodes.ok;
}

/** @throws SallyportError `usage`. */
function readInput(options: GrantAddOptions): AddGrantInput {
  if (options.table.length === 0) {
    throw usageError(
      "no --table was given",
      "add --table schema.table:verbs or schema.table:verbs:columns, once for each table",
    );
  }
  const lifetimeMs = parseDurationMs(options.for);
  if (lifetimeMs === null) {
    throw usageError(`--for ${options.for} is not a duration`, "write 45s, 30m, 8h or 7d");
  }
  if (lifetimeMs > limits.grantLifetimeMsMax) {
    throw usageError(`--for ${options.for} is longer than a grant may live`, "use at most 30d, and renew it then");
  }
  const tables = options.table.map(parseTableOption);
  const twice = tables.find(
    (one, index) => tables.findIndex((other) => other.schema === one.schema && other.table === one.table) !== index,
  );
  if (twice !== undefined) {
    throw usageError(
      `--table names ${twice.schema}.${twice.table} twice`,
      "put verbs and columns of one table together",
    );
  }
  return {
    principal: options.principal,
    resource: options.resource,
    task: { title: options.task, ticket: options.ticket, purpose: options.purpose },
    onBehalfOf: options.onBehalfOf,
    tables,
    lifetimeMs,
  };
}

function describeTable(one: TableGrant): string {
  const columns = one.columns === "all" ? "all columns" : one.columns.join(", ");
  return clean(`${one.schema}.${one.table}: ${one.verbs.join(", ")} of ${columns}`);
}

const states: readonly GrantState[] = ["pending", "active", "ended"];

/** `sallyport grant ls`: `{grants: GrantView[]}`. */
export async function grantList(
  options: { readonly state?: string; readonly all?: boolean } & CommonOptions,
  io: CliIo,
  output: Output,
): Promise<number> {
  const state = states.find((one) => one === options.state);
  if (options.state !== undefined && state === undefined) {
    throw usageError(`${options.state} is not a state of a grant`, `use ${states.join(", ")}`);
  }
  const found = await withGateway(options, io, (client) => client.listGrants({ state }));
  const grants = state !== undefined || options.all === true ? found : found.filter((one) => one.state !== "ended");
  const nowMs = Date.now();
  const rows = grants.map((one) => [
    one.id,
    one.principal,
    one.resource,
    one.tables.map((each) => `${each.schema}.${each.table}`).join(","),
    one.end === null
      ? `${one.state}, ends ${relativeTime(one.expiresAtMs, nowMs)}`
      : `${one.end.how} ${relativeTime(one.end.atMs, nowMs)}`,
    String(one.liveSessions),
    one.task,
  ]);
  const ended = found.length - grants.length;
  const note = ended > 0 ? [`${ended} ended not shown (--all).`] : [];
  const header = ["ID", "PRINCIPAL", "RESOURCE", "TABLES", "STATE", "SESSIONS", "TASK"];
  const empty = ["No grants: nobody reaches anything. Make one:", "  sallyport grant add --help"];
  output.result({ grants }, [...(grants.length === 0 ? empty : table(header, rows)), ...note]);
  return exitCodes.ok;
}

/** Options of `grant revoke`. */
export interface GrantRevokeOptions {
  readonly reason: string;
  readonly yes?: boolean;
  readonly dryRun?: boolean;
}

/** `sallyport grant revoke`: `{grant: GrantView}`; with `--dry-run` `{dryRun: true, grant: GrantView}`. */
export async function grantRevoke(
  options: GrantRevokeOptions & CommonOptions,
  io: CliIo,
  output: Output,
  [prefix = ""]: readonly string[],
): Promise<number> {
  return withGateway(options, io, async (client) => {
    const grant = findByPrefix(await client.listGrants({}), prefix);
    if (grant.end !== null) {
      const { how, atMs } = grant.end;
      const ending = `${how} ${relativeTime(atMs, Date.now())}`;
      output.result({ ...(options.dryRun === true ? { dryRun: true } : {}), grant }, [
        `${grant.id} had ended already: ${ending}. Nothing was changed.`,
      ]);
      return exitCodes.ok;
    }
    const what = `${grant.id}: ${clean(grant.principal)} on ${clean(grant.resource)}, "${clean(grant.task)}", ${counted(grant.liveSessions, "live session")}`;
    if (options.dryRun === true) {
      output.result({ dryRun: true, grant }, [`Would revoke ${what}`]);
      return exitCodes.ok;
    }
    if (options.yes !== true) {
      if (!mayAsk(options, io)) {
        throw usageError("revoking ends sessions, and nobody is here to be asked", "add --yes");
      }
      if (!(await askYesNo(`Revoke ${what}?`, io))) {
        throw new SallyportError("cancelled", "client", "nothing was revoked");
      }
    }
    const revoked = await client.revokeGrant(grant.id, options.reason);
    output.result({ grant: revoked }, [`Revoked ${what}`]);
    return exitCodes.ok;
  });
}

/** The grant whose id starts so, with or without `grt_`; one that has ended only when nothing else fits. */
function findByPrefix(grants: readonly GrantView[], prefix: string): GrantView {
  const wanted = prefix.startsWith("grt_") ? prefix : `grt_${prefix}`;
  const fitting = prefix === "" || prefix === "grt_" ? [] : grants.filter((one) => one.id.startsWith(wanted));
  const exact = fitting.find((one) => one.id === wanted);
  const living = fitting.filter((one) => one.state !== "ended");
  const [first, second] = exact === undefined ? (living.length > 0 ? living : fitting) : [exact];
  if (first === undefined) {
    throw new SallyportError("grant.unknown", "client", `no grant's id starts with ${clean(prefix)}`, {
      nextStep: "sallyport grant ls --all",
    });
  }
  if (second !== undefined) {
    const candidates = (living.length > 0 ? living : fitting).map((one) => one.id);
    const shown = candidates.slice(0, 5).join(", ");
    const rest = candidates.length > 5 ? ` and ${candidates.length - 5} more` : "";
    throw usageError(`several ids start with ${clean(prefix)}: ${shown}${rest}`, "write more of the id");
  }
  return first;
}
