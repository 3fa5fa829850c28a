/** What a server is started with: `{{PLACEHOLDERS}}` in its command line and environment, filled from the run's credential. */
import { SallyportError } from "#domain/errors.ts";
import type { ConnectionDetails } from "#domain/control.ts";

/** May stand anywhere: none of them holds the password. */
const openNames = ["DATABASE_URL", "PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PASSWORD_FILE", "PGPASSFILE"] as const;
/** Hold the password, so only `--env` takes them: arguments are readable to every account of the machine. */
const secretNames = ["DATABASE_URL_WITH_PASSWORD", "PGPASSWORD"] as const;
type PlaceholderName = (typeof openNames)[number] | (typeof secretNames)[number];

const placeholder = /\{\{([A-Z][A-Z0-9_]*)\}\}/g;

/** Settings of libpq and of its imitators that could send a client elsewhere, or as someone else, than the run says. */
const libpqSettings =
  /^PG(HOST|HOSTADDR|PORT|DATABASE|USER|PASSWORD|PASSFILE|SERVICE|SERVICEFILE|OPTIONS|SSL.*|REQUIRE.*|GSS.*|KRB.*|CHANNELBINDING|TARGETSESSIONATTRS|LOADBALANCEHOSTS)$/;

/** A server's command line and its own environment, checked and not yet filled. */
export interface ServerTemplate {
  readonly program: string;
  readonly parameters: readonly string[];
  readonly environment: readonly { readonly name: string; readonly value: string }[];
  /** Which files with the password are asked for; without one, the password goes into the environment. */
  readonly files: readonly ("PASSWORD_FILE" | "PGPASSFILE")[];
}

/** What to spawn. The password stands in `environment` or in the files, never in `parameters`. */
export interface ServerCommand {
  readonly program: string;
  readonly parameters: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

/**
 * Reads the command after `--` and the values of `--env`.
 * @throws SallyportError `usage` that names the argument and what to write instead.
 */
export function readTemplate(command: readonly string[], variables: readonly string[]): ServerTemplate {
  const [program, ...parameters] = command;
  if (program === undefined || program === "") {
    throw usage(
      "no server is named",
      "write it after `--`, such as `-- npx -y @modelcontextprotocol/server-postgres '{{DATABASE_URL}}'`",
    );
  }
  const used = new Set<PlaceholderName>();
  for (const argument of command) {
    for (const name of namesIn(argument)) {
      if (isSecretName(name)) {
        throw usage(
          `{{${name}}} holds the password, and arguments are readable to every account of this machine`,
          `give it in the environment, such as \`--env 'DSN={{${name}}}'\`; {{DATABASE_URL}} carries no password and PGPASSWORD is set`,
        );
      }
      used.add(name);
    }
  }
  const environment = variables.map((variable) => {
    const equals = variable.indexOf("=");
    const name = variable.slice(0, Math.max(equals, 0));
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) || name.startsWith("SALLYPORT_")) {
      throw usage(
        "--env takes NAME=VALUE, with a name of letters, digits and _",
        "such as `--env 'DSN={{DATABASE_URL_WITH_PASSWORD}}'`",
      );
    }
    const value = variable.slice(equals + 1);
    namesIn(value).forEach((placeholderName) => used.add(placeholderName));
    return { name, value };
  });
  return {
    program,
    parameters,
    environment,
    files: (["PASSWORD_FILE", "PGPASSFILE"] as const).filter((name) => used.has(name)),
  };
}

/** Fills a template. `files` are the paths of the files that the template asks for. */
export function fillTemplate(
  template: ServerTemplate,
  connection: ConnectionDetails,
  files: Readonly<Record<"PASSWORD_FILE" | "PGPASSFILE", string>>,
  inherited: Readonly<Record<string, string | undefined>>,
): ServerCommand {
  const { host, user, password, database } = connection;
  const port = String(connection.port);
  const place = `${host.includes(":") ? `[${host}]` : host}:${port}/${encodeURIComponent(database)}?sslmode=disable`;
  const values: Readonly<Record<PlaceholderName, string>> = {
    DATABASE_URL: `postgres://${encodeURIComponent(user)}@${place}`,
    DATABASE_URL_WITH_PASSWORD: `postgres://${encodeURIComponent(user)}:${encodeURIComponent(password)}@${place}`,
    PGHOST: host,
    PGPORT: port,
    PGDATABASE: database,
    PGUSER: user,
    PGPASSWORD: password,
    ...files,
  };
  const fill = (text: string): string =>
    text.replace(placeholder, (whole, name: string) => (isName(name) ? values[name] : whole));

  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(inherited)) {
    // The gateway's own settings, its control credential among them, are not the server's.
    if (value !== undefined && !libpqSettings.test(name) && !name.startsWith("SALLYPORT_")) {
      environment[name] = value;
    }
  }
  Object.assign(environment, { PGHOST: host, PGPORT: port, PGDATABASE: database, PGUSER: user, PGSSLMODE: "disable" });
  if (template.files.length === 0) {
    environment["PGPASSWORD"] = password;
  }
  for (const { name, value } of template.environment) {
    environment[name] = fill(value);
  }
  return { program: fill(template.program), parameters: template.parameters.map(fill), environment };
}

/** A line of a `.pgpass` file (PostgreSQL documentation, "The Password File"). */
export function pgpassLine(connection: ConnectionDetails): string {
  const { host, port, database, user, password } = connection;
  return `${[host, String(port), database, user, password].map((field) => field.replaceAll(/[\\:]/g, "\\$&")).join(":")}\n`;
}

function namesIn(text: string): readonly PlaceholderName[] {
  return [...text.matchAll(placeholder)].map(([whole, name = ""]) => {
    if (!isName(name)) {
      throw usage(
        `${whole} is not known`,
        `there are ${[...openNames, ...secretNames].map((known) => `{{${known}}}`).join(", ")}`,
      );
    }
    return name;
  });
}

function isName(name: string): name is PlaceholderName {
  return isSecretName(name) || openNames.some((known) => known === name);
}

function isSecretName(name: string): name is (typeof secretNames)[number] {
  return secretNames.some((known) => known === name);
}

function usage(message: string, nextStep: string): SallyportError {
  return new SallyportError("usage", "client", message, { nextStep });
}
