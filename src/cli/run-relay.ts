/**
 * What stands between an MCP client and its server: each line is held until the gateway has recorded it, and then passed on as
 * the bytes that came. Two loops drive it, one for each direction; neither waits for the other.
 *
 * ```
 * client ── line ──► readLine ──► openCall (recorded) ──► server
 * client ◄── line ── closeCall (recorded) ◄── readLine ◄── line ── server
 * ```
 */
import type { ControlPlane } from "#domain/control.ts";
import { SallyportError } from "#domain/errors.ts";
import type { CallId, RunId } from "#domain/ids.ts";
import { limits } from "#domain/limits.ts";
import type { Line } from "#protocols/mcp/lines.ts";
import {
  type RpcId,
  type RpcLine,
  type RpcMessage,
  type RpcRequest,
  type RpcResponse,
  errorLine,
  guessIds,
  readLine,
} from "#protocols/mcp/message.ts";

/** Why something did not pass, in plain words. */
export interface Obstacle {
  /** Stable, such as `mcp.ambiguous` or `gateway.unavailable`. */
  readonly code: string;
  readonly reason: string;
  readonly nextStep: string;
}

export interface RelayParts {
  readonly control: Pick<ControlPlane, "openCall" | "closeCall">;
  readonly runId: RunId;
  readonly server: {
    /** Called once, when the first request has been recorded: what a server does as it starts is caused by that request. */
    readonly start: () => void;
    /** Rejects when the server no longer reads. */
    readonly write: (bytes: Uint8Array) => Promise<void>;
  };
  /** Never rejects: a client that has gone ends the run by itself. */
  readonly client: { readonly write: (bytes: Uint8Array) => Promise<void> };
  /** A line for the person who looks at stderr. */
  readonly note: (text: string) => void;
  /** Hold a request until every earlier one has been answered, so that the cause of a command is never ambiguous. */
  readonly serializeCalls: boolean;
}

/** JSON-RPC error codes of our own, in the range that the specification leaves to implementations. */
const rpcCodes = { refused: -32001, unavailable: -32002, ended: -32003 } as const;

interface Call {
  readonly id: RpcId;
  readonly callId: CallId;
  /** `closing`: its outcome is being recorded; no second answer counts. */
  state: "open" | "closing";
  cancelTimer: NodeJS.Timeout | null;
}

interface HeldLine {
  readonly bytes: Uint8Array;
  readonly requests: readonly RpcRequest[];
}

/** The relay of one run. Owns the table of calls in flight. */
export class Relay {
  readonly #parts: RelayParts;
  readonly #calls = new Map<string, Call>();
  /** Ids whose record is being written: they are in flight, and not yet forwarded. */
  readonly #opening = new Set<string>();
  readonly #held: HeldLine[] = [];
  #heldBytes = 0;
  #started = false;
  #ending: Obstacle | null = null;
  #idleWaiters: (() => void)[] = [];

  constructor(parts: RelayParts) {
    this.#parts = parts;
  }

