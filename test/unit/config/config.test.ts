import { mkdtemp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadConfig } from "#config.ts";
import { loadControlPlace } from "#config-place.ts";
import { ConfigError, configBytesMax } from "#config-problems.ts";
import { configJsonSchema } from "#config-schema.ts";
import { environment, example, nowMs, parse, problemsOf, withLine } from "./example.ts";

describe("a configuration that is right", () => {
  test("becomes what it says, with names, times and paths resolved", () => {
    const config = parse(example);
    expect(config).toMatchObject({
      file: "/nowhere/sallyport.yaml",
      node: { name: "billing-gw" },
      listen: { postgres: { host: "127.0.0.1", port: 7432 }, control: { host: "127.0.0.1", port: 7400 } },
      directory: "/nowhere/.sallyport",
      state: { kind: "embedded" },
      principals: [
        { kind: "human", name: "bob", status: "active" },
        { kind: "agent", name: "support-copilot", owner: "bob", status: "active", expiresAtMs: Date.UTC(2027, 5, 30) },
      ],
      masks: [
        { ruleId: "mask.pii.email", label: "pii.email", operator: { kind: "email" } },
        { ruleId: "mask.pii.ssn", label: "pii.ssn", operator: { kind: "partial", keepLast: 4 } },
      ],
      grants: [
        {
          principal: "support-copilot",
          onBehalfOf: null,
          resource: "billing",
          task: { title: "T-88 charged twice", ticket: "T-88", purpose: "find the second charge" },
          expiresAtMs: Date.UTC(2026, 11, 20),
          tables: [
            { schema: "public", table: "customers", verbs: ["select"], columns: ["id", "name", "email"] },
            { schema: "public", table: "invoices", verbs: ["select", "update"], columns: "all" },
          ],
          line: 18,
        },
      ],
      policies: [],
    });
    expect(config.resources).toMatchObject([
      {
        name: "billing",
        login: { host: "127.0.0.1", port: 5432, database: "billing", user: "provisioner" },
        labels: [
          { schema: "public", table: "customers", column: "email", label: "pii.email" },
          { schema: "public", table: "customers", column: "ssn", label: "pii.ssn" },
        ],
      },
    ]);
  });

  test("keeps its secrets to itself, however it is printed", () => {
    const config = parse(example);
    for (const text of [
      inspect(config, { depth: 9 }),
      JSON.stringify(config),
      String(config.resources[0]?.login.password),
    ]) {
      expect(text).not.toContain("s3cret");
    }
    expect(config.resources[0]?.login.password?.reveal()).toBe("s3cret");
  });

  test("needs only a version and a name", () => {
    const config = parse("version: 1\nnode: { name: a }\n");
    expect(config).toMatchObject({ principals: [], resources: [], grants: [], directory: "/nowhere/.sallyport" });
    expect(config.listen.control.port).toBe(7400);
  });

  test("may name columns in quotes, as PostgreSQL does", () => {
    const config = parse(
      withLine(13, `    labels: { 'public."Kunden""x"."e.mail"': pii.email, public.customers.ssn: pii.ssn }`),
    );
    expect(config.resources[0]?.labels[0]).toMatchObject({ table: 'Kunden"x', column: "e.mail" });
  });

  test("may write the mask `null` with and without quotes", () => {
    for (const word of ["null", '"null"']) {
      expect(parse(withLine(15, `  - { label: pii.email, operator: ${word} }`)).masks[0]?.operator).toEqual({
        kind: "null",
      });
    }
  });
});

