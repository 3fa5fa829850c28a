import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type ControlServer, startControlServer } from "#api/server.ts";
import { ensureNodeSecrets, loadControlToken, nodePlaces } from "#config-secrets.ts";
import { SallyportError } from "#domain/errors.ts";
import {
  type NotingControl,
  addedGrant,
  grantView,
  id,
  notingControl,
  sessionView,
  statusView,
} from "../api/control.ts";
import { type CliResult, type CliSurroundings, onlyObject, sallyport } from "./terminal.ts";

let directory = "";
let config = "";
let control: NotingControl;
let current: NotingControl;
let server: ControlServer;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "sallyport cli "));
  const state = join(directory, ".sallyport");
  await ensureNodeSecrets(state);
  const token = await loadControlToken(nodePlaces(state).controlToken);
  // One server for the file; each test has a control plane of its own behind it.
  const behind = new Proxy(notingControl(), { get: (_, name: keyof NotingControl) => current[name] });
  server = await startControlServer({
    control: behind,
    host: "127.0.0.1",
    port: 0,
    token: token.reveal(),
    onRefused: () => {},
    onInternalError: () => {},
  });
  config = join(directory, "sallyport.yaml");
  await writeFile(config, `version: 1\nnode: { name: test }\nlisten: { control: "127.0.0.1:${server.port}" }\n`);
});

afterAll(async () => {
  await server.close();
  await rm(directory, { recursive: true });
});

beforeEach(() => {
  control = notingControl();
  current = control;
});

const run = (given: readonly string[], surroundings?: CliSurroundings): Promise<CliResult> =>
  sallyport([...given, "-c", config], surroundings);
const add = ["grant", "add", "--principal", "support-copilot", "--resource", "billing", "--task", "T-88 charged twice"];
const whole = [...add, "--table", "public.customers:select:id,name,email", "--for", "30m"];

describe("grant add", () => {
  test("asks for what was written, and shows the password once, on standard output", async () => {
    const result = await run([...whole, "--table", 'public."Order Items":select,update:all', "--ticket", "T-88"]);
    expect(result.code).toBe(0);
    expect(result.out.match(/shown-once/g)).toHaveLength(1);
    expect(result.err).not.toContain("shown-once");
    expect(control.asked).toEqual([
      [
        "addGrant",
        {
          principal: "support-copilot",
          resource: "billing",
          task: { title: "T-88 charged twice", ticket: "T-88" },
          tables: [
            { schema: "public", table: "customers", verbs: ["select"], columns: ["id", "name", "email"] },
            { schema: "public", table: "Order Items", verbs: ["select", "update"], columns: "all" },
          ],
          lifetimeMs: 1_800_000,
        },
      ],
    ]);
  });

  test("a table without columns means all of them", async () => {
    const tables = ["--table", "public.invoices:select", "--table", 'public."A:B":insert,select'];
    expect((await run([...add, ...tables, "--for", "30m"])).code).toBe(0);
    expect(control.asked[0]?.[1]).toMatchObject({
      tables: [
        { schema: "public", table: "invoices", verbs: ["select"], columns: "all" },
        { schema: "public", table: "A:B", verbs: ["insert", "select"], columns: "all" },
      ],
    });
  });

  test("with --json is one object, the same as the gateway's", async () => {
    const result = await run([...whole, "--json"]);
    expect(onlyObject(result)).toEqual(addedGrant);
    expect(result.err).toBe("");
  });

  test("with --dry-run makes nothing, and says what it checked: how it is written, and the resource", async () => {
    const words = await run([...whole, "--dry-run"]);
    expect(words.out).toMatch(/^Not checked: the principal, the tables/m);
    control.asked.length = 0;
    const result = await run([...whole, "--dry-run", "--json"]);
    expect(onlyObject(result)).toMatchObject({
      dryRun: true,
      checked: ["syntax", "resource"],
      grant: { resource: "billing", lifetimeMs: 1_800_000 },
    });
    const elsewhere = await run([...whole.with(5, "biling"), "--dry-run"]);
    expect(elsewhere.code).toBe(1);
    expect(elsewhere.err).toContain("no resource biling");
    expect(control.asked).toEqual([["status"], ["status"]]);
  });

  test.each([
    ["no table", [...add, "--for", "30m"], "--table"],
    ["no duration", [...add, "--table", "a.b:select:all"], "--for"],
    ["a duration without a unit", [...add, "--table", "a.b:select:all", "--for", "30"], "30m"],
    ["a duration that is too long", [...add, "--table", "a.b:select:all", "--for", "31d"], "at most 30d"],
    ["a table without verbs", [...add, "--table", "a.b", "--for", "1m"], "schema.table:verbs:columns"],
    ["a third part that is empty", [...add, "--table", "a.b:select:", "--for", "1m"], "schema.table:verbs:columns"],
    ["a table without its schema", [...add, "--table", "b:select:all", "--for", "1m"], "schema.table"],
    ["an unknown verb", [...add, "--table", "a.b:drop:all", "--for", "1m"], "use select, insert, update, delete"],
    ["no verb", [...add, "--table", "a.b::all", "--for", "1m"], "has no verb"],
    ["a column that is no name", [...add, "--table", "a.b:select:id,,x", "--for", "1m"], "no name"],
    ["a column with a capital", [...add, "--table", "a.b:select:Id", "--for", "1m"], "no name"],
    ["a table twice", [...add, "--table", "a.b:select:all", "--table", "a.b:select:id", "--for", "1m"], "twice"],
    ["an unknown option", [...whole, "--forever"], "unknown option"],
    ["an operand", [...whole, "now"], "too many arguments"],
  ])("with %s is a usage error that says how, and asks the gateway nothing", async (_, given, words) => {
    const result = await run(given);
    expect(result.code).toBe(2);
    expect(result.out).toBe("");
    expect(result.err).toContain(words);
    expect(control.asked).toEqual([]);
  });
});

