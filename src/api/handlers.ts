/** What each route does: one call of the control plane. A route without a line here does not compile. */
import type { ControlPlane } from "#domain/control.ts";
import type { RouteName, RouteRequest, RouteResponse, Routes } from "./contract.ts";

/** By route: an object answers once, a stream for as long as `signal` lasts. */
export type Handlers = {
  readonly [N in RouteName]: Routes[N]["answer"] extends "stream"
    ? (request: RouteRequest<N>, signal: AbortSignal) => AsyncIterable<RouteResponse<N>>
    : (request: RouteRequest<N>) => Promise<RouteResponse<N>>;
};

/** Binds every route to the control plane. */
export function bindHandlers(control: ControlPlane): Handlers {
  return {
    status: () => control.status(),
    addGrant: ({ body }) => control.addGrant(body),
    listGrants: async ({ query }) => ({ grants: [...(await control.listGrants(query))] }),
    revokeGrant: ({ params, body }) => control.revokeGrant(params.grant, body.reason),
    listSessions: async () => ({ sessions: [...(await control.listSessions())] }),
    startRun: ({ body }) => control.startRun(body),
    openCall: ({ params, body }) => control.openCall(params.run, body),
    closeCall: async ({ params, body }) => {
      await control.closeCall(params.run, params.call, body);
      return {};
    },
    runEvents: ({ params }, signal) => control.runEvents(params.run, signal),
    endRun: async ({ params, body }) => {
      await control.endRun(params.run, body.reason);
      return {};
    },
  };
}
