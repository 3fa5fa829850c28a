/** The control endpoint as its clients see it: the ControlPlane port over HTTP, with the errors that the gateway threw. */
import { Agent, type IncomingMessage, request as startRequest } from "node:http";
import { createInterface } from "node:readline";
import type { z } from "zod";
import type { ControlPlane, RunEvent } from "#domain/control.ts";
import { SallyportError } from "#domain/errors.ts";
import type { RunId } from "#domain/ids.ts";
import { type Route, routes } from "./contract.ts";
import { RemoteError, problemSchema } from "./problem.ts";

export interface ControlClientOptions {
  readonly host: string;
  readonly port: number;
  readonly token: string;
  /** How long one answer may take; streams are not bounded. */
  readonly timeoutMs?: number;
}

/** A client of one gateway. It keeps a connection open between calls; `close` lets go of it. */
export interface ControlClient extends ControlPlane, AsyncDisposable {
  close(): Promise<void>;
}

/** Revoking waits for sessions to end and roles to be dropped at the resource. */
const timeoutMsDefault = 60_000;
/** Lists of a busy node stay under this. */
const answerBytesMax = 64 * 1024 * 1024;

interface Connection extends ControlClientOptions {
  readonly agent: Agent;
}

interface Call {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly body?: unknown;
}

/**
 * Makes a client; nothing is sent yet.
 * Every method throws SallyportError: `gateway.not-running` when nothing listens, `gateway.lost` when the connection broke,
 * `gateway.timeout`, `gateway.unreadable`, or a RemoteError with the gateway's own code.
 */
export function createControlClient(options: ControlClientOptions): ControlClient {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const connection: Connection = { ...options, agent };
  const call = <T>(route: RouteOf<T>, given: Call = {}): Promise<T> => ask(connection, route, given);
  const close = async (): Promise<void> => agent.destroy();
  return {
    status: () => call(routes.status),
    addGrant: (input) => call(routes.addGrant, { body: input }),
    listGrants: async (filter) => (await call(routes.listGrants, { query: { state: filter.state } })).grants,
    revokeGrant: (grant, reason) => call(routes.revokeGrant, { params: { grant }, body: { reason } }),
    listSessions: async () => (await call(routes.listSessions)).sessions,
    startRun: (input) => call(routes.startRun, { body: input }),
    openCall: (run, input) => call(routes.openCall, { params: { run }, body: input }),
    closeCall: async (run, id, input) => {
      await call(routes.closeCall, { params: { run, call: id }, body: input });
    },
    runEvents: (run, signal) => follow(connection, run, signal),
    endRun: async (run, reason) => {
      await call(routes.endRun, { params: { run }, body: { reason } });
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

type RouteOf<T> = Route & { readonly response: z.ZodType<T> };

async function ask<T>(connection: Connection, route: RouteOf<T>, call: Call): Promise<T> {
  const signal = AbortSignal.timeout(connection.timeoutMs ?? timeoutMsDefault);
  const response = await send(connection, route, call, signal);
  const text = await readText(response, signal);
  const value = parseJson(text);
  if (response.statusCode !== 200) {
    throw problemFrom(value, response.statusCode ?? 0);
  }
  return readAnswer(route.response, value);
}

function readAnswer<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    throw unreadable(`at ${parsed.error.issues[0]?.path.join(".") ?? "the top"}`);
  }
  return parsed.data;
}

async function* follow(connection: Connection, run: RunId, signal: AbortSignal): AsyncGenerator<RunEvent, void> {
  const route = routes.runEvents;
  const response = await send(connection, route, { params: { run } }, signal);
  if (response.statusCode !== 200) {
    throw problemFrom(parseJson(await readText(response, signal)), response.statusCode ?? 0);
  }
  const lines = createInterface({ input: response, crlfDelay: Infinity });
  const broken = new Promise<never>((_, fail) => {
    response.once("error", fail);
    response.once("aborted", () => fail(new Error("the stream broke off")));
  });
  broken.catch(() => {
    // Handled where it is raced below; this one keeps a break after the last line from counting as unhandled.
  });
  const iterator = lines[Symbol.asyncIterator]();
  try {
    for (;;) {
      const step = await Promise.race([iterator.next(), broken]);
      if (step.done === true) {
        return;
      }
      yield readAnswer(route.response, parseJson(step.value));
    }
  } catch (error) {
    if (signal.aborted) {
      return;
    }
    throw error instanceof SallyportError ? error : connectionError(connection, error);
  } finally {
    lines.close();
    // Also when the reader stops early: the gateway ends the run when this connection closes.
    response.destroy();
  }
}

function send(connection: Connection, route: Route, call: Call, signal: AbortSignal): Promise<IncomingMessage> {
  const body = route.method === "GET" ? null : Buffer.from(JSON.stringify(call.body ?? {}));
  return new Promise((settle, fail) => {
    const request = startRequest({
      host: connection.host,
      port: connection.port,
      method: route.method,
      path: pathOf(route, call),
      // A stream holds its connection for good: it gets one of its own.
      agent: route.answer === "stream" ? false : connection.agent,
      signal,
      headers: {
        authorization: `Bearer ${connection.token}`,
        accept: "application/json, application/x-ndjson, application/problem+json",
        ...(body === null ? {} : { "content-type": "application/json", "content-length": body.length }),
      },
    });
    request.once("response", settle);
    request.once("error", (error) =>
      fail(signal.aborted ? timedOut(connection, error) : connectionError(connection, error)),
    );
    request.end(body ?? undefined);
  });
}

function pathOf(route: Route, call: Call): string {
  const path = route.path.replaceAll(/:([a-z]+)/g, (_, name: string) => encodeURIComponent(call.params?.[name] ?? ""));
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(call.query ?? {})) {
    if (value !== undefined) {
      query.set(name, value);
    }
  }
  return query.size === 0 ? path : `${path}?${query.toString()}`;
}

