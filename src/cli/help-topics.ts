/** Help that belongs to no single command. */
import { exitCodeMeanings } from "./exit-codes.ts";

const exitCodeTopic = `Exit codes of sallyport:

${exitCodeMeanings.map(([code, meaning]) => `  ${String(code).padStart(3)}  ${meaning}`).join("\n")}

\`sallyport run\` gives the exit code of the server that it ran, 128 + n when signal n ended it.
`;

const environmentTopic = `Environment variables that sallyport reads:

  SALLYPORT_CONFIG        the configuration, when --config is not given (default: sallyport.yaml)
  SALLYPORT_DATABASE_URL  a PostgreSQL of yours, in place of the embedded one
  SALLYPORT_DEBUG         print the stack of an unexpected failure
  NO_COLOR, FORCE_COLOR   no colour, or colour also where the output is no terminal

A configuration refers to others by \${env:NAME}.
`;

const outputTopic = `Output of sallyport:

  Data goes to standard output, progress and errors to standard error.
  With --json, standard output holds exactly one JSON object on one line. When the command fails it is
    {"error":{"code","message","nextStep","retryable","decisionId","requestId"}}
  and the exit code is not 0. Times are epoch milliseconds, in fields that end in Ms.
  \`sallyport run\` is the exception: its standard output is the MCP server's.
  Only \`grant revoke\` asks a question, and --yes answers it. With --no-input, with --json or without a terminal it does
  not ask: it is then a usage error (exit code 2) that names --yes, unless --yes was given.
`;

const topics: Readonly<Record<string, string>> = {
  "exit-codes": exitCodeTopic,
  environment: environmentTopic,
  output: outputTopic,
};

/** Every topic's name. */
export const helpTopicNames: readonly string[] = Object.keys(topics);

/** The text of a topic; null when there is none of that name. */
export function helpTopic(name: string): string | null {
  return Object.hasOwn(topics, name) ? (topics[name] ?? null) : null;
}
