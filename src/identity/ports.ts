import type { Credential } from "#domain/grant.ts";
import type { CredentialId, GrantId, PrincipalId, RunId } from "#domain/ids.ts";
import type { Principal } from "#domain/principal.ts";

/**
 * Principals as the state store keeps them. `entryIndex` is the ledger entry (change.intent) that the row was recorded by; the
 * store signs the row's canonical bytes with it and refuses to load a row whose signature does not hold.
 */
export interface PrincipalStore {
  put(principal: Principal, entryIndex: number): Promise<void>;
  byId(id: PrincipalId): Promise<Principal | null>;
  byName(name: string): Promise<Principal | null>;
  all(): Promise<readonly Principal[]>;
}

export interface CredentialStore {
  put(credential: Credential, entryIndex: number): Promise<void>;
  byLogin(login: string): Promise<Credential | null>;
  byId(id: CredentialId): Promise<Credential | null>;
  ofGrant(grant: GrantId): Promise<readonly Credential[]>;
  ofRun(run: RunId): Promise<readonly Credential[]>;
}
