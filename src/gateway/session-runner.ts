/** One session from its first command to its end, with its two loops, its deadline and its last words. */
import type { Deny } from "#domain/decision.ts";
import type { IdSource } from "#domain/ids.ts";
import { SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import type { Ledger } from "#ledger/ledger.ts";
import type { ClosingWords, Opened, Unit } from "#protocols/driver.ts";
import type { LiveSession, SessionEnd } from "./live-session.ts";
import { inbound, outbound } from "./relay.ts";
import type { RelayParts } from "./relay.ts";
import { wordsOf } from "./problem.ts";

export interface SessionRun<U extends Unit, C, R> {
  readonly opened: Opened<U, C, R>;
  readonly live: LiveSession;
  readonly ledger: Ledger;
  readonly ids: IdSource;
  /** Ends this session's own backend at the resource, whatever it is doing. */
  terminate(): Promise<void>;
  readonly onFailure: (what: string, error: unknown) => void;
}

export interface SessionClose {
  readonly how: "client" | "upstream" | "expired" | "revoked" | "killed" | "failed" | "drained";
  readonly code: string | null;
}

type Stop =
  | { readonly why: "client" }
  | { readonly why: "upstream" }
  | { readonly why: "ended"; readonly end: SessionEnd }
  | { readonly why: "failure"; readonly error: unknown };

/** Runs the session; resolves when both sides are closed and what it left unfinished is recorded. */
export async function runSession<U extends Unit, C, R>(run: SessionRun<U, C, R>): Promise<SessionClose> {
  const { live, ledger, opened } = run;
  const { conversation } = opened;
  let fail: (stop: Stop) => void = () => {};
  const failed = new Promise<Stop>((resolve) => {
    fail = resolve;
  });
  const parts: RelayParts<U, C, R> = {
    conversation,
    session: live,
    ledger,
    onFailure: (error) => {
      fail({ why: "failure", error });
    },
  };
  const endings: Promise<void>[] = [];
  live.onEnd = (end) => {
    // The client is answered with errors for a while, so that it reads why.
    conversation.endUpstream(end.words);
    void Promise.race([grace(), live.closing]).then(() => {
      fail({ why: "ended", end });
    });
    endings.push(
      run.terminate().catch((error: unknown) => {
        run.onFailure(`ending the session ${live.session.id} at the resource`, error);
      }),
    );
  };
  if (live.ended !== null) {
    live.onEnd(live.ended);
  }
  const reading = inbound(parts).then(
    (): Stop => ({ why: "client" }),
    (error: unknown): Stop => ({ why: "failure", error }),
  );
  const answering = outbound(parts).then(
    (): Stop => ({ why: "upstream" }),
    (error: unknown): Stop => ({ why: "failure", error }),
  );
  const stop = await Promise.race([reading, answering, failed]);
  live.onEnd = null;
  const close = closeOf(stop, live);
  const unfinished = conversation.unfinished();
  const words = lastWords(stop, live, run.ids);
  if (stop.why === "failure" && words !== null && isClientFault(stop.error)) {
    await recordViolation(run, words);
  }
  await conversation.close(words);
  await Promise.all(endings);
  if (endings.length === 0 && stop.why !== "upstream" && unfinished.length > 0) {
    // The backend may be in the middle of a statement that nobody waits for.
    await run.terminate().catch((error: unknown) => {
      run.onFailure(`ending the session ${live.session.id} at the resource`, error);
    });
  }
  await Promise.all([reading, answering]);
  await recordUnfinished(run, unfinished);
  if (stop.why === "failure") {
    run.onFailure(`the session ${live.session.id} ended`, stop.error);
  }
  return close;
}

async function recordUnfinished<U extends Unit, C, R>(
  run: SessionRun<U, C, R>,
  unfinished: ReturnType<Opened<U, C, R>["conversation"]["unfinished"]>,
): Promise<void> {
  const { live, ledger } = run;
  for (const progress of unfinished) {
    const outcome = {
      status: "may-have-run",
      rows: 0,
      bytes: 0,
      tag: null,
      sqlState: null,
      durationUs: live.nowUs() - progress.startedUs,
      redactions: [],
    } as const;
    try {
      await ledger.record(live.drafts.outcome(progress, outcome), outcome);
    } catch (error) {
      // The intent is durable and has no outcome: that is how the record says "may have run".
      run.onFailure(`recording an outcome of ${live.session.id}`, error);
      return;
    }
  }
}

/** A client that broke the protocol or a limit is denied like any other: the entry and the client's error share an id. */
async function recordViolation<U extends Unit, C, R>(run: SessionRun<U, C, R>, words: ClosingWords): Promise<void> {
  const { code, reason, nextStep, decision } = words;
  const { live, ledger } = run;
  const denial: Deny = {
    effect: "deny",
    id: decision,
    policies: [],
    policySetHash: live.grant.policySet.hash,
    code,
    reason,
    nextStep,
  };
  const refusal = { code, reason, nextStep, effects: [], ordinal: 1, payload: {} };
  live.onDenied();
  try {
    await ledger.record(
      live.drafts.denied({ stage: "run", prepared: null, commands: [], size: 1, refusal }, denial),
      denial,
    );
  } catch (error) {
    run.onFailure(`recording a denial of ${live.session.id}`, error);
  }
}

function isClientFault(error: unknown): boolean {
  return error instanceof SallyportError && error.whose === "client";
}

/** Timers of closed sessions do not keep the process. */
function grace(): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, limits.endedGraceMs).unref();
  });
}

function closeOf(stop: Stop, live: LiveSession): SessionClose {
  if (live.ended !== null) {
    return { how: live.ended.how, code: live.ended.words.code };
  }
  switch (stop.why) {
    case "client":
      return { how: "client", code: null };
    case "upstream":
      return { how: "upstream", code: "resource.unavailable" };
    case "ended":
      return { how: stop.end.how, code: stop.end.words.code };
    case "failure":
      return { how: "failed", code: stop.error instanceof SallyportError ? stop.error.code : "internal" };
    default:
      return stop satisfies never;
  }
}

/** The last thing the client reads; null when it has gone by itself. */
function lastWords(stop: Stop, live: LiveSession, ids: IdSource): ClosingWords | null {
  switch (stop.why) {
    case "client":
      return null;
    case "upstream":
      return {
        code: "resource.unavailable",
        reason: "the connection to the resource was lost",
        nextStep: "Connect again.",
        decision: ids("dec"),
      };
    case "ended":
      return stop.end.words;
    case "failure":
      return live.ended?.words ?? { ...failureWords(stop.error), decision: ids("dec") };
    default:
      return stop satisfies never;
  }
}

function failureWords(error: unknown): Omit<ClosingWords, "decision"> {
  if (error instanceof SallyportError && error.code === "invariant") {
    return {
      code: "protocol.violation",
      reason: "the gateway met an answer that it cannot vouch for and ended the session",
      nextStep: "Connect again; tell the gateway's operator if it happens twice.",
    };
  }
  return wordsOf(error);
}
