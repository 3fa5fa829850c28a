/**
 * The life of grants: recorded, provisioned at the resource, ended, and their roles dropped with the drop attested.
 * Giving waits for the ledger; taking away acts at once and is entered after.
 */
import { principalDeadlineMs, principalProblem } from "#identity/accounts.ts";
import type { CredentialStore, PrincipalStore } from "#identity/ports.ts";
import { SallyportError } from "#domain/errors.ts";
import type { Credential, Grant, GrantEnd } from "#domain/grant.ts";
import type { GrantId, IdSource, ResourceId } from "#domain/ids.ts";
import type { Clock } from "#domain/clock.ts";
import { limits } from "#domain/limits.ts";
import type { Principal } from "#domain/principal.ts";
import type { EntryActor } from "#ledger/entry.ts";
import type { Ledger } from "#ledger/ledger.ts";
import type { PolicySet, PolicySetInput } from "#policy/decide.ts";
import type { ClosingWords, ResourceAccess } from "#protocols/driver.ts";
import { makeChange } from "./changes.ts";
import type { LiveGrant } from "./live-grant.ts";
import { expiredWords } from "./live-session.ts";
import type { SessionEnd } from "./live-session.ts";
import { Mutex } from "./mutex.ts";
import type { GrantStore, ProvisionedStore } from "./ports.ts";

export interface GrantBookParts {
  readonly ledger: Ledger;
  readonly ids: IdSource;
  readonly clock: Clock;
  readonly randomBytes: (length: number) => Uint8Array;
  readonly grants: GrantStore;
  readonly credentials: CredentialStore;
  readonly principals: PrincipalStore;
  readonly provisioned: ProvisionedStore;
  readonly resources: ReadonlyMap<ResourceId, ResourceAccess>;
  readonly compilePolicies: (input: Omit<PolicySetInput, "operatorPolicies">) => PolicySet;
  /** Failures of what runs by itself (expiry, drops): for the operator. */
  readonly onFailure: (what: string, error: unknown) => void;
}

/** Tables that an entry lists; the payload has all of them. */
const tablesListedMax = 100;
/** Ids that an entry lists; the payload has all of them, with their texts. */
const policyIdsMax = 200;

export class GrantBook {
  readonly #parts: GrantBookParts;
  readonly #live = new Map<GrantId, LiveGrant>();
  /** Activations under way, so that two sessions that come together make one role. */
  readonly #activating = new Map<GrantId, Promise<LiveGrant>>();
  /** Ends that are being entered and cleaned up. */
  readonly #ending = new Map<GrantId, Promise<Grant>>();
  /** Scope roles are made and dropped one at a time for each resource: the count of who needs one must not change meanwhile. */
  readonly #scopeLocks = new Map<ResourceId, Mutex>();

  readonly #scopeUsers = new Map<string, Set<string>>();
  readonly #recordedPolicies = new Set<string>();

  constructor(parts: GrantBookParts) {
    this.#parts = parts;
  }

  live(): IterableIterator<LiveGrant> {
    return this.#live.values();
  }

  liveGrant(id: GrantId): LiveGrant | null {
    return this.#live.get(id) ?? null;
  }

  /**
   * Whether a grant can be decided on at all.
   * @throws SallyportError `grant.unsupported-name`.
   */
  check(grant: Grant, principal: Principal, onBehalfOf: Principal | null, access: ResourceAccess): void {
    this.#parts.compilePolicies({ grant, principal, onBehalfOf, resource: access.resource });
  }

