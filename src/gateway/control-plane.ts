/** Everything that the API, the CLI and `sallyport run` can ask of a node. */
import { makeCredential } from "#identity/accounts.ts";
import type { CredentialStore, PrincipalStore } from "#identity/ports.ts";
import type {
  AddedGrant,
  AddGrantInput,
  CloseCallInput,
  ConnectionDetails,
  ControlPlane,
  GrantView,
  LedgerView,
  OpenCallInput,
  ResourceView,
  RunEvent,
  SessionView,
  StartedRun,
  StartRunInput,
  StatusView,
} from "#domain/control.ts";
import { SallyportError } from "#domain/errors.ts";
import type { Grant, GrantState, ScramVerifier } from "#domain/grant.ts";
import type { CallId, DecisionId, GrantId, IdSource, ResourceId, RunId } from "#domain/ids.ts";
import type { Clock } from "#domain/clock.ts";
import { limits } from "#domain/limits.ts";
import type { Principal } from "#domain/principal.ts";
import type { Mask } from "#domain/resource.ts";
import type { ChangeKind, EntryActor } from "#ledger/entry.ts";
import type { Ledger } from "#ledger/ledger.ts";
import { makeChange, nodeDataKey } from "./changes.ts";
import type { GrantBook } from "./grants.ts";
import type { GrantStore } from "./ports.ts";
import { masksFor } from "./reconcile.ts";
import type { RunBook } from "./runs.ts";
import type { SessionBook } from "./sessions.ts";
import type { ResourceAccess } from "#protocols/driver.ts";

export interface ControlPlaneParts {
  readonly ledger: Ledger;
  readonly ledgerDirectory: string;
  readonly ids: IdSource;
  readonly clock: Clock;
  readonly randomBytes: (length: number) => Uint8Array;
  readonly makeVerifier: (password: string) => ScramVerifier;
  readonly principals: PrincipalStore;
  readonly credentials: CredentialStore;
  readonly grantStore: GrantStore;
  readonly grants: GrantBook;
  readonly sessions: SessionBook;
  readonly runs: RunBook;
  readonly resources: ReadonlyMap<ResourceId, ResourceAccess>;
  readonly masks: readonly Mask[];
  /** Failures of what runs by itself: for the operator. */
  readonly onFailure: (what: string, error: unknown) => void;
  readonly version: string;
  readonly startedAtMs: number;
  readonly postgres: { readonly host: string; readonly port: number };
  readonly control: { readonly host: string; readonly port: number };
}

/** Whoever holds the control token. */
const byControl: EntryActor = { kind: "control", credential: "control-token" };

/** Names of resources and ids are shorter; what is asked for may be anything. */
const objectCharactersMax = 63;

/** A refused change, with the id that its entry has. */
class RefusedChange extends SallyportError {
  readonly decisionId: DecisionId;

  constructor(error: SallyportError, decisionId: DecisionId) {
    super(error.code, error.whose, error.message, {
      cause: error,
      ...(error.nextStep === null ? {} : { nextStep: error.nextStep }),
    });
    this.decisionId = decisionId;
  }
}

export class NodeControlPlane implements ControlPlane {
  readonly #parts: ControlPlaneParts;

  constructor(parts: ControlPlaneParts) {
    this.#parts = parts;
  }

  async status(): Promise<StatusView> {
    const { version, startedAtMs, postgres, control, resources, sessions, principals, grantStore } = this.#parts;
    return {
      version,
      startedAtMs,
      postgres,
      control,
      resources: [...resources.values()].map(resourceView),
      principals: (await principals.all()).length,
      activeGrants: (await grantStore.inState(["pending", "active"])).length,
      liveSessions: sessions.all().length,
      ledger: this.#ledgerView(),
    };
  }

  addGrant(input: AddGrantInput): Promise<AddedGrant> {
    return this.#orRefused("grant.add", input.resource, () => this.#addGrant(input));
  }