describe("grant ls", () => {
  test("shows what has not ended, and says how many have", async () => {
    const ended = {
      ...grantView,
      id: id("grt", "zz"),
      state: "ended" as const,
      end: { how: "revoked" as const, reason: "x", atMs: 1 },
    };
    control.listGrants = async () => [grantView, ended];
    const result = await run(["grant", "ls"]);
    expect(result.out).toContain("grt_a1b2c3");
    expect(result.out).not.toContain("grt_zz");
    expect(result.out).toContain("1 ended not shown");
    expect((await run(["grant", "ls", "--all"])).out).toContain("grt_zz");
  });

  test("with --json is one object; with --state the gateway is asked for that", async () => {
    expect(onlyObject(await run(["grant", "ls", "--state", "active", "--json"]))).toEqual({ grants: [grantView] });
    expect(control.asked).toEqual([["listGrants", { state: "active" }]]);
    expect((await run(["grant", "ls", "--state", "gone"])).code).toBe(2);
  });

  test("empty says what that means and what to do", async () => {
    control.listGrants = async () => [];
    expect((await run(["grant", "ls"])).out).toContain("sallyport grant add");
  });

  test("a name cannot steer the terminal", async () => {
    control.listGrants = async () => [{ ...grantView, task: "x\u001B[2J\u202Eevil\nnext" }];
    const { out } = await run(["grant", "ls"]);
    expect(out).not.toMatch(/[\u001B\u202E]/);
    expect(out.trimEnd().split("\n")).toHaveLength(2);
  });
});

