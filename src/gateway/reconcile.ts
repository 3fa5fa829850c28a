/**
 * Brings the state store to what the configuration declares. Every difference is a change with its entries; what is no longer
 * declared is disabled or ended, never forgotten.
 */
import type { CredentialStore, PrincipalStore } from "#identity/ports.ts";
import { SallyportError } from "#domain/errors.ts";
import type { Grant, TableGrant } from "#domain/grant.ts";
import type { IdSource, PrincipalId } from "#domain/ids.ts";
import type { Clock } from "#domain/clock.ts";
import type { Principal, PrincipalStatus } from "#domain/principal.ts";
import type { ColumnLabel, Mask, Resource } from "#domain/resource.ts";
import type { ChangeKind } from "#ledger/entry.ts";
import type { Ledger } from "#ledger/ledger.ts";
import { makeChange } from "./changes.ts";
import type { GrantStore, ResourceStore } from "./ports.ts";

/** What a configuration declares, by name. */
export interface Declared {
  readonly principals: readonly DeclaredPrincipal[];
  readonly resources: readonly DeclaredResource[];
  readonly masks: readonly Mask[];
  readonly grants: readonly DeclaredGrant[];
}

export type DeclaredPrincipal =
  | { readonly kind: "human"; readonly name: string; readonly status: PrincipalStatus }
  | {
      readonly kind: "agent" | "service";
      readonly name: string;
      readonly status: PrincipalStatus;
      readonly owner: string;
      readonly expiresAtMs: number;
    };

export interface DeclaredResource {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly labels: readonly ColumnLabel[];
}

export interface DeclaredGrant {
  readonly principal: string;
  readonly onBehalfOf: string | null;
  readonly resource: string;
  readonly task: { readonly title: string; readonly purpose: string | null; readonly ticket: string | null };
  readonly expiresAtMs: number;
  readonly tables: readonly TableGrant[];
}

export interface ReconcileParts {
  readonly ledger: Ledger;
  readonly ids: IdSource;
  readonly clock: Clock;
  readonly principals: PrincipalStore;
  readonly resources: ResourceStore;
  readonly grants: GrantStore;
  readonly credentials: CredentialStore;
}

/** Grants that the configuration no longer declares, or declares otherwise: to be ended once the node runs. */
export interface Reconciled {
  readonly toAdd: readonly Grant[];
  readonly toEnd: readonly Grant[];
}

/** Applies principals, resources and masks; says which grants are to be added and ended. */
export async function reconcile(parts: ReconcileParts, declared: Declared): Promise<Reconciled> {
  // Owners first: a machine names the human who answers for it.
  const humansFirst = declared.principals.toSorted((a, b) => Number(a.kind !== "human") - Number(b.kind !== "human"));
  for (const principal of humansFirst) {
    await applyPrincipal(parts, principal);
  }
  const names = new Set(declared.principals.map((principal) => principal.name));
  for (const principal of await parts.principals.all()) {
    if (!names.has(principal.name) && principal.status === "active") {
      await putPrincipal(parts, "principal.disable", { ...principal, status: "disabled" });
    }
  }
  for (const resource of declared.resources) {
    await applyResource(parts, resource);
  }
  await recordMasks(parts, declared.masks);
  return compareGrants(parts, declared);
}

async function applyPrincipal(parts: ReconcileParts, declared: DeclaredPrincipal): Promise<void> {
  const known = await parts.principals.byName(declared.name);
  if (known !== null && (known.kind === "human") !== (declared.kind === "human")) {
    throw new SallyportError("config.conflict", "principal", `the principal "${declared.name}" changed its kind`, {
      nextStep: "Give the new principal another name: a name stands for one account for good.",
    });
  }
  const id = known?.id ?? parts.ids("prn");
  const wanted = await principalOf(parts, id, declared);
  if (known === null) {
    await putPrincipal(parts, "principal.add", wanted);
  } else if (!sameJson(known, wanted)) {
    await putPrincipal(parts, wanted.status === "disabled" ? "principal.disable" : "principal.update", wanted);
  }
}

async function principalOf(parts: ReconcileParts, id: PrincipalId, declared: DeclaredPrincipal): Promise<Principal> {
  const { name, status } = declared;
  if (declared.kind === "human") {
    return { kind: "human", id, name, status };
  }
  const owner = await parts.principals.byName(declared.owner);
  if (owner === null) {
    throw new SallyportError("config.conflict", "principal", `the owner "${declared.owner}" of "${name}" is unknown`);
  }
  return { kind: declared.kind, id, name, status, ownerId: owner.id, expiresAtMs: declared.expiresAtMs };
}

