/**
 * May they. Default deny: every effect of a command is a question of its own, and all must be permitted; a forbid overrides every
 * permit; an evaluation that errs is a denial. For an agent that acts for a person each question is asked twice, once with each
 * as the principal, and both must be permitted: what is allowed is the intersection.
 */
import { createHash } from "node:crypto";
import type { DenyCode } from "#domain/decision.ts";
import type { Effect, StatementKind } from "#domain/effect.ts";
import { InvariantError } from "#domain/errors.ts";
import type { Grant } from "#domain/grant.ts";
import type { ResourceId } from "#domain/ids.ts";
import { limits } from "#domain/limits.ts";
import type { Principal } from "#domain/principal.ts";
import { basePolicies } from "./base.ts";
import { authorize, PolicySource, prepare, type CedarAnswer } from "./cedar.ts";
import { grantPolicies, verbRights, type VerbRight } from "./compile.ts";
import { explain, failed } from "./explain.ts";
import type { OperatorPolicy } from "./operator.ts";
import { cedarRequest, questionsOf, type Asking, type Question } from "./requests.ts";
import { policySchema } from "./schema.ts";
import type { PolicyText } from "./text.ts";
import { VerdictCache } from "./verdict-cache.ts";

/** What a decision is made from. Principals and grant are those of this moment, not those of compile time. */
export interface PolicyInput {
  readonly principal: Principal;
  readonly onBehalfOf: Principal | null;
  readonly grant: Grant;
  readonly resource: { readonly id: ResourceId; readonly name: string };
  readonly kind: StatementKind;
  readonly effects: readonly Effect[];
  /** Epoch milliseconds, whole. */
  readonly nowMs: number;
}

/** `policies`: ids of those that determined it, sorted; empty when none permits. */
export type PolicyVerdict =
  | { readonly effect: "allow"; readonly policies: readonly string[] }
  | {
      readonly effect: "deny";
      readonly code: DenyCode;
      readonly reason: string;
      readonly nextStep: string;
      readonly policies: readonly string[];
    };

/** What a policy set is made from. */
export interface PolicySetInput {
  readonly grant: Grant;
  readonly principal: Principal;
  /** Given exactly when the grant names one. */
  readonly onBehalfOf: Principal | null;
  readonly resource: { readonly id: ResourceId; readonly name: string };
  readonly operatorPolicies: readonly OperatorPolicy[];
}

/** The policies of one grant, ready to decide. */
export interface PolicySet {
  /** Hex SHA-256 over the schema and the canonical policies: what a decision names the set by. */
  readonly hash: string;
  /** Sorted by id. With these texts anyone can compute the hash and repeat a decision. */
  readonly policies: readonly PolicyText[];
  /** Never throws: what cannot be decided is denied with `policy.error`. */
  evaluate(input: PolicyInput): PolicyVerdict;
}

/**
 * Compiles and parses the policies of a grant (a few milliseconds).
 * @throws SallyportError `grant.unsupported-name`.
 * @throws InvariantError when the principals or the resource are not the grant's own.
 */
export function compilePolicySet(input: PolicySetInput): PolicySet {
  const { grant, principal, onBehalfOf, resource } = input;
  if (
    grant.principalId !== principal.id ||
    grant.onBehalfOfId !== (onBehalfOf?.id ?? null) ||
    grant.resourceId !== resource.id
  ) {
    throw new InvariantError(`grant ${grant.id} was given with principals or a resource that are not its own`);
  }
  const rights = verbRights(grant.scope.tables);
  const policies = [...basePolicies, ...grantPolicies(grant, rights), ...input.operatorPolicies]
    .map(({ id, text }) => ({ id, text }))
    .toSorted((left, right) => (left.id < right.id ? -1 : 1));
  return new CompiledPolicySet(input, rights, policies);
}

/** Hex SHA-256 over `["…schema…", [id, text], …]` as JSON, the policies sorted by id. */
export function policySetHash(policies: readonly PolicyText[]): string {
  const canonical = JSON.stringify([policySchema, ...policies.map(({ id, text }) => [id, text])]);
  return createHash("sha256").update(canonical).digest("hex");
}

class CompiledPolicySet implements PolicySet {
  readonly hash: string;
  readonly policies: readonly PolicyText[];
  readonly #compiledFor: PolicySetInput;
  readonly #rights: readonly VerbRight[];
  readonly #source: PolicySource;
  /** An operator's policy looks at the clock: then no verdict outlives its moment. */
  readonly #dependsOnTime: boolean;
  readonly #verdicts = new VerdictCache<PolicyVerdict>(limits.policyVerdictsMax);
  /**
   * The policies that permitted a question, by question: a statement not seen before mostly asks what others asked. Without it
   * each question costs the engine 0.1 to 0.3 ms.
   */
  readonly #permits = new VerdictCache<readonly string[]>(limits.policyVerdictsMax);

