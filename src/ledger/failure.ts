/** How the ledger says that it cannot write. */
import { SallyportError } from "#domain/errors.ts";

import { systemErrorCode } from "./files.ts";

/** `ledger.unavailable` for a failed file operation, naming what to do about it. A domain error stays what it is. */
export function ledgerFailure(cause: unknown, directory: string): SallyportError {
  if (cause instanceof SallyportError) {
    return cause;
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new SallyportError("ledger.unavailable", "gateway", `The ledger cannot write, so nothing passes: ${reason}.`, {
    cause,
    nextStep: nextStepFor(systemErrorCode(cause), directory),
  });
}

function nextStepFor(code: string | null, directory: string): string {
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
      return `Free space on the volume of ${directory}, then start Sallyport again.`;
    case "EROFS":
    case "EACCES":
    case "EPERM":
      return `Make ${directory} writable for the user that runs Sallyport, then start it again.`;
    default:
      return `Check the disk that holds ${directory}, then start Sallyport again: it recovers what was recorded.`;
  }
}

/** For a call that comes after `close`. */
export function ledgerClosed(): SallyportError {
  return new SallyportError("ledger.unavailable", "gateway", "The ledger is closed, so nothing passes.", {
    nextStep: "Start Sallyport again.",
  });
}
