/** A whole configuration that is right, to make wrong ones from. */
import { join } from "node:path";
import { type Config, parseConfig } from "#config.ts";
import { ConfigError, type ConfigProblem } from "#config-problems.ts";

export const nowMs = Date.parse("2026-11-22T12:00:00Z");

export const example = `version: 1
node: { name: billing-gw }
listen: { postgres: 127.0.0.1:7432, control: 127.0.0.1:7400 }
directory: .sallyport
state: { embedded: true }
principals:
  - { name: bob, kind: human }
  - { name: support-copilot, kind: agent, owner: bob, expires: 2027-06-30T00:00:00Z }
resources:
  - name: billing
    kind: postgres
    url: \${env:BILLING_DATABASE_URL}
    labels: { public.customers.email: pii.email, public.customers.ssn: pii.ssn }
masks:
  - { label: pii.email, operator: email }
  - { label: pii.ssn, operator: partial, keepLast: 4 }
grants:
  - principal: support-copilot
    resource: billing
    task: { title: "T-88 charged twice", ticket: T-88, purpose: "find the second charge" }
    expires: 2026-12-20T00:00:00Z
    tables:
      - { table: public.customers, verbs: [select], columns: [id, name, email] }
      - { table: public.invoices, verbs: [select, update], columns: all }
policies: []
`;

export const environment: Readonly<Record<string, string | undefined>> = {
  BILLING_DATABASE_URL: "postgresql://provisioner:s3cret@127.0.0.1:5432/billing",
};

/** Parses text as if it stood in `directory/sallyport.yaml`. */
export function parse(text: string, more: Readonly<Record<string, string>> = {}, directory = "/nowhere"): Config {
  return parseConfig(text, join(directory, "sallyport.yaml"), { environment: { ...environment, ...more }, nowMs });
}

/** The problems of a text that is refused; a text that is not refused fails the test. */
export function problemsOf(
  text: string,
  more: Readonly<Record<string, string>> = {},
  directory = "/nowhere",
): readonly ConfigProblem[] {
  try {
    parse(text, more, directory);
  } catch (error) {
    if (error instanceof ConfigError) {
      return error.problems;
    }
    throw error;
  }
  throw new Error("the configuration was accepted");
}

/** The example with one line replaced; `line` counts from 1. */
export function withLine(line: number, replacement: string): string {
  return example
    .split("\n")
    .map((text, index) => (index === line - 1 ? replacement : text))
    .join("\n");
}
