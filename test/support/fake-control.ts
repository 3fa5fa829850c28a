/** The gateway's side of `sallyport run`, in memory: what was recorded, in order, and failures on demand. */
import type {
  CloseCallInput,
  ConnectionDetails,
  ControlPlane,
  OpenCallInput,
  RunEvent,
  StartRunInput,
  StartedRun,
} from "#domain/control.ts";
import { type CallId, type RunId, idSource } from "#domain/ids.ts";

export type ControlLine =
  | { readonly what: "start"; readonly input: StartRunInput }
  | { readonly what: "open"; readonly call: CallId; readonly input: OpenCallInput }
  | { readonly what: "close"; readonly call: CallId; readonly input: CloseCallInput }
  | { readonly what: "end"; readonly reason: string };

export class FakeControl implements Pick<ControlPlane, "startRun" | "openCall" | "closeCall" | "runEvents" | "endRun"> {
  readonly lines: ControlLine[] = [];
  readonly connection: ConnectionDetails;
  /** Awaited before a record resolves; a test can hold it or make it fail. */
  beforeOpen: (input: OpenCallInput) => Promise<void> = () => Promise.resolve();
  beforeClose: (input: CloseCallInput) => Promise<void> = () => Promise.resolve();
  startFailure: Error | null = null;
  /** Whether the consumer of the events still listens. */
  listening = false;
  readonly #ids = idSource((length) => Uint8Array.from({ length }, () => (this.#next = (this.#next * 5 + 3) & 0xff)));
  #next = 1;
  readonly #ended = Promise.withResolvers<RunEvent | Error>();

  constructor(connection: Partial<ConnectionDetails> = {}) {
    this.connection = {
      host: "127.0.0.1",
      port: 1,
      database: "billing",
      user: "crd_test",
      password: "p@ss:word/with?signs",
      expiresAtMs: 4_000_000_000_000,
      ...connection,
    };
  }

  async startRun(input: StartRunInput): Promise<StartedRun> {
    this.lines.push({ what: "start", input });
    if (this.startFailure !== null) {
      throw this.startFailure;
    }
    return { runId: this.#ids("run"), grantId: this.#ids("grt"), connection: this.connection };
  }

  async openCall(_run: RunId, input: OpenCallInput): Promise<{ readonly callId: CallId }> {
    await this.beforeOpen(input);
    const call = this.#ids("call");
    this.lines.push({ what: "open", call, input });
    return { callId: call };
  }

  async closeCall(_run: RunId, call: CallId, input: CloseCallInput): Promise<void> {
    await this.beforeClose(input);
    this.lines.push({ what: "close", call, input });
  }

  async *runEvents(run: RunId, signal: AbortSignal): AsyncIterable<RunEvent> {
    this.listening = true;
    yield { kind: "hello", runId: run };
    const aborted = new Promise<null>((settle) => signal.addEventListener("abort", () => settle(null), { once: true }));
    const event = await Promise.race([this.#ended.promise, aborted]);
    this.listening = false;
    if (event instanceof Error) {
      throw event;
    }
    if (event !== null) {
      yield event;
    }
  }

  async endRun(_run: RunId, reason: string): Promise<void> {
    this.lines.push({ what: "end", reason });
  }

  /** The gateway ends the run, or, given an error, goes away. */
  end(event: RunEvent | Error): void {
    this.#ended.resolve(event);
  }

  opened(): readonly OpenCallInput[] {
    return this.lines.flatMap((line) => (line.what === "open" ? [line.input] : []));
  }

  closed(): readonly CloseCallInput[] {
    return this.lines.flatMap((line) => (line.what === "close" ? [line.input] : []));
  }
}
