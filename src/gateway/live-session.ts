/** One session while it lives: decides its units, words its entries, counts what it did. */
import type { Cause } from "#domain/cause.ts";
import type { Allow, Decision, Deny, DenyCode } from "#domain/decision.ts";
import type { Effect } from "#domain/effect.ts";
import type { DecisionId, IdSource } from "#domain/ids.ts";
import type { Outcome } from "#domain/outcome.ts";
import type { Session } from "#domain/session.ts";
import type { Clock } from "#domain/clock.ts";
import type { Draft, EntryDecision, EntryDraft, EntryEffect, EntrySession } from "#ledger/entry.ts";
import type { ClosingWords, CommandFacts, Progress, TransactionEnd, Unit } from "#protocols/driver.ts";
import type { LiveGrant } from "./live-grant.ts";
import type { RelaySession } from "./relay.ts";

export interface LiveSessionParts {
  readonly session: Session;
  readonly client: string;
  readonly grant: LiveGrant;
  readonly ids: IdSource;
  readonly clock: Clock;
  readonly causeNow: () => Cause;
}

/** Why a session's rights have ended. */
export interface SessionEnd {
  readonly how: "expired" | "revoked" | "killed" | "failed" | "drained";
  readonly words: ClosingWords;
}

export class LiveSession implements RelaySession {
  readonly session: Session;
  readonly client: string;
  readonly grant: LiveGrant;
  readonly #parts: LiveSessionParts;
  readonly #facts: EntrySession;
  #end: SessionEnd | null = null;
  readonly #closing = Promise.withResolvers<void>();
  readonly counts = { commands: 0, denied: 0, rows: 0, bytes: 0, maskedCells: 0 };
  /** Set by the runner; ends the resource's side at once. */
  onEnd: ((end: SessionEnd) => void) | null = null;