describe("where the databases are", () => {
  test("SALLYPORT_DATABASE_URL stands in for the embedded server", () => {
    const config = parse(example, { SALLYPORT_DATABASE_URL: "postgres://me:pw@localhost/state" });
    expect(config.state).toMatchObject({
      kind: "server",
      from: "environment",
      login: { host: "localhost", port: 5432, database: "state", user: "me" },
    });
  });

  test("a state URL in the configuration counts more", () => {
    const text = withLine(5, 'state: { url: "${env:STATE_URL}" }');
    const config = parse(text, {
      STATE_URL: "postgresql://a@[::1]:6000/b",
      SALLYPORT_DATABASE_URL: "postgres://me:pw@localhost/state",
    });
    expect(config.state).toMatchObject({
      kind: "server",
      from: "config",
      login: { host: "::1", port: 6000, password: null },
    });
  });

  test("a part of a URL may be a reference, and is encoded where it is put", () => {
    const text = withLine(12, "    url: postgresql://provisioner:${env:PW}@127.0.0.1:5433/billing");
    const login = parse(text, { PW: "a/b@c%d:e" }).resources[0]?.login;
    expect(login?.password?.reveal()).toBe("a/b@c%d:e");
    expect(login).toMatchObject({ port: 5433, database: "billing" });
  });

  test.each([
    ["an inline password", "postgresql://a:hunter2@127.0.0.1/billing", "the password is written out"],
    [
      "a password that is partly a reference",
      "postgresql://a:hunter2${env:BILLING_DATABASE_URL}@127.0.0.1/billing",
      "written out",
    ],
    ["another host", "postgresql://a@db.internal/billing", "loopback"],
    ["another host that looks like loopback", "postgresql://a@127.0.0.1.evil.example/billing", "loopback"],
    ["another protocol", "mysql://a@127.0.0.1/billing", "not a PostgreSQL URL"],
    ["no database", "postgresql://a@127.0.0.1", "names no database"],
    ["no user", "postgresql://127.0.0.1/billing", "names no user"],
    ["TLS", "postgresql://a@127.0.0.1/billing?sslmode=require", "TLS"],
    ["an option", "postgresql://a@127.0.0.1/billing?options=-csearch_path%3Devil", "parameter"],
    ["a password as a parameter", "postgresql://a@127.0.0.1/billing?password=hunter2", "parameter"],
    ["no URL", "billing", "not a PostgreSQL URL"],
    ["a reference of no kind", "${vault:billing}", "reference is of no known kind"],
    ["a variable that is not set", "${env:NOT_SET}", "NOT_SET is not set"],
    ["a file that is not there", "${file:secrets/none}", "cannot be read"],
    ["a broken escape", "postgresql://a%zz@127.0.0.1/billing", "%"],
  ])("%s is refused at its line, and not repeated", (_, url, message) => {
    const [problem, ...more] = problemsOf(withLine(12, `    url: "${url}"`));
    expect(more).toEqual([]);
    expect(problem).toMatchObject({
      line: 12,
      column: 10,
      path: "resources[0].url",
      message: expect.stringContaining(message),
    });
    expect(JSON.stringify(problem)).not.toContain("hunter2");
  });

  test("the value of a reference is not repeated either", () => {
    const [problem] = problemsOf(example, { BILLING_DATABASE_URL: "postgresql://a:hunter2@elsewhere/x" });
    expect(problem).toMatchObject({ line: 12 });
    expect(JSON.stringify(problem)).not.toContain("hunter2");
  });
});

