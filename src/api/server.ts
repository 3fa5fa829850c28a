/**
 * The control endpoint: HTTP on loopback, one bearer token. In this order, before a body is read: who is addressed (Host, so
 * that a name rebound to 127.0.0.1 gets nothing), who sends (a browser names an Origin; none is let in), the token.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { ControlPlane } from "#domain/control.ts";
import { SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import { type BoundRoute, type RawRequest, bindRoutes } from "./handlers.ts";
import { problemMediaType, problemOf } from "./problem.ts";

/** A request that was turned away before it was read. */
export interface RefusedRequest {
  readonly code: "request.token" | "request.host" | "request.origin";
  readonly method: string;
  /** The path without its query, at most 200 characters. */
  readonly path: string;
  readonly requestId: string;
}

export interface ControlServerOptions {
  readonly control: ControlPlane;
  /** Loopback. Port 0 takes a free one. */
  readonly host: string;
  readonly port: number;
  /** The bearer token; only its SHA-256 is kept. */
  readonly token: string;
  /** Hears of every request without the right token, host or origin. */
  readonly onRefused: (refused: RefusedRequest) => void;
  /** Hears of every failure that the client was not told about; the request id is what it was told. */
  readonly onInternalError: (error: unknown, requestId: string) => void;
}

/** A listening control endpoint. */
export interface ControlServer extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** Takes nothing new, ends streams, gives running requests `limits.drainMs`, and closes. */
  close(): Promise<void>;
}

/** Connections to the control endpoint: command lines and runs, one or two each. */
const connectionsMax = 2048;
/** A whole request has arrived by then, or its connection is closed. */
const requestTimeoutMs = 30_000;
const headersTimeoutMs = 10_000;
/** An idle connection is kept for the next call of a run. */
const keepAliveTimeoutMs = 60_000;
const pathCharactersMax = 200;

/**
 * Starts listening.
 * @throws SallyportError `control.port-in-use` or `control.listen`.
 */
export async function startControlServer(options: ControlServerOptions): Promise<ControlServer> {
  const app = Fastify({
    logger: false,
    bodyLimit: limits.controlBodyBytesMax,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    forceCloseConnections: "idle",
    exposeHeadRoutes: false,
    requestIdHeader: false,
    genReqId: () => `req_${randomBytes(8).toString("hex")}`,
    http: { headersTimeout: headersTimeoutMs },
    frameworkErrors: (error, request, reply) => {
      sendProblem(reply, translate(error), request.id, options);
    },
  });
  app.server.maxConnections = connectionsMax;
  app.removeContentTypeParser("text/plain");
  const streams = new AbortController();
  const gate: Gate = { tokenHash: sha256(options.token), hosts: new Set(), onRefused: options.onRefused };
  app.addHook("onRequest", async (request) => admit(request, gate));
  app.setErrorHandler((error, request, reply) => sendProblem(reply, translate(error), request.id, options));
  app.setNotFoundHandler((request, reply) =>
    sendProblem(reply, clientError("request.route", "there is no such route"), request.id, options),
  );
  for (const bound of Object.values(bindRoutes(options.control))) {
    register(app, bound, streams.signal, options);
  }
  const port = await listen(app, options);
  for (const host of [options.host, "127.0.0.1", "localhost", "[::1]"]) {
    gate.hosts.add(`${host.includes(":") && !host.startsWith("[") ? `[${host}]` : host}:${port}`);
  }
  let closing: Promise<void> | null = null;
  const close = (): Promise<void> => (closing ??= closeServer(app, streams));
  return { host: options.host, port, close, [Symbol.asyncDispose]: close };
}

interface Gate {
  readonly tokenHash: Buffer;
  readonly hosts: Set<string>;
  readonly onRefused: ControlServerOptions["onRefused"];
}

