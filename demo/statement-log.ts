/** PostgreSQL's own account of what it was sent: the lines that `log_statement = all` writes. */

/** How the demo's server begins each line, so that a line says whose statement it was. */
export const logLinePrefix = "%m [%p] %u@%d ";

export interface LoggedStatements {
  /** Statements as they arrived in messages: a Query of several is one line. */
  readonly messages: number;
  /** Texts that the gateway sent in place of a denied statement, so that the transaction fails too. */
  readonly denied: number;
  /** The texts of the first kind, for a look at what must not be among them. */
  readonly texts: readonly string[];
}

const deniedText = "SALLYPORT DENIED";

/**
 * Reads what the given roles sent. PostgreSQL logs a statement when it has been parsed, so that the gateway's deliberately
 * failing text shows only as the statement of an error.
 */
export function readStatementLog(log: string, roles: ReadonlySet<string>): LoggedStatements {
  const texts: string[] = [];
  let denied = 0;
  // A statement's further lines begin with a tab: nothing in a statement can look like a line of its own.
  for (const record of log.split(/\n(?!\t)/)) {
    const [, user, kind, rest = ""] = /^[^\n]*? (\S+)@\S* (LOG|STATEMENT): {2}([^]*)$/.exec(record) ?? [];
    if (user === undefined || !roles.has(user)) {
      continue;
    }
    const [, text] = /^(?:statement|execute (?!fetch from )[^:]*): ([^]*)$/.exec(rest) ?? [];
    if (kind === "LOG" && text !== undefined) {
      texts.push(text);
    }
    if (kind === "STATEMENT" && rest.startsWith(deniedText)) {
      denied += 1;
    }
  }
  return { messages: texts.length, denied, texts };
}
