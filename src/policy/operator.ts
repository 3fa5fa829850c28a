/**
 * Policies that an operator writes: Cedar text in files, each with an `@id("…")`. They can only forbid; rights come from grants,
 * so that no file can make more reachable than a grant names. Everything is checked here, once, and the file and line are named.
 */
import {
  checkParsePolicySet,
  policySetTextToParts,
  policyToJson,
  policyToText,
  validate,
  type PolicyJson,
} from "@cedar-policy/cedar-wasm/nodejs";
import { SallyportError } from "#domain/errors.ts";
import { policySchema } from "./schema.ts";
import type { PolicyText } from "./text.ts";

/** A policy file as it was read. */
export interface PolicyFile {
  /** Shown to the operator. */
  readonly file: string;
  readonly text: string;
}

/** A checked policy. `text` is canonical: comments and spacing are gone. */
export interface OperatorPolicy extends PolicyText {
  readonly file: string;
  /** It may look at the clock (`context.now`). */
  readonly dependsOnTime: boolean;
}

const idPattern = /^[a-z0-9][a-z0-9._-]{0,62}$/;

/**
 * Reads and checks policy files. A rule that does not parse, does not validate against the schema, or can never match is refused,
 * and so is anything else that the validator warns about, but names in two scripts.
 * @throws SallyportError `policy.invalid` naming file and line.
 */
export function readOperatorPolicies(files: readonly PolicyFile[]): readonly OperatorPolicy[] {
  const policies = files.flatMap(readFile);
  const seen = new Map<string, string>();
  for (const { id, file } of policies) {
    const before = seen.get(id);
    if (before !== undefined) {
      throw invalid(file, null, `policy "${id}" is already in ${before}`, "Give each policy an id of its own.");
    }
    seen.set(id, file);
  }
  return policies;
}

function readFile(source: PolicyFile): readonly OperatorPolicy[] {
  refuseFaults(source, checkParsePolicySet({ staticPolicies: source.text }));
  const parts = policySetTextToParts(source.text);
  refuseFaults(source, parts);
  if (parts.type === "failure") {
    return [];
  }
  const checked = validate({ schema: policySchema, policies: { staticPolicies: source.text } });
  refuseFaults(source, checked);
  if (checked.type === "success") {
    const faults = [...checked.validationErrors, ...checked.validationWarnings].map(({ error }) => error);
    refuseFirst(
      source,
      [...faults, ...checked.otherWarnings].filter((fault) => !isAboutMixedScripts(fault)),
    );
  }
  return parts.policies.map((text) => readPolicy(source.file, text));
}

function readPolicy(file: string, text: string): OperatorPolicy {
  const parsed = policyToJson(text);
  if (parsed.type === "success" && hasRoundedNumber(parsed.json)) {
    throw invalid(file, null, "a number is beyond 2^53", "Write a smaller number.");
  }
  const canonical = parsed.type === "success" ? policyToText(parsed.json) : parsed;
  if (parsed.type === "failure" || canonical.type === "failure") {
    throw invalid(file, null, "a policy cannot be read back", "Write it more simply.");
  }
  const id = parsed.json.annotations?.["id"];
  if (id === undefined || !idPattern.test(id)) {
    throw invalid(
      file,
      null,
      id === undefined ? "a policy has no @id" : `"${id}" is not a policy id`,
      'Start each policy with @id("name"): lower-case letters, digits, dots, dashes and underscores.',
    );
  }
  if (parsed.json.effect !== "forbid") {
    throw invalid(file, null, `policy "${id}" permits`, "Policies here can only forbid; rights come from grants.");
  }
  return { id, text: canonical.text, file, dependsOnTime: looksAtTheClock(parsed.json) };
}

/**
 * Whether `context` is used in any way but for a single attribute other than `now`. Errs on the side of yes: the price is a slower
 * decision, while the other way round a verdict would outlive its moment.
 */
function looksAtTheClock(policy: PolicyJson): boolean {
  const visit = (node: unknown): boolean => {
    if (typeof node !== "object" || node === null) {
      return false;
    }
    if (isContext(node)) {
      return true;
    }
    return Object.entries(node).some(([operator, operand]) =>
      (operator === "." || operator === "has") && isAttributeOfContext(operand)
        ? typeof operand.attr !== "string" || operand.attr === "now"
        : visit(operand),
    );
  };
  return visit(policy.conditions);
}

/** The policy passes through JSON on its way to canonical form, which would round such a number silently. */
function hasRoundedNumber(node: unknown): boolean {
  return typeof node === "number"
    ? !Number.isSafeInteger(node)
    : typeof node === "object" && node !== null && Object.values(node).some(hasRoundedNumber);
}

function isContext(node: object): boolean {
  return "Var" in node && node.Var === "context";
}

function isAttributeOfContext(operand: unknown): operand is { readonly attr: unknown } {
  return (
    typeof operand === "object" &&
    operand !== null &&
    "attr" in operand &&
    "left" in operand &&
    typeof operand.left === "object" &&
    operand.left !== null &&
    isContext(operand.left)
  );
}

interface Fault {
  readonly message: string;
  readonly help: string | null;
  readonly sourceLocations?: readonly { readonly start: number }[];
}

/** "public.顧客" is in two scripts, and an ordinary name all the same. */
function isAboutMixedScripts(fault: Fault): boolean {
  return fault.message.endsWith("contains mixed scripts");
}

function refuseFaults(
  source: PolicyFile,
  answer: { readonly type: "success" } | { readonly type: "failure"; readonly errors: readonly Fault[] },
): void {
  if (answer.type === "failure") {
    refuseFirst(source, answer.errors);
  }
}

function refuseFirst(source: PolicyFile, faults: readonly Fault[]): void {
  const [first] = faults;
  if (first !== undefined) {
    const start = first.sourceLocations?.[0]?.start;
    const line = start === undefined ? null : lineAt(source.text, start);
    // The validator numbers policies; a person counts lines.
    const message = first.message.replace(/^for policy `policy\d+`, /, "");
    throw invalid(source.file, line, message, first.help ?? "Correct the policy, or remove it.");
  }
}

/** Line of a byte offset, from 1. The engine counts bytes of UTF-8. */
function lineAt(text: string, byteOffset: number): number {
  return (
    Buffer.from(text, "utf8")
      .subarray(0, byteOffset)
      .filter((byte) => byte === 0x0a).length + 1
  );
}

function invalid(file: string, line: number | null, message: string, nextStep: string): SallyportError {
  const place = line === null ? file : `${file}:${line}`;
  return new SallyportError("policy.invalid", "principal", `${place}: ${message}`, { nextStep });
}
