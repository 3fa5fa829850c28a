import type { Grant, GrantState } from "#domain/grant.ts";
import type { GrantId, ResourceId } from "#domain/ids.ts";
import type { Resource } from "#domain/resource.ts";

/** As in `identity/ports.ts`: every put is signed with the index of the entry that recorded it. */
export interface GrantStore {
  put(grant: Grant, entryIndex: number): Promise<void>;
  byId(id: GrantId): Promise<Grant | null>;
  inState(states: readonly GrantState[]): Promise<readonly Grant[]>;
  all(): Promise<readonly Grant[]>;
}

export interface ResourceStore {
  put(resource: Resource, entryIndex: number): Promise<void>;
  byId(id: ResourceId): Promise<Resource | null>;
  byName(name: string): Promise<Resource | null>;
  all(): Promise<readonly Resource[]>;
}

/**
 * What this node has made at resources and has not yet dropped: written before it is made, removed after the drop is attested,
 * so that the leftovers of a killed gateway are found at the next start.
 */
export interface ProvisionedStore {
  addRole(row: ProvisionedRole): Promise<void>;
  removeRole(resource: ResourceId, role: string): Promise<void>;
  roles(): Promise<readonly ProvisionedRole[]>;
  addScope(row: ProvisionedScope): Promise<void>;
  removeScope(resource: ResourceId, hash: string): Promise<void>;
  scopes(): Promise<readonly ProvisionedScope[]>;
}

export interface ProvisionedRole {
  readonly resource: ResourceId;
  readonly role: string;
  readonly grant: GrantId;
  readonly scopeHash: string;
}

export interface ProvisionedScope {
  readonly resource: ResourceId;
  readonly hash: string;
  readonly role: string;
}
