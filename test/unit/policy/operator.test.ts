import { validate } from "@cedar-policy/cedar-wasm/nodejs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SallyportError } from "#domain/errors.ts";
import { basePolicies } from "#policy/base.ts";
import { authorize, PolicySource } from "#policy/cedar.ts";
import { grantPolicies, verbRights } from "#policy/compile.ts";
import { readOperatorPolicies } from "#policy/operator.ts";
import { cedarRequest, questionsOf } from "#policy/requests.ts";
import { policySchema } from "#policy/schema.ts";
import { cedarString } from "#policy/text.ts";
import { agent, beforeExpiryMs, effectArbitrary, grantOf, resource, tableGrantArbitrary } from "./support.ts";

function refusal(text: string, file = "ops/policies.cedar"): string {
  try {
    readOperatorPolicies([{ file, text }]);
  } catch (error) {
    if (error instanceof SallyportError && error.code === "policy.invalid") {
      return error.message;
    }
    throw error;
  }
  return "accepted";
}

const sound = '@id("sound")\nforbid(principal, action == Action::"delete", resource);\n';

describe("an operator's policy", () => {
  test("is read with its id, in canonical form", () => {
    const [policy] = readOperatorPolicies([{ file: "a.cedar", text: `// why\n${sound}` }]);
    expect(policy).toMatchObject({ id: "sound", file: "a.cedar", dependsOnTime: false });
    expect(policy?.text).not.toContain("why");
  });

  test.each([
    ["does not parse", `${sound}forbid(principal, action resource);`, /^ops\/policies\.cedar:3: /],
    [
      "has an attribute that there is not",
      `// ä ö ü\n${sound}@id("x")\nforbid(principal, action, resource)\nwhen { principal.nme == "bob" };`,
      /^ops\/policies\.cedar:6: .*nme/,
    ],
    [
      "names an action that there is not",
      `${sound}@id("x") forbid(principal, action == Action::"truncate", resource);`,
      /:3: .*truncate/,
    ],
    [
      "reads an optional attribute unasked",
      '@id("x") forbid(principal, action, resource) when { principal.expiresAt < 3 };',
      /:1: .*optional/,
    ],
    [
      "is about no kind of object",
      `${sound}\n@id("x") forbid(principal is Grant, action, resource);`,
      /:4: .*unable to find an applicable action/,
    ],
    ["can never match", `@id("x") forbid(principal, action == Action::"call", resource is Table);`, /:1: /],
    ["can never be true", '@id("x") forbid(principal, action, resource) when { 1 == 2 };', /:1: .*impossible/],
    [
      "reads otherwise than it is",
      '@id("x") forbid(principal, action, resource) when { principal.name == "b\u202eob" };',
      /:1: .*BIDI/i,
    ],
    ["has no id", "forbid(principal, action, resource);", /a policy has no @id/],
    ["takes an id of ours", '@id("base:call") forbid(principal, action, resource);', /"base:call" is not a policy id/],
    ["permits", '@id("x") permit(principal, action, resource);', /"x" permits/],
    ["is a template", '@id("x") forbid(principal == ?principal, action, resource);', /includes a template/],
  ])("that %s is refused, with file and line where there is one", (_what, text, message) => {
    expect(refusal(text)).toMatch(message);
  });

  test("with a number that would be rounded on the way to canonical form is refused", () => {
    const text = '@id("x") forbid(principal, action, resource) when { context.now > 9007199254740993 };';
    expect(refusal(text)).toMatch(/beyond 2\^53/);
  });

  test("may be about a name in another script", () => {
    const text = '@id("x") forbid(principal, action, resource == Table::"public.顧客");';
    expect(readOperatorPolicies([{ file: "a", text }])).toHaveLength(1);
  });

  test("with the id of another is refused, also across files", () => {
    const files = [
      { file: "a.cedar", text: sound },
      { file: "b.cedar", text: sound },
    ];
    expect(() => readOperatorPolicies(files)).toThrow('b.cedar: policy "sound" is already in a.cedar');
  });

  test.each([
    ["context.now > 5", true],
    ['context has now && principal.name == "x"', true],
    ["context.grant.expiresAt - context.now > 5", true],
    ['if context.statement == "select" then context.now > 3 else false', true],
    ["context == context", true],
    ['context has onBehalfOf && context.onBehalfOf.name == "bob"', false],
    ['context.columns.contains("now")', false],
    ['context.grant.title like "*now*"', false],
    ["context.grant.createdAt > 5", false],
  ])("with %s looks at the clock: %s", (condition, expected) => {
    const text = `@id("x") forbid(principal, action, resource) when { ${condition} };`;
    expect(readOperatorPolicies([{ file: "a", text }])[0]?.dependsOnTime).toBe(expected);
  });
});