async function putPrincipal(parts: ReconcileParts, kind: ChangeKind, principal: Principal): Promise<void> {
  await makeChange(
    parts,
    {
      kind,
      object: principal.id,
      by: { kind: "config" },
      detail:
        principal.kind === "human"
          ? { kind: principal.kind, status: principal.status, owner: null, expires: null }
          : {
              kind: principal.kind,
              status: principal.status,
              owner: principal.ownerId,
              expires: principal.expiresAtMs,
            },
      texts: { name: principal.name },
    },
    (entryIndex) => parts.principals.put(principal, entryIndex),
  );
}

async function applyResource(parts: ReconcileParts, declared: DeclaredResource): Promise<void> {
  const known = await parts.resources.byName(declared.name);
  const wanted: Resource = {
    kind: "postgres",
    id: known?.id ?? parts.ids("res"),
    name: declared.name,
    host: declared.host,
    port: declared.port,
    database: declared.database,
    labels: declared.labels,
  };
  if (known !== null && sameJson(known, wanted)) {
    return;
  }
  await makeChange(
    parts,
    {
      kind: known === null ? "resource.add" : "resource.update",
      object: wanted.id,
      by: { kind: "config" },
      detail: {
        kind: wanted.kind,
        name: wanted.name,
        labels: wanted.labels.map(({ schema, table, column, label }) => `${schema}.${table}.${column} ${label}`),
      },
      texts: { target: `${wanted.host}:${wanted.port}/${wanted.database}` },
    },
    (entryIndex) => parts.resources.put(wanted, entryIndex),
  );
}

/** The masks in force are stated at every start: a reader of the log knows them without the configuration. */
async function recordMasks(parts: ReconcileParts, masks: readonly Mask[]): Promise<void> {
  await makeChange(
    parts,
    {
      kind: "mask.set",
      object: "masks",
      by: { kind: "config" },
      detail: { masks: masks.map((mask) => `${mask.ruleId} ${mask.label} ${JSON.stringify(mask.operator)}`) },
    },
    async () => {},
  );
}

async function compareGrants(parts: ReconcileParts, declared: Declared): Promise<Reconciled> {
  const open = (await parts.grants.inState(["pending", "active"])).filter((grant) => grant.source === "config");
  const wanted: Grant[] = [];
  for (const grant of declared.grants) {
    wanted.push(await grantOf(parts, declared, grant));
  }
  const isSame = (a: Grant, b: Grant): boolean => sameJson(comparable(a), comparable(b));
  return {
    toAdd: wanted.filter((grant) => !open.some((other) => isSame(grant, other))),
    toEnd: open.filter((grant) => !wanted.some((other) => isSame(grant, other))),
  };
}

async function grantOf(parts: ReconcileParts, declared: Declared, grant: DeclaredGrant): Promise<Grant> {
  const principal = await parts.principals.byName(grant.principal);
  const onBehalfOf = grant.onBehalfOf === null ? null : await parts.principals.byName(grant.onBehalfOf);
  const resource = await parts.resources.byName(grant.resource);
  if (principal === null || resource === null || (grant.onBehalfOf !== null && onBehalfOf === null)) {
    throw new SallyportError("config.conflict", "principal", `the grant of "${grant.principal}" names what is unknown`);
  }
  return {
    id: parts.ids("grt"),
    principalId: principal.id,
    onBehalfOfId: onBehalfOf?.id ?? null,
    resourceId: resource.id,
    task: { id: parts.ids("tsk"), ...grant.task },
    scope: { tables: grant.tables, masks: masksFor(declared.masks, resource.labels) },
    createdAtMs: parts.clock.nowMs(),
    expiresAtMs: grant.expiresAtMs,
    state: "pending",
    end: null,
    source: "config",
  };
}

/** The masks of the labels that a resource uses: the rest would change a scope's hash for nothing. */
export function masksFor(masks: readonly Mask[], labels: readonly ColumnLabel[]): readonly Mask[] {
  const used = new Set(labels.map((label) => label.label));
  return masks.filter((mask) => used.has(mask.label));
}

function comparable(grant: Grant): unknown {
  const { title, purpose, ticket } = grant.task;
  const { principalId, onBehalfOfId, resourceId, scope, expiresAtMs } = grant;
  return { principalId, onBehalfOfId, resourceId, task: { title, purpose, ticket }, scope, expiresAtMs };
}

function sameJson(a: unknown, b: unknown): boolean {
  return canonical(a) === canonical(b);
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
