/** Addresses and database URLs of a configuration, and the secrets that they refer to. Pure but for the given reader. */
import { isIPv4, isIPv6 } from "node:net";
import { Secret } from "./config-secrets.ts";

/** Where to listen or connect. An IPv6 host has no brackets. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Where a PostgreSQL is, and whom to log in as. */
export interface DatabaseLogin extends Address {
  readonly database: string;
  readonly user: string;
  /** Null when the URL has none: the server must then let the user in without. */
  readonly password: Secret | null;
}

/** Why a text was refused; it never repeats the text, which may hold a secret. */
export interface Refused {
  readonly message: string;
  readonly fix: string;
}

/** Looks up `${env:NAME}` and `${file:path}`: the value, or why there is none. */
export type ReferenceReader = (kind: "env" | "file", name: string) => { readonly value: string } | Refused;

/** Reads `127.0.0.1:7432`, `[::1]:7432` or `localhost:7432`; anything but loopback is refused until TLS comes. */
export function parseListenAddress(text: string): Address | Refused {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:\s]+)):([0-9]{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3]);
  if (!isLoopback(host)) {
    return {
      message: `${host === "" ? "this" : host} is not a loopback address; without TLS, which comes later, others could read along`,
      fix: "use 127.0.0.1, and reach it from elsewhere through an SSH tunnel",
    };
  }
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    return { message: "the port is not between 1 and 65535", fix: "use a free port, such as 7432" };
  }
  return { host: host === "localhost" ? "127.0.0.1" : host, port };
}

/** True for 127.0.0.0/8, ::1 and the name `localhost`. */
export function isLoopback(host: string): boolean {
  return (
    host === "localhost" || (isIPv4(host) && host.startsWith("127.")) || (isIPv6(host) && /^(0*:)*0*1$/.test(host))
  );
}

const referencePattern = /\$\{([^}]*)\}/g;

/**
 * Reads a PostgreSQL URL in which `${env:NAME}` and `${file:path}` stand for the whole URL or for a part of it. A part that is
 * referred to is percent-encoded here. A password that is written out is refused.
 */
export function parseDatabaseUrl(template: string, read: ReferenceReader): DatabaseLogin | Refused {
  const references = [...template.matchAll(referencePattern)].map((match) => match[1] ?? "");
  const values: string[] = [];
  for (const reference of references) {
    const [, kind, name] = /^(env|file):(.+)$/s.exec(reference) ?? [];
    if ((kind !== "env" && kind !== "file") || name === undefined) {
      return { message: "a reference is of no known kind", fix: "use ${env:NAME} or ${file:path}" };
    }
    const found = read(kind, name);
    if ("fix" in found) {
      return found;
    }
    values.push(found.value);
  }
  const isWhole = references.length === 1 && /^\s*\$\{[^}]*\}\s*$/.test(template);
  if (isWhole) {
    return parsePlainDatabaseUrl(values[0] ?? "");
  }
  const inline = inlinePassword(template);
  if (inline !== null) {
    return inline;
  }
  let next = 0;
  return parsePlainDatabaseUrl(template.replaceAll(referencePattern, () => encodeURIComponent(values[next++] ?? "")));
}

/** Puts a mark in the place of every reference; a password that is more than one mark was written out. */
function inlinePassword(template: string): Refused | null {
  const mark = "sallyportreference";
  const url = parseUrl(template.replaceAll(referencePattern, mark));
  if (url === null) {
    return notAUrl;
  }
  return url.password === "" || url.password === mark
    ? null
    : {
        message: "the password is written out in the configuration",
        fix: "move it: put the URL into an environment variable and write ${env:NAME}, or into a file of mode 0600 and write ${file:path}",
      };
}

const notAUrl: Refused = {
  message: "this is not a PostgreSQL URL",
  fix: "use the form postgresql://user@127.0.0.1:5432/database",
};

/** Reads a PostgreSQL URL that holds everything itself, such as the value of an environment variable. */
export function parsePlainDatabaseUrl(text: string): DatabaseLogin | Refused {
  const url = parseUrl(text.trim());
  if (url === null || (url.protocol !== "postgresql:" && url.protocol !== "postgres:")) {
    return notAUrl;
  }
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  if (!isLoopback(host)) {
    return {
      message:
        "the server is not on this machine's loopback; TLS towards PostgreSQL comes later, and without it others could read along",
      fix: "reach it through a local port, such as an SSH tunnel to 127.0.0.1",
    };
  }
  for (const [key, value] of url.searchParams) {
    if (key !== "sslmode" || !["disable", "allow", "prefer"].includes(value)) {
      return {
        message:
          key === "sslmode"
            ? "this sslmode asks for TLS, which comes later"
            : "the URL has a parameter that is not supported",
        fix: "remove everything from the `?` on",
      };
    }
  }
  try {
    const database = decodeURIComponent(url.pathname.slice(1));
    const user = decodeURIComponent(url.username);
    if (database === "" || user === "" || database.includes("/")) {
      return {
        message: database === "" ? "the URL names no database" : "the URL names no user, or more than a database",
        fix: notAUrl.fix,
      };
    }
    const password = decodeURIComponent(url.password);
    return {
      host,
      port: url.port === "" ? 5432 : Number(url.port),
      database,
      user,
      password: password === "" ? null : new Secret(password),
    };
  } catch {
    // decodeURIComponent: a `%` that starts no escape. Refused like any other text that is not a URL.
    return { message: "the URL has a `%` that is no escape", fix: "write % as %25, @ as %40, / as %2F" };
  }
}

function parseUrl(text: string): URL | null {
  return URL.canParse(text) ? new URL(text) : null;
}
