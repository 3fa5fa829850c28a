/**
 * Programs that break a law must not compile. Nothing here runs: `tsc` reads it, and `law.test.ts` checks that each
 * `@ts-expect-error` stands for the error whose number it names, and that what has none obeys the laws and compiles.
 */
import type { Allow, AllowPure, Decision, Deny } from "#domain/decision.ts";
import type { Outcome } from "#domain/outcome.ts";
import type { Draft } from "#ledger/entry.ts";
import type { Ledger } from "#ledger/ledger.ts";
import { Enqueued, Recorded } from "#ledger/recorded.ts";
import { Masked, mask, type MaskCodec, type MaskPlan } from "#mask/masker.ts";
import type { Downstream, Pass, Unit, Upstream } from "#protocols/driver.ts";

type Reply = Uint8Array<ArrayBuffer>;

/** What the programs are written with; `draft` stands for any entry. */
interface Parts {
  readonly upstream: Upstream<Unit, "sync">;
  readonly downstream: Downstream<Unit, Reply>;
  readonly ledger: Ledger;
  readonly draft: Draft;
  readonly unit: Unit;
  readonly reply: Reply;
  readonly plan: MaskPlan;
  readonly codec: MaskCodec<Reply>;
  readonly outcome: Outcome;
}

/** Obeys: the record is durable, then the command goes out, then the masked result with its durable outcome. */
export async function obeysForAnyCommand(parts: Parts, allow: Allow): Promise<void> {
  const record = await parts.ledger.record(parts.draft, allow);
  await parts.upstream.send(parts.unit, [record]);
  const done = await parts.ledger.record(parts.draft, parts.outcome);
  await parts.downstream.release(mask(parts.reply, parts.plan, parts.codec), record, done);
}

/** Obeys: a pure read goes out while its record is written, and its result waits for the record. */
export async function obeysForPureRead(parts: Parts, allow: AllowPure): Promise<void> {
  const enqueued = parts.ledger.enqueue(parts.draft, allow);
  await parts.upstream.send(parts.unit, [enqueued]);
  await parts.downstream.release(mask(parts.reply, parts.plan, parts.codec), await enqueued.durable, null);
}

/** Obeys: a denial is durable before the client reads of it. */
export async function obeysForDenial(parts: Parts, deny: Deny): Promise<void> {
  await parts.downstream.refuse(parts.unit, await parts.ledger.record(parts.draft, deny));
}

// Law 1: no effect without a durable record.

export async function forwardsUnrecorded(parts: Parts, allow: Allow): Promise<void> {
  // @ts-expect-error 2322: a decision is not its record
  await parts.upstream.send(parts.unit, [allow]);
}

export async function forwardsDenied(parts: Parts, deny: Recorded<Deny>): Promise<void> {
  // @ts-expect-error 2322: the record of a denial is no permission
  await parts.upstream.send(parts.unit, [deny]);
}

export async function forwardsUndecided(parts: Parts, decision: Recorded<Decision>): Promise<void> {
  // @ts-expect-error 2322: nobody looked whether it was allowed
  await parts.upstream.send(parts.unit, [decision]);
}

export async function forwardsOutcome(parts: Parts, outcome: Recorded<Outcome>): Promise<void> {
  // @ts-expect-error 2322: a record of something else
  await parts.upstream.send(parts.unit, [outcome]);
}

export async function forwardsBeforeDurable(parts: Parts, allow: Allow): Promise<void> {
  // @ts-expect-error 2322: the record is a promise still
  await parts.upstream.send(parts.unit, [parts.ledger.record(parts.draft, allow)]);
}

export async function forwardsWithoutPass(parts: Parts): Promise<void> {
  // @ts-expect-error 2554: no passes at all
  await parts.upstream.send(parts.unit);
}

export function enqueuesWhatMayChange(parts: Parts, allow: Allow): Pass {
  // @ts-expect-error 2345: only a pure read may overlap with its record
  return parts.ledger.enqueue(parts.draft, allow);
}

export function enqueuesDenial(parts: Parts, deny: Deny): unknown {
  // @ts-expect-error 2739: a denial is answered only when it is durable
  return parts.ledger.enqueue(parts.draft, deny);
}

// @ts-expect-error 2344: there is no such token for a command that may change something
export type EnqueuedWrite = Enqueued<Allow>;

export function widensPurity(allow: Allow): AllowPure {
  // @ts-expect-error 2322: pure is what was found, not what is hoped
  return allow;
}

export async function releasesUnrecorded(parts: Parts, masked: Masked<Reply>, allow: Allow): Promise<void> {
  // @ts-expect-error 2739: a decision is not its record
  await parts.downstream.release(masked, allow, null);
}