describe("every mistake names its line, its column and its fix", () => {
  const mistakes: readonly (readonly [
    string,
    number,
    string,
    { readonly line?: number; readonly column: number; readonly message: string; readonly fix: string },
  ])[] = [
    [
      "an unknown key",
      3,
      "listne: { postgres: 127.0.0.1:7432 }",
      { column: 1, message: "unknown key `listne`", fix: "did you mean `listen`?" },
    ],
    [
      "an unknown key inside",
      3,
      "listen: { postgres: 127.0.0.1:7432, controll: x }",
      { column: 37, message: "`controll`", fix: "`control`" },
    ],
    [
      "an unknown key in a list",
      8,
      "  - { name: x, kind: agent, owner: bob, expire: 2027-06-30T00:00:00Z }",
      { column: 41, message: "unknown key `expire`", fix: "`expires`" },
    ],
    [
      "an unknown key like no other",
      5,
      "zebra: 1",
      { column: 1, message: "`zebra`", fix: "known here: version, node" },
    ],
    ["a key that is there twice", 5, "version: 1", { column: 1, message: "twice", fix: "keep one" }],
    ["another version", 1, "version: 2", { column: 10, message: "2 is not known", fix: "use 1" }],
    ["a version in quotes", 1, 'version: "1"', { column: 10, message: '"1" is not known', fix: "use 1" }],
    ["no name", 2, "node: {}", { column: 7, message: "`name` is missing", fix: "add `name: …`" }],
    [
      "a name with capitals",
      2,
      "node: { name: Billing }",
      { column: 15, message: '"Billing" does not fit', fix: "a-z" },
    ],
    [
      "a number as a name",
      2,
      "node: { name: 12 }",
      { column: 15, message: "12 is not a string", fix: 'put it in quotes: "12"' },
    ],
    [
      "a list as a block",
      2,
      "node: [a]",
      { column: 7, message: "this list is not a block of keys", fix: "write a block of keys" },
    ],
    ["a key without a value", 2, "node:", { column: 1, message: "`node` has no value", fix: "give it a value" }],
    ["a tab", 2, "node:\n\tname: x", { line: 3, column: 1, message: "tab", fix: "spaces" }],
    ["an open bracket", 2, "node: { name: x", { line: 3, column: 1, message: "still open", fix: "close it" }],
    [
      "a text that YAML reads as more",
      20,
      "    task: { title: T-88: twice }",
      { column: 20, message: "not valid YAML", fix: "quote" },
    ],
    [
      "an alias",
      2,
      "node: &n { name: x }\nlisten: *n",
      { line: 3, column: 9, message: "alias", fix: "write the value out" },
    ],
    ["a tag", 2, "node: !secret { name: x }", { column: 7, message: "tag", fix: "`!`" }],
    [
      "a second document",
      2,
      "node: { name: x }\n---\na: 1",
      { line: 3, column: 1, message: "more than one document", fix: "`---`" },
    ],
    [
      "all addresses",
      3,
      "listen: { postgres: 0.0.0.0:7432 }",
      { column: 21, message: "0.0.0.0 is not a loopback address; without TLS", fix: "127.0.0.1" },
    ],
    [
      "a name as an address",
      3,
      "listen: { postgres: gw.example:7432 }",
      { column: 21, message: "not a loopback", fix: "127.0.0.1" },
    ],
    ["no port", 3, "listen: { postgres: 127.0.0.1 }", { column: 21, message: "does not fit", fix: "127.0.0.1:7432" }],
    [
      "a port out of range",
      3,
      "listen: { postgres: 127.0.0.1:70000 }",
      { column: 21, message: "port", fix: "free port" },
    ],
    [
      "one port twice",
      3,
      "listen: { postgres: 127.0.0.1:7400 }",
      { column: 9, message: "same port", fix: "of its own" },
    ],
    [
      "a state that is neither",
      5,
      "state: { embedded: false }",
      { column: 8, message: "neither form", fix: "embedded: true" },
    ],
    [
      "a kind of principal",
      7,
      "  - { name: bob, kind: robot }",
      { column: 24, message: '"robot" is not known', fix: "human, agent, service" },
    ],
    [
      "an agent without an owner",
      8,
      "  - { name: x, kind: agent, expires: 2027-06-30T00:00:00Z }",
      { column: 5, message: "`owner` is missing", fix: "owner" },
    ],
    [
      "an agent without an end",
      8,
      "  - { name: x, kind: agent, owner: bob }",
      { column: 5, message: "`expires` is missing", fix: "expires" },
    ],
    [
      "a human with an end",
      7,
      "  - { name: bob, kind: human, expires: 2027-06-30T00:00:00Z }",
      { column: 31, message: "unknown key `expires`", fix: "remove it" },
    ],
    [
      "a time without a zone",
      21,
      "    expires: 2026-12-20T00:00:00",
      { column: 14, message: "does not fit", fix: "a time with its zone" },
    ],
    ["a day", 21, "    expires: 2026-12-20", { column: 14, message: "does not fit", fix: "2026-12-31T18:00:00Z" }],
    ["a kind of resource", 11, "    kind: mysql", { column: 11, message: '"mysql" is not known', fix: '"postgres"' }],
    [
      "a label that is no column",
      13,
      "    labels: { customers.email: pii.email, public.customers.ssn: pii.ssn, public.customers.mail: pii.email }",
      { column: 15, message: "does not name a column", fix: "schema.table.column" },
    ],
    [
      "a label on a folded name",
      13,
      "    labels: { public.Customers.email: pii.email, public.customers.ssn: pii.ssn }",
      { column: 15, message: "does not name a column", fix: "double quotes" },
    ],
    [
      "an operator like another",
      15,
      "  - { label: pii.email, operator: emial }",
      { column: 35, message: '"emial"', fix: "did you mean email?" },
    ],
    [
      "an operator's option that is missing",
      16,
      "  - { label: pii.ssn, operator: partial }",
      { column: 5, message: "`keepLast` is missing", fix: "keepLast" },
    ],
    [
      "an operator's option that is another's",
      15,
      "  - { label: pii.email, operator: email, keepLast: 4 }",
      { column: 42, message: "unknown key `keepLast`", fix: "remove it" },
    ],
    [
      "an operator's option out of range",
      16,
      "  - { label: pii.ssn, operator: partial, keepLast: -1 }",
      { column: 52, message: "-1", fix: "at least 0" },
    ],
    [
      "a mask for no label",
      15,
      "  - { label: pii.emial, operator: email }\n  - { label: pii.email, operator: email }",
      { column: 14, message: "no column has the label pii.emial", fix: "did you mean pii.email?" },
    ],
    [
      "two masks for one label",
      15,
      "  - { label: pii.email, operator: email }\n  - { label: pii.email, operator: redact }",
      { line: 16, column: 14, message: "already", fix: "one mask" },
    ],
    [
      "a label without a mask",
      15,
      "",
      { line: 13, column: 39, message: "no mask covers the label pii.email", fix: "operator: redact" },
    ],
    [
      "no verb",
      23,
      "      - { table: public.customers, verbs: [], columns: all }",
      { column: 43, message: "this list is too short", fix: "at least 1" },
    ],
    [
      "an unknown verb",
      23,
      "      - { table: public.customers, verbs: [select, drop], columns: all }",
      { column: 52, message: '"drop" is not known', fix: '"select", "insert", "update", "delete"' },
    ],
    [
      "a verb twice",
      23,
      "      - { table: public.customers, verbs: [select, select], columns: all }",
      { column: 52, message: "already", fix: "once" },
    ],
    [
      "no columns",
      23,
      "      - { table: public.customers, verbs: [select], columns: [] }",
      { column: 62, message: "this list is too short", fix: "at least 1" },
    ],
    [
      "a star for columns",
      23,
      '      - { table: public.customers, verbs: [select], columns: "*" }',
      { column: 62, message: '"*" does not fit', fix: "`all`" },
    ],
    [
      "a column twice",
      23,
      "      - { table: public.customers, verbs: [select], columns: [id, id] }",
      { column: 67, message: "id is there already", fix: "once" },
    ],
    [
      "no column list",
      23,
      "      - { table: public.customers, verbs: [select] }",
      { column: 9, message: "`columns` is missing", fix: "columns" },
    ],
    [
      "a table without its schema",
      23,
      "      - { table: customers, verbs: [select], columns: all }",
      { column: 18, message: "does not name a table", fix: "schema.table" },
    ],
    [
      "a table twice",
      24,
      "      - { table: public.customers, verbs: [select], columns: all }",
      { column: 18, message: "already", fix: "together" },
    ],
    [
      "a task without a title",
      20,
      "    task: { ticket: T-88 }",
      { column: 11, message: "`title` is missing", fix: "title" },
    ],
    [
      "a ticket that is a number",
      20,
      "    task: { title: x, ticket: 88 }",
      { column: 31, message: "88 is not a string", fix: '"88"' },
    ],
    [
      "a policy that is not there",
      25,
      "policies: [none.cedar]",
      { column: 12, message: "cannot be read", fix: "relative" },
    ],
  ];

  test.each(mistakes)("%s", (_, line, replacement, expected) => {
    const problems = problemsOf(withLine(line, replacement));
    expect(problems).toContainEqual({
      line: expected.line ?? line,
      column: expected.column,
      path: expect.any(String),
      message: expect.stringContaining(expected.message),
      fix: expect.stringContaining(expected.fix),
    });
  });

  test.each(["token", "pseudonym", "ff1", "encrypt"])("the keyed operator %s comes later", (operator) => {
    const [problem] = problemsOf(withLine(15, `  - { label: pii.email, operator: ${operator} }`));
    expect(problem).toMatchObject({ line: 15, message: `the operator ${operator} needs a key and comes later` });
  });

  test("all of them at once, in the order of the file", () => {
    const problems = problemsOf(
      withLine(8, "  - { name: bob, kind: agent, owner: bbo, expires: 2027-06-30T00:00:00Z }").replace(
        "resource: billing",
        "resource: biling",
      ),
    );
    expect(problems.map((one) => [one.line, one.path])).toEqual([
      [8, "principals[1].name"],
      [8, "principals[1].owner"],
      [18, "grants[0].principal"],
      [19, "grants[0].resource"],
    ]);
  });

  test("the message holds file, line, column, path and fix, for a person", () => {
    expect(() => parse(withLine(3, "listne: {}"))).toThrow(
      "sallyport.yaml:3:1: listne: unknown key `listne`\n  fix: did you mean `listen`?",
    );
  });
});

