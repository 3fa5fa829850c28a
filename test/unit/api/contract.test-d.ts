/**
 * Routes that change something and do not say how that is recorded must not compile: `tsc` reports a directive below that
 * finds no error. The first route is right, so that the others fail for their own reason only.
 */
import { z } from "zod";
import type { Route } from "#api/contract.ts";

const nothing = z.strictObject({});
const parts = { params: nothing, query: nothing, body: nothing, answer: "object", response: nothing } as const;

export const whole = {
  ...parts,
  method: "POST",
  path: "/v1/grants",
  changes: true,
  entry: { type: "change.intent", kind: "grant.add" },
} satisfies Route;

// @ts-expect-error a POST without an entry
export const noEntry = { ...parts, method: "POST", path: "/v1/grants", changes: true } satisfies Route;

// @ts-expect-error a POST that says it changes nothing
export const calledRead = { ...parts, method: "POST", path: "/v1/grants", changes: false } satisfies Route;

export const unknownKind = {
  ...parts,
  method: "POST",
  path: "/v1/grants",
  changes: true,
  // @ts-expect-error a change of no kind that the ledger knows
  entry: { type: "change.intent", kind: "grant.extend" },
} satisfies Route;

export const noKind = {
  ...parts,
  method: "POST",
  path: "/v1/grants",
  changes: true,
  // @ts-expect-error a change without its kind
  entry: { type: "change.intent" },
} satisfies Route;

export const otherTree = {
  ...parts,
  method: "GET",
  // @ts-expect-error a path without a version
  path: "/grants",
  changes: false,
} satisfies Route;