export async function releasesBeforeDurable(
  parts: Parts,
  masked: Masked<Reply>,
  pass: Enqueued<AllowPure>,
): Promise<void> {
  // @ts-expect-error 2345: the record of a pure read is being written still
  await parts.downstream.release(masked, pass, null);
}

export async function releasesOnAnyPass(parts: Parts, masked: Masked<Reply>, pass: Pass): Promise<void> {
  // @ts-expect-error 2345: a pass may be one whose record is not durable yet
  await parts.downstream.release(masked, pass, null);
}

export async function releasesDenied(parts: Parts, masked: Masked<Reply>, deny: Recorded<Deny>): Promise<void> {
  // @ts-expect-error 2345: a result under the record of a denial
  await parts.downstream.release(masked, deny, null);
}

export async function releasesWithoutRecord(parts: Parts, masked: Masked<Reply>): Promise<void> {
  // @ts-expect-error 2554: no record
  await parts.downstream.release(masked);
}

export async function completesUnrecorded(parts: Parts, masked: Masked<Reply>, record: Recorded<Allow>): Promise<void> {
  // @ts-expect-error 2739: the outcome is not durable
  await parts.downstream.release(masked, record, parts.outcome);
}

export async function completesWithIntent(parts: Parts, masked: Masked<Reply>, record: Recorded<Allow>): Promise<void> {
  // @ts-expect-error 2345: the intent is not the outcome
  await parts.downstream.release(masked, record, record);
}

export async function forgetsOutcome(parts: Parts, masked: Masked<Reply>, record: Recorded<Allow>): Promise<void> {
  // @ts-expect-error 2554: whether it completes the command has to be said
  await parts.downstream.release(masked, record);
}

export async function refusesUnrecorded(parts: Parts, deny: Deny): Promise<void> {
  // @ts-expect-error 2739: the denial is not durable
  await parts.downstream.refuse(parts.unit, deny);
}

export async function refusesWithAllow(parts: Parts, allow: Recorded<Allow>): Promise<void> {
  // @ts-expect-error 2345: the record says that it was allowed
  await parts.downstream.refuse(parts.unit, allow);
}

// Law 2: nothing unmasked goes downstream.

export async function releasesUnmasked(parts: Parts, record: Recorded<Allow>): Promise<void> {
  // @ts-expect-error 2345: bytes as they came from the resource
  await parts.downstream.release(parts.reply, record, null);
}

export async function passesUnmasked(parts: Parts): Promise<void> {
  // @ts-expect-error 2345: what belongs to no command goes through the masker too
  await parts.downstream.pass(parts.reply);
}

export async function releasesOtherReply(parts: Parts, masked: Masked<string>, record: Recorded<Allow>): Promise<void> {
  // @ts-expect-error 2345: masked, but not this protocol's reply
  await parts.downstream.release(masked, record, null);
}

export function masksWithoutPlan(parts: Parts): Masked<Reply> {
  // @ts-expect-error 2554: no plan, no codec: nothing was looked at
  return mask(parts.reply);
}

// Forgeries: the tokens are classes with a private field and a private constructor.

export function forgesRecord(allow: Allow): Recorded<Allow> {
  // @ts-expect-error 2741: looks the same, and lacks what only the class has
  return { subject: allow, index: 1, isToken: true };
}

export function copiesRecord(record: Recorded<Allow>): Recorded<Allow> {
  // @ts-expect-error 2739: a copy loses what made it genuine
  return { ...record };
}

export function constructsRecord(allow: Allow): Recorded<Allow> {
  // @ts-expect-error 2673: the ledger mints
  return new Recorded(allow, 1);
}

export function constructsEnqueued(allow: AllowPure, durable: Promise<Recorded<AllowPure>>): Enqueued<AllowPure> {
  // @ts-expect-error 2673: the ledger mints
  return new Enqueued(allow, 1, durable);
}

export function constructsMasked(reply: Reply): Masked<Reply> {
  // @ts-expect-error 2673: the masker mints
  return new Masked(reply, []);
}

export function forgesMasked(reply: Reply): Masked<Reply> {
  // @ts-expect-error 2741: looks the same, and lacks what only the class has
  return { reply, redactions: [], isToken: true };
}

// @ts-expect-error 2675: a class of one's own is no way in
export class OwnRecord<S> extends Recorded<S> {}

export function putsRecordOnAnother(record: Recorded<Allow>, allow: Allow): void {
  // @ts-expect-error 2540: what was recorded stays
  record.subject = allow;
}
