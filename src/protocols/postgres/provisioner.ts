/**
 * Rights in PostgreSQL itself, made for one grant and taken away with it (MASKING.md, L1).
 *
 * ```
 * gateway                      provisioner                                   PostgreSQL
 *   │ prepare ────────────────────▶ what may the login do? ─────────────────▶ catalogs
 *   │                               view owner, readers, shadow catalogs ───▶ one transaction
 *   │ compile(scope, labels) ─────▶ read tables, follow labels ─────────────▶ catalogs (one snapshot)
 *   │ createScope ────────────────▶ journal intent ▸ role, rights, views ───▶ one transaction under the scope lock
 *   │ createGrantRole ────────────▶ journal intent ▸ LOGIN role, settings ──▶ one message, one transaction
 *   │ dropGrantRole ──────────────▶ NOLOGIN ▸ end sessions ▸ drop ▸ look ────▶ acts at once, journal beside it
 *   │ dropScope ──────────────────▶ journal intent ▸ drop ▸ look ────────────▶ unless a grant role is a member
 * ```
 *
 * Every change is one transaction, so a gateway that is killed anywhere leaves all of it or nothing; what is there is compared with
 * what should be, right by right, before anything is made.
 */
import type { PoolClient } from "pg";

import type { Clock } from "#domain/clock.ts";
import { SallyportError } from "#domain/errors.ts";
import type { Scope } from "#domain/grant.ts";
import type { ColumnLabel, PostgresResource } from "#domain/resource.ts";
import type { CompiledScope } from "#domain/scope.ts";
import type { ProvisionJournal, Provisioner, ResourceReadiness } from "#protocols/driver.ts";
import { quoteIdentifier } from "#sql/identifier.ts";
import { ResourceConnections, runAll, sqlStateOf } from "./provisioner-connection.ts";
import type { ProvisionerConnection, Server } from "./provisioner-connection.ts";
import {
  closeRoleStatements,
  dropRoleStatements,
  findGrantRole,
  grantRoleComment,
  grantRoleSaltBytes,
  grantRoleStatements,
  retireGrantRole,
} from "./provisioner-grant-role.ts";
import type { RetiredRole } from "./provisioner-grant-role.ts";
import { Recording } from "./provisioner-recording.ts";
import type { JournalAction } from "./provisioner-recording.ts";
import { checkGrantable, checkServer, checkSomethingGrantable, readPublicRights } from "./readiness.ts";
import { compileScope, replanScope, shadowSchema } from "./scope-compiler.ts";
import type { ScopePlan } from "./scope-compiler.ts";
import { readScopeTables } from "./scope-compiler-tables.ts";
import {
  createScopeStatements,
  dropScopeStatements,
  emptyScopeStatements,
  scopeRights,
  scopeRoleComment,
  scopeSchemas,
  viewOwnerRights,
} from "./scope-sql.ts";
import type { ScopeState } from "./scope-sql-state.ts";
import { areViewsGone, inspectRemains, inspectScope, isRoleGone, readScopeRoles } from "./scope-sql-state.ts";
import { catalogStatements, hasScopeLock, scopeLockSql } from "./shadow-catalogs.ts";

export interface ProvisionerOptions {
  readonly connection: ProvisionerConnection;
  readonly resource: Pick<PostgresResource, "name">;
  readonly journal: ProvisionJournal;
  readonly clock: Clock;
  /** For the salts of verifiers. */
  readonly randomBytes: (length: number) => Uint8Array;
}

/** The provisioner of one database. Connects when it is first used; `close` ends its connections. */
export function openProvisioner(options: ProvisionerOptions): Provisioner {
  return new PostgresProvisioner(options);
}

type CreateGrantRole = Parameters<Provisioner["createGrantRole"]>[0];

class PostgresProvisioner implements Provisioner {
  readonly #options: ProvisionerOptions;
  readonly #connections: ResourceConnections;
  /** Scopes that are being made, so that activations that come together make one. */
  readonly #creating = new Map<string, Promise<void>>();
  /** Set once the shadow catalogs are known to be what they should be. */
  #catalogs: Promise<void> | null = null;

  constructor(options: ProvisionerOptions) {
    this.#options = options;
    this.#connections = new ResourceConnections(options.connection, options.resource.name);
  }

  async prepare(): Promise<ResourceReadiness> {
    const server = await this.#connections.server();
    checkServer(server);
    await this.#connections.use((client) => checkSomethingGrantable(client, server));
    this.#catalogs = null;
    await this.#ensureCatalogs(server);
    const publicRights = await this.#connections.use(readPublicRights);
    return { serverVersion: server.versionText, publicRights };
  }

