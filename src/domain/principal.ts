import type { PrincipalId } from "./ids.ts";

/** Who acts. Every non-human principal has a human owner and an absolute expiry (AC-2). */
export type Principal = HumanPrincipal | MachinePrincipal;

export interface HumanPrincipal {
  readonly kind: "human";
  readonly id: PrincipalId;
  /** Unique among principals, 1–63 characters of `[a-z0-9._-]`. The ledger holds ids only. */
  readonly name: string;
  readonly status: PrincipalStatus;
}

export interface MachinePrincipal {
  readonly kind: "agent" | "service";
  readonly id: PrincipalId;
  readonly name: string;
  readonly status: PrincipalStatus;
  /** The human who answers for it. */
  readonly ownerId: PrincipalId;
  /** Epoch milliseconds; from then on it can do nothing. */
  readonly expiresAtMs: number;
}

export type PrincipalStatus = "active" | "disabled";
