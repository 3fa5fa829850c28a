/** Checks what the shape cannot say: names that must exist, references, deadlines, rules that could never match. */
import { dirname, resolve } from "node:path";
import type { TableGrant } from "#domain/grant.ts";
import { limits } from "#domain/limits.ts";
import type { ColumnLabel, Mask, MaskOperator } from "#domain/resource.ts";
import {
  type Address,
  type DatabaseLogin,
  type ReferenceReader,
  type Refused,
  parseDatabaseUrl,
  parseListenAddress,
  parsePlainDatabaseUrl,
} from "./config-address.ts";
import { splitDottedName, suggestWord } from "./config-names.ts";
import { ConfigError, type ConfigDocument, type ConfigPath, type ConfigProblem } from "./config-problems.ts";
import type { ConfigFile } from "./config-schema.ts";
import type { Config, GrantConfig, PolicyFile, PrincipalConfig, ResourceConfig, StateConfig } from "./config.ts";

/** What lies around a configuration file. */
export interface ConfigEnvironment {
  readonly nowMs: number;
  /** SALLYPORT_DATABASE_URL. */
  readonly databaseUrl: string | null;
  readonly readReference: ReferenceReader;
  readonly readPolicies: (name: string) => readonly PolicyFile[] | Refused;
}

interface Checking {
  readonly file: ConfigFile;
  readonly environment: ConfigEnvironment;
  readonly refuse: (path: ConfigPath, message: string, fix: string, at?: "value" | "key") => void;
  readonly lineOf: (path: ConfigPath) => number;
}

/**
 * Makes the `Config` of a file whose shape is right.
 * @throws ConfigError with every problem found.
 */
export function resolveConfig(
  file: ConfigFile,
  path: string,
  document: ConfigDocument,
  environment: ConfigEnvironment,
): Config {
  const problems: ConfigProblem[] = [];
  const checking: Checking = {
    file,
    environment,
    refuse: (...problem) => {
      problems.push(document.problemAt(...problem));
    },
    lineOf: (at) => document.problemAt(at, "", "").line,
  };
  const config: Config = {
    file: path,
    node: file.node,
    listen: resolveListen(checking),
    directory: resolve(dirname(path), file.directory),
    state: resolveState(checking),
    principals: resolvePrincipals(checking),
    resources: resolveResources(checking),
    masks: resolveMasks(checking),
    grants: resolveGrants(checking),
    policies: file.policies.flatMap((name, index) => {
      const found = environment.readPolicies(name);
      return "fix" in found ? (checking.refuse(["policies", index], found.message, found.fix), []) : found;
    }),
  };
  const [first] = problems;
  if (first !== undefined) {
    throw new ConfigError(path.slice(dirname(path).length + 1), problems);
  }
  return config;
}

/** Stands in for what was refused; the configuration that would hold it is never returned. */
const nowhere: DatabaseLogin = { host: "127.0.0.1", port: 1, database: "none", user: "none", password: null };

function resolveListen({ file, refuse }: Checking): Config["listen"] {
  const read = (key: "postgres" | "control"): Address => {
    const address = parseListenAddress(file.listen[key]);
    if ("fix" in address) {
      refuse(["listen", key], address.message, address.fix);
      return nowhere;
    }
    return address;
  };
  const listen = { postgres: read("postgres"), control: read("control") };
  if (listen.postgres.port === listen.control.port && listen.postgres !== nowhere) {
    refuse(["listen", "control"], "both listeners have the same port", "give the control endpoint a port of its own");
  }
  return listen;
}

function resolveState({ file, environment, refuse }: Checking): StateConfig {
  if ("url" in file.state) {
    const login = parseDatabaseUrl(file.state.url, environment.readReference);
    if ("fix" in login) {
      refuse(["state", "url"], login.message, login.fix);
      return { kind: "embedded" };
    }
    return { kind: "server", login, from: "config" };
  }
  if (environment.databaseUrl === null) {
    return { kind: "embedded" };
  }
  const login = parsePlainDatabaseUrl(environment.databaseUrl);
  if ("fix" in login) {
    refuse(["state"], `SALLYPORT_DATABASE_URL cannot be used: ${login.message}`, login.fix);
    return { kind: "embedded" };
  }
  return { kind: "server", login, from: "environment" };
}

