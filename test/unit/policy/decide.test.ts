import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Effect } from "#domain/effect.ts";
import { InvariantError } from "#domain/errors.ts";
import type { TableGrant } from "#domain/grant.ts";
import { limits } from "#domain/limits.ts";
import { compilePolicySet, policySetHash, type PolicyInput, type PolicyVerdict } from "#policy/decide.ts";
import { readOperatorPolicies } from "#policy/operator.ts";
import { operatorRules, oracleAllows } from "./oracle.ts";
import {
  agent,
  beforeExpiryMs,
  bob,
  effectArbitrary,
  expiresAtMs,
  grantOf,
  id,
  inputOf,
  read,
  resource,
  statementKindArbitrary,
  table,
  tableGrantArbitrary,
  write,
} from "./support.ts";

function setOf(tables: readonly TableGrant[], policies = "") {
  const grant = grantOf(tables);
  const operatorPolicies = readOperatorPolicies(policies === "" ? [] : [{ file: "policies.cedar", text: policies }]);
  return { grant, set: compilePolicySet({ grant, principal: agent, onBehalfOf: null, resource, operatorPolicies }) };
}

function decide(
  tables: readonly TableGrant[],
  effects: readonly Effect[],
  changes: Partial<PolicyInput> = {},
): PolicyVerdict {
  const { grant, set } = setOf(tables);
  return set.evaluate(inputOf(grant, effects, changes));
}

const worldArbitrary = fc.record({
  tables: fc.array(tableGrantArbitrary, { maxLength: 5 }),
  rules: fc.subarray([...operatorRules], { maxLength: 2 }),
  delegated: fc.boolean(),
  commands: fc.array(
    fc.record({
      kind: statementKindArbitrary,
      effects: fc.array(effectArbitrary, { maxLength: 3 }),
      nowMs: fc.oneof(
        { weight: 8, arbitrary: fc.constant(beforeExpiryMs) },
        { weight: 2, arbitrary: fc.integer({ min: expiresAtMs - 1002, max: expiresAtMs + 2 }) },
      ),
      agentStatus: fc.oneof({ weight: 9, arbitrary: fc.constant("active" as const) }, fc.constant("disabled" as const)),
      bobStatus: fc.oneof({ weight: 9, arbitrary: fc.constant("active" as const) }, fc.constant("disabled" as const)),
      agentExpiresAtMs: fc.oneof({ weight: 9, arbitrary: fc.constant(agent.expiresAtMs) }, fc.constant(beforeExpiryMs)),
      state: fc.oneof(
        { weight: 9, arbitrary: fc.constant("active" as const) },
        fc.constantFrom("pending" as const, "ended" as const),
      ),
    }),
    { minLength: 1, maxLength: 6 },
  ),
});

