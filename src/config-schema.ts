/**
 * The shape of `sallyport.yaml`: one zod schema without transforms, so that `sallyport.schema.json` says the same as what is
 * checked. What a shape cannot say (references, names that must exist, deadlines) is in `config-resolve.ts`.
 */
import { z } from "zod";
import { configDefaults } from "./config-place.ts";

/** Names of principals, resources and nodes. */
const namePattern = /^[a-z0-9][a-z0-9._-]{0,62}$/;
/** What the pattern means, for a person. */
const nameHint = "1 to 63 characters of a-z, 0-9, `.`, `_` and `-`, the first a letter or a digit";

const name = z.string().regex(namePattern, { error: nameHint });
const instant = z.iso
  .datetime({ offset: true, error: "a time with its zone, such as 2026-12-31T18:00:00Z" })
  .describe("A point in time with its zone, such as 2026-12-31T18:00:00Z.");
const label = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, { error: "a label such as pii.email" })
  .describe("A label on columns, such as pii.email.");
const shortText = z.string().trim().min(1).max(200);
const address = z
  .string()
  .regex(/^(\[[0-9a-fA-F:]+\]|[^:\s]+):[0-9]{1,5}$/, { error: "an address with a port, such as 127.0.0.1:7432" });

const node = z.strictObject({
  name: name.describe("Names this node in its ledger's origin; give it for life."),
});

const listen = z.strictObject({
  postgres: address
    .default(configDefaults.postgres)
    .describe("Where PostgreSQL clients connect. Loopback only until TLS comes."),
  control: address.default(configDefaults.control).describe("The control endpoint of the command line. Loopback only."),
});

const state = z.union([
  z.strictObject({ embedded: z.literal(true).describe("A PostgreSQL 18 of its own, under `directory`.") }),
  z.strictObject({ url: z.string().max(4096).describe("A PostgreSQL of yours: ${env:NAME} or ${file:path}.") }),
]);

const human = z.strictObject({
  name,
  kind: z.literal("human"),
  status: z.enum(["active", "disabled"]).default("active"),
});
const machineFields = {
  name,
  owner: name.describe("The human principal who answers for it."),
  expires: instant.describe("From then on it can do nothing."),
  status: z.enum(["active", "disabled"]).default("active"),
};
const principal = z.discriminatedUnion("kind", [
  human,
  z.strictObject({ kind: z.literal("agent"), ...machineFields }),
  z.strictObject({ kind: z.literal("service"), ...machineFields }),
]);

const resource = z.strictObject({
  name: name.describe("What a client names as its database."),
  kind: z.literal("postgres"),
  url: z
    .string()
    .max(4096)
    .describe("The provisioner's login. A password only as ${env:NAME} or ${file:path}; never inline."),
  labels: z
    .record(z.string(), label)
    .default({})
    .describe("Labels on columns: `schema.table.column: label`. A part with a dot or capitals needs double quotes."),
});

const mask = z.discriminatedUnion("operator", [
  z.strictObject({ label, operator: z.literal("redact") }),
  z.strictObject({ label, operator: z.literal(["null", null]) }),
  z.strictObject({
    label,
    operator: z.literal("partial"),
    keepLast: z.int().min(0).max(16).describe("Characters left readable at the end."),
  }),
  z.strictObject({ label, operator: z.literal("email") }),
  z.strictObject({ label, operator: z.literal("date"), precision: z.enum(["year", "quarter", "month"]) }),
  z.strictObject({ label, operator: z.literal("number"), roundTo: z.int().min(2).max(1_000_000_000) }),
]);

const grantTable = z.strictObject({
  table: z.string().max(200).describe("`schema.table`. A part with a dot or capitals needs double quotes."),
  verbs: z.array(z.enum(["select", "insert", "update", "delete"])).min(1),
  columns: z
    .union([z.literal("all"), z.array(z.string().min(1).max(63)).min(1).max(1600)])
    .describe("Column names, or `all`: every column that the table has when the grant is made."),
});

const task = z.strictObject({
  title: shortText.describe("Such as `T-88 charged twice`."),
  ticket: shortText.optional(),
  purpose: z.string().trim().min(1).max(2000).optional(),
});

const grant = z.strictObject({
  principal: name,
  onBehalfOf: name.optional().describe("The human principal for whom an agent acts."),
  resource: name,
  task,
  expires: instant.describe("The grant ends then, and every session with it."),
  tables: z.array(grantTable).min(1).max(200),
});

/** `sallyport.yaml`. */
export const configFileSchema = z
  .strictObject({
    version: z.literal(1).describe("The version of this format."),
    node,
    listen: listen.default({ postgres: configDefaults.postgres, control: configDefaults.control }),
    directory: z
      .string()
      .min(1)
      .max(1000)
      .default(configDefaults.directory)
      .describe("Ledger, keys, embedded PostgreSQL and control token; relative to this file."),
    state: state.default({ embedded: true }),
    principals: z.array(principal).max(10_000).default([]),
    resources: z.array(resource).max(1000).default([]),
    masks: z.array(mask).max(1000).default([]),
    grants: z.array(grant).max(10_000).default([]),
    policies: z
      .array(z.string().min(1).max(1000))
      .max(1000)
      .default([])
      .describe("Cedar files, or directories of *.cedar files; relative to this file."),
  })
  .describe("The configuration of a Sallyport node.");

/** What the schema lets through: the input of `config-resolve.ts`. */
export type ConfigFile = z.output<typeof configFileSchema>;

/** `sallyport.schema.json` as text: what editors complete and check `sallyport.yaml` with. */
export function configJsonSchema(): string {
  const schema = z.toJSONSchema(configFileSchema, { io: "input", target: "draft-2020-12" });
  return `${JSON.stringify({ $id: "sallyport.schema.json", title: "sallyport.yaml", ...schema }, null, 2)}\n`;
}
