/** The configuration that `sallyport init` writes: valid as it stands, and a worked example behind `#` without a space. */
export interface TemplateValues {
  readonly name: string;
  /** ISO 8601 with a zone. */
  readonly grantExpires: string;
  readonly principalExpires: string;
}

/** Lines that start with `#` and no space are the example: take the `#` away and they are configuration. */
export function configTemplate(values: TemplateValues): string {
  return `# yaml-language-server: $schema=./sallyport.schema.json
# The guide is docs/configuration.md. Secrets are never written here: \${env:NAME} or \${file:path} refer to them.
version: 1

# Names this node in its ledger. Give it for life.
node: { name: ${values.name} }

# Loopback only, until TLS comes.
listen:
  postgres: 127.0.0.1:7432
  control: 127.0.0.1:7400

# Ledger, keys, embedded PostgreSQL, control token.
directory: .sallyport

# Where the gateway keeps its own state: a PostgreSQL of its own, or { url: "\${env:SALLYPORT_STATE_URL}" }.
state: { embedded: true }

# Who acts. Every agent and service has a human owner and an end.
principals:
  - { name: owner, kind: human }
#  - { name: support-copilot, kind: agent, owner: owner, expires: ${values.principalExpires} }

# What is reached. The URL is the provisioner's login; it makes and drops the roles of grants.
#resources:
#  - name: billing
#    kind: postgres
#    url: \${env:BILLING_DATABASE_URL}
#    labels:
#      public.customers.email: pii.email
#      public.customers.ssn: pii.ssn

# What a labelled column looks like to whoever may not see it: redact, null, partial, email, date, number.
#masks:
#  - { label: pii.email, operator: email }
#  - { label: pii.ssn, operator: partial, keepLast: 4 }

# Who may reach what, for which task, until when. \`sallyport grant add\` makes short ones without this file.
#grants:
#  - principal: support-copilot
#    resource: billing
#    task: { title: "T-88 charged twice", ticket: T-88 }
#    expires: ${values.grantExpires}
#    tables:
#      - { table: public.customers, verbs: [select], columns: [id, name, email, ssn] }
#      - { table: public.invoices, verbs: [select], columns: all }
`;
}
