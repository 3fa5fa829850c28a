/** Sessions: admitted, run, ended. Limits are checked before anything is opened; every refusal is an entry. */
import type { Socket } from "node:net";

import { principalDeadlineMs, principalProblem } from "#identity/accounts.ts";
import type { CredentialStore, PrincipalStore } from "#identity/ports.ts";
import type { Credential } from "#domain/grant.ts";
import type { CredentialId, GrantId, IdSource, SessionId } from "#domain/ids.ts";
import type { Clock } from "#domain/clock.ts";
import { limits } from "#domain/limits.ts";
import type { Ledger } from "#ledger/ledger.ts";
import type { Accepted, CancelKey, ClosingWords, Driver, Opened, Unit } from "#protocols/driver.ts";
import { CountedEntries } from "./counted-entries.ts";
import type { GrantBook } from "./grants.ts";
import { LiveSession } from "./live-session.ts";
import type { SessionEnd } from "./live-session.ts";
import type { LiveGrant } from "./live-grant.ts";
import type { RunBook } from "./runs.ts";
import { wordsOf } from "./problem.ts";
import type { Problem } from "./problem.ts";
import { runSession } from "./session-runner.ts";

export interface SessionBookParts {
  readonly ledger: Ledger;
  readonly ids: IdSource;
  readonly clock: Clock;
  readonly grants: GrantBook;
  readonly runs: RunBook;
  readonly credentials: CredentialStore;
  readonly principals: PrincipalStore;
  /** Diagnostics of failures that no client is told about. */
  readonly onFailure: (what: string, error: unknown) => void;
}

interface Cancellable {
  readonly key: CancelKey;
  readonly live: LiveSession;
  cancel(): Promise<void>;
}

type Authenticated<U extends Unit, C, R> = Extract<Accepted<U, C, R>, { kind: "authenticated" }>;

export class SessionBook {
  readonly #parts: SessionBookParts;
  readonly #sessions = new Map<SessionId, LiveSession>();
  readonly #cancellable = new Map<number, Cancellable>();
  readonly #running = new Set<Promise<void>>();
  /** Connections that have not authenticated yet, oldest first. */
  readonly #greeting = new Set<Socket>();
  #stopping: ClosingWords | null = null;
  /** Anyone may send a cancel request without having logged in: those that name nothing are counted, not listed. */
  readonly #unknownCancels: CountedEntries;