describe("a grant that can never match is refused at its line", () => {
  test.each([
    ["it has expired", 21, "    expires: 2026-11-22T11:59:59Z", "has expired"],
    ["it expires now", 21, "    expires: 2026-11-22T13:00:00+01:00", "has expired"],
    ["nobody is its principal", 18, "  - principal: support-copliot", "no principal support-copliot"],
    ["nothing is its resource", 19, "    resource: billling", "no resource billling"],
    ["it lives too long", 21, "    expires: 2027-03-01T00:00:00Z", "at most 30 days"],
  ])("because %s", (_, line, replacement, message) => {
    expect(problemsOf(withLine(line, replacement))).toMatchObject([
      { line, message: expect.stringContaining(message) },
    ]);
  });

  test("because its principal has expired", () => {
    const [problem] = problemsOf(
      withLine(8, "  - { name: support-copilot, kind: agent, owner: bob, expires: 2026-01-01T00:00:00Z }"),
    );
    expect(problem).toMatchObject({ line: 18, message: expect.stringContaining("has expired") });
  });

  test("because an agent would act for a principal who is no human", () => {
    const [problem] = problemsOf(withLine(19, "    resource: billing\n    onBehalfOf: support-copilot"));
    expect(problem).toMatchObject({ line: 20, path: "grants[0].onBehalfOf" });
    expect(parse(withLine(19, "    resource: billing\n    onBehalfOf: bob")).grants[0]?.onBehalfOf).toBe("bob");
  });

  test("because another grant has its principal, resource and task", () => {
    const grant = example.split("\n").slice(17, 24).join("\n");
    const [problem] = problemsOf(example.replace("policies: []", `${grant}\npolicies: []`));
    expect(problem).toMatchObject({ line: 27, path: "grants[1].task.title" });
  });

  test("an owner must be a human, and there", () => {
    const [problem] = problemsOf(
      withLine(8, "  - { name: support-copilot, kind: agent, owner: support-copilot, expires: 2027-06-30T00:00:00Z }"),
    );
    expect(problem).toMatchObject({ line: 8, message: "the owner support-copilot is not a human" });
  });
});

