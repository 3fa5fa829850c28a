/**
 * The three laws, in one place.
 *
 * 1. No effect without a durable record: `forward` gives `upstream.send` a pass that the ledger minted; `outbound` releases a
 *    completion only with its durable outcome.
 * 2. Nothing unmasked goes downstream: `outbound` puts every answer through `mask` before it can be queued for release.
 * 3. Nothing unknown goes through: a unit that was refused or not allowed takes the one branch that ends in `refuse`; frames
 *    that the protocol does not know never become an arrival (the conversation throws).
 *
 * Two loops that do not wait for one another: a pipelining client would deadlock if each answer were awaited before the next
 * frame is read. The types in `protocols/driver.ts` refuse a program that leaves a step out.
 */
import type { Allow, AllowPure, Decision, Deny } from "#domain/decision.ts";
import { limits } from "#domain/limits.ts";
import type { Outcome } from "#domain/outcome.ts";
import type { Draft } from "#ledger/entry.ts";
import type { Ledger } from "#ledger/ledger.ts";
import { Enqueued } from "#ledger/recorded.ts";
import type { Recorded } from "#ledger/recorded.ts";
import { mask } from "#mask/masker.ts";
import type { Masked } from "#mask/masker.ts";
import type { Answer, CommandFacts, Conversation, Pass, Progress, TransactionEnd, Unit } from "#protocols/driver.ts";
import { ReleaseQueue } from "./release-queue.ts";

/** What the relay asks of the session it works for: decisions, and the wording of entries. */
export interface RelaySession {
  /** Decides a unit, deadline and account state included. */
  decide(unit: Unit): Decision;
  /** Asked before each part of a command that was allowed earlier; null when it may go on. */
  stillAllowed(): Deny | null;
  drafts: {
    denied(unit: Unit, decision: Deny): Draft;
    intent(unit: Unit, command: CommandFacts, decision: Allow): Draft;
    outcome(progress: Progress, outcome: Outcome): Draft;
    transaction(end: TransactionEnd): Draft;
  };
  /** Counts what was released, for the session list and the closing entry. */
  onOutcome(outcome: Outcome): void;
  onDenied(): void;
  nowUs(): number;
}

export interface RelayParts<U extends Unit, Control, Reply> {
  readonly conversation: Conversation<U, Control, Reply>;
  readonly session: RelaySession;
  readonly ledger: Ledger;
  /** A release failed (the ledger cannot write): the session must end now, whatever the resource does next. */
  readonly onFailure: (error: unknown) => void;
}

/** Client to resource. Returns when the client has gone. */
export async function inbound<U extends Unit, Control, Reply>(parts: RelayParts<U, Control, Reply>): Promise<void> {
  const { conversation, session } = parts;
  for (;;) {
    const arrivals = await conversation.arrivals();
    if (arrivals === null) {
      return;
    }
    for (const arrival of arrivals) {
      switch (arrival.kind) {
        case "unit":
          await forward(parts, arrival.unit, session.decide(arrival.unit));
          break;
        case "continue": {
          const denial = session.stillAllowed();
          if (denial === null) {
            await conversation.upstream.send(arrival.unit, [arrival.pass]);
          } else {
            await forward(parts, arrival.unit, denial);
          }
          break;
        }
        case "control":
          await conversation.upstream.control(arrival.control);
          break;
        default:
          arrival satisfies never;
      }
    }
  }
}

async function forward<U extends Unit, Control, Reply>(
  parts: RelayParts<U, Control, Reply>,
  unit: U,
  decision: Decision,
): Promise<void> {
  const { conversation, session, ledger } = parts;
  if (decision.effect === "deny") {
    session.onDenied();
    // Durable before the client reads of it: a denial that nobody recorded did not happen.
    const recorded = await ledger.record(session.drafts.denied(unit, decision), decision);
    await conversation.downstream.refuse(unit, recorded);
    return;
  }
  const passes: Pass[] = [];
  if (isPure(decision)) {
    for (const command of unit.commands) {
      passes.push(ledger.enqueue(session.drafts.intent(unit, command, decision), decision));
    }
  } else {
    const durable = unit.commands.map((command) =>
      ledger.record(session.drafts.intent(unit, command, decision), decision),
    );
    passes.push(...(await Promise.all(durable)));
  }
  await conversation.upstream.send(unit, passes);
}

/** Resource to client. Returns when the resource has gone and everything it sent was released. */
export async function outbound<U extends Unit, Control, Reply>(parts: RelayParts<U, Control, Reply>): Promise<void> {
  const { conversation } = parts;
  const queue = new ReleaseQueue(limits.releaseBytesMax, parts.onFailure);
  const tallies = new Map<Progress, Tally>();
  for (;;) {
    const answers = await conversation.answers();
    if (answers === null) {
      await queue.drained();
      return;
    }
    for (const answer of answers) {
      const masked = mask(answer.reply, answer.plan, conversation.codec);
      queue.add(answer.bytes, release(parts, answer, masked, tallies));
    }
    await queue.room();
  }
}

/** Starts the records that an answer waits for, and returns the step that releases it once they are durable. */
function release<U extends Unit, Control, Reply>(
  parts: RelayParts<U, Control, Reply>,
  answer: Answer<Reply>,
  masked: Masked<Reply>,
  tallies: Map<Progress, Tally>,
): () => Promise<void> {
  const { conversation, session, ledger } = parts;
  const ended =
    answer.transaction === null
      ? null
      : ledger.record(session.drafts.transaction(answer.transaction), answer.transaction);
  // A rejection is met where the queue awaits it; until then it must not count as unhandled.
  ended?.catch(ignore);
  if (answer.progress === null) {
    return async () => {
      await ended;
      await conversation.downstream.pass(masked);
    };
  }
  const progress = answer.progress;
  if (masked.redactions.length > 0) {
    tallyOf(tallies, progress).add(masked.redactions);
  }
  let done: Promise<Recorded<Outcome>> | null = null;
  if (answer.completion !== null) {
    const tally = tallies.get(progress);
    tallies.delete(progress);
    const outcome: Outcome = {
      ...answer.completion,
      durationUs: session.nowUs() - progress.startedUs,
      redactions: tally?.redactions() ?? [],
    };
    done = ledger.record(session.drafts.outcome(progress, outcome), outcome);
    done.catch(ignore);
    session.onOutcome(outcome);
  }
  return async () => {
    const record = await durable(progress.pass);
    await ended;
    await conversation.downstream.release(masked, record, done === null ? null : await done);
  };
}

function durable(pass: Pass): Promise<Recorded<Allow>> | Recorded<Allow> {
  return pass instanceof Enqueued ? pass.durable : pass;
}

function isPure(decision: Allow): decision is AllowPure {
  return decision.pure;
}

function ignore(): void {
  // The error is not lost: the release step awaits the same promise and ends the session with it.
}

/** Redactions of one execution, summed by output and rule. */
class Tally {
  readonly #byKey = new Map<string, Outcome["redactions"][number]>();

  add(redactions: Outcome["redactions"]): void {
    for (const redaction of redactions) {
      const key = `${redaction.output} ${redaction.ruleId} ${redaction.source}`;
      const before = this.#byKey.get(key);
      this.#byKey.set(key, before === undefined ? redaction : { ...before, cells: before.cells + redaction.cells });
    }
  }

  redactions(): Outcome["redactions"] {
    return [...this.#byKey.values()];
  }
}

function tallyOf(tallies: Map<Progress, Tally>, progress: Progress): Tally {
  let tally = tallies.get(progress);
  if (tally === undefined) {
    tally = new Tally();
    tallies.set(progress, tally);
  }
  return tally;
}