  async compile(scope: Scope, labels: readonly ColumnLabel[]): Promise<CompiledScope> {
    const server = await this.#connections.server();
    return this.#connections.use(async (client) => {
      const names = scope.tables.map(({ schema, table }) => ({ schema, name: table }));
      const plan = compileScope(scope, labels, await readScopeTables(client, names, labels));
      const own = new Set(scopeSchemas(plan));
      const needed = [...scopeRights(plan), ...viewOwnerRights(plan)].filter(({ schema }) => !own.has(schema));
      await checkGrantable(client, server, needed);
      return plan.scope;
    });
  }

  async createScope(scope: CompiledScope): Promise<void> {
    const running = this.#creating.get(scope.hash);
    if (running !== undefined) {
      return running;
    }
    const creation = this.#createScope(scope).finally(() => {
      this.#creating.delete(scope.hash);
    });
    this.#creating.set(scope.hash, creation);
    return creation;
  }

  async #createScope(scope: CompiledScope): Promise<void> {
    const server = await this.#connections.server();
    await this.#ensureCatalogs(server);
    const plan = await this.#connections.use(async (client) => {
      const names = [...scope.relations.values()].map(({ base }) => base);
      const found = replanScope(scope, await readScopeTables(client, names, []));
      return (await inspectScope(client, found, server)).whole ? null : found;
    });
    if (plan === null) {
      return;
    }
    await this.#change("scope.create", scope.role, async (client, begin) => {
      await client.query(scopeLockSql("EXCLUSIVE"));
      const statements = await this.#missingStatements(client, plan, server);
      if (statements === null) {
        return;
      }
      await begin(statements);
      await runAll(client, statements);
      requireWhole(scope.role, await inspectScope(client, plan, server));
    });
  }

  /** Null when the scope is whole. What is there of a scope that is not is taken away first; its role stays, with its members. */
  async #missingStatements(client: PoolClient, plan: ScopePlan, server: Server): Promise<readonly string[] | null> {
    const state = await inspectScope(client, plan, server);
    if (state.whole) {
      return null;
    }
    const { role } = plan.scope;
    requireOurs(plan.scope, state.role);
    return [
      ...emptyScopeStatements({ ...state, role: state.role === null ? null : role }),
      ...createScopeStatements(plan, server, state.missingOwnerRights, state.role !== null),
    ];
  }

  async createGrantRole(input: CreateGrantRole): Promise<void> {
    const server = await this.#connections.server();
    await this.#ensureCatalogs(server);
    try {
      await this.#createGrantRole(input, server);
    } catch (error) {
      // The scope's last grant ended between its making and this one, and it was dropped with it.
      if (sqlStateOf(error) !== undefinedObject) {
        throw error;
      }
      await this.createScope(input.scope);
      await this.#createGrantRole(input, server);
    }
  }

  async #createGrantRole(input: CreateGrantRole, server: Server): Promise<void> {
    const { scope, ...grant } = input;
    const role = { ...grant, scopeRole: scope.role, scopeHash: scope.hash };
    const salt = this.#options.randomBytes(grantRoleSaltBytes);
    await this.#change("grant-role.create", input.role, async (client, begin) => {
      const oid = await findGrantRole(client, input.role);
      const statements = grantRoleStatements(role, server, salt, oid !== null);
      await begin(statements.recorded);
      await runAll(client, statements.run);
    });
  }

  async dropGrantRole(role: string): Promise<boolean> {
    const found = await this.#connections.use(async (client) => {
      const oid = await findGrantRole(client, role);
      return oid === null ? null : { oid, scopeRoles: await readScopeRoles(client, oid) };
    });
    const retired =
      found === null
        ? null
        : {
            role,
            oid: found.oid,
            close: closeRoleStatements(role, found.scopeRoles),
            drop: dropRoleStatements(role),
          };
    // Taking away acts at once; the journal catches up, and its failure is told when the role is gone.
    const recording = new Recording(this.#options.journal, "grant-role.drop", role);
    const recorded = recording.begin([...(retired?.close ?? []), ...(retired?.drop ?? [])]).then(
      () => null,
      (error: unknown) => ({ error }),
    );
    try {
      const gone = await this.#retireRole(retired, role);
      const failure = await recorded;
      if (failure !== null) {
        throw failure.error;
      }
      await recording.end("ok", null, gone);
      return gone;
    } catch (error) {
      await recorded;
      await recording.end("failed", sqlStateOf(error), null);
      throw error;
    }
  }

  async #retireRole(retired: RetiredRole | null, role: string): Promise<boolean> {
    if (retired !== null && !(await retireGrantRole(this.#connections, retired, this.#options.clock.nowMs))) {
      return false;
    }
    return this.#connections.use((client) => isRoleGone(client, role, retired?.oid ?? 0));
  }

  async dropScope(scope: { readonly hash: string; readonly role: string }): Promise<boolean> {
    const server = await this.#connections.server();
    let oid = 0;
    return this.#change(
      "scope.drop",
      scope.role,
      async (client, begin) => {
        if (await hasScopeLock(client)) {
          await client.query(scopeLockSql("EXCLUSIVE"));
        }
        const remains = await inspectRemains(client, scope, server, grantRoleComment);
        if (remains.members.length > 0) {
          return false;
        }
        requireOurs(scope, remains.role);
        oid = remains.role?.oid ?? 0;
        const role = remains.role === null ? null : scope.role;
        const statements = dropScopeStatements({ ...remains, role }, remains.surplusOwnerRights, server);
        await begin(statements);
        await runAll(client, statements);
        return true;
      },
      (dropped) =>
        dropped
          ? this.#connections.use(
              async (client) => (await isRoleGone(client, scope.role, oid)) && (await areViewsGone(client, scope.hash)),
            )
          : Promise.resolve(false),
    );
  }

  async terminate(role: string, processId: number): Promise<void> {
    await this.#connections.use((client) =>
      client.query(
        `SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
         WHERE a.pid = $1 AND a.usename = $2`,
        [processId, role],
      ),
    );
  }

  async close(): Promise<void> {
    await this.#connections.close();
  }

  async #ensureCatalogs(server: Server): Promise<void> {
    this.#catalogs ??= this.#makeCatalogs(server).catch((error: unknown) => {
      this.#catalogs = null;
      throw error;
    });
    return this.#catalogs;
  }

  async #makeCatalogs(server: Server): Promise<void> {
    const whole = await this.#connections.use(async (client) => (await catalogStatements(client, server)).length === 0);
    if (whole) {
      return;
    }
    await this.#change("catalog", shadowSchema, async (client, begin) => {
      if (await hasScopeLock(client)) {
        await client.query(scopeLockSql("EXCLUSIVE"));
      }
      const statements = await catalogStatements(client, server);
      if (statements.length > 0) {
        await begin(statements);
        await runAll(client, statements);
        requireNothingLeft(server, await catalogStatements(client, server));
      }
    });
  }

  /**
   * One journaled transaction. `work` calls `begin` with its statements before it runs them; each try is recorded by itself.
   * `attest` reads, after the commit, whether what was to go is gone.
   */
  async #change<T>(
    action: JournalAction,
    object: string,
    work: (client: PoolClient, begin: (statements: readonly string[]) => Promise<void>) => Promise<T>,
    attest: ((result: T) => Promise<T & boolean>) | null = null,
  ): Promise<T> {
    const recording = new Recording(this.#options.journal, action, object);
    const result = await this.#connections.change(
      (client) => work(client, (statements) => recording.begin(statements)),
      (error) => recording.end("failed", sqlStateOf(error), null),
    );
    if (attest === null) {
      await recording.end("ok", null, null);
      return result;
    }
    const attested = await attest(result);
    await recording.end("ok", null, attested);
    return attested;
  }
}

