/** One run from its start to its end: the run at the gateway, the server's process, the two loops between them, and who ends it. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import type { ControlPlane, StartedRun } from "#domain/control.ts";
import { InvariantError, SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import { type Line, LineDecoder } from "#protocols/mcp/lines.ts";
import { type ProcessEnd, ServerProcess } from "./run-child.ts";
import { RunGuard } from "./run-guard.ts";
import { type ServerCommand, type ServerTemplate, fillTemplate, pgpassLine } from "./run-placeholders.ts";
import { type Obstacle, describeFailure } from "./run-obstacle.ts";
import { Relay } from "./run-relay.ts";

/** What a run asks of the gateway. */
export type RunControl = Pick<ControlPlane, "startRun" | "openCall" | "closeCall" | "runEvents" | "endRun">;

export interface RunSessionParts {
  readonly control: RunControl;
  readonly stdin: Readable;
  readonly stdout: Writable;
  readonly note: (text: string) => void;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Aborted with a `StopSignal` as its reason when this process is told to stop. */
  readonly stop: AbortSignal;
}

export interface RunSessionInput {
  readonly principal: string;
  readonly resource: string;
  readonly task: string;
  readonly template: ServerTemplate;
  readonly serializeCalls: boolean;
}

export type StopSignal = "SIGINT" | "SIGTERM" | "SIGHUP";

/** What ends a run; the first one counts. */
type Ending =
  | { readonly how: "server"; readonly end: ProcessEnd }
  | { readonly how: "client" }
  | { readonly how: "signal"; readonly signal: StopSignal }
  | { readonly how: "gateway"; readonly obstacle: Obstacle };

/**
 * Runs an MCP server until it, its client, the gateway or a signal ends it, and resolves with the exit code.
 * Nothing of the server's process tree is left then.
 * @throws SallyportError what `startRun` throws: no gateway, no such grant, …
 */
export async function runSession(parts: RunSessionParts, input: RunSessionInput): Promise<number> {
  const { program, parameters } = input.template;
  const run = await parts.control.startRun({
    principal: input.principal,
    resource: input.resource,
    task: input.task,
    command: `${basename(program)} (${parameters.length} arguments)`,
  });
  const session = new RunSession(parts, input, run);
  try {
    return await session.run();
  } finally {
    await session.close();
  }
}

class RunSession {
  readonly #parts: RunSessionParts;
  readonly #input: RunSessionInput;
  readonly #started: StartedRun;
  readonly #relay: Relay;
  readonly #events = new AbortController();
  readonly #ending = Promise.withResolvers<Ending>();
  readonly #clientGone = Promise.withResolvers<void>();
  #server: ServerProcess | null = null;
  /** Settles when everything that the server wrote has been relayed. */
  #serverLoop: Promise<void> = Promise.resolve();
  #temporaryDirectory: string | null = null;
  /** Armed before there is a file or a process to leave behind. */
  #guard: RunGuard | null = null;
  #reason = "the run ended";
  /** Settled when the gateway has said that it holds this run, or that it never will. */
  readonly #held = Promise.withResolvers<void>();
  #loops: Promise<unknown> = Promise.resolve();

