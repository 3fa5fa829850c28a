/**
 * The configuration of a node: `sallyport.yaml` and the environment in, a checked `Config` out, or a `ConfigError` that names
 * file, line, column and fix. What has been loaded is trusted from then on. docs/configuration.md is the guide.
 */
import { readFileSync, readdirSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { TableGrant } from "#domain/grant.ts";
import type { PrincipalStatus } from "#domain/principal.ts";
import type { ColumnLabel, Mask } from "#domain/resource.ts";
import { type Address, type DatabaseLogin, type ReferenceReader, type Refused } from "./config-address.ts";
import { ConfigError, configBytesMax, problemsOfIssues, readConfigDocument } from "./config-problems.ts";
import { readConfigFile } from "./config-place.ts";
import { type ConfigEnvironment, resolveConfig } from "./config-resolve.ts";
import { configFileSchema, configJsonSchema } from "./config-schema.ts";

/** A checked configuration. Every name in it exists, every reference has been followed, every path is absolute. */
export interface Config {
  /** Absolute path of the file. */
  readonly file: string;
  readonly node: { readonly name: string };
  /** Loopback, and two different ports. */
  readonly listen: { readonly postgres: Address; readonly control: Address };
  /** Absolute; see `nodePlaces` for what is in it. */
  readonly directory: string;
  readonly state: StateConfig;
  readonly principals: readonly PrincipalConfig[];
  readonly resources: readonly ResourceConfig[];
  /** One for each label in use; `ruleId` is `mask.<label>`. */
  readonly masks: readonly Mask[];
  readonly grants: readonly GrantConfig[];
  /** Cedar files of the operator, in the order of loading. */
  readonly policies: readonly PolicyFile[];
}

/** Where the state store is. */
export type StateConfig =
  | { readonly kind: "embedded" }
  | {
      readonly kind: "server";
      readonly login: DatabaseLogin;
      /** `environment`: from SALLYPORT_DATABASE_URL, which stands in for the embedded server. */
      readonly from: "config" | "environment";
    };

/** A principal as declared; the gateway gives it an id when it first sees the name. */
export type PrincipalConfig =
  | { readonly kind: "human"; readonly name: string; readonly status: PrincipalStatus }
  | {
      readonly kind: "agent" | "service";
      readonly name: string;
      readonly status: PrincipalStatus;
      /** Name of a human principal. */
      readonly owner: string;
      readonly expiresAtMs: number;
    };

/** A resource as declared. */
export interface ResourceConfig {
  readonly name: string;
  readonly kind: "postgres";
  /** The provisioner's login. */
  readonly login: DatabaseLogin;
  readonly labels: readonly ColumnLabel[];
}

/** A grant as declared. Principal, resource and task title together are its name: no two grants share all three. */
export interface GrantConfig {
  readonly principal: string;
  readonly onBehalfOf: string | null;
  readonly resource: string;
  readonly task: { readonly title: string; readonly purpose: string | null; readonly ticket: string | null };
  /** In the future when the configuration was loaded, and at most `limits.grantLifetimeMsMax` away. */
  readonly expiresAtMs: number;
  readonly tables: readonly TableGrant[];
  /** Where it stands in the file, for messages about it. */
  readonly line: number;
}

/** One Cedar file. */
export interface PolicyFile {
  readonly path: string;
  readonly text: string;
}

/** What a configuration is read with; nothing else of the process is looked at. */
export interface ConfigSurroundings {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly nowMs: number;
}

/**
 * Loads a configuration file and everything that it refers to.
 * @throws ConfigError (`config.invalid`), or SallyportError `config.missing` when the file cannot be read.
 */
export function loadConfig(file: string, surroundings: ConfigSurroundings): Config {
  const path = resolve(file);
  return parseConfig(readConfigFile(path), path, surroundings);
}

/**
 * Checks the text of a configuration. Files it refers to are looked for next to `path`.
 * @throws ConfigError with every problem found.
 */
export function parseConfig(text: string, path: string, surroundings: ConfigSurroundings): Config {
  const file = basename(path);
  const document = readConfigDocument(text, file);
  const parsed = configFileSchema.safeParse(document.value ?? {});
  if (!parsed.success) {
    throw new ConfigError(file, problemsOfIssues(document, parsed.error.issues, JSON.parse(configJsonSchema())));
  }
  return resolveConfig(parsed.data, path, document, readerOf(dirname(path), surroundings));
}

const unsetPattern = /^the environment variable (\S+) is not set$/;

/** The environment variable whose absence is all that a problem says; null for any other problem. */
export function unsetVariableOf(problem: { readonly message: string }): string | null {
  return unsetPattern.exec(problem.message)?.[1] ?? null;
}

function readerOf(folder: string, surroundings: ConfigSurroundings): ConfigEnvironment {
  const readReference: ReferenceReader = (kind, name) => {
    if (kind === "env") {
      const value = surroundings.environment[name];
      return value === undefined || value === ""
        ? { message: `the environment variable ${name} is not set`, fix: `set ${name} before starting` }
        : { value };
    }
    const text = readSmallFile(resolve(folder, name), secretBytesMax);
    return typeof text === "string" ? { value: text.replace(/\r?\n$/, "") } : text;
  };
  return {
    nowMs: surroundings.nowMs,
    databaseUrl: surroundings.environment["SALLYPORT_DATABASE_URL"] || null,
    readReference,
    readPolicies: (name) => readPolicies(resolve(folder, name)),
  };
}

/** A URL or a password. */
const secretBytesMax = 64 * 1024;

function readSmallFile(path: string, bytesMax: number): string | Refused {
  try {
    return statSync(path).size > bytesMax
      ? { message: `${path} is larger than ${bytesMax / 1024} KiB`, fix: "name a smaller file" }
      : readFileSync(path, "utf8");
  } catch {
    // Missing, a directory, or not ours to read: all three are answered with the same fix.
    return {
      message: `${path} cannot be read`,
      fix: "make the file, or correct its path (relative to the configuration)",
    };
  }
}

function readPolicies(path: string): readonly PolicyFile[] | Refused {
  let files = [path];
  try {
    if (statSync(path).isDirectory()) {
      const names = readdirSync(path).filter((name) => name.endsWith(".cedar"));
      files = names.toSorted().map((name) => join(path, name));
    }
  } catch {
    // Falls through to the read below, which says what is wrong.
  }
  if (files.length === 0) {
    return { message: `${path} holds no *.cedar file`, fix: "add a policy there, or remove this line" };
  }
  const policies: PolicyFile[] = [];
  for (const file of files) {
    const text = readSmallFile(file, configBytesMax);
    if (typeof text !== "string") {
      return text;
    }
    policies.push({ path: file, text });
  }
  return policies;
}