const undefinedObject = "42704";

/**
 * A GRANT of something that the login may not pass on is only a warning, and so is a REVOKE of what another role granted.
 * @throws SallyportError `resource.rights`.
 */
function requireWhole(role: string, state: ScopeState): void {
  if (state.surplus.length > 0) {
    throw new SallyportError(
      "resource.rights",
      "upstream",
      `${role} was given more than its scope: ${state.surplus.join(", ")}`,
      {
        nextStep: `Take these rights away from it again, or as a superuser run: DROP OWNED BY ${quoteIdentifier(role)};`,
      },
    );
  }
  if (!state.whole) {
    throw new SallyportError("resource.rights", "upstream", `${state.missing} rights of ${role} were not given`, {
      nextStep: "Check with `sallyport doctor` what the provisioner's login may pass on.",
    });
  }
}

/**
 * The one thing that does not fail by itself when the login may not do it: to let grant roles into a database closed to PUBLIC.
 * @throws SallyportError `resource.rights`.
 */
function requireNothingLeft(server: Server, statements: readonly string[]): void {
  if (statements.length > 0) {
    const [database, login] = [quoteIdentifier(server.database), quoteIdentifier(server.login)];
    throw new SallyportError("resource.rights", "upstream", `the login ${server.login} may not let grants connect`, {
      nextStep: `As an administrator of the database run: GRANT CONNECT ON DATABASE ${database} TO ${login} WITH GRANT OPTION;`,
    });
  }
}

/**
 * A role of a scope's name with another comment than that scope's was made by someone else, or for another scope.
 * @throws SallyportError `role.not-ours`.
 */
function requireOurs(
  { role, hash }: { readonly role: string; readonly hash: string },
  state: { readonly comment: string | null } | null,
): void {
  if (state !== null && state.comment !== null && state.comment !== scopeRoleComment(hash)) {
    throw new SallyportError("role.not-ours", "upstream", `the role ${role} was not made for this scope`, {
      nextStep: "Rename that role.",
    });
  }
}
