/** Exit codes: what a script can tell without reading a word. `sallyport help exit-codes` prints this list. */
import { SallyportError } from "#domain/errors.ts";

export const exitCodes = {
  ok: 0,
  failure: 1,
  usage: 2,
  notSignedIn: 3,
  denied: 4,
  approvalPending: 5,
  verificationFailed: 6,
  hasChanges: 7,
  interrupted: 130,
} as const;

/** What each code means, in order. */
export const exitCodeMeanings: readonly (readonly [number, string])[] = [
  [exitCodes.ok, "it worked"],
  [exitCodes.failure, "it failed; the message and the error's code say why"],
  [exitCodes.usage, "the command line is wrong; nothing was done"],
  [exitCodes.notSignedIn, "the gateway does not know you: no control token, or not the right one"],
  [exitCodes.denied, "denied: no grant, an expired one, or a policy"],
  [exitCodes.approvalPending, "waiting for an approval (comes with approvals)"],
  [exitCodes.verificationFailed, "verification failed: what was verified is not what was signed"],
  [exitCodes.hasChanges, "there are changes to apply (comes with plan)"],
  [exitCodes.interrupted, "interrupted"],
];

/** A command line that cannot be carried out as it stands. */
export function usageError(message: string, nextStep: string): SallyportError {
  return new SallyportError("usage", "client", message, { nextStep });
}

/** The exit code of a failure. */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof SallyportError)) {
    return exitCodes.failure;
  }
  switch (error.code) {
    case "usage":
      return exitCodes.usage;
    case "request.token":
    case "secret.missing":
    case "secret.open-to-others":
    case "secret.malformed":
      return exitCodes.notSignedIn;
    default:
      return error.whose === "principal" ? exitCodes.denied : exitCodes.failure;
  }
}

const passing = new Set([
  "gateway.not-running",
  "gateway.lost",
  "gateway.timeout",
  "gateway.draining",
  "resource.unavailable",
  "limit.exceeded",
  "store.unavailable",
]);

/** True when the same command may work a little later. */
export function isRetryable(code: string): boolean {
  return passing.has(code);
}