  /** Why a grant that has ended did, in the words for whoever still comes with its credential; null while it has not. */
  async endedWords(id: GrantId): Promise<Omit<ClosingWords, "decision"> | null> {
    const live = this.#live.get(id)?.end ?? null;
    if (live !== null) {
      return live.words;
    }
    const grant = await this.#parts.grants.byId(id);
    if (grant === null || grant.end === null) {
      return null;
    }
    return endOf(grant, grant.end.how, grant.end.reason, this.#parts.ids).words;
  }

  /** Records and stores a grant. It gets its rights at the resource when it is first used, or by `activate`. */
  async add(grant: Grant, by: EntryActor, names: { readonly [name: string]: string }): Promise<void> {
    await makeChange(
      this.#parts,
      {
        kind: "grant.add",
        object: grant.id,
        by,
        detail: {
          principal: grant.principalId,
          onBehalfOf: grant.onBehalfOfId,
          resource: grant.resourceId,
          task: grant.task.id,
          expires: grant.expiresAtMs,
          tables: grant.scope.tables
            .slice(0, tablesListedMax)
            .map(
              (table) =>
                `${table.schema}.${table.table} ${table.verbs.join(",")} ${table.columns === "all" ? "*" : table.columns.join(",")}`,
            ),
          masks: grant.scope.masks.map((mask) => mask.ruleId),
        },
        texts: {
          ...names,
          title: grant.task.title,
          purpose: grant.task.purpose ?? "",
          ticket: grant.task.ticket ?? "",
        },
      },
      (entryIndex) => this.#parts.grants.put(grant, entryIndex),
    );
  }

  /** Records and stores a credential. */
  async addCredential(credential: Credential, by: EntryActor): Promise<void> {
    await makeChange(
      this.#parts,
      {
        kind: "credential.issue",
        object: credential.id,
        by,
        detail: { grant: credential.grantId, run: credential.runId, expires: credential.expiresAtMs },
      },
      (entryIndex) => this.#parts.credentials.put(credential, entryIndex),
    );
  }

  async endCredential(credential: Credential, by: EntryActor): Promise<void> {
    if (credential.status === "ended") {
      return;
    }
    await makeChange(
      this.#parts,
      {
        kind: "credential.end",
        object: credential.id,
        by,
        detail: { grant: credential.grantId, run: credential.runId },
      },
      (entryIndex) => this.#parts.credentials.put({ ...credential, status: "ended" }, entryIndex),
    );
  }

  /**
   * Gives a grant its rights at the resource, once.
   * @throws SallyportError `grant.ended`, `principal.*`, `resource.*`, `scope.*`.
   */
  async activate(id: GrantId): Promise<LiveGrant> {
    const live = this.#live.get(id);
    if (live !== undefined) {
      return live;
    }
    const running = this.#activating.get(id);
    if (running !== undefined) {
      return running;
    }
    const activation = this.#activate(id).finally(() => {
      this.#activating.delete(id);
    });
    this.#activating.set(id, activation);
    return activation;
  }

  async #activate(id: GrantId): Promise<LiveGrant> {
    const { grants, principals, clock, ids, randomBytes } = this.#parts;
    const grant = await grants.byId(id);
    if (grant === null || grant.state === "ended" || clock.nowMs() >= grant.expiresAtMs) {
      throw new SallyportError("grant.ended", "principal", "the grant has ended", { nextStep: "Ask for a new grant." });
    }
    const principal = await principals.byId(grant.principalId);
    const onBehalfOf = grant.onBehalfOfId === null ? null : await principals.byId(grant.onBehalfOfId);
    const access = this.#parts.resources.get(grant.resourceId);
    if (principal === null || access === undefined || (grant.onBehalfOfId !== null && onBehalfOf === null)) {
      throw new SallyportError("grant.ended", "principal", "the grant's principal or resource is gone");
    }
    for (const who of onBehalfOf === null ? [principal] : [principal, onBehalfOf]) {
      const problem = await principalProblem(who, principals, clock.nowMs());
      if (problem !== null) {
        throw new SallyportError(problem.code, "principal", problem.reason, { nextStep: problem.nextStep });
      }
    }
    await access.ready();
    const policySet = this.#parts.compilePolicies({ grant, principal, onBehalfOf, resource: access.resource });
    await this.#recordPolicies(policySet);
    const role = { role: `sp_grant_${ids("grt").slice("grt_".length)}`, password: secret(randomBytes) };
    const deadlineMs = Math.min(grant.expiresAtMs, principalDeadlineMs(principal));
    const scope = await this.#locked(grant.resourceId, () => this.#provision(grant, access, role, deadlineMs));
    await access.refresh();
    if (grant.state === "pending") {
      await grants.put({ ...grant, state: "active" }, await this.#noteActive(grant));
    }
    const live: LiveGrant = {
      grant: { ...grant, state: "active" },
      principal,
      onBehalfOf,
      access,
      scope,
      role,
      policySet,
      sessions: new Set(),
      end: null,
    };
    this.#live.set(id, live);
    return live;
  }

  /** A decision names its policy set by hash: the texts behind the hash are in the record, once a start. */
  async #recordPolicies(policySet: PolicySet): Promise<void> {
    if (this.#recordedPolicies.has(policySet.hash)) {
      return;
    }
    this.#recordedPolicies.add(policySet.hash);
    await makeChange(
      this.#parts,
      {
        kind: "policy.set",
        object: policySet.hash,
        by: { kind: "gateway" },
        detail: { policies: policySet.policies.map((policy) => policy.id).slice(0, policyIdsMax) },
        texts: { policies: JSON.stringify(policySet.policies) },
      },
      async () => {},
    );
  }

  /** Activation changes no right that `grant.add` did not give; the entry is there so that the row's signature has one. */
  async #noteActive(grant: Grant): Promise<number> {
    const recorded = await this.#parts.ledger.record(
      {
        entry: {
          type: "change.outcome",
          change: this.#parts.ids("chg"),
          kind: "grant.add",
          object: grant.id,
          intent: null,
          status: "ok",
          code: null,
          detail: { state: "active" },
        },
      },
      grant.id,
    );
    return recorded.index;
  }

  /** Inside the resource's lock. What is about to be made is written down first, so that a killed node finds it again. */
  async #provision(
    grant: Grant,
    access: ResourceAccess,
    role: LiveGrant["role"],
    deadlineMs: number,
  ): Promise<LiveGrant["scope"]> {
    const { provisioner, resource } = access;
    const scope = await provisioner.compile(grant.scope, resource.labels);
    try {
      await this.#make(grant, access, { role, scope, deadlineMs });
      return scope;
    } catch (error) {
      // What was made half is not left until the next start, if it can be helped.
      await this.#unmake(access, role.role, scope).catch((failure: unknown) => {
        this.#parts.onFailure(`dropping what was made for the grant ${grant.id}`, failure);
      });
      throw error;
    }
  }

  async #make(
    grant: Grant,
    access: ResourceAccess,
    what: { readonly role: LiveGrant["role"]; readonly scope: LiveGrant["scope"]; readonly deadlineMs: number },
  ): Promise<void> {
    const { provisioner, resource } = access;
    const { provisioned } = this.#parts;
    const { role, scope, deadlineMs } = what;
    this.#users(resource.id, scope.hash).add(role.role);
    await provisioned.addScope({ resource: resource.id, hash: scope.hash, role: scope.role });
    await provisioner.createScope(scope);
    await provisioned.addRole({ resource: resource.id, role: role.role, grant: grant.id, scopeHash: scope.hash });
    await provisioner.createGrantRole({
      role: role.role,
      password: role.password,
      scope,
      validUntilMs: deadlineMs,
      connectionsMax: limits.sessionsPerGrantMax,
      readOnly: grant.scope.tables.every((table) => table.verbs.every((verb) => verb === "select")),
    });
  }

  /**
   * Ends a grant: its sessions at once, then the entry, then its roles. Resolves when the drop is attested or its failure is
   * recorded.
   */
  end(id: GrantId, how: GrantEnd, reason: string, by: EntryActor): Promise<Grant> {
    const running = this.#ending.get(id);
    if (running !== undefined) {
      return running;
    }
    const live = this.#live.get(id) ?? null;
    if (live !== null) {
      // First and at once: from here on nothing of this grant passes.
      const end = endOf(live.grant, how, reason, this.#parts.ids);
      live.end = end;
      for (const session of live.sessions) {
        session.end(end);
      }
    }
    const ending = this.#enterEnd(id, live, { how, reason, by }).finally(() => {
      this.#ending.delete(id);
    });
    this.#ending.set(id, ending);
    return ending;
  }

  async #enterEnd(
    id: GrantId,
    live: LiveGrant | null,
    why: { readonly how: GrantEnd; readonly reason: string; readonly by: EntryActor },
  ): Promise<Grant> {
    // An activation under way would make roles after they were dropped.
    await this.#activating.get(id)?.catch(() => null);
    const late = live ?? this.#live.get(id) ?? null;
    const { grants, credentials, clock } = this.#parts;
    const grant = await grants.byId(id);
    if (grant === null) {
      throw new SallyportError("grant.unknown", "client", "no such grant", { nextStep: "See `sallyport grant ls`." });
    }
    if (grant.state === "ended") {
      return grant;
    }
    if (late !== null && late.end === null) {
      late.end = endOf(late.grant, why.how, why.reason, this.#parts.ids);
      for (const session of late.sessions) {
        session.end(late.end);
      }
    }
    const ended: Grant = {
      ...grant,
      state: "ended",
      end: { how: why.how, reason: why.reason, atMs: clock.nowMs() },
    };
    return makeChange(
      this.#parts,
      {
        kind: why.how === "expired" ? "grant.expire" : "grant.revoke",
        object: id,
        by: why.by,
        detail: { how: why.how, sessions: late?.sessions.size ?? 0 },
        texts: { reason: why.reason },
      },
      async (entryIndex) => {
        await grants.put(ended, entryIndex);
        for (const credential of await credentials.ofGrant(id)) {
          await this.endCredential(credential, why.by);
        }
        if (late !== null) {
          await this.#retire(late);
          this.#live.delete(id);
        }
        return ended;
      },
    );
  }

  async #retire(live: LiveGrant): Promise<void> {
    const { access, role, scope, grant } = live;
    await this.#locked(grant.resourceId, () => this.#unmake(access, role.role, scope));
  }

  /** Inside the resource's lock: drops a grant role, and its scope when no other live grant has it. */
  async #unmake(access: ResourceAccess, role: string, scope: LiveGrant["scope"]): Promise<void> {
    const users = this.#users(access.resource.id, scope.hash);
    users.delete(role);
    let leftover: SallyportError | null = null;
    try {
      await this.dropRole(access, role);
    } catch (error) {
      if (!(error instanceof SallyportError) || error.code !== "resource.leftover") {
        throw error;
      }
      leftover = error;
    }
    // A role that something elsewhere holds back can neither log in nor use its scope any more: the scope goes all the same.
    if (users.size === 0) {
      await this.dropScope(access, scope);
    }
    if (leftover !== null) {
      throw leftover;
    }
  }

  /** Roles that need a scope, from before it is made for them: changed inside the resource's lock only. */
  #users(resource: ResourceId, hash: string): Set<string> {
    const key = `${resource} ${hash}`;
    let users = this.#scopeUsers.get(key);
    if (users === undefined) {
      users = new Set();
      this.#scopeUsers.set(key, users);
    }
    return users;
  }

  /** Drops a grant role; it is forgotten only when the catalog shows that nothing is left. */
  async dropRole(access: ResourceAccess, role: string): Promise<void> {
    const gone = await access.provisioner.dropGrantRole(role);
    if (!gone) {
      throw new SallyportError("resource.leftover", "upstream", `the role ${role} is still there after its drop`, {
        nextStep: "It is tried again at the next start; `sallyport doctor` shows it.",
      });
    }
    await this.#parts.provisioned.removeRole(access.resource.id, role);
  }

  async dropScope(access: ResourceAccess, scope: { readonly hash: string; readonly role: string }): Promise<void> {
    const gone = await access.provisioner.dropScope(scope);
    if (!gone) {
      throw new SallyportError(
        "resource.leftover",
        "upstream",
        `the scope ${scope.role} is still there after its drop`,
        {
          nextStep: "It is tried again at the next start; `sallyport doctor` shows it.",
        },
      );
    }
    await this.#parts.provisioned.removeScope(access.resource.id, scope.hash);
  }

  /** Ends what is due. Called a few times a second. */
  sweep(): void {
    const nowMs = this.#parts.clock.nowMs();
    for (const live of this.#live.values()) {
      if (live.end === null && nowMs >= live.grant.expiresAtMs) {
        this.end(live.grant.id, "expired", "its time was over", { kind: "gateway" }).catch((error: unknown) => {
          this.#parts.onFailure(`ending the expired grant ${live.grant.id}`, error);
        });
      }
    }
  }

  /** At a stop: sessions are closed by then; roles and scopes go, grants stay and are provisioned again at the next start. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#ending.values());
    for (const live of this.#live.values()) {
      try {
        await this.#retire(live);
      } catch (error) {
        this.#parts.onFailure(`dropping what the grant ${live.grant.id} had`, error);
      }
      this.#live.delete(live.grant.id);
    }
  }

  async #locked<T>(resource: ResourceId, work: () => Promise<T>): Promise<T> {
    let lock = this.#scopeLocks.get(resource);
    if (lock === undefined) {
      lock = new Mutex();
      this.#scopeLocks.set(resource, lock);
    }
    return lock.run(work);
  }
}

function endOf(grant: Grant, how: GrantEnd, reason: string, ids: IdSource): SessionEnd {
  if (how === "expired") {
    return { how: "expired", words: expiredWords(grant.expiresAtMs, ids("dec")) };
  }
  const words: ClosingWords = {
    code: "grant.revoked",
    reason: `the grant was revoked: ${reason}`,
    nextStep: "Ask for a new grant.",
    decision: ids("dec"),
  };
  return { how: "revoked", words };
}

function secret(randomBytes: (length: number) => Uint8Array): string {
  return Buffer.from(randomBytes(24)).toString("base64url");
}
