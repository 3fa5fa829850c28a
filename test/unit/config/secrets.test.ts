import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { ensureNodeSecrets, loadControlToken, loadRightsKey, nodePlaces } from "#config-secrets.ts";

let directory = "";

beforeEach(async () => {
  const parent = await mkdtemp(join(tmpdir(), "sallyport secrets "));
  directory = join(parent, "state");
  return () => rm(parent, { recursive: true });
});

describe("the secrets of a node", () => {
  test("are made once, closed to others, and never overwritten", async () => {
    const { rightsKey, controlToken, keys } = nodePlaces(directory);
    expect(await ensureNodeSecrets(directory)).toEqual([rightsKey, controlToken]);
    const modes = await Promise.all(
      [directory, keys, rightsKey, controlToken].map(async (path) => (await stat(path)).mode & 0o777),
    );
    expect(modes).toEqual([0o700, 0o700, 0o600, 0o600]);
    const before = await Promise.all([readFile(rightsKey), readFile(controlToken)]);
    expect(await ensureNodeSecrets(directory)).toEqual([]);
    expect(await Promise.all([readFile(rightsKey), readFile(controlToken)])).toEqual(before);
  });

  test("one that is missing is made again beside the others", async () => {
    await ensureNodeSecrets(directory);
    const { controlToken } = nodePlaces(directory);
    await rm(controlToken);
    expect(await ensureNodeSecrets(directory)).toEqual([controlToken]);
  });

  test("load as a working key pair and a token", async () => {
    await ensureNodeSecrets(directory);
    const key = await loadRightsKey(directory);
    expect([key.privateKey.type, key.publicKey.type, key.publicKey.asymmetricKeyType]).toEqual([
      "private",
      "public",
      "ed25519",
    ]);
    expect((await loadControlToken(nodePlaces(directory).controlToken)).reveal()).toMatch(/^[\w-]{43}$/);
  });

  test("that others can read are refused, with the fix", async () => {
    await ensureNodeSecrets(directory);
    const { controlToken, rightsKey } = nodePlaces(directory);
    await chmod(controlToken, 0o640);
    await chmod(rightsKey, 0o604);
    const refused = { code: "secret.open-to-others", nextStep: expect.stringContaining("chmod 600") };
    await expect(loadControlToken(controlToken)).rejects.toMatchObject(refused);
    await expect(loadRightsKey(directory)).rejects.toMatchObject(refused);
  });

  test("that are missing or damaged are refused, and not repeated", async () => {
    const { controlToken, rightsKey } = nodePlaces(directory);
    await expect(loadControlToken(controlToken)).rejects.toMatchObject({ code: "secret.missing" });
    await ensureNodeSecrets(directory);
    await writeFile(controlToken, "half-a-token\n");
    await writeFile(rightsKey, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    const refused = await loadControlToken(controlToken).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "secret.malformed" });
    expect(String(refused)).not.toContain("half-a-token");
    await expect(loadRightsKey(directory)).rejects.toMatchObject({ code: "secret.malformed" });
  });
});
