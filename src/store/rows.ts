/** What a row's body must look like once its signature holds. Also catches rows of an older program. Pure. */
import { z } from "zod";
import type { Credential, Grant } from "#domain/grant.ts";
import { type IdPrefix, type IdTypes, parseId } from "#domain/ids.ts";
import type { Principal } from "#domain/principal.ts";
import type { Resource } from "#domain/resource.ts";

function id<P extends IdPrefix>(prefix: P): z.ZodType<IdTypes[P]> {
  return z.string().transform((text, context) => {
    const parsed = parseId(prefix, text);
    if (parsed === null) {
      context.addIssue({ code: "custom", message: `not an id of ${prefix}` });
      return z.NEVER;
    }
    return parsed;
  });
}

const epochMs = z.int().min(0);
const status = z.enum(["active", "disabled"]);

/** Bodies of `sallyport.principals`. */
export const principalBody: z.ZodType<Principal> = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("human"), id: id("prn"), name: z.string(), status }),
  z.strictObject({
    kind: z.enum(["agent", "service"]),
    id: id("prn"),
    name: z.string(),
    status,
    ownerId: id("prn"),
    expiresAtMs: epochMs,
  }),
]);

const columnLabel = z.strictObject({ schema: z.string(), table: z.string(), column: z.string(), label: z.string() });

/** Bodies of `sallyport.resources`. */
export const resourceBody: z.ZodType<Resource> = z.strictObject({
  kind: z.literal("postgres"),
  id: id("res"),
  name: z.string(),
  host: z.string(),
  port: z.int().min(1).max(65_535),
  database: z.string(),
  labels: z.array(columnLabel),
});

const operator = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("redact") }),
  z.strictObject({ kind: z.literal("null") }),
  z.strictObject({ kind: z.literal("partial"), keepLast: z.int().min(0) }),
  z.strictObject({ kind: z.literal("email") }),
  z.strictObject({ kind: z.literal("date"), precision: z.enum(["year", "quarter", "month"]) }),
  z.strictObject({ kind: z.literal("number"), roundTo: z.int() }),
]);

const tableGrant = z.strictObject({
  schema: z.string(),
  table: z.string(),
  verbs: z.array(z.enum(["select", "insert", "update", "delete"])),
  columns: z.union([z.literal("all"), z.array(z.string())]),
});

/** Bodies of `sallyport.grants`. */
export const grantBody: z.ZodType<Grant> = z.strictObject({
  id: id("grt"),
  principalId: id("prn"),
  onBehalfOfId: id("prn").nullable(),
  resourceId: id("res"),
  task: z.strictObject({
    id: id("tsk"),
    title: z.string(),
    purpose: z.string().nullable(),
    ticket: z.string().nullable(),
  }),
  scope: z.strictObject({
    tables: z.array(tableGrant),
    masks: z.array(z.strictObject({ ruleId: z.string(), label: z.string(), operator })),
  }),
  createdAtMs: epochMs,
  expiresAtMs: epochMs,
  state: z.enum(["pending", "active", "ended"]),
  end: z
    .strictObject({ how: z.enum(["expired", "revoked", "failed", "removed"]), reason: z.string(), atMs: epochMs })
    .nullable(),
  source: z.enum(["config", "api"]),
});

/** Bodies of `sallyport.credentials`. */
export const credentialBody: z.ZodType<Credential> = z.strictObject({
  id: id("crd"),
  login: z.string(),
  grantId: id("grt"),
  runId: id("run").nullable(),
  verifier: z.strictObject({
    iterations: z.int().min(1),
    saltBase64: z.string(),
    storedKeyBase64: z.string(),
    serverKeyBase64: z.string(),
  }),
  createdAtMs: epochMs,
  expiresAtMs: epochMs,
  status: z.enum(["active", "ended"]),
});
