/**
 * Where a node is: what a client needs of its configuration, and nothing else. A client must need neither the gateway's secrets
 * nor the time to check a whole configuration.
 */
import { readFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { SallyportError } from "#domain/errors.ts";
import { type Address, parseListenAddress } from "./config-address.ts";
import { type ConfigDocument, ConfigError, readConfigDocument } from "./config-problems.ts";
import { nodePlaces } from "./config-secrets.ts";

/** What holds where a configuration does not say. */
export const configDefaults = {
  postgres: "127.0.0.1:7432",
  control: "127.0.0.1:7400",
  directory: ".sallyport",
} as const;

/** The control endpoint, the token for it, and the node's directory. */
export interface ControlPlace {
  readonly address: Address;
  readonly tokenFile: string;
  readonly directory: string;
}

/**
 * Reads where the control endpoint of a configuration is; the rest of the file only has to be YAML.
 * @throws ConfigError or SallyportError `config.missing`.
 */
export function loadControlPlace(file: string): ControlPlace {
  const path = resolve(file);
  const document = readConfigDocument(readConfigFile(path), basename(path));
  const refuse = (at: readonly string[], message: string, fix: string): never => {
    throw new ConfigError(basename(path), [document.problemAt(at, message, fix)]);
  };
  const listen = valueOf(document.value, "listen");
  const control = valueOf(listen, "control") ?? configDefaults.control;
  const directory = valueOf(document.value, "directory") ?? configDefaults.directory;
  if (typeof control !== "string") {
    return refuse(["listen", "control"], "this is not an address with a port", `write ${configDefaults.control}`);
  }
  if (typeof directory !== "string" || directory === "") {
    return refuse(["directory"], "this is not a directory's name", `write ${configDefaults.directory}`);
  }
  const address = parseListenAddress(control);
  if ("fix" in address) {
    return refuse(["listen", "control"], address.message, address.fix);
  }
  const places = nodePlaces(resolve(dirname(path), directory));
  return { address, tokenFile: places.controlToken, directory: places.directory };
}

function valueOf(value: ConfigDocument["value"], key: string): unknown {
  return typeof value === "object" && value !== null
    ? new Map<string, unknown>(Object.entries(value)).get(key)
    : undefined;
}

/** Reads the text of a configuration file. @throws SallyportError `config.missing`. */
export function readConfigFile(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new SallyportError("config.missing", "client", `there is no readable configuration at ${path}`, {
      cause,
      nextStep: "run `sallyport init` to write one, or name one with --config",
    });
  }
}
