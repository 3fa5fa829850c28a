/** A denial in plain words: what was missing, and what to do. */
import type { DenyCode } from "#domain/decision.ts";
import type { Grant } from "#domain/grant.ts";
import { endingPolicies } from "./base.ts";
import type { CedarAnswer } from "./cedar.ts";
import type { VerbRight } from "./compile.ts";
import type { Asking, Question } from "./requests.ts";

/** Code, reason and next step of a denial. */
export interface Explanation {
  readonly code: DenyCode;
  readonly reason: string;
  readonly nextStep: string;
}

const askForNewGrant = "Ask for a new grant for this task.";
const askOperator = "Ask the operator of this gateway.";

/** Words the engine's answer to a question that was not allowed. */
export function explain(
  answer: CedarAnswer,
  asking: Asking,
  question: Question,
  rights: readonly VerbRight[],
): Explanation {
  if (answer.effect === "failed") {
    return failed(answer.policies);
  }
  const ending = answer.policies.find((id) => endings.has(id));
  if (ending !== undefined) {
    return endings.get(ending)?.(asking) ?? failed(answer.policies);
  }
  if (answer.policies.length > 0) {
    return {
      code: "policy.forbidden",
      reason: `${words(question)} is forbidden by policy ${answer.policies.join(", ")}`,
      nextStep: `${askOperator} The policy is theirs to change.`,
    };
  }
  return question.objectType === "Table" ? notGranted(question, rights) : notPermitted(question);
}

/** A request that could not be put to the policies at all, or not be answered by them. */
export function failed(policies: readonly string[]): Explanation {
  const which = policies.length === 0 ? "the policies" : `policy ${policies.join(", ")}`;
  return {
    code: "policy.error",
    reason: `${which} could not be evaluated, so nothing is allowed`,
    nextStep: `${askOperator} The policy has a fault.`,
  };
}

const endings: ReadonlyMap<string, (asking: Asking) => Explanation> = new Map([
  [endingPolicies.grantEnded, ({ grant }: Asking) => grantEnded(grant)],
  [endingPolicies.grantExpired, ({ grant }: Asking) => grantExpired(grant)],
  [
    endingPolicies.principalDisabled,
    ({ subject }: Asking): Explanation => ({
      code: "principal.disabled",
      reason: `${subject.name} is disabled`,
      nextStep: askOperator,
    }),
  ],
  [
    endingPolicies.principalExpired,
    ({ subject }: Asking): Explanation => ({
      code: "principal.expired",
      reason:
        subject.kind === "human"
          ? `${subject.name} has expired`
          : `${subject.name} expired at ${instant(subject.expiresAtMs)}`,
      nextStep: `${askOperator} The principal needs a new expiry.`,
    }),
  ],
]);

function grantExpired(grant: Grant): Explanation {
  return {
    code: "grant.expired",
    reason: `the grant expired at ${instant(grant.expiresAtMs)}`,
    nextStep: askForNewGrant,
  };
}

function grantEnded(grant: Grant): Explanation {
  if (grant.end?.how === "expired") {
    return grantExpired(grant);
  }
  if (grant.end === null) {
    return { code: "policy.forbidden", reason: "the grant is not active yet", nextStep: "Try again when it is." };
  }
  return {
    code: "grant.revoked",
    reason: `the grant was ${grant.end.how} at ${instant(grant.end.atMs)}: ${grant.end.reason}`,
    nextStep: askForNewGrant,
  };
}

function notGranted(question: Question, rights: readonly VerbRight[]): Explanation {
  const table = displayName(question.object);
  const onTable = rights.filter(({ relation }) => relation === question.object);
  if (onTable.length === 0) {
    return {
      code: "grant.no-table",
      reason: `no grant covers \`${table}\``,
      nextStep: `Ask for a grant with ${question.action} on ${question.object}.`,
    };
  }
  const right = onTable.find(({ verb }) => verb === question.action);
  if (right === undefined) {
    return {
      code: "grant.no-verb",
      reason: `the grant gives ${onTable.map(({ verb }) => verb).join(", ")} on \`${table}\`, not ${question.action}`,
      nextStep: `Ask for a grant with ${question.action} on ${question.object}.`,
    };
  }
  const missing = question.columns.filter((column) => right.columns !== null && !right.columns.includes(column));
  if (missing.length === 0) {
    // Covered by what the grant says now and yet not permitted: the compiled permit's own deadline has passed.
    return { code: "policy.no-permit", reason: `no policy permits ${words(question)}`, nextStep: askForNewGrant };
  }
  const names = missing.map((column) => `\`${table}.${column}\``).join(", ");
  return {
    code: "grant.no-column",
    reason: `${names} ${missing.length === 1 ? "isn't" : "aren't"} in the grant for ${question.action}`,
    nextStep: `Leave ${missing.length === 1 ? "it" : "them"} out, or ask for a grant that names ${missing.join(", ")}.`,
  };
}

function notPermitted(question: Question): Explanation {
  return { code: "policy.no-permit", reason: `no policy permits ${words(question)}`, nextStep: askOperator };
}

function words(question: Question): string {
  switch (question.action) {
    case "statement":
      return "this statement";
    case "transaction":
      return "a transaction";
    case "call":
      return `calling \`${question.object}\``;
    case "show":
    case "set":
      return `${question.action} \`${question.object}\``;
    default:
      return `${question.action} on \`${displayName(question.object)}\``;
  }
}

/** As people write it: without the schema when that is `public`. */
function displayName(relation: string): string {
  return relation.startsWith("public.") ? relation.slice("public.".length) : relation;
}

function instant(epochMs: number): string {
  return new Date(epochMs).toISOString();
}
