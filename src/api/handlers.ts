/** What each route does: one call of the control plane. A route without a line here does not compile. */
import type { z } from "zod";
import type { ControlPlane } from "#domain/control.ts";
import { InvariantError, SallyportError } from "#domain/errors.ts";
import { type Route, type RouteName, routes } from "./contract.ts";

/** A request as it came, nothing checked. */
export interface RawRequest {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
}

/** A route and what it does with a raw request. What goes in and what comes out are held against the contract. */
export type BoundRoute =
  | { readonly answer: "object"; readonly route: Route; readonly handle: (request: RawRequest) => Promise<unknown> }
  | {
      readonly answer: "stream";
      readonly route: Route;
      readonly handle: (request: RawRequest, signal: AbortSignal) => AsyncIterable<unknown>;
    };

/** The shapes of one route, so that its handler gets exactly what they give out. */
interface Shapes<P, Q, B, R> {
  readonly params: z.ZodType<P>;
  readonly query: z.ZodType<Q>;
  readonly body: z.ZodType<B>;
  readonly response: z.ZodType<R>;
}

interface CheckedRequest<P, Q, B> {
  readonly params: P;
  readonly query: Q;
  readonly body: B;
}

/**
 * Binds every route to the control plane. A handler throws SallyportError `request.invalid`, or what the control plane throws.
 */
export function bindRoutes(control: ControlPlane): Readonly<Record<RouteName, BoundRoute>> {
  return {
    status: answers(routes.status, () => control.status()),
    addGrant: answers(routes.addGrant, ({ body }) => control.addGrant(body)),
    listGrants: answers(routes.listGrants, async ({ query }) => ({ grants: [...(await control.listGrants(query))] })),
    revokeGrant: answers(routes.revokeGrant, ({ params, body }) => control.revokeGrant(params.grant, body.reason)),
    listSessions: answers(routes.listSessions, async () => ({ sessions: [...(await control.listSessions())] })),
    startRun: answers(routes.startRun, ({ body }) => control.startRun(body)),
    openCall: answers(routes.openCall, ({ params, body }) => control.openCall(params.run, body)),
    closeCall: answers(routes.closeCall, async ({ params, body }) => {
      await control.closeCall(params.run, params.call, body);
      return {};
    }),
    runEvents: streams(routes.runEvents, ({ params }, signal) => control.runEvents(params.run, signal)),
    endRun: answers(routes.endRun, async ({ params, body }) => {
      await control.endRun(params.run, body.reason);
      return {};
    }),
  };
}

function answers<P, Q, B, R>(
  route: Route & Shapes<P, Q, B, R>,
  handle: (request: CheckedRequest<P, Q, B>) => Promise<R>,
): BoundRoute {
  const checked = async (request: RawRequest): Promise<R> =>
    checkAnswer(route, await handle(checkRequest(route, request)));
  return { answer: "object", route, handle: checked };
}

function streams<P, Q, B, R>(
  route: Route & Shapes<P, Q, B, R>,
  handle: (request: CheckedRequest<P, Q, B>, signal: AbortSignal) => AsyncIterable<R>,
): BoundRoute {
  async function* checked(request: RawRequest, signal: AbortSignal): AsyncGenerator<R, void> {
    for await (const event of handle(checkRequest(route, request), signal)) {
      yield checkAnswer(route, event);
    }
  }
  return { answer: "stream", route, handle: checked };
}

function checkRequest<P, Q, B>(route: Shapes<P, Q, B, unknown>, request: RawRequest): CheckedRequest<P, Q, B> {
  return {
    params: checkPart("path", route.params, request.params),
    query: checkPart("query", route.query, request.query),
    body: checkPart("body", route.body, request.body),
  };
}

/** @throws SallyportError `request.invalid` that names each part and what is wrong with it, never its value. */
function checkPart<T>(part: string, schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value ?? {});
  if (parsed.success) {
    return parsed.data;
  }
  const issues = parsed.error.issues.slice(0, 5).map((issue) => `${[part, ...issue.path].join(".")}: ${issue.message}`);
  throw new SallyportError("request.invalid", "client", issues.join("; "), {
    nextStep: "see the API's contract, or use the command line",
  });
}

/** What the contract does not name is left out. @throws InvariantError when something is missing or wrong. */
function checkAnswer<R>(route: Route & { readonly response: z.ZodType<R> }, answer: R): R {
  const parsed = route.response.safeParse(answer);
  if (!parsed.success) {
    const places = parsed.error.issues.map((issue) => issue.path.join(".")).slice(0, 5);
    const what = `the answer of ${route.method} ${route.path} is not what the contract says at ${places.join(", ")}`;
    throw new InvariantError(what, { cause: parsed.error });
  }
  return parsed.data;
}