/** @throws SallyportError `request.host`, `request.origin` or `request.token`, after saying so to `onRefused`. */
function admit(request: FastifyRequest, gate: Gate): void {
  const refuse = (code: RefusedRequest["code"], message: string, nextStep: string): never => {
    const path = (request.url.split("?", 1)[0] ?? "").slice(0, pathCharactersMax);
    gate.onRefused({ code, method: request.method, path, requestId: request.id });
    throw new SallyportError(code, "client", message, { nextStep });
  };
  const { headers } = request;
  if (!gate.hosts.has(headers.host ?? "")) {
    refuse("request.host", "the request is addressed to another host", "call the address that `sallyport up` printed");
  }
  if (headers.origin !== undefined || headers["sec-fetch-site"] !== undefined) {
    refuse("request.origin", "requests from a web page are not taken", "use the command line");
  }
  const token = /^Bearer ([A-Za-z0-9_-]{1,200})$/.exec(headers.authorization ?? "")?.[1] ?? "";
  // Both sides are hashes of equal length: the time taken says nothing about the token.
  if (!timingSafeEqual(sha256(token), gate.tokenHash) || token === "") {
    refuse(
      "request.token",
      "the request does not carry the node's control token",
      "run it as the account that runs the gateway, with the same configuration",
    );
  }
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function register(app: FastifyInstance, bound: BoundRoute, closing: AbortSignal, options: ControlServerOptions): void {
  app.route({
    method: bound.route.method,
    url: bound.route.path,
    handler: async (request, reply) => {
      const raw: RawRequest = { params: request.params, query: request.query, body: request.body };
      if (bound.answer === "object") {
        return reply.send(await bound.handle(raw));
      }
      return sendStream(reply, (signal) => bound.handle(raw, signal), { closing, requestId: request.id, options });
    },
  });
}

interface StreamSurroundings {
  readonly closing: AbortSignal;
  readonly requestId: string;
  readonly options: ControlServerOptions;
}

/** NDJSON. The first value is waited for before anything is sent, so that a refusal is still a problem with its status. */
async function sendStream(
  reply: FastifyReply,
  open: (signal: AbortSignal) => AsyncIterable<unknown>,
  { closing, requestId, options }: StreamSurroundings,
): Promise<FastifyReply> {
  const gone = new AbortController();
  const { raw } = reply;
  raw.once("close", () => gone.abort());
  const signal = AbortSignal.any([gone.signal, closing]);
  const iterator = open(signal)[Symbol.asyncIterator]();
  const ended = new Promise<{ readonly done: true }>((settle) => {
    signal.addEventListener("abort", () => settle({ done: true }), { once: true });
  });
  const next = async (): Promise<{ readonly line: string } | null> => {
    const step = await Promise.race([iterator.next(), ended]);
    return step.done === true ? null : { line: `${JSON.stringify(step.value)}\n` };
  };
  try {
    let event = await next();
    reply.hijack();
    raw.socket?.setTimeout(0);
    raw.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store" });
    for (; event !== null; event = await next()) {
      if (!raw.write(event.line)) {
        await once(raw, "drain", { signal });
      }
    }
    raw.end();
  } catch (error) {
    if (!reply.sent) {
      throw error;
    }
    // A stream that has begun has no status left to give: it breaks off, which its reader sees as an end without a reason.
    if (!signal.aborted) {
      options.onInternalError(error, requestId);
    }
    raw.destroy();
  } finally {
    // Not waited for: a generator that hangs in its own clean-up would hold the connection.
    void Promise.resolve(iterator.return?.()).catch((error: unknown) => options.onInternalError(error, requestId));
  }
  return reply;
}

function clientError(code: string, message: string): SallyportError {
  return new SallyportError(code, "client", message, { nextStep: "see the API's contract, or use the command line" });
}

/** Fastify's own errors in our words; anything else unchanged. */
function translate(error: unknown): unknown {
  if (error instanceof SallyportError || !(error instanceof Error) || !("statusCode" in error)) {
    return error;
  }
  switch (error.statusCode) {
    case 413:
      return clientError("request.too-large", `the body is larger than ${limits.controlBodyBytesMax} bytes`);
    case 415:
      return clientError("request.media-type", "the body is not application/json");
    case 404:
    case 414:
      return clientError("request.route", "there is no such route");
    case 400:
    case 408:
      return clientError("request.invalid", "the request cannot be read: its body is not the JSON that it should be");
    default:
      return error;
  }
}

function sendProblem(
  reply: FastifyReply,
  error: unknown,
  requestId: string,
  options: ControlServerOptions,
): FastifyReply {
  const { problem, internal } = problemOf(error, requestId);
  if (internal) {
    options.onInternalError(error, requestId);
  }
  // The body of a refused request was perhaps never read; the connection is not used again.
  return reply
    .code(problem.status)
    .header("connection", problem.status >= 400 && problem.status < 500 ? "close" : "keep-alive")
    .type(problemMediaType)
    .send(JSON.stringify(problem));
}

async function listen(app: FastifyInstance, options: ControlServerOptions): Promise<number> {
  const { host, port } = options;
  try {
    await app.listen({ host, port });
  } catch (cause) {
    const isTaken = cause instanceof Error && "code" in cause && cause.code === "EADDRINUSE";
    const code = isTaken ? "control.port-in-use" : "control.listen";
    throw new SallyportError(code, "gateway", `the control endpoint cannot listen on ${host}:${port}`, {
      cause,
      nextStep: "stop the program that has the port (perhaps another gateway), or change listen.control",
    });
  }
  const address = app.server.address();
  return typeof address === "object" && address !== null ? address.port : port;
}

async function closeServer(app: FastifyInstance, streams: AbortController): Promise<void> {
  streams.abort();
  const timer = setTimeout(() => app.server.closeAllConnections(), limits.drainMs);
  try {
    await app.close();
  } finally {
    clearTimeout(timer);
  }
}