  constructor(parts: RunSessionParts, input: RunSessionInput, started: StartedRun) {
    this.#parts = parts;
    this.#input = input;
    this.#started = started;
    this.#relay = new Relay({
      control: parts.control,
      runId: started.runId,
      server: {
        start: () => this.#startServer(),
        write: (bytes) => this.#writeToServer(bytes),
      },
      client: { write: (bytes) => this.#writeToClient(bytes) },
      note: parts.note,
      serializeCalls: input.serializeCalls,
    });
  }

  async run(): Promise<number> {
    const { stop, stdout } = this.#parts;
    const onStop = (): void => this.#ending.resolve({ how: "signal", signal: stopSignalOf(stop) });
    stop.addEventListener("abort", onStop, { once: true });
    if (stop.aborted) {
      onStop();
    }
    stdout.on("error", () => this.#clientGone.resolve());
    // First of all: a run whose events nobody reads has nobody behind it, and the gateway ends it.
    const watching = this.#watchRun();
    this.#loops = watching;
    await this.#prepare();
    this.#loops = Promise.all([watching, this.#relayClient()]);
    void this.#clientGone.promise.then(() => this.#ending.resolve({ how: "client" }));
    return this.#finish(await this.#ending.promise);
  }

  /** Also after a failure in the middle nothing is left: no process, no credential, no file. */
  async close(): Promise<void> {
    const end = await this.#server?.stop();
    // The gateway ends the run by itself when the stream of events is gone: this only says why, and sooner.
    await this.#atMost(this.#parts.control.endRun(this.#started.runId, this.#reason).catch(() => {}));
    this.#events.abort();
    this.#parts.stdin.destroy();
    await this.#atMost(this.#loops);
    if (this.#temporaryDirectory !== null) {
      await rm(this.#temporaryDirectory, { recursive: true, force: true });
    }
    if (end !== "stuck") {
      this.#guard?.disarm();
    }
  }

  async #atMost(work: Promise<unknown>): Promise<void> {
    await Promise.race([work, delay(limits.runFarewellMs, undefined, { ref: false })]);
  }

  async #finish(ending: Ending): Promise<number> {
    switch (ending.how) {
      case "server":
        return this.#finishServer(ending.end);
      case "client":
        this.#reason = "the client closed its end";
        this.#server?.closeInput();
        await Promise.race([this.#server?.ended, delay(limits.runInputClosedMs)]);
        await this.#stopServer();
        return 0;
      case "signal":
        this.#reason = ending.signal;
        await this.#stopServer();
        await this.#relay.end({
          code: "run.ended",
          reason: `sallyport run got ${ending.signal}`,
          nextStep: "start it again",
        });
        return 128 + constants.signals[ending.signal];
      case "gateway":
        this.#reason = ending.obstacle.reason;
        this.#parts.note(`${ending.obstacle.reason}; ${ending.obstacle.nextStep}`);
        await Promise.all([this.#relay.end(ending.obstacle), this.#stopServer()]);
        // The client can still ask, and is told why nothing passes, rather than see a server that crashed.
        await Promise.race([
          this.#clientGone.promise,
          stopped(this.#parts.stop),
          delay(limits.endedGraceMs, undefined, { ref: false }),
        ]);
        return 1;
      default:
        return ending satisfies never;
    }
  }

  async #finishServer(end: ProcessEnd): Promise<number> {
    await this.#stopServer();
    const how = describeEnd(end);
    this.#reason = how;
    await this.#relay.end({
      code: "mcp.server-ended",
      reason: how,
      nextStep: "see what it wrote to stderr, and start it again",
    });
    switch (end.kind) {
      case "exit":
        return end.code;
      case "signal":
        return 128 + (constants.signals[end.signal] ?? 0);
      case "not-started":
        this.#parts.note(how);
        // As shells answer: 127 for a program that is not there, 126 for one that cannot be run.
        return "code" in end.error && end.error.code === "ENOENT" ? 127 : 126;
      default:
        return end satisfies never;
    }
  }

  /** Ends the server's tree, and relays what it had written. */
  async #stopServer(): Promise<void> {
    await this.#server?.stop();
    await Promise.race([this.#serverLoop, delay(limits.runStopGraceMs, undefined, { ref: false })]);
  }

  #startServer(): void {
    const directory = this.#temporaryDirectory;
    const files = { PASSWORD_FILE: join(directory ?? "", "password"), PGPASSFILE: join(directory ?? "", "pgpass") };
    const { connection, runId } = this.#started;
    const guard = this.#guard;
    if (guard === null) {
      throw new InvariantError("a server is started only under a guard");
    }
    let server: ServerProcess;
    try {
      const command = fillTemplate(this.#input.template, connection, files, this.#parts.environment);
      assertNoSecret(command, connection.password);
      server = ServerProcess.start(command, runId, guard);
    } catch (error) {
      // Such as a NUL in an argument: told like a program that is not there.
      const cause = error instanceof Error ? error : new Error("the server cannot be started");
      this.#ending.resolve({ how: "server", end: { kind: "not-started", error: cause } });
      return;
    }
    this.#server = server;
    this.#serverLoop = this.#relayServer(server);
    void server.ended.then((end) => this.#ending.resolve({ how: "server", end }));
  }

  async #relayClient(): Promise<void> {
    const decoder = new LineDecoder(limits.rpcLineBytesMax);
    await this.#held.promise;
    try {
      for await (const chunk of this.#parts.stdin) {
        for (const line of decoder.push(bytesOf(chunk))) {
          await this.#relay.fromClient(line);
        }
      }
      await this.#relayRest(decoder.end(), (line) => this.#relay.fromClient(line));
    } catch {
      // The stream broke or was destroyed at the end: a client that reads no more can ask no more.
    }
    // A client may send its requests, close its end, and still wait for the answers.
    await Promise.race([
      this.#relay.idle(),
      this.#ending.promise,
      delay(limits.runAnswersMs, undefined, { ref: false }),
    ]);
    this.#clientGone.resolve();
  }

  async #relayServer(server: ServerProcess): Promise<void> {
    const decoder = new LineDecoder(limits.rpcLineBytesMax);
    try {
      for await (const chunk of server.output) {
        for (const line of decoder.push(bytesOf(chunk))) {
          await this.#relay.fromServer(line);
        }
      }
      await this.#relayRest(decoder.end(), (line) => this.#relay.fromServer(line));
    } catch (error) {
      this.#ending.resolve({ how: "gateway", obstacle: describeFailure(error) });
    }
  }

  async #relayRest(line: Line | null, relay: (line: Line) => Promise<void>): Promise<void> {
    if (line !== null) {
      await relay(line);
    }
  }

  /** The stream of events is the run's life: when it goes, nothing passes any more. */
  async #watchRun(): Promise<void> {
    let obstacle: Obstacle = {
      code: "gateway.unavailable",
      reason: "the connection to the gateway is lost, so nothing can be recorded",
      nextStep: "start the gateway with `sallyport up`, then start this server again",
    };
    try {
      for await (const event of this.#parts.control.runEvents(this.#started.runId, this.#events.signal)) {
        if (event.kind === "hello") {
          this.#held.resolve();
        } else {
          obstacle = {
            code: "run.ended",
            reason: `the gateway ended this run: ${event.reason}`,
            nextStep: "ask for a grant if the task still needs one, then start this server again",
          };
          break;
        }
      }
    } catch {
      // A broken stream and a closed one mean the same.
    }
    if (!this.#events.signal.aborted) {
      this.#held.resolve();
      this.#ending.resolve({ how: "gateway", obstacle });
    }
  }

  /** Arms the guard and writes the files that the server asks for. A kill before the guard leaves an empty directory. */
  async #prepare(): Promise<void> {
    const { files } = this.#input.template;
    // mkdtemp makes it 0700.
    const directory = files.length === 0 ? null : await mkdtemp(join(tmpdir(), "sallyport-run-"));
    this.#temporaryDirectory = directory;
    this.#guard = RunGuard.arm(this.#started.runId, directory);
    const { connection } = this.#started;
    const contents = {
      PASSWORD_FILE: ["password", connection.password],
      PGPASSFILE: ["pgpass", pgpassLine(connection)],
    } as const;
    for (const file of files) {
      const [name, content] = contents[file];
      await writeFile(join(directory ?? "", name), content, { mode: 0o600, flag: "wx" });
    }
  }

  /** @throws the pipe's error when the server runs and reads no more. When it has ended, its end answers what is in flight. */
  async #writeToServer(bytes: Uint8Array): Promise<void> {
    const server = this.#server;
    try {
      await server?.write(bytes);
    } catch (error) {
      const grace = delay(limits.runInputClosedMs, null, { ref: false });
      if ((await Promise.race([server?.ended ?? null, grace])) === null) {
        throw error;
      }
    }
  }

  #writeToClient(bytes: Uint8Array): Promise<void> {
    return new Promise((settle) => {
      // A failure is the stream's `error` event, which ends the run.
      this.#parts.stdout.write(bytes, () => settle());
    });
  }
}