  constructor(parts: SessionBookParts) {
    this.#parts = parts;
    this.#unknownCancels = new CountedEntries(parts.ledger, (_code, count) => ({
      type: "cancel.requested",
      session: null,
      known: false,
      count,
    }));
  }

  all(): readonly LiveSession[] {
    return [...this.#sessions.values()];
  }

  /** Serves one connection to its end. Never rejects: what goes wrong here concerns one client. */
  serve<U extends Unit, C, R>(driver: Driver<U, C, R>, socket: Socket): void {
    const [oldest] = this.#greeting;
    if (this.#greeting.size >= limits.handshakesMax && oldest !== undefined) {
      // A login takes milliseconds: whoever has been silent for longest makes room, so that a flood keeps nobody out.
      this.#greeting.delete(oldest);
      oldest.destroy();
    }
    this.#greeting.add(socket);
    const serving = this.#serve(driver, socket)
      .catch((error: unknown) => {
        socket.destroy();
        this.#parts.onFailure("serving a connection", error);
      })
      .finally(() => {
        this.#greeting.delete(socket);
        this.#running.delete(serving);
      });
    this.#running.add(serving);
  }

  /** Ends sessions whose time has come. Called a few times a second. */
  sweep(): void {
    for (const live of this.#sessions.values()) {
      live.stillAllowed();
    }
  }

  /** Ends every session with the same last words and waits for their records. New connections are refused with them. */
  async stop(how: "drained" | "failed", words: ClosingWords): Promise<void> {
    this.#stopping = words;
    for (const live of this.#sessions.values()) {
      live.end({ how, words });
      live.close();
    }
    await Promise.allSettled(this.#running);
    await this.#unknownCancels.flush();
  }

  async #serve<U extends Unit, C, R>(driver: Driver<U, C, R>, socket: Socket): Promise<void> {
    let credential: Credential | null = null;
    const accepted = await driver.accept(socket, async (login) => {
      credential = await this.#parts.credentials.byLogin(login);
      return credential?.verifier ?? null;
    });
    this.#greeting.delete(socket);
    switch (accepted.kind) {
      case "gone":
        return;
      case "cancel":
        await this.#cancel(accepted.key);
        accepted.done();
        return;
      case "failed": {
        const known: Credential | null = credential;
        await this.#refuse(accepted, accepted, known);
        return;
      }
      case "authenticated":
        await this.#admit(accepted);
        return;
      default:
        accepted satisfies never;
    }
  }

  async #admit<U extends Unit, C, R>(accepted: Authenticated<U, C, R>): Promise<void> {
    // Read again: the row may have changed while the client proved itself.
    const credential = await this.#parts.credentials.byLogin(accepted.login);
    const admission = credential === null ? unknownCredential : await this.#admission(credential, accepted.resource);
    if (credential === null || "code" in admission) {
      await this.#refuse(accepted, "code" in admission ? admission : unknownCredential, credential);
      return;
    }
    const grant = admission.admitted;
    let live: LiveSession;
    try {
      live = await this.#record(accepted, credential, grant);
    } catch (error) {
      await this.#refuse(accepted, wordsOf(error), credential);
      return;
    }
    grant.sessions.add(live);
    this.#sessions.set(live.session.id, live);
    // What ended while the session was being recorded did not find it in its list: it is looked up once more.
    const late = grant.end ?? this.#runEnded(credential);
    if (late !== null) {
      live.end(late);
    }
    try {
      await this.#run(accepted, live, grant);
    } finally {
      grant.sessions.delete(live);
      this.#sessions.delete(live.session.id);
    }
  }

  /** The end of the run that a credential was minted for; null while it lives, or when there is none. */
  #runEnded(credential: Credential): SessionEnd | null {
    if (credential.runId === null || this.#parts.runs.get(credential.runId) !== null) {
      return null;
    }
    return { how: "killed", words: { ...runEnded, decision: this.#parts.ids("dec") } };
  }

  /** Everything that must hold before a session exists. */
  async #admission(credential: Credential, resource: string): Promise<{ readonly admitted: LiveGrant } | Problem> {
    const { clock, grants, principals } = this.#parts;
    if (this.#stopping !== null) {
      return this.#stopping;
    }
    if (this.#sessions.size >= limits.sessionsMax) {
      return tooManySessions;
    }
    const ended = await grants.endedWords(credential.grantId);
    if (ended !== null) {
      return ended;
    }
    if (credential.status === "ended") {
      return credentialEnded;
    }
    if (this.#runEnded(credential) !== null) {
      return runEnded;
    }
    if (clock.nowMs() >= credential.expiresAtMs) {
      return {
        code: "grant.expired",
        reason: `the credential expired at ${new Date(credential.expiresAtMs).toISOString()}`,
        nextStep: "Ask for a new grant.",
      };
    }
    let live: LiveGrant;
    try {
      live = await grants.activate(credential.grantId);
    } catch (error) {
      this.#parts.onFailure(`activating the grant ${credential.grantId}`, error);
      return wordsOf(error);
    }
    for (const who of live.onBehalfOf === null ? [live.principal] : [live.principal, live.onBehalfOf]) {
      const problem = await principalProblem(who, principals, clock.nowMs());
      if (problem !== null) {
        return problem;
      }
    }
    if (live.access.resource.name !== resource) {
      return {
        code: "resource.unknown",
        reason: `this credential is not for the resource "${resource.slice(0, 63)}"`,
        nextStep: `Connect to the database "${live.access.resource.name}".`,
      };
    }
    if (live.sessions.size >= limits.sessionsPerGrantMax) {
      return tooManyForGrant;
    }
    return { admitted: live };
  }

  async #record<U extends Unit, C, R>(
    accepted: Authenticated<U, C, R>,
    credential: Credential,
    live: LiveGrant,
  ): Promise<LiveSession> {
    const { ledger, ids, clock, runs } = this.#parts;
    const id = ids("ses");
    const { grant, principal, onBehalfOf } = live;
    const deadlineMs = Math.min(
      grant.expiresAtMs,
      credential.expiresAtMs,
      principalDeadlineMs(principal),
      onBehalfOf === null ? Number.POSITIVE_INFINITY : principalDeadlineMs(onBehalfOf),
    );
    await ledger.openDataKey(id);
    const recorded = await ledger.record(
      {
        entry: {
          type: "session.opened",
          session: id,
          principal: principal.id,
          principalKind: principal.kind,
          owner: principal.kind === "human" ? null : principal.ownerId,
          onBehalfOf: onBehalfOf?.id ?? null,
          actors: [principal.id],
          authentication: { method: "scram-sha-256", credential: credential.id },
          client: accepted.client,
          grant: grant.id,
          task: grant.task.id,
          resource: grant.resourceId,
          run: credential.runId,
          deadline: deadlineMs,
          provisioning: "role",
          publicRights: live.access.found()?.publicRights ?? [],
        },
      },
      id,
    );
    return new LiveSession({
      session: {
        id,
        principalId: principal.id,
        onBehalfOfId: onBehalfOf?.id ?? null,
        grantId: grant.id,
        taskId: grant.task.id,
        resourceId: grant.resourceId,
        credentialId: credential.id,
        runId: credential.runId,
        openedAtMs: clock.nowMs(),
        deadlineMs,
        entryIndex: recorded.index,
      },
      client: accepted.client,
      grant: live,
      ids,
      clock,
      causeNow: () => runs.causeNow(credential.runId),
    });
  }

  async #run<U extends Unit, C, R>(
    accepted: Authenticated<U, C, R>,
    live: LiveSession,
    grant: LiveGrant,
  ): Promise<void> {
    const { host, port, database } = grant.access.resource;
    let opened: Opened<U, C, R>;
    try {
      opened = await accepted.open({
        host,
        port,
        database,
        role: grant.role,
        scope: grant.scope,
        catalog: grant.access.catalog,
      });
    } catch (error) {
      this.#parts.onFailure("opening a session at the resource", error);
      await this.#close(live, "failed", "resource.unavailable");
      await accepted.refuse({ ...wordsOf(error), decision: this.#parts.ids("dec") });
      return;
    }
    const { processId } = opened.cancelKey;
    this.#cancellable.set(processId, { key: opened.cancelKey, live, cancel: () => opened.cancel() });
    try {
      const how = await runSession({
        opened,
        live,
        ledger: this.#parts.ledger,
        ids: this.#parts.ids,
        terminate: () => grant.access.provisioner.terminate(grant.role.role, opened.resourceProcessId),
        onFailure: this.#parts.onFailure,
      });
      await this.#close(live, how.how, how.code);
    } finally {
      this.#cancellable.delete(processId);
    }
  }

  async #close(live: LiveSession, how: CloseHow, code: string | null): Promise<void> {
    const { commands, denied, rows, bytes } = live.counts;
    try {
      await this.#parts.ledger.record(
        { entry: { type: "session.closed", session: live.facts, how, code, commands, denied, rows, bytes } },
        live.session.id,
      );
    } catch (error) {
      // The ledger has failed; the node is stopping, and recovery will show a session without an end.
      this.#parts.onFailure(`recording the end of ${live.session.id}`, error);
    }
  }

  /** A cancel key ends only what its own session runs; any other is recorded as unknown, and nobody is told. */
  async #cancel(key: CancelKey): Promise<void> {
    const found = this.#cancellable.get(key.processId);
    const known = found !== undefined && found.key.secretKey === key.secretKey;
    if (!known) {
      this.#unknownCancels.add("unknown");
      return;
    }
    const session = found.live.facts;
    await this.#parts.ledger.record({ entry: { type: "cancel.requested", session, known, count: 1 } }, null);
    await found.cancel();
  }

  async #refuse(
    accepted: { refuse(words: ClosingWords): Promise<void> },
    problem: Problem,
    credential: Credential | null,
  ): Promise<void> {
    const decision = this.#parts.ids("dec");
    const { code, reason, nextStep } = problem;
    let words: ClosingWords = { code, reason, nextStep, decision };
    try {
      await this.#parts.ledger.record(
        {
          entry: {
            type: "session.refused",
            decision,
            code,
            credential: idOf(credential),
            grant: grantOf(credential),
            protocol: "postgres",
          },
        },
        decision,
      );
    } catch {
      words = { ...wordsOf(null), decision };
    }
    await accepted.refuse(words);
  }
}

type CloseHow = "client" | "upstream" | "expired" | "revoked" | "killed" | "failed" | "drained";

const unknownCredential: Problem = {
  code: "credential.invalid",
  reason: "the login or password is not valid",
  nextStep: "Use the credential that the grant was given with.",
};
const credentialEnded: Problem = {
  code: "grant.revoked",
  reason: "the credential has been ended",
  nextStep: "Ask for a new grant.",
};
const runEnded: Problem = {
  code: "grant.revoked",
  reason: "the run that this credential was made for has ended",
  nextStep: "Start it again with `sallyport run`.",
};
const tooManySessions: Problem = {
  code: "limit.exceeded",
  reason: `${limits.sessionsMax} sessions are open`,
  nextStep: "Try again when some have closed.",
};
const tooManyForGrant: Problem = {
  code: "limit.exceeded",
  reason: `${limits.sessionsPerGrantMax} sessions of this grant are open`,
  nextStep: "Close some, or use a smaller pool.",
};

function idOf(credential: Credential | null): CredentialId | null {
  return credential === null ? null : credential.id;
}

function grantOf(credential: Credential | null): GrantId | null {
  return credential === null ? null : credential.grantId;
}