describe("grant revoke", () => {
  const revoke = ["grant", "revoke", "a1b2", "--reason", "done"];

  test("takes as much of an id as is unambiguous, with --yes where nobody can be asked", async () => {
    for (const given of ["a1b2", "grt_a1b2c3", "grt_a"]) {
      expect(onlyObject(await run(["grant", "revoke", given, "--yes", "--json"]))).toMatchObject({
        grant: { state: "ended" },
      });
    }
    expect(control.asked.filter(([name]) => name === "revokeGrant")).toEqual(
      Array(3).fill(["revokeGrant", grantView.id, "revoked by the operator"]),
    );
  });

  test("without --yes and without a person is a usage error, and revokes nothing", async () => {
    for (const surroundings of [{}, { typed: "y\n" }]) {
      const result = await run([...revoke, "--no-input"], surroundings);
      expect(result.code).toBe(2);
      expect(result.err).toContain("--yes");
    }
    expect(control.asked.some(([name]) => name === "revokeGrant")).toBe(false);
  });

  test("asks a person, and only yes is yes", async () => {
    expect((await run(revoke, { typed: "y\n" })).code).toBe(0);
    expect(control.asked.at(-1)).toEqual(["revokeGrant", grantView.id, "done"]);
    control.asked.length = 0;
    const kept = await run(revoke, { typed: "\n" });
    expect(kept.code).toBe(1);
    expect(kept.err).toContain("nothing was revoked");
    expect(control.asked.some(([name]) => name === "revokeGrant")).toBe(false);
  });

  test("with --dry-run says which grant, and leaves it", async () => {
    expect(onlyObject(await run([...revoke, "--dry-run", "--json"]))).toEqual({ dryRun: true, grant: grantView });
    expect(control.asked).toEqual([["listGrants", {}]]);
  });

  test("an ambiguous start names the candidates, an unknown one says where to look", async () => {
    control.listGrants = async () => [grantView, { ...grantView, id: id("grt", "a1zz") }];
    const ambiguous = await run(["grant", "revoke", "a1", "--yes"]);
    expect(ambiguous.code).toBe(2);
    expect(ambiguous.err).toContain("several ids start with a1: grt_a1b2c3, grt_a1zz");
    const unknown = await run(["grant", "revoke", "zzz", "--yes", "--json"]);
    expect(unknown.code).toBe(1);
    expect(onlyObject(unknown)).toMatchObject({
      error: { code: "grant.unknown", nextStep: "sallyport grant ls --all" },
    });
    expect((await run(["grant", "revoke", "", "--yes"])).code).toBe(1);
  });

  test("of a grant that has ended says that it had, and changes nothing", async () => {
    const ended = { ...grantView, state: "ended" as const, end: { how: "expired" as const, reason: "x", atMs: 1 } };
    control.listGrants = async () => [ended];
    control.asked.length = 0;
    const result = await run(revoke);
    expect([result.code, result.out]).toEqual([0, expect.stringContaining("grt_a1b2c3 had ended already: expired")]);
    expect(onlyObject(await run([...revoke, "--yes", "--json"]))).toEqual({ grant: ended });
    expect(control.asked.some(([name]) => name === "revokeGrant")).toBe(false);
  });

  test("a grant that has ended does not make a start ambiguous", async () => {
    control.listGrants = async () => [{ ...grantView, id: id("grt", "a1zz"), state: "ended" }, grantView];
    expect((await run(["grant", "revoke", "a1", "--yes"])).code).toBe(0);
  });
});

describe("session ls and ledger status", () => {
  test("with --json are one object each", async () => {
    expect(onlyObject(await run(["session", "ls", "--json"]))).toEqual({ sessions: [sessionView] });
    expect(onlyObject(await run(["ledger", "status", "--json"]))).toEqual({ running: true, ledger: statusView.ledger });
  });

  test("a ledger that has failed is a failure", async () => {
    control.status = async () => ({
      ...statusView,
      ledger: { ...statusView.ledger, state: "failed", failure: "disk full" },
    });
    const result = await run(["ledger", "status"]);
    expect(result.code).toBe(1);
    expect(result.out).toContain("disk full");
  });
});

