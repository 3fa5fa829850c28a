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
  clientNotifications,
  guessIds,
  readLine,
} from "#protocols/mcp/message.ts";
import { type Call, CallTable } from "./run-calls.ts";
import {
  type Obstacle,
  answerTooLong,
  describeFailure,
  duplicateId,
  lineTooLong,
  obstacleLine,
  parametersTooLong,
  refusedMethod,
  rpcCodes,
  serverGone,
  tooManyBytes,
  tooManyCalls,
  unaskedAnswer,
  unknownNotification,
} from "./run-obstacle.ts";

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

/** The relay of one run. Owns the table of calls in flight. */
export class Relay {
  readonly #parts: RelayParts;
  readonly #calls = new CallTable();
  #started = false;
  #ending: Obstacle | null = null;

  constructor(parts: RelayParts) {
    this.#parts = parts;
  }

  /** One line of the client. Resolves when it was passed on, held or refused. */
  async fromClient(line: Line): Promise<void> {
    switch (line.kind) {
      case "unterminated":
        return this.#parts.note(`the client ended inside a line; its ${line.lengthBytes} bytes were dropped`);
      case "too-long":
        return this.#refuse(
          [...guessIds(line.head, limits), ...guessIds(line.tail, limits)].slice(0, 1),
          lineTooLong(line.lengthBytes),
        );
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
    const held = this.#calls.takeHeld().flatMap((line) => line.requests.map((request) => request.id));
    const open = this.#calls.open();
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

  /** Resolves when no request is in flight or waits. */
  idle(): Promise<void> {
    return this.#calls.idle();
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
    if (messages.some((message) => message.kind === "notification" && !clientNotifications.has(message.method))) {
      const ids = requests.map((request) => request.id);
      return this.#refuse(ids, unknownNotification, -32600);
    }
    if (requests.length === 0) {
      return this.#passAlong(bytes, messages);
    }
    const obstacle = this.#ending ?? this.#whyNot(bytes, requests);
    if (obstacle !== null) {
      const ids = requests
        .map((request) => request.id)
        .filter((id) => obstacle.code !== "mcp.duplicate-id" || !this.#calls.has(id));
      return this.#ending === null ? this.#refuse(ids, obstacle) : this.#answerAll(ids, rpcCodes.ended, obstacle);
    }
    if (this.#parts.serializeCalls && this.#calls.total > 0) {
      return this.#calls.hold({ bytes, requests });
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
    if (first !== undefined && messages.length === 1 && this.#calls.dropHeld(first)) {
      // It never reached the server, which therefore need not hear of it either.
      return this.#calls.settleIdle();
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
    const call = this.#calls.get(id);
    if (call === null || call.state !== "open" || call.cancelTimer !== null) {
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
    if (requests.some((request) => this.#calls.has(request.id))) {
      return duplicateId;
    }
    if (this.#calls.total + requests.length > limits.callsInFlightMax) {
      return tooManyCalls;
    }
    if (requests.some((request) => Buffer.byteLength(request.parameters) > limits.callParametersBytesMax)) {
      return parametersTooLong;
    }
    const { heldBytes } = this.#calls;
    return heldBytes > 0 && heldBytes + bytes.length > limits.rpcLineBytesMax ? tooManyBytes : null;
  }

  /** Records every request of a line, then forwards the line. */
  async #open(bytes: Uint8Array, requests: readonly RpcRequest[]): Promise<void> {
    this.#calls.beginOpening(requests);
    const opened: Call[] = [];
    const failure = await this.#record(requests, opened).then(
      () => this.#ending,
      (error: unknown) => describeFailure(error),
    );
    this.#calls.endOpening(requests, failure === null ? opened : []);
    if (failure !== null) {
      await this.#unwind(opened, failure);
      await this.#answerAll(
        requests.map((request) => request.id),
        rpcCodes.unavailable,
        failure,
      );
      return this.#next();
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
    if (read.kind === "blank" || this.#ending !== null) {
      return;
    }
    if (read.kind === "refused") {
      const calls = this.#calls.openAmong(read.ids);
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
    const calls = this.#calls.openAmong(ids);
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
    const obstacle = answerTooLong(lengthBytes);
    const open = this.#calls.open();
    const [call] = open.length === 1 ? open : this.#calls.openAmong(guesses);
    if (call === undefined) {
      throw new SallyportError("mcp.unreadable-server", "upstream", obstacle.reason, { nextStep: obstacle.nextStep });
    }
    await this.#fail(call, "error", obstacle);
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
    this.#calls.forget(call);
    this.#next();
  }

  /** Lets the next held line go when nothing is in flight. */
  #next(): void {
    const line = this.#calls.nextHeld();
    if (line !== null) {
      // Answers its own failures; nothing in it rejects.
      void this.#open(line.bytes, line.requests);
    }
    this.#calls.settleIdle();
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
    const answered = ids.filter((id) => !this.#calls.has(id));
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
    await this.#parts.client.write(obstacleLine(id, rpcCode, obstacle, callId));
  }
}
