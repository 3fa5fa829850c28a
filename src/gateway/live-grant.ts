import type { Grant } from "#domain/grant.ts";
import type { Principal } from "#domain/principal.ts";
import type { CompiledScope } from "#domain/scope.ts";
import type { PolicySet } from "#policy/decide.ts";
import type { GrantRole, ResourceAccess } from "#protocols/driver.ts";
import type { LiveSession, SessionEnd } from "./live-session.ts";

/** A grant whose rights exist at its resource. */
export interface LiveGrant {
  readonly grant: Grant;
  readonly principal: Principal;
  readonly onBehalfOf: Principal | null;
  readonly access: ResourceAccess;
  readonly scope: CompiledScope;
  readonly role: GrantRole;
  readonly policySet: PolicySet;
  readonly sessions: Set<LiveSession>;
  /** Why it ended; sessions that come now are refused with it. */
  end: SessionEnd | null;
}