async function readText(response: IncomingMessage, signal: AbortSignal): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of response) {
      if (!Buffer.isBuffer(chunk)) {
        throw unreadable("it is not bytes");
      }
      bytes += chunk.length;
      if (bytes > answerBytesMax) {
        throw unreadable("it is too large");
      }
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof SallyportError) {
      throw cause;
    }
    const code = signal.aborted ? "gateway.timeout" : "gateway.lost";
    throw new SallyportError(code, "gateway", "the gateway did not finish its answer", { cause });
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return value;
  } catch (cause) {
    throw unreadable("it is not JSON", cause);
  }
}

function problemFrom(value: unknown, status: number): SallyportError {
  const problem = problemSchema.safeParse(value);
  return problem.success ? new RemoteError(problem.data) : unreadable(`it has status ${status} and no problem details`);
}

function unreadable(why: string, cause?: unknown): SallyportError {
  return new SallyportError("gateway.unreadable", "gateway", `the gateway's answer cannot be read: ${why}`, {
    ...(cause === undefined ? {} : { cause }),
    nextStep: "is another program listening there, or another version of Sallyport?",
  });
}

function timedOut({ host, port }: Connection, cause: unknown): SallyportError {
  return new SallyportError("gateway.timeout", "gateway", `the gateway at ${host}:${port} did not answer in time`, {
    cause,
  });
}

function connectionError({ host, port }: Connection, cause: unknown): SallyportError {
  const code = cause instanceof Error && "code" in cause ? cause.code : null;
  if (code === "ECONNREFUSED" || code === "EADDRNOTAVAIL") {
    return new SallyportError("gateway.not-running", "gateway", `no gateway is listening at ${host}:${port}`, {
      cause,
      nextStep: "start one: sallyport up",
    });
  }
  return new SallyportError("gateway.lost", "gateway", `the connection to the gateway at ${host}:${port} broke`, {
    cause,
  });
}