describe("our own policies", () => {
  test("validate against the schema without an error, whatever a grant holds", () => {
    fc.assert(
      fc.property(fc.array(tableGrantArbitrary, { maxLength: 4 }), (tables) => {
        const policies = [...basePolicies, ...grantPolicies(grantOf(tables), verbRights(tables))];
        const staticPolicies = Object.fromEntries(policies.map(({ id, text }) => [id, text]));
        const answer = validate({ schema: policySchema, policies: { staticPolicies } });
        expect(answer).toMatchObject({ type: "success", validationErrors: [], otherWarnings: [] });
        const warnings = answer.type === "success" ? answer.validationWarnings : [];
        expect(warnings.filter(({ error }) => !error.message.endsWith("mixed scripts"))).toStrictEqual([]);
      }),
      { numRuns: 30 },
    );
  });

  test("write any name as a string that reads back as that name", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), (name, other) => {
        const source = new PolicySource([
          {
            id: "same",
            text: `permit(principal, action, resource) when { ${cedarString(name)} == ${cedarString(other)} };`,
          },
        ]);
        const [question] = questionsOf("select", [], resource.id);
        const request = question && cedarRequest(asking(), question);
        expect(request && authorize(source, request).effect).toBe(name === other ? "allow" : "deny");
      }),
      {
        examples: [
          ['"', '\\"'],
          ["\\u{41}", "A"],
          ["a", "a"],
          ["\0", "\0"],
        ],
        numRuns: 50,
      },
    );
  });
});

describe("the engine's answer", () => {
  const [question] = questionsOf("select", [], resource.id);

  function answerOf(policies: Readonly<Record<string, string>>) {
    if (question === undefined) {
      throw new Error("no question");
    }
    const source = new PolicySource(Object.entries(policies).map(([id, text]) => ({ id, text })));
    return authorize(source, cedarRequest(asking(), question));
  }

  const permitAll = "permit(principal, action, resource);";
  const erring = "when { context.now * 9007199254740991 > 0 };";

  test("is a denial without any policy", () => {
    expect(answerOf({})).toStrictEqual({ effect: "deny", policies: [] });
  });

  test("is a failure when a permit errs, also beside a permit that does not", () => {
    expect(answerOf({ all: permitAll, erring: `permit(principal, action, resource) ${erring}` })).toMatchObject({
      effect: "failed",
      policies: ["erring"],
    });
  });

  test("is a failure when a forbid errs", () => {
    expect(answerOf({ all: permitAll, erring: `forbid(principal, action, resource) ${erring}` })).toMatchObject({
      effect: "failed",
    });
  });

  test("is a denial when one forbids and another permits", () => {
    expect(answerOf({ all: permitAll, none: "forbid(principal, action, resource);" })).toStrictEqual({
      effect: "deny",
      policies: ["none"],
    });
  });

  test("is a failure when the set does not parse, and the next set is not answered by it", () => {
    expect(answerOf({ broken: "permit(principal" })).toMatchObject({ effect: "failed" });
    expect(answerOf({ all: permitAll }).effect).toBe("allow");
    expect(answerOf({}).effect).toBe("deny");
  });

  test("never fails on a request that we make, whatever the effect", () => {
    const source = new PolicySource(basePolicies);
    fc.assert(
      fc.property(effectArbitrary, (effect) => {
        for (const asked of questionsOf("select", [effect], resource.id)) {
          expect(authorize(source, cedarRequest(asking(), asked)).effect).not.toBe("failed");
        }
      }),
      { numRuns: 50 },
    );
  });
});

function asking() {
  return {
    subject: agent,
    actor: agent,
    onBehalfOf: null,
    grant: grantOf([]),
    resource,
    kind: "select",
    nowMs: beforeExpiryMs,
  } as const;
}
