/**
 * Runs of `sallyport run` and the calls in flight in each: what the cause of a command is read from. The MCP server itself says
 * nothing here; what is known comes from the relay in front of it and from which credential a session logged in with.
 */
import type { Cause } from "#domain/cause.ts";
import type { CloseCallInput, OpenCallInput, RunEvent } from "#domain/control.ts";
import { SallyportError } from "#domain/errors.ts";
import type { GrantId, IdSource, PrincipalId, RunId, CallId, TaskId } from "#domain/ids.ts";
import { limits } from "#domain/limits.ts";
import type { Clock } from "#domain/clock.ts";
import type { Ledger } from "#ledger/ledger.ts";

export interface Run {
  readonly id: RunId;
  readonly grant: GrantId;
  readonly principal: PrincipalId;
  readonly task: TaskId;
}

interface OpenCall {
  readonly intent: number;
  readonly startedUs: number;
}

interface LiveRun {
  readonly run: Run;
  readonly calls: Map<CallId, OpenCall>;
  /** Calls that are being recorded: they count against the limit. */
  opening: number;
  ended: string | null;
  readonly listeners: Set<(reason: string) => void>;
}

const noCause: Cause = { strength: "none", calls: [] };

export class RunBook {
  readonly #parts: { readonly ledger: Ledger; readonly ids: IdSource; readonly clock: Clock };
  readonly #runs = new Map<RunId, LiveRun>();

  constructor(parts: { readonly ledger: Ledger; readonly ids: IdSource; readonly clock: Clock }) {
    this.#parts = parts;
  }

  add(run: Run): void {
    this.#runs.set(run.id, { run, calls: new Map(), opening: 0, ended: null, listeners: new Set() });
  }

  get(id: RunId): Run | null {
    return this.#runs.get(id)?.run ?? null;
  }

  /** Whether somebody listens for the end of a run: the process that it is for. */
  isWatched(id: RunId): boolean {
    return (this.#runs.get(id)?.listeners.size ?? 0) > 0;
  }

  /** The cause of a command that arrives now on a session of this run. */
  causeNow(id: RunId | null): Cause {
    const live = id === null ? undefined : this.#runs.get(id);
    if (live === undefined || live.calls.size === 0) {
      return noCause;
    }
    const calls = [...live.calls.keys()];
    return { strength: calls.length === 1 ? "exclusive" : "ambiguous", calls };
  }

  /** Records a call; it is in flight, and a cause, from before it can reach the server until its outcome is durable. */
  async openCall(id: RunId, input: OpenCallInput): Promise<CallId> {
    const live = this.#live(id);
    if (live.calls.size + live.opening >= limits.callsInFlightMax) {
      throw new SallyportError("limit.exceeded", "client", `${limits.callsInFlightMax} calls are in flight`, {
        nextStep: "Wait for answers before sending more.",
      });
    }
    const call = this.#parts.ids("call");
    const { run } = live;
    live.opening++;
    try {
      const recorded = await this.#parts.ledger.record(
        {
          entry: {
            type: "call.intent",
            call,
            run: id,
            principal: run.principal,
            grant: run.grant,
            task: run.task,
            method: input.method,
            tool: input.tool,
          },
          payload: { key: id, fields: { parameters: input.parameters } },
        },
        call,
      );
      live.calls.set(call, { intent: recorded.index, startedUs: this.#parts.clock.monotonicUs() });
    } finally {
      live.opening--;
    }
    return call;
  }

  async closeCall(id: RunId, call: CallId, input: CloseCallInput): Promise<void> {
    const live = this.#live(id);
    const open = live.calls.get(call);
    if (open === undefined) {
      throw new SallyportError("call.unknown", "client", "this run has no such call in flight");
    }
    await this.#conclude(id, call, open, input);
    live.calls.delete(call);
  }

  /** Ends a run: what was in flight is lost, and whoever listens is told why. */
  async end(id: RunId, reason: string): Promise<boolean> {
    const live = this.#runs.get(id);
    if (live === undefined || live.ended !== null) {
      return false;
    }
    live.ended = reason;
    this.#runs.delete(id);
    for (const listener of live.listeners) {
      listener(reason);
    }
    for (const [call, open] of live.calls) {
      await this.#conclude(id, call, open, { status: "lost", bytes: 0 });
    }
    return true;
  }

  /** What a run is told, until it ends or `signal` aborts. */
  async *events(id: RunId, signal: AbortSignal): AsyncGenerator<RunEvent> {
    const live = this.#live(id);
    yield { kind: "hello", runId: id };
    const reason = await new Promise<string | null>((resolve) => {
      if (live.ended !== null) {
        resolve(live.ended);
        return;
      }
      live.listeners.add(resolve);
      signal.addEventListener(
        "abort",
        () => {
          live.listeners.delete(resolve);
          resolve(null);
        },
        { once: true },
      );
    });
    if (reason !== null) {
      yield { kind: "ended", reason };
    }
  }

  ids(): readonly RunId[] {
    return [...this.#runs.keys()];
  }

  async #conclude(id: RunId, call: CallId, open: OpenCall, input: CloseCallInput): Promise<void> {
    await this.#parts.ledger.record(
      {
        entry: {
          type: "call.outcome",
          call,
          run: id,
          intent: open.intent,
          status: input.status,
          bytes: input.bytes,
          durationUs: this.#parts.clock.monotonicUs() - open.startedUs,
        },
      },
      call,
    );
  }

  #live(id: RunId): LiveRun {
    const live = this.#runs.get(id);
    if (live === undefined) {
      throw new SallyportError("run.unknown", "client", "this run has ended or never was", {
        nextStep: "Start it again with `sallyport run`.",
      });
    }
    return live;
  }
}