  constructor(compiledFor: PolicySetInput, rights: readonly VerbRight[], policies: readonly PolicyText[]) {
    this.hash = policySetHash(policies);
    this.policies = policies;
    this.#compiledFor = compiledFor;
    this.#rights = rights;
    this.#source = new PolicySource(policies);
    this.#dependsOnTime = compiledFor.operatorPolicies.some(({ dependsOnTime }) => dependsOnTime);
    prepare(this.#source);
  }

  evaluate(input: PolicyInput): PolicyVerdict {
    if (
      input.grant.id !== this.#compiledFor.grant.id ||
      input.resource.id !== this.#compiledFor.resource.id ||
      input.principal.id !== input.grant.principalId ||
      (input.onBehalfOf?.id ?? null) !== input.grant.onBehalfOfId
    ) {
      return { effect: "deny", ...failed([]), policies: [] };
    }
    if (this.#dependsOnTime || !this.#isAsCompiled(input)) {
      return this.#decide(input, (asking, question) => this.#ask(asking, question));
    }
    const key = JSON.stringify([input.kind, input.effects]);
    const known = this.#verdicts.get(key);
    if (known !== undefined) {
      return known;
    }
    const verdict = this.#decide(input, (asking, question) => this.#askOrRemember(asking, question));
    // An evaluation that erred is not kept: the next one may not err.
    const isSound = verdict.effect === "allow" || verdict.code !== "policy.error";
    if (isSound && key.length <= limits.policyVerdictKeyCharactersMax) {
      this.#verdicts.set(key, verdict);
    }
    return verdict;
  }

  /**
   * Whether everything but kind and effects is as it was when verdicts began to be remembered: nobody disabled or expired, the
   * grant active, and its deadline and task not touched. Asked each time, so that expiry is exact.
   */
  #isAsCompiled({ principal, onBehalfOf, grant, resource, nowMs }: PolicyInput): boolean {
    const then = this.#compiledFor;
    return (
      Number.isSafeInteger(nowMs) &&
      grant.state === "active" &&
      grant.expiresAtMs === then.grant.expiresAtMs &&
      grant.createdAtMs === then.grant.createdAtMs &&
      grant.task.title === then.grant.task.title &&
      grant.task.ticket === then.grant.task.ticket &&
      nowMs < grant.expiresAtMs &&
      resource.name === then.resource.name &&
      isLiveAndSame(principal, then.principal, nowMs) &&
      (onBehalfOf === null || (then.onBehalfOf !== null && isLiveAndSame(onBehalfOf, then.onBehalfOf, nowMs)))
    );
  }

  #decide(input: PolicyInput, ask: (asking: Asking, question: Question) => CedarAnswer): PolicyVerdict {
    const subjects = input.onBehalfOf === null ? [input.principal] : [input.principal, input.onBehalfOf];
    const determining = new Set<string>();
    for (const question of questionsOf(input.kind, input.effects, input.resource.id)) {
      for (const subject of subjects) {
        const asking: Asking = { ...input, subject, actor: input.principal };
        const answer = ask(asking, question);
        if (answer.effect !== "allow") {
          return { effect: "deny", ...explain(answer, asking, question, this.#rights), policies: answer.policies };
        }
        for (const id of answer.policies) {
          determining.add(id);
        }
      }
    }
    return { effect: "allow", policies: [...determining].toSorted() };
  }

  #ask(asking: Asking, question: Question): CedarAnswer {
    return authorize(this.#source, cedarRequest(asking, question));
  }

  #askOrRemember(asking: Asking, question: Question): CedarAnswer {
    const key = JSON.stringify([asking.subject.id, asking.kind, question]);
    const known = this.#permits.get(key);
    if (known !== undefined) {
      return { effect: "allow", policies: known };
    }
    const answer = this.#ask(asking, question);
    if (answer.effect === "allow" && key.length <= limits.policyVerdictKeyCharactersMax) {
      this.#permits.set(key, answer.policies);
    }
    return answer;
  }
}

/** Whether a principal is active now, and as policies saw it when the set was compiled. */
function isLiveAndSame(now: Principal, then: Principal, nowMs: number): boolean {
  if (now.status !== "active" || now.kind !== then.kind || now.name !== then.name || then.status !== "active") {
    return false;
  }
  if (now.kind === "human" || then.kind === "human") {
    return now.kind === then.kind;
  }
  return now.expiresAtMs === then.expiresAtMs && now.ownerId === then.ownerId && nowMs < now.expiresAtMs;
}
