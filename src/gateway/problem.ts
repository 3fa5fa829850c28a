/** What a client may read of a failure. */
import { denyCodes } from "#domain/decision.ts";
import type { DenyCode } from "#domain/decision.ts";
import { SallyportError } from "#domain/errors.ts";

/** A refusal in words, before it has a decision id. */
export interface Problem {
  readonly code: DenyCode;
  readonly reason: string;
  readonly nextStep: string;
}

/** What a client may read of a failure: an allowlist of codes; anything else is "unavailable". */
export function wordsOf(error: unknown): Problem {
  if (error instanceof SallyportError) {
    const code = denyCodes.find((known) => known === error.code);
    if (code !== undefined && error.whose !== "gateway") {
      return { code, reason: error.message, nextStep: error.nextStep ?? "Tell the gateway's operator." };
    }
    if (error.code === "grant.ended") {
      return { code: "grant.revoked", reason: error.message, nextStep: error.nextStep ?? "Ask for a new grant." };
    }
    if (error.code.startsWith("resource.") || error.code.startsWith("scope.")) {
      return {
        code: "resource.unavailable",
        reason: "the resource cannot give this grant its rights now",
        nextStep: "Tell the gateway's operator; `sallyport doctor` says why.",
      };
    }
  }
  return {
    code: "ledger.unavailable",
    reason: "the gateway cannot record, so nothing passes",
    nextStep: "Tell the gateway's operator; `sallyport ledger status` says why.",
  };
}