function resolvePrincipals({ file, refuse }: Checking): readonly PrincipalConfig[] {
  refuseTwice(
    file.principals,
    (one) => one.name,
    (index, name) => {
      refuse(["principals", index, "name"], `a principal ${name} is there already`, "give each principal its own name");
    },
  );
  const humans = file.principals.filter((one) => one.kind === "human").map((one) => one.name);
  return file.principals.map((one, index) => {
    if (one.kind === "human") {
      return one;
    }
    if (!humans.includes(one.owner)) {
      const isMachine = file.principals.some((other) => other.name === one.owner);
      const message = isMachine ? `the owner ${one.owner} is not a human` : `no principal is named ${one.owner}`;
      refuse(["principals", index, "owner"], message, nameFix(one.owner, humans, "human principals"));
    }
    const { expires, ...rest } = one;
    return { ...rest, expiresAtMs: Date.parse(expires) };
  });
}

function resolveResources({ file, environment, refuse }: Checking): readonly ResourceConfig[] {
  refuseTwice(
    file.resources,
    (one) => one.name,
    (index, name) => {
      refuse(["resources", index, "name"], `a resource ${name} is there already`, "give each resource its own name");
    },
  );
  const masked = new Set(file.masks.map((one) => one.label));
  return file.resources.map((one, index) => {
    const login = parseDatabaseUrl(one.url, environment.readReference);
    if ("fix" in login) {
      refuse(["resources", index, "url"], login.message, login.fix);
    }
    const labels = Object.entries(one.labels).flatMap(([key, label]): readonly ColumnLabel[] => {
      const at = ["resources", index, "labels", key];
      const [schema, table, column] = splitDottedName(key, 3) ?? [];
      if (schema === undefined || table === undefined || column === undefined) {
        refuse(
          at,
          `\`${key}\` does not name a column`,
          "write schema.table.column, with double quotes around a part that has capitals",
          "key",
        );
        return [];
      }
      if (!masked.has(label)) {
        refuse(
          at,
          `no mask covers the label ${label}, so the column would be shown as it is`,
          `add { label: ${label}, operator: redact } under masks`,
        );
      }
      return [{ schema, table, column, label }];
    });
    return { name: one.name, kind: one.kind, login: "fix" in login ? nowhere : login, labels };
  });
}

function resolveMasks({ file, refuse }: Checking): readonly Mask[] {
  refuseTwice(
    file.masks,
    (one) => one.label,
    (index, label) => {
      refuse(["masks", index, "label"], `a mask for ${label} is there already`, "keep one mask for each label");
    },
  );
  const used = new Set(file.resources.flatMap((one) => Object.values(one.labels)));
  return file.masks.map((one, index) => {
    if (!used.has(one.label)) {
      const fix = nameFix(one.label, [...used], "labels in use");
      refuse(["masks", index, "label"], `no column has the label ${one.label}, so this mask can never match`, fix);
    }
    return { ruleId: `mask.${one.label}`, label: one.label, operator: maskOperator(one) };
  });
}

function maskOperator(mask: ConfigFile["masks"][number]): MaskOperator {
  switch (mask.operator) {
    case "partial":
      return { kind: "partial", keepLast: mask.keepLast };
    case "date":
      return { kind: "date", precision: mask.precision };
    case "number":
      return { kind: "number", roundTo: mask.roundTo };
    case "redact":
    case "email":
      return { kind: mask.operator };
    case "null":
    case null:
      return { kind: "null" };
    default:
      return mask satisfies never;
  }
}