describe("doctor, of a node that runs", () => {
  const findingsOf = async (): Promise<readonly unknown[]> => {
    const { findings } = onlyObject(await run(["doctor", "--json"]));
    return Array.isArray(findings) ? findings : [];
  };
  const [resource] = statusView.resources;

  test("a resource that nobody has used yet is nothing to mend", async () => {
    control.status = async () => ({
      ...statusView,
      resources: resource === undefined ? [] : [{ ...resource, state: "unavailable", findings: ["not reached"] }],
    });
    const found = (await findingsOf()).filter((one) => JSON.stringify(one).includes("resource billing"));
    expect(found).toEqual([
      { area: "resource billing", verdict: "ok", found: "127.0.0.1:5432/billing: not used yet", fix: null },
    ]);
  });

  test("each right of PUBLIC has the fix that takes it away", async () => {
    control.status = async () => ({
      ...statusView,
      resources: resource === undefined ? [] : [{ ...resource, findings: ["TEMP on database billing"] }],
    });
    const found = await findingsOf();
    expect(found).toContainEqual(expect.objectContaining({ found: "127.0.0.1:5432/billing: ready, 1 finding" }));
    expect(found).toContainEqual({
      area: "resource billing",
      verdict: "warning",
      found: "TEMP on database billing",
      fix: 'revoke temp on database billing from public; see docs/configuration.md, "What PUBLIC may do"',
    });
  });

  test("a variable that only this shell lacks is no failure; another mistake still is", async () => {
    const file = join(directory, "unset.yaml");
    const text = `version: 1
node: { name: test }
listen: { control: "127.0.0.1:${server.port}" }
resources: [{ name: billing, kind: postgres, url: "\${env:BILLING_DATABASE_URL}" }]
`;
    await writeFile(file, text);
    const result = await sallyport(["doctor", "--json", "-c", file]);
    const found = "not checked here, as this shell has no BILLING_DATABASE_URL; the running node says what it found";
    expect(onlyObject(result)).toMatchObject({
      ok: true,
      findings: expect.arrayContaining([
        { area: "config", verdict: "ok", found: expect.stringContaining(found), fix: null },
      ]),
    });
    expect(result.code).toBe(0);
    await writeFile(
      file,
      `${text}grants: [{ principal: a, resource: billing, task: { title: t }, expires: 2020-01-01T00:00:00Z, tables: [{ table: a.b, verbs: [select], columns: all }] }]\n`,
    );
    expect((await sallyport(["doctor", "-c", file])).code).toBe(1);
    await writeFile(file, text.replace(`${server.port}`, "1"));
    const down = await sallyport(["doctor", "-c", file]);
    expect([down.code, down.out]).toEqual([1, expect.stringContaining("BILLING_DATABASE_URL is not set")]);
    expect(down.out).toContain("1 failure, ");
  });
});

describe("failures", () => {
  test("of the gateway keep their code, next step and decision", async () => {
    const thrown = new SallyportError("grant.expired", "principal", "the grant has expired", {
      nextStep: "ask for a new one",
    });
    control.fail = Object.assign(thrown, { decisionId: "dec_7q2" });
    const result = await run(["session", "ls"]);
    expect(result.code).toBe(4);
    expect(result.err).toBe("sallyport: the grant has expired (grant.expired · dec_7q2)\n  next: ask for a new one\n");
    control.fail = thrown;
    expect(onlyObject(await run(["session", "ls", "--json"]))).toEqual({
      error: {
        code: "grant.expired",
        message: "the grant has expired",
        nextStep: "ask for a new one",
        retryable: false,
        decisionId: "dec_7q2",
        requestId: expect.stringMatching(/^req_/),
      },
    });
  });

  test("of the wrong token have an exit code of their own", async () => {
    const other = join(directory, "other");
    await ensureNodeSecrets(other);
    const file = join(directory, "other.yaml");
    await writeFile(file, `listen: { control: "127.0.0.1:${server.port}" }\ndirectory: other\n`);
    const result = await sallyport(["session", "ls", "-c", file]);
    expect(result.code).toBe(3);
    expect(result.err).toContain("request.token");
  });

  test("of no gateway say how to start one; of no keys, how to make them", async () => {
    const file = join(directory, "down.yaml");
    await writeFile(file, "listen: { control: 127.0.0.1:1 }\n");
    const down = await sallyport(["grant", "ls", "-c", file]);
    expect([down.code, down.err]).toEqual([1, expect.stringContaining("sallyport up")]);
    await writeFile(file, "directory: none\n");
    const keyless = await sallyport(["grant", "ls"], { environment: { SALLYPORT_CONFIG: file } });
    expect([keyless.code, keyless.err]).toEqual([3, expect.stringContaining("sallyport init")]);
  });
});