function bytesOf(chunk: unknown): Uint8Array {
  if (!(chunk instanceof Uint8Array)) {
    throw new SallyportError("mcp.invalid", "client", "the stream does not carry bytes");
  }
  return chunk;
}

/** @throws SallyportError when the password would stand in an argument: a last look, whatever the template was. */
function assertNoSecret(command: ServerCommand, password: string): void {
  if ([command.program, ...command.parameters].some((argument) => argument.includes(password))) {
    throw new SallyportError("usage", "client", "an argument of the server would hold the password");
  }
}

function describeEnd(end: ProcessEnd): string {
  switch (end.kind) {
    case "exit":
      return `the server ended with exit code ${end.code}`;
    case "signal":
      return `the server was ended by ${end.signal}`;
    case "not-started":
      return `the server could not be started: ${end.error.message}`;
    default:
      return end satisfies never;
  }
}

function stopSignalOf(stop: AbortSignal): StopSignal {
  const reason: unknown = stop.reason;
  return reason === "SIGINT" || reason === "SIGHUP" ? reason : "SIGTERM";
}

function stopped(stop: AbortSignal): Promise<void> {
  return new Promise((settle) => {
    stop.addEventListener("abort", () => settle(), { once: true });
    if (stop.aborted) {
      settle();
    }
  });
}
