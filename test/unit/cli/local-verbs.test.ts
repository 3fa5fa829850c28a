import { mkdtemp, mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { configTemplate } from "#cli/init-template.ts";
import { nodePlaces } from "#config-secrets.ts";
import { loadConfig, parseConfig } from "#config.ts";
import { onlyObject, sallyport } from "./terminal.ts";

let directory = "";

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "sallyport local "));
  return () => rm(directory, { recursive: true });
});

describe("init", () => {
  test("writes a configuration that loads, secrets closed to others, and says what and where", async () => {
    const result = await sallyport(["init", directory, "--name", "billing-gw", "--json"]);
    const { files, next } = onlyObject(result);
    expect(files).toEqual([
      { path: join(directory, "sallyport.yaml"), what: expect.any(String), kept: false },
      { path: join(directory, "sallyport.schema.json"), what: expect.any(String), kept: false },
      { path: join(directory, ".sallyport/keys/rights.pem"), what: expect.any(String), kept: false },
      { path: join(directory, ".sallyport/control-token"), what: expect.any(String), kept: false },
      { path: join(directory, ".sallyport/.gitignore"), what: expect.any(String), kept: false },
    ]);
    expect(next).toEqual([`sallyport up -c ${join(directory, "sallyport.yaml")}`]);
    const config = loadConfig(join(directory, "sallyport.yaml"), { environment: {}, nowMs: Date.now() });
    expect(config).toMatchObject({
      node: { name: "billing-gw" },
      directory: join(directory, ".sallyport"),
      grants: [],
    });
    const { rightsKey, controlToken } = nodePlaces(config.directory);
    const modes = await Promise.all([rightsKey, controlToken].map(async (path) => (await stat(path)).mode & 0o777));
    expect(modes).toEqual([0o600, 0o600]);
    const token = (await readFile(controlToken, "utf8")).trim();
    expect(result.out + result.err).not.toContain(token);
  });

  test("never overwrites: a second time everything is kept", async () => {
    await sallyport(["init", directory]);
    await writeFile(join(directory, "sallyport.yaml"), "mine");
    const token = await readFile(join(directory, ".sallyport/control-token"));
    const { files } = onlyObject(await sallyport(["init", directory, "--json"]));
    expect(files).toEqual(Array(5).fill(expect.objectContaining({ kept: true })));
    expect(await readFile(join(directory, "sallyport.yaml"), "utf8")).toBe("mine");
    expect(await readFile(join(directory, ".sallyport/control-token"))).toEqual(token);
  });

  test("with --dry-run writes nothing", async () => {
    const where = join(directory, "new");
    const { files, dryRun } = onlyObject(await sallyport(["init", where, "--dry-run", "--json"]));
    expect([files, dryRun]).toEqual([expect.objectContaining({ length: 5 }), true]);
    await expect(stat(where)).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("a name that cannot name a node is a usage error", async () => {
    const result = await sallyport(["init", directory, "--name", "My Node"]);
    expect([result.code, result.err]).toEqual([2, expect.stringContaining("--name")]);
  });

  test("the example in it is a configuration too, once its # are taken away", () => {
    const text = configTemplate({
      name: "a",
      grantExpires: "2026-11-29T00:00:00Z",
      principalExpires: "2027-05-01T00:00:00Z",
    });
    const example = text
      .replaceAll(/^#(?! )(?=.)/gm, "")
      .replaceAll(/^#(?= {2}- )/gm, "")
      .replaceAll(/^#(?= {4})/gm, "");
    const config = parseConfig(example, "/x/sallyport.yaml", {
      environment: { BILLING_DATABASE_URL: "postgresql://p@127.0.0.1/billing" },
      nowMs: Date.parse("2026-11-22T00:00:00Z"),
    });
    expect(config).toMatchObject({
      resources: [{ name: "billing" }],
      masks: [{}, {}],
      grants: [{ principal: "support-copilot" }],
    });
    expect(config.grants[0]?.tables).toHaveLength(2);
  });
});

describe("doctor", () => {
  const look = async (): Promise<readonly Record<string, unknown>[]> => {
    const found = onlyObject(await sallyport(["doctor", "--json", "-c", join(directory, "sallyport.yaml")]));
    if (!Array.isArray(found["findings"])) {
      throw new Error("no findings");
    }
    const findings: readonly Record<string, unknown>[] = found["findings"];
    return findings;
  };
  const failures = async (): Promise<readonly Record<string, unknown>[]> =>
    (await look()).filter((one) => one["verdict"] === "failure");

  beforeEach(async () => {
    await sallyport(["init", directory, "--name", "x"]);
    await usePorts(await freePort(), await freePort());
  });

  const usePorts = async (postgres: number, control: number): Promise<void> => {
    const text = `version: 1\nnode: { name: x }\nlisten: { postgres: "127.0.0.1:${postgres}", control: "127.0.0.1:${control}" }\n`;
    await writeFile(join(directory, "sallyport.yaml"), text);
  };

  test("finds nothing wrong with what init has made", async () => {
    expect(await failures()).toEqual([]);
    expect((await look()).map((one) => one["area"])).toEqual([
      "runtime",
      "config",
      "keys",
      "gateway",
      "port",
      "port",
      "state",
      "ledger",
      "disk",
    ]);
  });

  test("finds a key that others can read, and says how to close it", async () => {
    const token = join(directory, ".sallyport/control-token");
    await writeFile(token, await readFile(token), { mode: 0o644 });
    const { chmod } = await import("node:fs/promises");
    await chmod(token, 0o644);
    expect(await failures()).toContainEqual({
      area: "keys",
      verdict: "failure",
      found: expect.stringContaining("mode 644"),
      fix: `chmod 600 ${token}`,
    });
    await rm(token);
    expect(await failures()).toContainEqual(
      expect.objectContaining({
        area: "keys",
        found: expect.stringContaining("missing"),
        fix: expect.stringContaining("init"),
      }),
    );
  });

  test("finds every mistake of a configuration at its line", async () => {
    await writeFile(
      join(directory, "sallyport.yaml"),
      "version: 1\nnode: { nam: x }\nlisten: { postgres: 127.0.0.1:1 }\n",
    );
    const found = await failures();
    expect(found).toContainEqual({
      area: "config",
      verdict: "failure",
      found: "line 2, column 9: node.nam: unknown key `nam`",
      fix: "did you mean `name`?",
    });
  });

  test("finds a port that another program has", async () => {
    const other = createServer();
    await new Promise<void>((settle) => other.listen(0, "127.0.0.1", settle));
    const address = other.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    await usePorts(port, await freePort());
    expect(await failures()).toEqual([
      {
        area: "port",
        verdict: "failure",
        found: `postgres 127.0.0.1:${port} cannot be had (EADDRINUSE)`,
        fix: expect.stringContaining("listen.postgres"),
      },
    ]);
    other.close();
  });

  test("finds a database that cannot be reached, without its password", async () => {
    const text = `${await readFile(join(directory, "sallyport.yaml"), "utf8")}resources: [{ name: b, kind: postgres, url: "\${env:DOCTOR_URL}" }]\n`;
    await writeFile(join(directory, "sallyport.yaml"), text);
    const result = await sallyport(["doctor", "-c", join(directory, "sallyport.yaml")], {
      environment: { DOCTOR_URL: "postgresql://p:hunter2@127.0.0.1:1/billing" },
    });
    expect([result.code, result.out]).toEqual([
      1,
      expect.stringContaining("127.0.0.1:1/billing cannot be reached (ECONNREFUSED)"),
    ]);
    expect(result.out + result.err).not.toContain("hunter2");
  });
});

describe("ledger verify and status, offline", () => {
  const key = "sallyport.local/x+0123abcd+AQ==";

  test.each([
    ["no key", []],
    ["two keys", ["--key", key, "--key-file", "x"]],
    ["a key file that is not there", ["--key-file", "/nowhere/key"]],
    ["a key that is none", ["--key", "hello"]],
  ])("with %s is a usage error", async (_, given) => {
    const result = await sallyport(["ledger", "verify", directory, ...given]);
    expect([result.code, result.out]).toEqual([2, ""]);
    expect(result.err).toContain("next: ");
  });

  test("a directory without a ledger says so", async () => {
    await mkdir(join(directory, "state"));
    await writeFile(join(directory, "sallyport.yaml"), "directory: state\nlisten: { control: 127.0.0.1:1 }\n");
    const result = await sallyport(["ledger", "status", "-c", join(directory, "sallyport.yaml"), "--json"]);
    expect(result.code).toBe(1);
    expect(onlyObject(result)).toMatchObject({ error: { code: "ledger.unreadable" } });
  });
});

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((settle) => probe.listen(0, "127.0.0.1", settle));
  const address = probe.address();
  await new Promise((settle) => probe.close(settle));
  return typeof address === "object" && address !== null ? address.port : 0;
}
