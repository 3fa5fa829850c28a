/** Who may act now: the life of principals, and the credentials that are made for them. */
import type { DenyCode } from "#domain/decision.ts";
import type { Credential, Grant, ScramVerifier } from "#domain/grant.ts";
import type { CredentialId, RunId } from "#domain/ids.ts";
import type { Principal } from "#domain/principal.ts";
import type { PrincipalStore } from "./ports.ts";

/** Why a principal cannot act; null when it can. */
export interface PrincipalProblem {
  readonly code: Extract<DenyCode, "principal.disabled" | "principal.expired">;
  readonly reason: string;
  readonly nextStep: string;
}

/**
 * Whether a principal may act at `nowMs`. A machine acts only while it has not expired and its human owner is active: an agent
 * whose owner has gone is nobody's.
 */
export async function principalProblem(
  principal: Principal,
  store: PrincipalStore,
  nowMs: number,
): Promise<PrincipalProblem | null> {
  if (principal.status === "disabled") {
    return {
      code: "principal.disabled",
      reason: `the principal "${principal.name}" is disabled`,
      nextStep: "Ask its owner or an administrator to enable it.",
    };
  }
  if (principal.kind === "human") {
    return null;
  }
  if (nowMs >= principal.expiresAtMs) {
    return {
      code: "principal.expired",
      reason: `the principal "${principal.name}" expired at ${new Date(principal.expiresAtMs).toISOString()}`,
      nextStep: "Renew it in the configuration.",
    };
  }
  const owner = await store.byId(principal.ownerId);
  if (owner === null || owner.kind !== "human" || owner.status === "disabled") {
    return {
      code: "principal.disabled",
      reason: `the principal "${principal.name}" has no active owner`,
      nextStep: "Give it an owner in the configuration.",
    };
  }
  return null;
}

/** When a principal stops by itself: epoch milliseconds, or infinity for a human. */
export function principalDeadlineMs(principal: Principal): number {
  return principal.kind === "human" ? Number.POSITIVE_INFINITY : principal.expiresAtMs;
}

/** A new credential of a grant. The password is returned to the caller alone; the credential holds its verifier. */
export function makeCredential(input: {
  readonly id: CredentialId;
  readonly grant: Grant;
  readonly runId: RunId | null;
  readonly nowMs: number;
  readonly randomBytes: (length: number) => Uint8Array;
  readonly makeVerifier: (password: string) => ScramVerifier;
}): { readonly credential: Credential; readonly password: string } {
  const password = Buffer.from(input.randomBytes(24)).toString("base64url");
  const credential: Credential = {
    id: input.id,
    login: `sp_${input.id.slice("crd_".length)}`,
    grantId: input.grant.id,
    runId: input.runId,
    verifier: input.makeVerifier(password),
    createdAtMs: input.nowMs,
    expiresAtMs: input.grant.expiresAtMs,
    status: "active",
  };
  return { credential, password };
}