describe("a policy set", () => {
  test("decides as the slow, obvious version does, over commands in any order", () => {
    let allowed = 0;
    let denied = 0;
    fc.assert(
      fc.property(worldArbitrary, ({ tables, rules, delegated, commands }) => {
        const grant = grantOf(tables, delegated ? { onBehalfOfId: bob.id } : {});
        const set = compilePolicySet({
          grant,
          principal: agent,
          onBehalfOf: delegated ? bob : null,
          resource,
          operatorPolicies: readOperatorPolicies(rules.map(({ id: file, text }) => ({ file, text }))),
        });
        for (const command of commands) {
          const input = inputOf({ ...grant, state: command.state }, command.effects, {
            kind: command.kind,
            nowMs: command.nowMs,
            principal: { ...agent, status: command.agentStatus, expiresAtMs: command.agentExpiresAtMs },
            onBehalfOf: delegated ? { ...bob, status: command.bobStatus } : null,
          });
          const expected = oracleAllows(input, rules);
          const verdict = set.evaluate(input);
          expect(verdict.effect).toBe(expected ? "allow" : "deny");
          expect(verdict.effect === "deny" ? verdict.code : "").not.toBe("policy.error");
          // Asked again, from memory, the answer is the same.
          expect(set.evaluate(input)).toStrictEqual(verdict);
          allowed += expected ? 1 : 0;
          denied += expected ? 0 : 1;
        }
      }),
      { numRuns: 150 },
    );
    // Neither side of the comparison was idle.
    expect(Math.min(allowed, denied)).toBeGreaterThan(50);
  });

  test("never allows more when a line is taken out of the grant", () => {
    fc.assert(
      fc.property(
        fc.array(tableGrantArbitrary, { minLength: 1, maxLength: 4 }),
        fc.nat(3),
        fc.array(effectArbitrary, { minLength: 1, maxLength: 2 }),
        (tables, which, effects) => {
          const fewer = tables.toSpliced(which % tables.length, 1);
          const isAllowedWithFewer = decide(fewer, effects).effect === "allow";
          expect(isAllowedWithFewer && decide(tables, effects).effect === "deny").toBe(false);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("never allows more when an operator's policy is added", () => {
    const withPolicy = operatorRules.map(({ text }) => setOf([table("public.customers", ["select"])], text));
    const without = setOf([table("public.customers", ["select"])]);
    fc.assert(
      fc.property(fc.array(effectArbitrary, { maxLength: 2 }), statementKindArbitrary, (effects, kind) => {
        for (const { grant, set } of withPolicy) {
          const input = inputOf(grant, effects, { kind });
          expect(set.evaluate(input).effect === "allow" && without.set.evaluate(input).effect === "deny").toBe(false);
        }
      }),
      { numRuns: 60 },
    );
  });

  test("denies every table when the grant has none, and still lets a client look around", () => {
    expect(decide([], [read("public.customers", "id")])).toMatchObject({ effect: "deny", code: "grant.no-table" });
    expect(decide([], [{ kind: "catalog", relation: "pg_catalog.pg_class" }])).toStrictEqual({
      effect: "allow",
      policies: ["base:catalog", "base:statement"],
    });
  });

  test("asks about the command itself when it has no effects", () => {
    expect(decide([], [])).toStrictEqual({ effect: "allow", policies: ["base:statement"] });
    expect(decide([], [], { kind: "transaction" })).toStrictEqual({ effect: "allow", policies: ["base:transaction"] });
  });

  test("names the policies that determined an allow, sorted, each once", () => {
    const verdict = decide(
      [table("public.invoices", ["select"]), table("public.customers", ["select", "update"], ["id", "email"])],
      [
        read("public.invoices", "id"),
        read("public.customers", "id"),
        write("update", "public.customers", "email"),
        read("public.invoices", "total"),
      ],
      { kind: "update" },
    );
    expect(verdict).toStrictEqual({
      effect: "allow",
      policies: [
        "base:statement",
        "grant:grt_g1:public.customers:select",
        "grant:grt_g1:public.customers:update",
        "grant:grt_g1:public.invoices:select",
      ],
    });
  });
});

describe("expiry", () => {
  test("is exact to the millisecond, before and after a verdict is remembered", () => {
    const { grant, set } = setOf([table("public.customers", ["select"])]);
    const at = (nowMs: number) => set.evaluate(inputOf(grant, [read("public.customers", "id")], { nowMs })).effect;
    expect([at(expiresAtMs), at(expiresAtMs - 1), at(expiresAtMs), at(expiresAtMs - 1)]).toStrictEqual([
      "deny",
      "allow",
      "deny",
      "allow",
    ]);
  });

  test("of the principal ends what the grant still allows", () => {
    const { grant, set } = setOf([table("public.customers", ["select"])]);
    const shortLived = { ...agent, expiresAtMs: beforeExpiryMs };
    const at = (nowMs: number) =>
      set.evaluate(inputOf(grant, [read("public.customers", "id")], { nowMs, principal: shortLived }));
    expect(at(beforeExpiryMs - 1).effect).toBe("allow");
    expect(at(beforeExpiryMs)).toMatchObject({
      effect: "deny",
      code: "principal.expired",
      policies: ["base:principal-expired"],
    });
  });

  test("brought forward after compiling counts at once", () => {
    const { grant, set } = setOf([table("public.customers", ["select"])]);
    const sooner = { ...grant, expiresAtMs: beforeExpiryMs };
    expect(set.evaluate(inputOf(grant, [read("public.customers", "id")])).effect).toBe("allow");
    expect(set.evaluate(inputOf(sooner, [read("public.customers", "id")]))).toMatchObject({ code: "grant.expired" });
  });

  test("put off after compiling gives nothing: the compiled deadline stands", () => {
    const { grant, set } = setOf([table("public.customers", ["select"])]);
    const later = { ...grant, expiresAtMs: expiresAtMs + 10_000 };
    const verdict = set.evaluate(inputOf(later, [read("public.customers", "id")], { nowMs: expiresAtMs }));
    expect(verdict).toMatchObject({ effect: "deny", code: "policy.no-permit" });
  });
});

describe("an operator's policy that looks at the clock", () => {
  test("is asked each time, whatever was answered before", () => {
    const late = operatorRules.find(({ id: ruleId }) => ruleId === "late");
    const { grant, set } = setOf([table("public.customers", ["select"])], late?.text);
    const at = (nowMs: number) => set.evaluate(inputOf(grant, [read("public.customers", "id")], { nowMs })).effect;
    expect([expiresAtMs - 1001, expiresAtMs - 1000, expiresAtMs - 1001].map(at)).toStrictEqual([
      "allow",
      "deny",
      "allow",
    ]);
  });
});

describe("what ends rights", () => {
  test("a revoked grant denies although a verdict was remembered, and says why", () => {
    const { grant, set } = setOf([table("public.customers", ["select"])]);
    expect(set.evaluate(inputOf(grant, [read("public.customers", "id")])).effect).toBe("allow");
    const revoked = {
      ...grant,
      state: "ended",
      end: { how: "revoked", reason: "ticket closed", atMs: beforeExpiryMs },
    } as const;
    expect(set.evaluate(inputOf(revoked, [read("public.customers", "id")]))).toStrictEqual({
      effect: "deny",
      code: "grant.revoked",
      reason: `the grant was revoked at ${new Date(beforeExpiryMs).toISOString()}: ticket closed`,
      nextStep: "Ask for a new grant for this task.",
      policies: ["base:grant-ended"],
    });
  });

  test("a disabled principal denies although a verdict was remembered", () => {
    const { grant, set } = setOf([table("public.customers", ["select"])]);
    const input = inputOf(grant, [read("public.customers", "id")]);
    expect(set.evaluate(input).effect).toBe("allow");
    expect(set.evaluate({ ...input, principal: { ...agent, status: "disabled" } })).toMatchObject({
      code: "principal.disabled",
      reason: "support-copilot is disabled",
    });
  });

  test("disabling the person disables the agent that acts for them", () => {
    const grant = grantOf([table("public.customers", ["select"])], { onBehalfOfId: bob.id });
    const set = compilePolicySet({ grant, principal: agent, onBehalfOf: bob, resource, operatorPolicies: [] });
    const input = inputOf(grant, [read("public.customers", "id")], { onBehalfOf: bob });
    expect(set.evaluate(input).effect).toBe("allow");
    expect(set.evaluate({ ...input, onBehalfOf: { ...bob, status: "disabled" } })).toMatchObject({
      code: "principal.disabled",
      reason: "bob is disabled",
    });
  });
});

describe("a denial in plain words", () => {
  const tables = [table("public.customers", ["select", "update"], ["id", "email"])];

  test.each([
    [read("public.payment_methods", "pan"), "grant.no-table", "no grant covers `payment_methods`"],
    [read("audit.log", "id"), "grant.no-table", "no grant covers `audit.log`"],
    [read("public.customers", "id", "ssn"), "grant.no-column", "`customers.ssn` isn't in the grant for select"],
    [
      read("public.customers", "ssn", "phone"),
      "grant.no-column",
      "`customers.ssn`, `customers.phone` aren't in the grant for select",
    ],
    [write("delete", "public.customers"), "grant.no-verb", "the grant gives select, update on `customers`, not delete"],
  ] as const)("%j is %s", (effect, code, reason) => {
    const verdict = decide(tables, [effect]);
    expect(verdict).toMatchObject({ effect: "deny", code, reason, policies: [] });
    expect(verdict.effect === "deny" && verdict.nextStep).toMatch(/^(Ask|Leave) .*\.$/);
  });

  test("an operator's forbid is named", () => {
    const { grant, set } = setOf([table("public.customers", ["select"])], operatorRules[1]?.text);
    expect(set.evaluate(inputOf(grant, [read("public.customers", "ssn")]))).toMatchObject({
      code: "policy.forbidden",
      reason: "select on `customers` is forbidden by policy no-ssn",
      policies: ["no-ssn"],
    });
  });
});

describe("an evaluation that goes wrong", () => {
  const overflow = '@id("overflow") forbid(principal, action, resource) when { context.now * 9007199254740991 > 0 };';

  test("denies when the erring policy is a forbid, which the engine itself would skip", () => {
    const { grant, set } = setOf([table("public.customers", ["select"])], overflow);
    expect(set.evaluate(inputOf(grant, [read("public.customers", "id")]))).toMatchObject({
      effect: "deny",
      code: "policy.error",
      policies: ["overflow"],
    });
  });

  test.each([[Number.NaN], [1.5], [2 ** 70], [Number.POSITIVE_INFINITY]])("denies at the time %d", (nowMs) => {
    const verdict = decide([table("public.customers", ["select"])], [read("public.customers", "id")], { nowMs });
    expect(verdict.effect).toBe("deny");
  });

  test("denies a name that cannot be written down", () => {
    expect(decide([], [{ kind: "call", function: "\ud800" }]).effect).toBe("deny");
  });

  test("denies what is asked of another grant's policies, or for another principal", () => {
    const { grant, set } = setOf([table("public.customers", ["select"])]);
    const input = inputOf(grant, [read("public.customers", "id")]);
    const other = { ...grant, id: id("grt", "g2") };
    expect(set.evaluate({ ...input, grant: other })).toMatchObject({ code: "policy.error" });
    expect(set.evaluate({ ...input, principal: bob })).toMatchObject({ code: "policy.error" });
    expect(set.evaluate({ ...input, onBehalfOf: bob })).toMatchObject({ code: "policy.error" });
    expect(set.evaluate({ ...input, resource: { id: id("res", "b2"), name: "billing" } })).toMatchObject({
      code: "policy.error",
    });
  });

  test("a grant is not compiled for somebody else", () => {
    const grant = grantOf([]);
    expect(() => compilePolicySet({ grant, principal: bob, onBehalfOf: null, resource, operatorPolicies: [] })).toThrow(
      InvariantError,
    );
    expect(() =>
      compilePolicySet({ grant, principal: agent, onBehalfOf: bob, resource, operatorPolicies: [] }),
    ).toThrow(InvariantError);
  });

  test("a name with a dot is refused, since two relations could share its key", () => {
    expect(() => setOf([{ schema: "a.b", table: "c", verbs: ["select"], columns: "all" }])).toThrow(/contains a dot/);
  });
});

describe("the hash", () => {
  test("is that of the policies' texts, and changes with any of them", () => {
    const { set } = setOf([table("public.customers", ["select"])]);
    expect(set.hash).toMatch(/^[0-9a-f]{64}$/);
    expect(policySetHash(set.policies)).toBe(set.hash);
    expect(setOf([table("public.customers", ["select"])]).set.hash).toBe(set.hash);
    expect(setOf([table("public.customers", ["select"], ["id"])]).set.hash).not.toBe(set.hash);
    expect(setOf([table("public.customers", ["select"])], operatorRules[0]?.text).set.hash).not.toBe(set.hash);
  });

  test("does not depend on comments and spacing of an operator's file", () => {
    const plain = setOf([], operatorRules[0]?.text).set.hash;
    const spaced = setOf([], `// why\n${operatorRules[0]?.text.replaceAll(" ", "\n  ")} // end`).set.hash;
    expect(spaced).toBe(plain);
  });
});

describe("the engine's table of parsed sets", () => {
  test("never answers for one set by another, also when there are more sets than it holds", () => {
    const tables = Array.from({ length: limits.policySetsMax + 20 }, (_, i) => `public.t${i}`);
    const sets = tables.map((name) => setOf([table(name, ["select"])]));
    for (const round of [0, 1]) {
      sets.forEach(({ grant, set }, i) => {
        const own = tables[i] ?? "";
        const next = tables[(i + 1 + round) % tables.length] ?? "";
        expect(set.evaluate(inputOf(grant, [read(own, `c${round}`)])).effect).toBe("allow");
        expect(set.evaluate(inputOf(grant, [read(next, `c${round}`)])).effect).toBe("deny");
      });
    }
  });
});
