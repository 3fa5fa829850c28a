/** The state store: everything that must be known after a restart and is not evidence. Implements the ports of others. */
import type { Credential, Grant } from "#domain/grant.ts";
import { parseId } from "#domain/ids.ts";
import { InvariantError } from "#domain/errors.ts";
import type { Principal } from "#domain/principal.ts";
import type { Resource } from "#domain/resource.ts";
import type { GrantStore, ProvisionedStore, ResourceStore } from "#gateway/ports.ts";
import type { CredentialStore, PrincipalStore } from "#identity/ports.ts";
import { type StoreConnection, guardStore, openPool, openQueries } from "./database.ts";
import { type Migration, migrate, readMigrations } from "./migrate.ts";
import { credentialBody, grantBody, principalBody, resourceBody } from "./rows.ts";
import { type Lookup, type RightsKeyPair, type RowVersion, SignedTable } from "./signed-table.ts";

/** The stores of one node, over one pool of connections. */
export interface Store extends AsyncDisposable {
  readonly principals: PrincipalStore;
  readonly credentials: CredentialStore;
  readonly resources: ResourceStore;
  readonly grants: GrantStore;
  readonly provisioned: ProvisionedStore;
  /**
   * Verifies every row that gives rights, and says which entry each was recorded by, to be held against the ledger at start.
   * @throws SallyportError `store.tampered` naming table and id.
   */
  verify(): Promise<readonly RowVersion[]>;
  close(): Promise<void>;
}

export interface StoreOptions {
  /** Hears when the database closes a connection that nobody was using; the next query opens another. */
  readonly onIdleError?: (error: Error) => void;
  /** This program's own when not given. */
  readonly migrations?: readonly Migration[];
}

/**
 * Connects to the state database, brings it to this version and opens the stores.
 * @throws SallyportError `store.unavailable`, `store.migration-changed`, `store.migration-failed` or `store.newer`.
 */
export async function openStore(
  connection: StoreConnection,
  rightsKey: RightsKeyPair,
  options: StoreOptions = {},
): Promise<Store> {
  const migrations = options.migrations ?? (await readMigrations());
  const pool = openPool(connection, options.onIdleError ?? (() => {}));
  const queries = openQueries(pool);
  try {
    await guardStore(() => migrate(pool, migrations));
  } catch (error) {
    await queries.destroy();
    throw error;
  }
  const parts = { queries, key: rightsKey };
  const principals = new SignedTable<Principal>({ ...parts, name: "principals", body: principalBody });
  const credentials = new SignedTable<Credential>({ ...parts, name: "credentials", body: credentialBody });
  const resources = new SignedTable<Resource>({ ...parts, name: "resources", body: resourceBody });
  const grants = new SignedTable<Grant>({ ...parts, name: "grants", body: grantBody });
  let closing: Promise<void> | null = null;
  const close = (): Promise<void> => (closing ??= queries.destroy());
  return {
    principals: {
      put: (principal, entryIndex) => principals.put(principal, entryIndex),
      byId: (id) => principals.one(byId(id)),
      byName: (name) => principals.one(byName(name)),
      all: () => principals.select(null),
    },
    credentials: {
      put: (credential, entryIndex) => credentials.put(credential, entryIndex),
      byLogin: (login) => credentials.one({ column: "login", values: [login], valueOf: (one) => one.login }),
      byId: (id) => credentials.one(byId(id)),
      ofGrant: (grant) => credentials.select({ column: "grant_id", values: [grant], valueOf: (one) => one.grantId }),
      ofRun: (run) => credentials.select({ column: "run_id", values: [run], valueOf: (one) => one.runId }),
    },
    resources: {
      put: (resource, entryIndex) => resources.put(resource, entryIndex),
      byId: (id) => resources.one(byId(id)),
      byName: (name) => resources.one(byName(name)),
      all: () => resources.select(null),
    },
    grants: {
      put: (grant, entryIndex) => grants.put(grant, entryIndex),
      byId: (id) => grants.one(byId(id)),
      inState: async (states) =>
        states.length === 0 ? [] : grants.select({ column: "state", values: states, valueOf: (one) => one.state }),
      all: () => grants.select(null),
    },
    provisioned: openProvisioned(queries),
    verify: async () => {
      const tables = [principals, resources, grants, credentials];
      return (await Promise.all(tables.map((table) => table.newest()))).flat();
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function byId(id: string): Lookup<{ readonly id: string }> {
  return { column: "id", values: [id], valueOf: (one) => one.id };
}

function byName(name: string): Lookup<{ readonly name: string }> {
  return { column: "name", values: [name], valueOf: (one) => one.name };
}

function openProvisioned(queries: ReturnType<typeof openQueries>): ProvisionedStore {
  return {
    addRole: (row) =>
      guardStore(async () => {
        const { resource, role, grant, scopeHash } = row;
        await queries
          .insertInto("provisioned_roles")
          .values({ resource, role, grant_id: grant, scope_hash: scopeHash })
          .onConflict((conflict) =>
            conflict.columns(["resource", "role"]).doUpdateSet({ grant_id: grant, scope_hash: scopeHash }),
          )
          .execute();
      }),
    removeRole: (resource, role) =>
      guardStore(async () => {
        await queries
          .deleteFrom("provisioned_roles")
          .where("resource", "=", resource)
          .where("role", "=", role)
          .execute();
      }),
    roles: () =>
      guardStore(async () => {
        const rows = await queries.selectFrom("provisioned_roles").selectAll().orderBy("role").execute();
        return rows.map((row) => ({
          resource: knownId("res", row.resource),
          role: row.role,
          grant: knownId("grt", row.grant_id),
          scopeHash: row.scope_hash,
        }));
      }),
    addScope: (row) =>
      guardStore(async () => {
        await queries
          .insertInto("provisioned_scopes")
          .values({ resource: row.resource, hash: row.hash, role: row.role })
          .onConflict((conflict) => conflict.columns(["resource", "hash"]).doUpdateSet({ role: row.role }))
          .execute();
      }),
    removeScope: (resource, hash) =>
      guardStore(async () => {
        await queries
          .deleteFrom("provisioned_scopes")
          .where("resource", "=", resource)
          .where("hash", "=", hash)
          .execute();
      }),
    scopes: () =>
      guardStore(async () => {
        const rows = await queries.selectFrom("provisioned_scopes").selectAll().orderBy("hash").execute();
        return rows.map((row) => ({ resource: knownId("res", row.resource), hash: row.hash, role: row.role }));
      }),
  };
}

function knownId<P extends "res" | "grt">(prefix: P, text: string): NonNullable<ReturnType<typeof parseId<P>>> {
  const id = parseId(prefix, text);
  if (id === null) {
    throw new InvariantError(`the state database holds a made-up id where one of ${prefix} belongs`);
  }
  return id;
}
