/** The demo's `sallyport.yaml`: one agent with an owner, one resource with labels, masks, and a grant for each MCP server. */

/** The two tasks, one for each MCP server. */
export const tasks = {
  serverPostgres: { title: "T-88 charged twice", ticket: "T-88" },
  dbhub: { title: "T-91 refund missing", ticket: "T-91" },
} as const;

export const grantedTables = ["customers", "invoices", "payments", "support_notes"] as const;

export interface DemoConfiguration {
  readonly postgresPort: number;
  readonly controlPort: number;
  /** Files next to the configuration that hold the database URLs. */
  readonly stateUrlFile: string;
  readonly billingUrlFile: string;
  /** Absolute; the demo's grants end by themselves then. */
  readonly expiresAtMs: number;
}

/** The file's text. No secret stands in it. */
export function configurationText(demo: DemoConfiguration): string {
  const expires = new Date(demo.expiresAtMs).toISOString().replace(/\.\d+Z$/, "Z");
  const grant = (task: { readonly title: string; readonly ticket: string }): string => `
  - principal: support-copilot
    onBehalfOf: bob
    resource: billing
    task: { title: ${task.title}, ticket: ${task.ticket} }
    expires: ${expires}
    tables:${grantedTables.map((table) => `\n      - { table: public.${table}, verbs: [select], columns: all }`).join("")}`;
  return `version: 1
node: { name: demo }
listen:
  postgres: 127.0.0.1:${demo.postgresPort}
  control: 127.0.0.1:${demo.controlPort}
directory: node
state: { url: "\${file:${demo.stateUrlFile}}" }

principals:
  - { name: bob, kind: human }
  - { name: support-copilot, kind: agent, owner: bob, expires: ${expires} }

resources:
  - name: billing
    kind: postgres
    url: "\${file:${demo.billingUrlFile}}"
    labels:
      public.customers.email: pii.email
      public.customers.phone: pii.phone
      public.customers.ssn: pii.ssn
      public.customers.birth_date: pii.birth-date
      public.support_notes.body: pii.note
      public.payment_methods.card_number: pci.pan

masks:
  - { label: pii.email, operator: email }
  - { label: pii.phone, operator: partial, keepLast: 4 }
  - { label: pii.ssn, operator: redact }
  - { label: pii.birth-date, operator: date, precision: year }
  - { label: pii.note, operator: redact }
  - { label: pci.pan, operator: redact }

grants:${grant(tasks.serverPostgres)}${grant(tasks.dbhub)}
`;
}