function resolveGrants(checking: Checking): readonly GrantConfig[] {
  const { file, refuse, lineOf } = checking;
  refuseTwice(
    file.grants,
    (one) => JSON.stringify([one.principal, one.resource, one.task.title]),
    (index) => {
      const message = "a grant of this principal on this resource for this task is there already";
      refuse(["grants", index, "task", "title"], message, "put both scopes into one grant, or name another task");
    },
  );
  const principals = file.principals.map((one) => one.name);
  const humans = file.principals.filter((one) => one.kind === "human").map((one) => one.name);
  const resources = file.resources.map((one) => one.name);
  return file.grants.map((one, index) => {
    const at: ConfigPath = ["grants", index];
    const check = (key: "principal" | "resource" | "onBehalfOf", known: readonly string[], what: string): void => {
      const name = one[key];
      if (name !== undefined && !known.includes(name)) {
        refuse(
          [...at, key],
          `there is no ${what} ${name}, so this grant can never match`,
          nameFix(name, known, `${what}s`),
        );
      }
    };
    check("principal", principals, "principal");
    check("resource", resources, "resource");
    check("onBehalfOf", humans, "human principal");
    const expiresAtMs = checkDeadline(checking, index);
    return {
      principal: one.principal,
      onBehalfOf: one.onBehalfOf ?? null,
      resource: one.resource,
      task: { title: one.task.title, purpose: one.task.purpose ?? null, ticket: one.task.ticket ?? null },
      expiresAtMs,
      tables: resolveTables(checking, index),
      line: lineOf(at),
    };
  });
}

function checkDeadline({ file, environment, refuse }: Checking, index: number): number {
  const grant = file.grants[index];
  const expiresAtMs = Date.parse(grant?.expires ?? "");
  const path = ["grants", index, "expires"];
  const { nowMs } = environment;
  if (expiresAtMs <= nowMs) {
    refuse(path, "this grant has expired, so it can never match", "give it a later time, or remove the grant");
  } else if (expiresAtMs > nowMs + limits.grantLifetimeMsMax) {
    const latest = new Date(nowMs + limits.grantLifetimeMsMax).toISOString().replace(/:\d\d\.\d+Z$/, ":00Z");
    refuse(path, "a grant lives at most 30 days", `give it a time up to ${latest}, and renew it then`);
  }
  const principal = file.principals.find((one) => one.name === grant?.principal);
  if (principal !== undefined && principal.kind !== "human" && Date.parse(principal.expires) <= nowMs) {
    refuse(
      ["grants", index, "principal"],
      `the principal ${principal.name} has expired, so this grant can never match`,
      "renew the principal, or remove the grant",
    );
  }
  return expiresAtMs;
}

function resolveTables({ file, refuse }: Checking, index: number): readonly TableGrant[] {
  const tables = file.grants[index]?.tables ?? [];
  refuseTwice(
    tables,
    (one) => one.table,
    (position, table) => {
      refuse(
        ["grants", index, "tables", position, "table"],
        `${table} is there already`,
        "put verbs and columns of one table together",
      );
    },
  );
  return tables.flatMap((one, position) => {
    const at = ["grants", index, "tables", position];
    const [schema, table] = splitDottedName(one.table, 2) ?? [];
    if (schema === undefined || table === undefined) {
      refuse(
        [...at, "table"],
        `\`${one.table}\` does not name a table`,
        "write schema.table, with double quotes around a part that has capitals",
      );
      return [];
    }
    refuseTwice(
      one.verbs,
      (verb) => verb,
      (which, verb) => {
        refuse([...at, "verbs", which], `${verb} is there already`, "name each verb once");
      },
    );
    if (one.columns !== "all") {
      refuseTwice(
        one.columns,
        (column) => column,
        (which, column) => {
          refuse([...at, "columns", which], `${column} is there already`, "name each column once");
        },
      );
    }
    return [{ schema, table, verbs: one.verbs, columns: one.columns }];
  });
}

function refuseTwice<T>(
  items: readonly T[],
  keyOf: (item: T) => string,
  refuse: (index: number, key: string) => void,
): void {
  const seen = new Set<string>();
  for (const [index, item] of items.entries()) {
    const key = keyOf(item);
    if (seen.has(key)) {
      refuse(index, key);
    }
    seen.add(key);
  }
}

function nameFix(name: string, known: readonly string[], what: string): string {
  const near = suggestWord(name, known);
  if (near !== null) {
    return `did you mean ${near}?`;
  }
  return known.length === 0
    ? `there are no ${what} yet: add one`
    : `use one of the ${what}: ${known.slice(0, 20).join(", ")}`;
}