  constructor(parts: LiveSessionParts) {
    this.session = parts.session;
    this.client = parts.client;
    this.grant = parts.grant;
    this.#parts = parts;
    const { session } = parts;
    this.#facts = {
      id: session.id,
      entry: session.entryIndex,
      principal: session.principalId,
      onBehalfOf: session.onBehalfOfId,
      grant: session.grantId,
      task: session.taskId,
      resource: session.resourceId,
    };
  }

  get facts(): EntrySession {
    return this.#facts;
  }

  get ended(): SessionEnd | null {
    return this.#end;
  }

  /** Resolves when the client's side is to be closed without any more grace: the node stops. */
  get closing(): Promise<void> {
    return this.#closing.promise;
  }

  close(): void {
    this.#closing.resolve();
  }

  /** Takes the session's rights away, at once. */
  end(end: SessionEnd): void {
    if (this.#end === null) {
      this.#end = end;
      this.onEnd?.(end);
    }
  }

  nowUs(): number {
    return this.#parts.clock.monotonicUs();
  }

  decide(unit: Unit): Decision {
    const over = this.stillAllowed();
    if (over !== null) {
      return over;
    }
    if (unit.refusal !== null) {
      return this.#deny(unit.refusal.code, unit.refusal.reason, unit.refusal.nextStep, []);
    }
    const { policySet, grant, principal, onBehalfOf, access } = this.grant;
    const { resource } = access;
    const nowMs = this.#parts.clock.nowMs();
    const policies = new Set<string>();
    for (const command of unit.commands) {
      const verdict = policySet.evaluate({
        principal,
        onBehalfOf,
        grant,
        resource,
        kind: command.kind,
        effects: command.effects,
        nowMs,
      });
      if (verdict.effect === "deny") {
        return this.#deny(verdict.code, verdict.reason, verdict.nextStep, verdict.policies, command.ordinal);
      }
      for (const policy of verdict.policies) {
        policies.add(policy);
      }
    }
    return {
      effect: "allow",
      id: this.#parts.ids("dec"),
      policies: [...policies].toSorted(),
      policySetHash: policySet.hash,
      pure: unit.commands.every((command) => command.pure),
      obligations: unit.commands.flatMap((command) => command.obligations),
    };
  }

  stillAllowed(): Deny | null {
    const end = this.#end ?? this.#deadline();
    if (end === null) {
      return null;
    }
    return this.#deny(end.words.code, end.words.reason, end.words.nextStep, []);
  }

  /** The sweep is a quarter of a second wide; a command is not: it looks at the clock itself. */
  #deadline(): SessionEnd | null {
    const { session, clock, ids } = this.#parts;
    if (clock.nowMs() < session.deadlineMs) {
      return null;
    }
    this.end({ how: "expired", words: expiredWords(session.deadlineMs, ids("dec")) });
    return this.#end;
  }

  #deny(
    code: DenyCode,
    reason: string,
    nextStep: string,
    policies: readonly string[],
    ordinal: number | null = null,
  ): Deny {
    if (ordinal !== null) {
      this.#deniedOrdinal = ordinal;
    }
    return {
      effect: "deny",
      id: this.#parts.ids("dec"),
      policies,
      policySetHash: this.grant.policySet.hash,
      code,
      reason,
      nextStep,
    };
  }

  #deniedOrdinal = 1;

  onOutcome(outcome: Outcome): void {
    this.counts.commands++;
    this.counts.rows += outcome.rows;
    this.counts.bytes += outcome.bytes;
    for (const redaction of outcome.redactions) {
      this.counts.maskedCells += redaction.cells;
    }
  }

  onDenied(): void {
    this.counts.denied++;
  }

  readonly drafts: RelaySession["drafts"] = {
    denied: (unit, decision) => this.#denied(unit, decision),
    intent: (unit, command, decision) => this.#intent(unit, command, decision),
    outcome: (progress, outcome) => this.#outcome(progress, outcome),
    transaction: (end) => this.#transaction(end),
  };

  #denied(unit: Unit, decision: Deny): Draft {
    const ordinal = unit.refusal?.ordinal ?? this.#deniedOrdinal;
    this.#deniedOrdinal = 1;
    const command = unit.commands[ordinal - 1] ?? unit.commands[0];
    const effects = unit.refusal?.effects ?? command?.effects ?? [];
    return this.#withPayload(
      {
        type: "command.denied",
        session: this.#facts,
        command: command?.id ?? this.#parts.ids("cmd"),
        cause: this.#parts.causeNow(),
        kind: command?.kind ?? "unknown",
        effects: effects.map(entryEffect),
        decision: entryDecision(decision),
        statement: ordinal,
        statements: Math.max(1, unit.size),
      },
      { ...(unit.refusal?.payload ?? unit.commands[0]?.payload), reason: decision.reason },
    );
  }

  #intent(unit: Unit, command: CommandFacts, decision: Allow): Draft {
    const shared = {
      session: this.#facts,
      command: command.id,
      cause: this.#parts.causeNow(),
      kind: command.kind,
      effects: command.effects.map(entryEffect),
      decision: entryDecision(decision),
      rewritten: command.rewritten,
    };
    const entry: EntryDraft =
      unit.stage === "prepare"
        ? { type: "command.prepared", ...shared }
        : {
            type: "command.intent",
            ...shared,
            prepared: unit.prepared,
            pure: command.pure,
            statement: command.ordinal,
            statements: unit.size,
          };
    return this.#withPayload(entry, command.payload);
  }

  #outcome(progress: Progress, outcome: Outcome): Draft {
    const { command, execution } = progress;
    return {
      entry: {
        type: "command.outcome",
        session: this.#facts,
        command,
        intent: progress.pass.index,
        execution,
        outcome,
      },
    };
  }

  #transaction(end: TransactionEnd): Draft {
    return { entry: { type: "transaction.ended", session: this.#facts, ...end } };
  }

  #withPayload(entry: EntryDraft, fields: { readonly [name: string]: string }): Draft {
    return Object.keys(fields).length === 0 ? { entry } : { entry, payload: { key: this.session.id, fields } };
  }
}

/** What is said when the time has come. */
export function expiredWords(deadlineMs: number, decision: DecisionId): ClosingWords {
  return {
    code: "grant.expired",
    reason: `the grant expired at ${new Date(deadlineMs).toISOString()}`,
    nextStep: "Ask for a new grant.",
    decision,
  };
}

function entryDecision(decision: Decision): EntryDecision {
  return {
    id: decision.id,
    effect: decision.effect,
    policies: decision.policies,
    policySet: decision.policySetHash,
    obligations:
      decision.effect === "allow"
        ? decision.obligations.map((obligation) => `${obligation.kind} ${obligation.ruleId} ${obligation.source}`)
        : [],
    ...(decision.effect === "deny" ? { code: decision.code } : {}),
  };
}

function entryEffect(effect: Effect): EntryEffect {
  switch (effect.kind) {
    case "read":
      return { verb: "select", object: effect.relation, columns: effect.columns };
    case "catalog":
      return { verb: "select", object: effect.relation, columns: [] };
    case "write":
      return { verb: effect.verb, object: effect.relation, columns: effect.columns };
    case "call":
      return { verb: "call", object: effect.function, columns: [] };
    case "setting":
      return { verb: "session", object: effect.name, columns: [] };
    default:
      return effect satisfies never;
  }
}