  async #addGrant(input: AddGrantInput): Promise<AddedGrant> {
    const { ids, clock, grants } = this.#parts;
    const principal = await this.#principal(input.principal);
    const onBehalfOf = input.onBehalfOf === undefined ? null : await this.#principal(input.onBehalfOf);
    const access = this.#resource(input.resource);
    const nowMs = clock.nowMs();
    if (input.lifetimeMs < 1000 || input.lifetimeMs > limits.grantLifetimeMsMax) {
      throw new SallyportError("grant.lifetime", "client", "a grant lives from one second to 30 days", {
        nextStep: "Give a lifetime such as --for 30m.",
      });
    }
    const grant: Grant = {
      id: ids("grt"),
      principalId: principal.id,
      onBehalfOfId: onBehalfOf?.id ?? null,
      resourceId: access.resource.id,
      task: {
        id: ids("tsk"),
        title: input.task.title,
        purpose: input.task.purpose ?? null,
        ticket: input.task.ticket ?? null,
      },
      scope: { tables: input.tables, masks: masksFor(this.#parts.masks, access.resource.labels) },
      createdAtMs: nowMs,
      expiresAtMs: nowMs + input.lifetimeMs,
      state: "pending",
      end: null,
      source: "api",
    };
    // A run names its grant by principal, resource and task: two that share them could not be told apart.
    const same = await this.#openGrants(principal, access);
    if (same.some((other) => other.task.title === grant.task.title)) {
      throw new SallyportError(
        "grant.exists",
        "client",
        "an active grant for this principal, resource and task exists",
        {
          nextStep: "Revoke it first, or give the task another title: see `sallyport grant ls`.",
        },
      );
    }
    // The scope is compiled first, so that a grant which can never match is refused and leaves no trace of rights.
    grants.check(grant, principal, onBehalfOf, access);
    await access.ready();
    await access.provisioner.compile(grant.scope, access.resource.labels);
    await grants.add(grant, byControl, { principal: principal.name, resource: access.resource.name });
    try {
      await grants.activate(grant.id);
      const connection = await this.#issue(grant, access, null);
      return { grant: await this.#view(grant.id), connection };
    } catch (error) {
      await grants.end(grant.id, "failed", "its rights could not be made", { kind: "gateway" });
      throw error;
    }
  }

  async listGrants(filter: { readonly state?: GrantState | undefined }): Promise<readonly GrantView[]> {
    const all = await this.#parts.grantStore.all();
    const wanted = filter.state === undefined ? all : all.filter((grant) => grant.state === filter.state);
    const views: GrantView[] = [];
    for (const grant of wanted) {
      views.push(await this.#grantView(grant));
    }
    return views;
  }

  revokeGrant(id: GrantId, reason: string): Promise<GrantView> {
    return this.#orRefused("grant.revoke", id, async () => {
      const grant = await this.#parts.grants.end(id, "revoked", reason, byControl);
      return this.#grantView(grant);
    });
  }

  /**
   * A change that was asked for and refused is an entry too, and the answer carries its decision id. What failed after its intent
   * was recorded has its outcome already; this entry then says which decision told the asker.
   */
  async #orRefused<T>(kind: ChangeKind, object: string, change: () => Promise<T>): Promise<T> {
    try {
      return await change();
    } catch (error) {
      if (!(error instanceof SallyportError)) {
        throw error;
      }
      const { ledger, ids } = this.#parts;
      const decision = ids("dec");
      const id = ids("chg");
      await ledger.record(
        {
          entry: {
            type: "change.outcome",
            change: id,
            kind,
            object: object.slice(0, objectCharactersMax),
            intent: null,
            status: "failed",
            code: error.code,
            detail: { decision, by: byControl.kind },
          },
          payload: { key: nodeDataKey, fields: { reason: error.message } },
        },
        id,
      );
      throw new RefusedChange(error, decision);
    }
  }