describe("hostile files", () => {
  test("one that is too large is refused before it is parsed", () => {
    const [problem] = problemsOf(`# ${"x".repeat(configBytesMax)}\n${example}`);
    expect(problem).toMatchObject({ line: 1, message: expect.stringContaining("larger than") });
  });

  test("a billion laughs is refused", () => {
    const laughs = `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c]\n`;
    expect(problemsOf(laughs)[0]?.message).toContain("alias");
  });

  test.each(["__proto__: { a: 1 }", "constructor: 1", "toString: 1"])("%s is an unknown key", (line) => {
    expect(problemsOf(withLine(5, line)).map((one) => one.line)).toContain(5);
    expect(({} as { readonly a?: number }).a).toBeUndefined();
  });

  test("an empty file, a list, a text and a number say what is missing or wrong", () => {
    for (const text of ["", "- a\n", "hello\n", "12\n", "null\n"]) {
      expect(problemsOf(text)[0]?.line).toBe(1);
    }
  });

  test("any text is either a configuration or a list of problems, never another failure", () => {
    const lines = example.split("\n");
    const mangled = fc
      .array(
        fc.tuple(fc.nat({ max: lines.length - 1 }), fc.oneof(fc.string({ maxLength: 40 }), fc.constantFrom(...lines))),
        { maxLength: 4 },
      )
      .map((changes) => changes.reduce((text, [line, replacement]) => text.with(line, replacement), lines).join("\n"));
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: "binary", maxLength: 200 }), mangled), (text) => {
        try {
          parse(text);
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError);
          if (error instanceof ConfigError) {
            expect(error.problems.length).toBeGreaterThan(0);
            for (const problem of error.problems) {
              expect(problem.line).toBeGreaterThanOrEqual(1);
              expect(problem.column).toBeGreaterThanOrEqual(1);
              expect(problem.fix).not.toBe("");
            }
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("files around a configuration", () => {
  let directory = "";

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "sallyport config "));
    await mkdir(join(directory, "policies"));
    await mkdir(join(directory, "empty"));
    await writeFile(join(directory, "sallyport.yaml"), example);
    await writeFile(join(directory, "policies", "b.cedar"), "permit(principal, action, resource);");
    await writeFile(join(directory, "policies", "a.cedar"), "forbid(principal, action, resource);");
    await writeFile(join(directory, "policies", "notes.txt"), "no policy");
    await writeFile(join(directory, "url"), "postgresql://a:from-file@127.0.0.1/billing\n");
  });

  afterAll(() => rm(directory, { recursive: true }));

  test("a URL is read from a file next to it, without the line's end", () => {
    const config = parse(withLine(12, "    url: ${file:url}"), {}, directory);
    expect(config.resources[0]?.login.password?.reveal()).toBe("from-file");
  });

  test("a directory of policies is every .cedar file in it, by name", () => {
    const { policies } = parse(withLine(25, "policies: [policies/]"), {}, directory);
    expect(policies.map((one) => [one.path, one.text.slice(0, 6)])).toEqual([
      [join(directory, "policies", "a.cedar"), "forbid"],
      [join(directory, "policies", "b.cedar"), "permit"],
    ]);
  });

  test("a directory without policies is refused: it looks like rules and has none", () => {
    expect(problemsOf(withLine(25, "policies: [empty]"), {}, directory)).toMatchObject([
      { line: 25, message: expect.stringContaining("no *.cedar file") },
    ]);
  });

  test("a configuration that is not there says how to get one", () => {
    expect(() => loadConfig(join(directory, "none.yaml"), { environment, nowMs })).toThrow(
      expect.objectContaining({ code: "config.missing", nextStep: expect.stringContaining("sallyport init") }),
    );
  });

  test("a client finds the endpoint without the gateway's secrets, and in a configuration with mistakes elsewhere", async () => {
    expect(loadControlPlace(join(directory, "sallyport.yaml"))).toEqual({
      address: { host: "127.0.0.1", port: 7400 },
      directory: join(directory, ".sallyport"),
      tokenFile: join(directory, ".sallyport", "control-token"),
    });
    const file = join(directory, "partial.yaml");
    await writeFile(file, "listen: { control: localhost:7411 }\ngrants: 12\n");
    expect(loadControlPlace(file).address).toEqual({ host: "127.0.0.1", port: 7411 });
    await writeFile(file, "listen: { control: 0.0.0.0:7411 }\n");
    expect(() => loadControlPlace(file)).toThrow("partial.yaml:1:20");
  });
});

/**
 * When this fails, write it anew and format it:
 * `node -e 'import("./src/config-schema.ts").then((m) => process.stdout.write(m.configJsonSchema()))' > sallyport.schema.json`
 */
test("the committed JSON Schema is the one that is checked", async () => {
  const committed = await readFile(join(import.meta.dirname, "../../../sallyport.schema.json"), "utf8");
  expect(JSON.parse(committed)).toEqual(JSON.parse(configJsonSchema()));
});
