/**
 * Which startup parameters a client may send (MASKING.md, L0), and what becomes of each. An allowlist: a parameter is a
 * setting of the session, and a setting can change what a statement means.
 */

/** What a client asked for, checked. */
export interface ClientParameters {
  readonly user: string;
  readonly database: string;
  /** Settings to start the session at the resource with, by PostgreSQL's own spelling; `client_encoding` is always UTF8. */
  readonly settings: ReadonlyMap<string, string>;
  /** `_pq_.` options: none is known. */
  readonly unknownOptions: readonly string[];
}

/** A startup packet that is refused, in words for the client. */
export interface RefusedParameters {
  readonly refused: true;
  readonly code: "protocol.unsupported" | "grant.no-session-setting" | "resource.unknown" | "credential.invalid";
  readonly reason: string;
  readonly nextStep: string;
}

/** A checked value as it goes to the resource; null drops the setting, `undefined` refuses the value. */
type Check = (value: string) => string | null | undefined;

const matching =
  (pattern: RegExp): Check =>
  (value) =>
    pattern.test(value) ? value : undefined;

/** Names in lower case: PostgreSQL compares them so. */
const allowedSettings: ReadonlyMap<string, { readonly name: string; readonly check: Check }> = new Map([
  ["application_name", { name: "application_name", check: (value) => value.slice(0, 63) }],
  // Whatever is asked for, UTF8 is spoken and reported: in any other encoding a quote can hide inside a character.
  ["client_encoding", { name: "client_encoding", check: () => "UTF8" }],
  ["datestyle", { name: "DateStyle", check: matching(/^[A-Za-z]{2,12}( *, *[A-Za-z]{2,12})?$/) }],
  ["timezone", { name: "TimeZone", check: matching(/^[A-Za-z0-9_+\-/:.,<> ]{1,64}$/) }],
  ["intervalstyle", { name: "IntervalStyle", check: matching(/^[A-Za-z_0-9]{1,32}$/) }],
  ["extra_float_digits", { name: "extra_float_digits", check: matching(/^(-?\d|-1[0-5])$/) }],
  // Only towards less: what the grant pins cannot be taken off at the start of a session.
  ["default_transaction_read_only", { name: "default_transaction_read_only", check: readOnly }],
  // Accepted and dropped: names resolve as the grant says, which for these is what was asked.
  ["search_path", { name: "search_path", check: (value) => (isDefaultSearchPath(value) ? null : undefined) }],
]);

const allowedNames = [...allowedSettings.values()].map((setting) => setting.name).join(", ");

/** Checks the parameters of a startup packet. */
export function checkClientParameters(parameters: ReadonlyMap<string, string>): ClientParameters | RefusedParameters {
  const settings = new Map([["client_encoding", "UTF8"]]);
  const unknownOptions: string[] = [];
  let user = "";
  let database = "";
  for (const [name, value] of parameters) {
    if (name === "user") {
      user = value;
    } else if (name === "database") {
      database = value;
    } else if (name.startsWith("_pq_.")) {
      unknownOptions.push(name);
    } else {
      const refused =
        name.toLowerCase() === "options" ? addOptions(settings, value) : addSetting(settings, name, value);
      if (refused !== null) {
        return refused;
      }
    }
  }
  if (user === "") {
    return {
      refused: true,
      code: "credential.invalid",
      reason: "The connection names no user.",
      nextStep: "Connect with the login and password of a grant.",
    };
  }
  if (database === "") {
    return {
      refused: true,
      code: "resource.unknown",
      reason: "The connection names no database, and the gateway does not take the user name for one.",
      nextStep: "Name the resource as the database, such as dbname=billing.",
    };
  }
  return { user, database, settings, unknownOptions };
}

function addSetting(settings: Map<string, string>, name: string, value: string): RefusedParameters | null {
  const key = name.toLowerCase();
  if (key === "replication") {
    return {
      refused: true,
      code: "protocol.unsupported",
      reason: "Replication connections do not pass the gateway.",
      nextStep: "Connect without the replication parameter.",
    };
  }
  const setting = allowedSettings.get(key);
  if (setting === undefined) {
    return {
      refused: true,
      code: "grant.no-session-setting",
      reason: `The startup parameter ${quoted(name)} is not one that a session through the gateway may set.`,
      nextStep: `Leave it out. These may be set: ${allowedNames}.`,
    };
  }
  const checked = setting.check(value);
  if (checked === undefined) {
    return {
      refused: true,
      code: "grant.no-session-setting",
      reason: `The startup parameter ${setting.name} may not be ${quoted(value)} through the gateway.`,
      nextStep: `Leave ${setting.name} out, or set it to a value that the grant allows.`,
    };
  }
  if (checked !== null) {
    settings.set(setting.name, checked);
  }
  return null;
}

/** The `options` parameter: command-line switches, of which `-c name=value` and `--name=value` are read. */
function addOptions(settings: Map<string, string>, options: string): RefusedParameters | null {
  const words = splitOptions(options);
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? "";
    let assignment: string;
    if (word === "-c") {
      i++;
      assignment = words[i] ?? "";
    } else if (word.startsWith("-c") || word.startsWith("--")) {
      assignment = word.slice(2);
    } else {
      return unreadableOptions(word);
    }
    const equals = assignment.indexOf("=");
    if (equals < 1) {
      return unreadableOptions(word);
    }
    // PostgreSQL reads hyphens in the name as underscores.
    const name = assignment.slice(0, equals).replaceAll("-", "_");
    const refused = addSetting(settings, name, assignment.slice(equals + 1));
    if (refused !== null) {
      return refused;
    }
  }
  return null;
}

function unreadableOptions(word: string): RefusedParameters {
  return {
    refused: true,
    code: "grant.no-session-setting",
    reason: `The startup parameter options holds ${quoted(word)}, which is not a setting of the form -c name=value.`,
    nextStep: `Leave it out. These may be set: ${allowedNames}.`,
  };
}

/** Words as PostgreSQL splits them: at white space, where a backslash takes the next character as it is. */
function splitOptions(options: string): readonly string[] {
  const words = options.match(/(?:\\[^]|[^\s\\])+/g) ?? [];
  return words.map((word) => word.replaceAll(/\\([^])/g, "$1"));
}

/** PostgreSQL's spellings of true. */
function readOnly(value: string): string | undefined {
  return /^(on|1|t|tr|tru|true|y|ye|yes)$/i.test(value) ? "on" : undefined;
}

function isDefaultSearchPath(value: string): boolean {
  const names = value.split(",").map((name) => name.trim().replace(/^(["'])(.*)\1$/, "$2"));
  return names.every((name) => name === "$user" || name.toLowerCase() === "public" || name === "pg_catalog");
}

/** Client text inside a sentence: short, on one line. */
function quoted(text: string): string {
  return JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text);
}