  async listSessions(): Promise<readonly SessionView[]> {
    return this.#parts.sessions.all().map((live) => {
      const { session, grant, counts, client, ended } = live;
      return {
        id: session.id,
        principal: grant.principal.name,
        grantId: session.grantId,
        resource: grant.access.resource.name,
        task: grant.grant.task.title,
        runId: session.runId,
        client,
        openedAtMs: session.openedAtMs,
        deadlineMs: session.deadlineMs,
        commands: counts.commands,
        denied: counts.denied,
        rows: counts.rows,
        maskedCells: counts.maskedCells,
        state: ended === null ? "live" : "ended",
      };
    });
  }

  startRun(input: StartRunInput): Promise<StartedRun> {
    return this.#orRefused("run.start", input.resource, () => this.#startRun(input));
  }

  async #startRun(input: StartRunInput): Promise<StartedRun> {
    const { ids, grants, ledger, runs } = this.#parts;
    const principal = await this.#principal(input.principal);
    const access = this.#resource(input.resource);
    const grant = await this.#grantFor(principal, access, input.task);
    await grants.activate(grant.id);
    const id = ids("run");
    await ledger.openDataKey(id);
    return makeChange(
      this.#parts,
      {
        kind: "run.start",
        object: id,
        by: byControl,
        detail: { grant: grant.id, principal: principal.id, task: grant.task.id },
        texts: { command: input.command },
      },
      async () => {
        // Before the credential exists: a session of a run that is not there is refused.
        runs.add({ id, grant: grant.id, principal: principal.id, task: grant.task.id });
        const connection = await this.#issue(grant, access, id);
        this.#expectListener(id);
        return { runId: id, grantId: grant.id, connection };
      },
    );
  }

  /** Whoever asked for the run may be gone before it listens: then nobody would end it. */
  #expectListener(run: RunId): void {
    const timer = setTimeout(() => {
      if (!this.#parts.runs.isWatched(run)) {
        this.endRun(run, "nobody listened for its end").catch((error: unknown) => {
          this.#parts.onFailure(`ending the run ${run}`, error);
        });
      }
    }, limits.runListenMs);
    timer.unref();
  }

  async openCall(run: RunId, input: OpenCallInput): Promise<{ readonly callId: CallId }> {
    return { callId: await this.#parts.runs.openCall(run, input) };
  }

  async closeCall(run: RunId, call: CallId, input: CloseCallInput): Promise<void> {
    await this.#parts.runs.closeCall(run, call, input);
  }

  async *runEvents(run: RunId, signal: AbortSignal): AsyncGenerator<RunEvent> {
    try {
      yield* this.#parts.runs.events(run, signal);
    } finally {
      // The run's process has gone, or has been told why it must.
      await this.endRun(run, "the process that ran it has gone");
    }
  }

  async endRun(run: RunId, reason: string): Promise<void> {
    const { runs, credentials, grants, sessions, ids } = this.#parts;
    const known = runs.get(run);
    if (known === null) {
      return;
    }
    // At once: its credential opens nothing any more, and what it opened is closed.
    for (const live of sessions.all()) {
      if (live.session.runId === run) {
        const words = {
          code: "grant.revoked",
          reason: "the run of this MCP server has ended",
          nextStep: "Start it again with `sallyport run`.",
          decision: ids("dec"),
        } as const;
        live.end({ how: "killed", words });
      }
    }
    await runs.end(run, reason);
    await makeChange(
      this.#parts,
      { kind: "run.end", object: run, by: { kind: "gateway" }, detail: { grant: known.grant }, texts: { reason } },
      async () => {
        for (const credential of await credentials.ofRun(run)) {
          await grants.endCredential(credential, { kind: "gateway" });
        }
      },
    );
  }

  /** A login and password for a grant: the verifier is stored, the password is in the answer and nowhere else. */
  async #issue(grant: Grant, access: ResourceAccess, runId: RunId | null): Promise<ConnectionDetails> {
    const { ids, clock, randomBytes, makeVerifier, grants, postgres } = this.#parts;
    const { credential, password } = makeCredential({
      id: ids("crd"),
      grant,
      runId,
      nowMs: clock.nowMs(),
      randomBytes,
      makeVerifier,
    });
    await grants.addCredential(credential, byControl);
    return {
      host: postgres.host,
      port: postgres.port,
      database: access.resource.name,
      user: credential.login,
      password,
      expiresAtMs: credential.expiresAtMs,
    };
  }

  async #openGrants(principal: Principal, access: ResourceAccess): Promise<readonly Grant[]> {
    const open = await this.#parts.grantStore.inState(["pending", "active"]);
    const nowMs = this.#parts.clock.nowMs();
    return open.filter(
      (grant) =>
        grant.principalId === principal.id && grant.resourceId === access.resource.id && nowMs < grant.expiresAtMs,
    );
  }

  async #grantFor(principal: Principal, access: ResourceAccess, task: string): Promise<Grant> {
    const mine = await this.#openGrants(principal, access);
    const wanted = task.trim();
    const named = mine.filter((grant) => grant.task.title === wanted || grant.task.ticket === wanted);
    const [grant, second] = named;
    if (grant === undefined) {
      const tasks = mine.map((other) => `"${other.task.title}"`).join(", ");
      throw new SallyportError(
        "grant.none",
        "principal",
        `no active grant of "${principal.name}" on "${access.resource.name}" is for the task "${wanted}"`,
        {
          nextStep:
            mine.length === 0
              ? `Give one: sallyport grant add --principal ${principal.name} --resource ${access.resource.name} --task "${wanted}" --table …`
              : `Its active grants there are for ${tasks}.`,
        },
      );
    }
    if (second !== undefined) {
      throw new SallyportError("grant.ambiguous", "principal", `${named.length} active grants are for this task`, {
        nextStep: "Revoke all but one, or give the tasks different titles: see `sallyport grant ls`.",
      });
    }
    return grant;
  }

  async #principal(name: string): Promise<Principal> {
    const principal = await this.#parts.principals.byName(name);
    if (principal === null) {
      throw new SallyportError("principal.unknown", "client", `there is no principal "${name}"`, {
        nextStep: "Declare it in the configuration.",
      });
    }
    return principal;
  }

  #resource(name: string): ResourceAccess {
    for (const access of this.#parts.resources.values()) {
      if (access.resource.name === name) {
        return access;
      }
    }
    throw new SallyportError("resource.unknown", "client", `there is no resource "${name}"`, {
      nextStep: "Declare it in the configuration.",
    });
  }

  async #view(id: GrantId): Promise<GrantView> {
    const grant = await this.#parts.grantStore.byId(id);
    if (grant === null) {
      throw new SallyportError("grant.unknown", "client", "no such grant", { nextStep: "See `sallyport grant ls`." });
    }
    return this.#grantView(grant);
  }

  async #grantView(grant: Grant): Promise<GrantView> {
    const principal = await this.#parts.principals.byId(grant.principalId);
    const access = this.#parts.resources.get(grant.resourceId);
    return {
      id: grant.id,
      principal: principal?.name ?? grant.principalId,
      principalId: grant.principalId,
      resource: access?.resource.name ?? grant.resourceId,
      resourceId: grant.resourceId,
      task: grant.task.title,
      tables: grant.scope.tables,
      createdAtMs: grant.createdAtMs,
      expiresAtMs: grant.expiresAtMs,
      state: grant.state,
      end: grant.end,
      liveSessions: this.#parts.grants.liveGrant(grant.id)?.sessions.size ?? 0,
      source: grant.source,
    };
  }

  #ledgerView(): LedgerView {
    const { origin, size, checkpointSize, rootHex, verifierKey, state, failure } = this.#parts.ledger.status();
    return {
      origin,
      directory: this.#parts.ledgerDirectory,
      size,
      checkpointSize,
      rootHex,
      verifierKey,
      state,
      failure,
    };
  }
}

function resourceView(access: ResourceAccess): ResourceView {
  const { id, name, kind, host, port, database } = access.resource;
  const found = access.found();
  return {
    id,
    name,
    kind,
    target: `${host}:${port}/${database}`,
    state: found === null ? "unavailable" : "ready",
    findings: found === null ? ["it has not been reached yet"] : found.publicRights,
  };
}