  /** One line of the client. Resolves when it was passed on, held or refused. */
  async fromClient(line: Line): Promise<void> {
    switch (line.kind) {
      case "unterminated":
        return this.#parts.note(`the client ended inside a line; its ${line.lengthBytes} bytes were dropped`);
      case "too-long":
        return this.#refuse([...guessIds(line.head, limits), ...guessIds(line.tail, limits)].slice(0, 1), {
          code: "limit.exceeded",
          reason: `the line has ${line.lengthBytes} bytes, and at most ${limits.rpcLineBytesMax} may pass`,
          nextStep: "send less in one message",
        });
      case "line":
        return this.#fromClientLine(line.bytes, readLine(line.bytes, limits));
      default:
        return line satisfies never;
    }
  }

  /**
   * One line of the server. Resolves when it was released or dropped.
   * @throws SallyportError `mcp.unreadable-server` when an answer cannot be told from others in flight: the run must end.
   */
  async fromServer(line: Line): Promise<void> {
    switch (line.kind) {
      case "unterminated":
        return this.#parts.note(`the server ended inside a line; its ${line.lengthBytes} bytes were dropped`);
      case "too-long":
        return this.#dropLongAnswer(line.lengthBytes, [...guessIds(line.head, limits), ...guessIds(line.tail, limits)]);
      case "line":
        return this.#fromServerLine(line.bytes, readLine(line.bytes, limits));
      default:
        return line satisfies never;
    }
  }

  /** From now on nothing passes. Everything in flight is recorded as lost and answered with the reason. */
  async end(obstacle: Obstacle): Promise<void> {
    if (this.#ending !== null) {
      return;
    }
    this.#ending = obstacle;
    const held = this.#held.splice(0).flatMap((line) => line.requests.map((request) => request.id));
    const open = [...this.#calls.values()].filter((call) => call.state === "open");
    for (const call of open) {
      this.#begin(call);
    }
    await Promise.all(held.map((id) => this.#answer(id, rpcCodes.ended, obstacle, null)));
    await Promise.all(
      open.map(async (call) => {
        const reason = `${obstacle.reason}; whether the call has taken effect is not known`;
        await this.#answer(call.id, rpcCodes.ended, { ...obstacle, reason }, call.callId);
        // The gateway itself closes what a run leaves open: a failure here loses nothing.
        await this.#close(call, "lost", 0).catch(() => {});
        this.#forget(call);
      }),
    );
  }

  /** Resolves when no call is in flight or held. */
  idle(): Promise<void> {
    return this.#calls.size + this.#opening.size + this.#held.length === 0
      ? Promise.resolve()
      : new Promise((settle) => this.#idleWaiters.push(settle));
  }

  async #fromClientLine(bytes: Uint8Array, read: RpcLine): Promise<void> {
    if (read.kind === "blank") {
      return;
    }
    if (read.kind === "refused") {
      const nextStep = "send one plain JSON-RPC 2.0 message a line";
      return this.#refuse(read.ids, { code: read.code, reason: read.reason, nextStep }, read.rpcCode);
    }
    const messages = read.kind === "single" ? [read.message] : read.messages;
    const requests = messages.filter((message) => message.kind === "request");
    if (requests.length === 0) {
      return this.#passAlong(bytes, messages);
    }
    const obstacle = this.#ending ?? this.#whyNot(bytes, requests);
    if (obstacle !== null) {
      const ids = requests
        .map((request) => request.id)
        .filter((id) => obstacle.code !== "mcp.duplicate-id" || !this.#isInFlight(id));
      return this.#ending === null ? this.#refuse(ids, obstacle) : this.#answerAll(ids, rpcCodes.ended, obstacle);
    }
    if (this.#parts.serializeCalls && this.#calls.size + this.#opening.size + this.#held.length > 0) {
      this.#held.push({ bytes, requests });
      this.#heldBytes += bytes.length;
      return;
    }
    await this.#open(bytes, requests);
  }

  /** A line without a request: it needs no record, and it may overtake requests that wait for their turn. */
  async #passAlong(bytes: Uint8Array, messages: readonly RpcMessage[]): Promise<void> {
    if (!this.#started) {
      return this.#parts.note("dropped a message that came before the first request");
    }
    if (this.#ending !== null) {
      return;
    }
    const cancelled = messages.flatMap((message) =>
      message.kind === "notification" && message.cancels !== null ? [message.cancels] : [],
    );
    const [first] = cancelled;
    const held =
      first === undefined ? -1 : this.#held.findIndex((line) => line.requests.some(({ id }) => id.key === first.key));
    if (held !== -1 && messages.length === 1 && this.#held[held]?.requests.length === 1) {
      // It never reached the server, which therefore need not hear of it either.
      const [line] = this.#held.splice(held, 1);
      this.#heldBytes -= line?.bytes.length ?? 0;
      return this.#settleIdle();
    }
    await this.#parts.server
      .write(bytes)
      .catch(() => this.#parts.note("the server no longer reads; a message was dropped"));
    for (const id of cancelled) {
      this.#expectNoAnswer(id);
    }
  }

  /** Servers do not answer a cancelled request (MCP, "Cancellation"), though one that was late may. */
  #expectNoAnswer(id: RpcId): void {
    const call = this.#calls.get(id.key);
    if (call === undefined || call.state !== "open" || call.cancelTimer !== null) {
      return;
    }
    const timer = setTimeout(() => {
      this.#begin(call);
      this.#close(call, "cancelled", 0).then(
        () => this.#forget(call),
        (error: unknown) => {
          this.#parts.note(`the end of a cancelled call could not be recorded: ${describeFailure(error).reason}`);
          this.#forget(call);
        },
      );
    }, limits.cancelledCallMs);
    timer.unref();
    call.cancelTimer = timer;
  }

  #whyNot(bytes: Uint8Array, requests: readonly RpcRequest[]): Obstacle | null {
    if (requests.some((request) => this.#isInFlight(request.id))) {
      return {
        code: "mcp.duplicate-id",
        reason: "a request with this id has not been answered yet",
        nextStep: "give each request an id of its own",
      };
    }
    const waiting = this.#held.reduce((sum, line) => sum + line.requests.length, this.#calls.size + this.#opening.size);
    if (waiting + requests.length > limits.callsInFlightMax) {
      return {
        code: "limit.exceeded",
        reason: `more than ${limits.callsInFlightMax} requests would be in flight`,
        nextStep: "wait for answers before sending more",
      };
    }
    if (requests.some((request) => Buffer.byteLength(request.parameters) > limits.callParametersBytesMax)) {
      return {
        code: "limit.exceeded",
        reason: `the parameters of one request may have at most ${limits.callParametersBytesMax} bytes`,
        nextStep: "send less in one request",
      };
    }
    return this.#heldBytes + bytes.length > limits.rpcLineBytesMax && this.#held.length > 0
      ? {
          code: "limit.exceeded",
          reason: "too many bytes wait for earlier requests",
          nextStep: "wait for answers before sending more",
        }
      : null;
  }

  #isInFlight(id: RpcId): boolean {
    return (
      this.#calls.has(id.key) ||
      this.#opening.has(id.key) ||
      this.#held.some((line) => line.requests.some((request) => request.id.key === id.key))
    );
  }

  /** Records every request of a line, then forwards the line. */
  async #open(bytes: Uint8Array, requests: readonly RpcRequest[]): Promise<void> {
    for (const request of requests) {
      this.#opening.add(request.id.key);
    }
    const opened: Call[] = [];
    const failure = await this.#record(requests, opened).then(
      () => this.#ending,
      (error: unknown) => describeFailure(error),
    );
    for (const request of requests) {
      this.#opening.delete(request.id.key);
    }
    if (failure !== null) {
      await this.#unwind(opened, failure);
      await this.#answerAll(
        requests.map((request) => request.id),
        rpcCodes.unavailable,
        failure,
      );
      return this.#next();
    }
    for (const call of opened) {
      this.#calls.set(call.id.key, call);
    }
    if (!this.#started) {
      this.#started = true;
      this.#parts.server.start();
    }
    try {
      await this.#parts.server.write(bytes);
    } catch {
      await Promise.all(opened.map((call) => this.#fail(call, "lost", serverGone)));
    }
  }

  async #record(requests: readonly RpcRequest[], opened: Call[]): Promise<void> {
    for (const { id, method, tool, parameters } of requests) {
      const { callId } = await this.#parts.control.openCall(this.#parts.runId, { method, tool, parameters });
      opened.push({ id, callId, state: "open", cancelTimer: null });
    }
  }

  /** Closes calls that were recorded and then not forwarded. */
  async #unwind(opened: readonly Call[], failure: Obstacle): Promise<void> {
    for (const call of opened) {
      await this.#close(call, "error", 0).catch(() =>
        this.#parts.note(`call ${call.callId} was not forwarded, and that could not be recorded (${failure.code})`),
      );
    }
  }

  async #fromServerLine(bytes: Uint8Array, read: RpcLine): Promise<void> {
    if (read.kind === "blank") {
      return;
    }
    if (read.kind === "refused") {
      const calls = this.#openCalls(read.ids);
      const obstacle = {
        code: read.code,
        reason: `the server's answer cannot be read: ${read.reason}`,
        nextStep: "report it to the server's makers",
      };
      await Promise.all(calls.map((call) => this.#fail(call, "error", obstacle)));
      return this.#parts.note(`dropped ${bytes.length} bytes of the server: ${read.reason}`);
    }
    const messages = read.kind === "single" ? [read.message] : read.messages;
    const responses = messages.filter((message) => message.kind === "response");
    if (responses.length === 0) {
      return this.#parts.client.write(bytes);
    }
    const ids = responses.flatMap((response) => (response.id === null ? [] : [response.id]));
    const calls = this.#openCalls(ids);
    if (calls.length < responses.length) {
      // An answer to nothing that was asked: no record stands for it. In a batch it takes the others with it.
      await Promise.all(calls.map((call) => this.#fail(call, "error", unaskedAnswer)));
      return this.#parts.note(
        `dropped an answer of the server (${bytes.length} bytes) to a request that is not in flight`,
      );
    }
    await this.#release(bytes, responses, calls);
  }

  /** Records the outcomes of the calls that a line answers, then releases the line. */
  async #release(bytes: Uint8Array, responses: readonly RpcResponse[], calls: readonly Call[]): Promise<void> {
    calls.forEach((call) => this.#begin(call));
    try {
      await Promise.all(
        responses.map(async (response, index) => {
          const call = calls[index];
          if (call !== undefined) {
            await this.#close(call, response.status, response.lengthBytes);
          }
        }),
      );
    } catch (error) {
      const { code, reason, nextStep } = describeFailure(error);
      const obstacle = { code, reason: `the answer is withheld because its record failed: ${reason}`, nextStep };
      await Promise.all(calls.map((call) => this.#answer(call.id, rpcCodes.unavailable, obstacle, call.callId)));
      calls.forEach((call) => this.#forget(call));
      return;
    }
    const written = this.#parts.client.write(bytes);
    // The client may use the id again as soon as it can read the answer.
    calls.forEach((call) => this.#forget(call));
    await written;
  }

  async #dropLongAnswer(lengthBytes: number, guesses: readonly RpcId[]): Promise<void> {
    const obstacle = {
      code: "limit.exceeded",
      reason: `the server's answer has ${lengthBytes} bytes, and at most ${limits.rpcLineBytesMax} may pass`,
      nextStep: "ask for less, such as with LIMIT",
    };
    const open = [...this.#calls.values()].filter((call) => call.state === "open");
    const [call] = open.length === 1 ? open : this.#openCalls(guesses);
    if (call === undefined) {
      throw new SallyportError("mcp.unreadable-server", "upstream", obstacle.reason, { nextStep: obstacle.nextStep });
    }
    await this.#fail(call, "error", obstacle);
  }

  #openCalls(ids: readonly RpcId[]): readonly Call[] {
    return [...new Set(ids.map((id) => id.key))].flatMap((key) => {
      const call = this.#calls.get(key);
      return call === undefined || call.state !== "open" ? [] : [call];
    });
  }

  async #fail(call: Call, status: "error" | "lost", obstacle: Obstacle): Promise<void> {
    if (call.state !== "open") {
      return;
    }
    this.#begin(call);
    await this.#close(call, status, 0).catch((error: unknown) =>
      this.#parts.note(`the end of call ${call.callId} could not be recorded: ${describeFailure(error).reason}`),
    );
    const written = this.#answer(call.id, rpcCodes.refused, obstacle, call.callId);
    this.#forget(call);
    await written;
  }

  #begin(call: Call): void {
    call.state = "closing";
    clearTimeout(call.cancelTimer ?? undefined);
  }

  async #close(call: Call, status: "ok" | "error" | "tool-error" | "cancelled" | "lost", bytes: number): Promise<void> {
    await this.#parts.control.closeCall(this.#parts.runId, call.callId, { status, bytes });
  }

  #forget(call: Call): void {
    if (this.#calls.get(call.id.key) === call) {
      this.#calls.delete(call.id.key);
    }
    this.#next();
  }

  /** Lets the next held line go when nothing is in flight. */
  #next(): void {
    if (this.#calls.size + this.#opening.size === 0) {
      const line = this.#held.shift();
      if (line !== undefined) {
        this.#heldBytes -= line.bytes.length;
        // Answers its own failures; nothing in it rejects.
        void this.#open(line.bytes, line.requests);
      }
    }
    this.#settleIdle();
  }

  #settleIdle(): void {
    if (this.#calls.size + this.#opening.size + this.#held.length === 0) {
      this.#idleWaiters.splice(0).forEach((settle) => settle());
    }
  }

  /** Refuses a line of the client, and records that it was refused. The reference in the answer names the record. */
  async #refuse(ids: readonly RpcId[], obstacle: Obstacle, rpcCode: number = rpcCodes.refused): Promise<void> {
    if (this.#ending !== null) {
      return this.#answerAll(ids, rpcCodes.ended, this.#ending);
    }
    const { control, runId } = this.#parts;
    const parameters = JSON.stringify({ code: obstacle.code, reason: obstacle.reason });
    let callId: CallId | null = null;
    try {
      ({ callId } = await control.openCall(runId, { method: refusedMethod, tool: null, parameters }));
      await control.closeCall(runId, callId, { status: "error", bytes: 0 });
    } catch (error) {
      this.#parts.note(`a refusal could not be recorded: ${describeFailure(error).reason}`);
    }
    // A line whose id cannot be told, or is another's, is answered without one (JSON-RPC 2.0, section 5).
    const answered = ids.filter((id) => !this.#isInFlight(id));
    if (answered.length === 0) {
      return this.#answer(null, rpcCode, obstacle, callId);
    }
    for (const id of answered) {
      await this.#answer(id, rpcCode, obstacle, callId);
    }
  }

  async #answerAll(ids: readonly RpcId[], rpcCode: number, obstacle: Obstacle): Promise<void> {
    for (const id of ids) {
      await this.#answer(id, rpcCode, obstacle, null);
    }
  }

  async #answer(id: RpcId | null, rpcCode: number, obstacle: Obstacle, callId: CallId | null): Promise<void> {
    const { code, reason, nextStep } = obstacle;
    const reference = callId === null ? {} : { call: callId };
    const message = `Sallyport: ${reason}.${nextStep === "" ? "" : ` Next: ${nextStep}.`}`;
    await this.#parts.client.write(errorLine(id, { rpcCode, message, data: { code, reason, nextStep, ...reference } }));
  }
}

/** The method under which a refused line stands in the record. */
export const refusedMethod = "sallyport/refused";

const serverGone: Obstacle = {
  code: "mcp.server-ended",
  reason: "the server no longer reads",
  nextStep: "start it again",
};

const unaskedAnswer: Obstacle = {
  code: "mcp.invalid",
  reason: "the server answered it together with something that nobody asked",
  nextStep: "report it to the server's makers",
};

/** What a failure of the gateway tells the client. Only our own errors are quoted. */
export function describeFailure(error: unknown): Obstacle {
  return error instanceof SallyportError
    ? { code: error.code, reason: error.message, nextStep: error.nextStep ?? "" }
    : {
        code: "gateway.unavailable",
        reason: "the gateway did not confirm that the call is recorded",
        nextStep: "start it with `sallyport up`, or see `sallyport doctor`",
      };
}
