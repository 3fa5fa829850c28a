/**
 * The one file that talks to the Cedar engine (WebAssembly). Its answers are turned into a union at once: an answer with any
 * error in it is `failed`, never an allow. Cedar itself skips a policy that errors, so that an erroring forbid would permit.
 */
import {
  preparsePolicySet,
  preparseSchema,
  statefulIsAuthorized,
  type AuthorizationAnswer,
  type Context,
  type EntityJson,
  type TypeAndId,
} from "@cedar-policy/cedar-wasm/nodejs";
import { InvariantError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import { policySchema } from "./schema.ts";
import type { PolicyText } from "./text.ts";

const schemaName = "sallyport";

/** A request as the engine takes it. */
export interface CedarRequest {
  readonly principal: TypeAndId;
  readonly action: TypeAndId;
  readonly resource: TypeAndId;
  readonly context: Context;
  readonly entities: EntityJson[];
}

/** `policies`: those that determined the answer, or those that failed; sorted. */
export type CedarAnswer =
  | { readonly effect: "allow" | "deny"; readonly policies: readonly string[] }
  | { readonly effect: "failed"; readonly policies: readonly string[]; readonly problem: string };

/**
 * Which pre-parsed sets the engine holds. It keeps them by name in one table for the whole process and can forget none, only
 * replace; so the account of it is one for the process too, and names are used again, the longest unused first.
 */
class PreparsedSets {
  /** In order of use, the longest unused first. */
  readonly #slots = new Map<PolicySource, string>();
  #isSchemaReady = false;

  /** The name under which the engine holds `source`, after parsing it when it does not. */
  nameOf(source: PolicySource): string {
    const held = this.#slots.get(source);
    if (held !== undefined) {
      this.#slots.delete(source);
      this.#slots.set(source, held);
      return held;
    }
    this.#prepareSchema();
    const [oldest] = this.#slots;
    const slot =
      oldest !== undefined && this.#slots.size >= limits.policySetsMax ? oldest[1] : `set-${this.#slots.size + 1}`;
    if (oldest !== undefined && slot === oldest[1]) {
      this.#slots.delete(oldest[0]);
    }
    const staticPolicies = Object.fromEntries(source.policies.map(({ id, text }) => [id, text]));
    const answer = preparsePolicySet(slot, { staticPolicies });
    if (answer.type === "failure") {
      // The slot's old set is forgotten by us already, so nothing can be decided by it under this name.
      this.#free(slot);
      throw new InvariantError(`a policy set does not parse: ${problemOf(answer.errors)}`);
    }
    this.#slots.set(source, slot);
    return slot;
  }

  #prepareSchema(): void {
    if (this.#isSchemaReady) {
      return;
    }
    const answer = preparseSchema(schemaName, policySchema);
    if (answer.type === "failure") {
      throw new InvariantError(`the policy schema does not parse: ${problemOf(answer.errors)}`);
    }
    this.#isSchemaReady = true;
  }

  /** Keeps a name in circulation that no set holds: an empty source stands for it. */
  #free(slot: string): void {
    this.#slots.set(new PolicySource([]), slot);
  }
}

/** Policies that are evaluated together. The object itself is what their parsed form is found by. */
export class PolicySource {
  readonly policies: readonly PolicyText[];

  /** @throws InvariantError when two policies have one id: the engine would keep the last and drop the others. */
  constructor(policies: readonly PolicyText[]) {
    const ids = new Set(policies.map(({ id }) => id));
    if (ids.size !== policies.length) {
      throw new InvariantError("two policies of one set have the same id");
    }
    this.policies = policies;
  }
}

const preparsed = new PreparsedSets();

/**
 * Parses a set ahead of its first evaluation.
 * @throws InvariantError when it does not parse.
 */
export function prepare(source: PolicySource): void {
  preparsed.nameOf(source);
}

/** Evaluates one request. Whatever goes wrong is an answer, `failed`: the caller has one way to deny, not two. */
export function authorize(source: PolicySource, request: CedarRequest): CedarAnswer {
  try {
    const answer = statefulIsAuthorized({
      ...request,
      preparsedPolicySetId: preparsed.nameOf(source),
      preparsedSchemaName: schemaName,
      validateRequest: true,
    });
    return read(answer);
  } catch (error) {
    // A trap of the engine: what it would have answered is unknown, and unknown is a denial.
    return { effect: "failed", policies: [], problem: error instanceof Error ? error.message : String(error) };
  }
}

function read(answer: AuthorizationAnswer): CedarAnswer {
  if (answer.type === "failure") {
    return { effect: "failed", policies: [], problem: problemOf(answer.errors) };
  }
  const { decision, diagnostics } = answer.response;
  if (diagnostics.errors.length > 0) {
    return {
      effect: "failed",
      policies: diagnostics.errors.map(({ policyId }) => policyId).toSorted(),
      problem: problemOf(diagnostics.errors.map(({ error }) => error)),
    };
  }
  return { effect: decision, policies: diagnostics.reason.toSorted() };
}

function problemOf(errors: readonly { readonly message: string }[]): string {
  return errors.map(({ message }) => message).join("; ");
}
