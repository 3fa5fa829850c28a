import { generateKeyPairSync } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Credential, Grant } from "#domain/grant.ts";
import { type IdPrefix, type IdTypes, parseId } from "#domain/ids.ts";
import type { Principal } from "#domain/principal.ts";
import type { Resource } from "#domain/resource.ts";
import { type Store, openStore } from "#store/store.ts";
import { type DatabaseAddress, type TestPostgres, createDatabase, runSql, startPostgres } from "../support/postgres.ts";

function id<P extends IdPrefix>(prefix: P, tail: string): IdTypes[P] {
  const parsed = parseId(prefix, `${prefix}_${tail}`);
  if (parsed === null) {
    throw new Error(`not an id: ${tail}`);
  }
  return parsed;
}

const bob: Principal = { kind: "human", id: id("prn", "b0b"), name: "bob", status: "active" };
const copilot: Principal = {
  kind: "agent",
  id: id("prn", "c0"),
  name: "support-copilot",
  status: "active",
  ownerId: bob.id,
  expiresAtMs: 2_000_000_000_000,
};
const billing: Resource = {
  kind: "postgres",
  id: id("res", "b1"),
  name: "billing",
  host: "127.0.0.1",
  port: 5432,
  database: "billing",
  labels: [{ schema: "public", table: "customers", column: "email", label: "pii.email" }],
};
const grant: Grant = {
  id: id("grt", "a1"),
  principalId: copilot.id,
  onBehalfOfId: null,
  resourceId: billing.id,
  task: { id: id("tsk", "t88"), title: "T-88 charged twice", purpose: null, ticket: "T-88" },
  scope: {
    tables: [{ schema: "public", table: "customers", verbs: ["select"], columns: ["id", "email"] }],
    masks: [{ ruleId: "mask.pii.email", label: "pii.email", operator: { kind: "email" } }],
  },
  createdAtMs: 1_700_000_000_000,
  expiresAtMs: 1_700_000_600_000,
  state: "active",
  end: null,
  source: "config",
};
const other: Grant = { ...grant, id: id("grt", "a2"), state: "pending" };
const credential: Credential = {
  id: id("crd", "c1"),
  login: "grt-login-1",
  grantId: grant.id,
  runId: id("run", "r1"),
  verifier: { iterations: 4096, saltBase64: "c2FsdA==", storedKeyBase64: "c3RvcmVk", serverKeyBase64: "c2VydmVy" },
  createdAtMs: 1_700_000_000_000,
  expiresAtMs: 1_700_000_600_000,
  status: "active",
};

const key = generateKeyPairSync("ed25519");
let server: TestPostgres;
let database: DatabaseAddress;
let store: Store;
let made = 0;

const sql = (text: string): Promise<readonly Record<string, unknown>[]> => runSql(database, text);
const tampered = (table: string, row: string): unknown =>
  expect.objectContaining({
    code: "store.tampered",
    message: expect.stringContaining(`row ${row} of sallyport.${table}`),
  });

async function restart(): Promise<Store> {
  await store.close();
  store = await openStore(database, key);
  return store;
}

beforeAll(async () => {
  server = await startPostgres();
});

afterAll(async () => {
  await server.stop();
});

beforeEach(async () => {
  made += 1;
  database = await createDatabase(server, `rights ${made}`);
  store = await openStore(database, key);
  await store.principals.put(bob, 1);
  await store.principals.put(copilot, 2);
  await store.resources.put(billing, 3);
  await store.grants.put(grant, 4);
  await store.grants.put(other, 5);
  await store.credentials.put(credential, 6);
  return () => store.close();
});

describe("what was put comes back", () => {
  test("the same, by every way to look it up, also after a restart", async () => {
    for (const open of [async (): Promise<Store> => store, restart]) {
      const opened = await open();
      expect(await opened.principals.all()).toEqual([bob, copilot]);
      expect(await opened.principals.byId(bob.id)).toEqual(bob);
      expect(await opened.principals.byName("support-copilot")).toEqual(copilot);
      expect(await opened.resources.byName("billing")).toEqual(billing);
      expect(await opened.resources.byId(billing.id)).toEqual(billing);
      expect(await opened.resources.all()).toEqual([billing]);
      expect(await opened.grants.byId(grant.id)).toEqual(grant);
      expect(await opened.grants.inState(["active"])).toEqual([grant]);
      expect(await opened.grants.inState(["active", "pending"])).toEqual([grant, other]);
      expect(await opened.grants.inState([])).toEqual([]);
      expect(await opened.credentials.byLogin(credential.login)).toEqual(credential);
      expect(await opened.credentials.byId(credential.id)).toEqual(credential);
      expect(await opened.credentials.ofGrant(grant.id)).toEqual([credential]);
      expect(await opened.credentials.ofRun(id("run", "r1"))).toEqual([credential]);
    }
  });

  test("null or empty for what is not there", async () => {
    expect(await store.principals.byName("eve")).toBeNull();
    expect(await store.principals.byId(id("prn", "e7e"))).toBeNull();
    expect(await store.credentials.byLogin("x' or true --")).toBeNull();
    expect(await store.credentials.ofRun(id("run", "r2"))).toEqual([]);
  });

  test("a later entry replaces a row, an earlier one does not", async () => {
    const ended: Grant = { ...grant, state: "ended", end: { how: "revoked", reason: "done", atMs: 1_700_000_100_000 } };
    await store.grants.put(ended, 7);
    expect(await store.grants.byId(grant.id)).toEqual(ended);
    await expect(store.grants.put(grant, 6)).rejects.toMatchObject({ code: "store.stale" });
    expect(await store.grants.byId(grant.id)).toEqual(ended);
  });

  test("two principals of one name are refused", async () => {
    const twin: Principal = { ...bob, id: id("prn", "b0c") };
    await expect(store.principals.put(twin, 9)).rejects.toMatchObject({ code: "store.conflict" });
  });

  test("a row that changes while it is read, over and over, is never taken for tampered", async () => {
    const reads: Promise<unknown>[] = [];
    for (let entry = 10; entry < 60; entry++) {
      reads.push(store.grants.byId(grant.id), store.grants.all());
      await store.grants.put(grant, entry);
    }
    await expect(Promise.all(reads)).resolves.toHaveLength(100);
  });

  test("every row and the entry that it was recorded by are listed for the comparison with the ledger", async () => {
    expect(await (await restart()).verify()).toEqual([
      { table: "principals", id: bob.id, entryIndex: 1 },
      { table: "principals", id: copilot.id, entryIndex: 2 },
      { table: "resources", id: billing.id, entryIndex: 3 },
      { table: "grants", id: grant.id, entryIndex: 4 },
      { table: "grants", id: other.id, entryIndex: 5 },
      { table: "credentials", id: credential.id, entryIndex: 6 },
    ]);
  });
});

describe("somebody who can write to the state database gains no right", () => {
  const edits = {
    "a later deadline": `update sallyport.grants set body = jsonb_set(body, '{expiresAtMs}', '9999999999999') where id = '${grant.id}'`,
    "one more table in the scope": `update sallyport.grants set body = jsonb_set(body, '{scope,tables,1}',
      '{"schema":"public","table":"payment_methods","verbs":["select"],"columns":"all"}') where id = '${grant.id}'`,
    "one more verb": `update sallyport.grants set body = jsonb_set(body, '{scope,tables,0,verbs,1}', '"delete"') where id = '${grant.id}'`,
    "no masks": `update sallyport.grants set body = jsonb_set(body, '{scope,masks}', '[]') where id = '${grant.id}'`,
    "another principal": `update sallyport.grants set body = jsonb_set(body, '{principalId}', '"${bob.id}"') where id = '${grant.id}'`,
    "another entry index": `update sallyport.grants set entry_index = 400 where id = '${grant.id}'`,
    "an entry index past every whole number": `update sallyport.grants set entry_index = 9223372036854775807 where id = '${grant.id}'`,
    "the signature of another row": `update sallyport.grants set signature = (select signature from sallyport.grants where id = '${other.id}') where id = '${grant.id}'`,
    "a signature of zeros": `update sallyport.grants set signature = decode(repeat('00', 64), 'hex') where id = '${grant.id}'`,
    "one more field": `update sallyport.grants set body = body || '{"bypass": true}' where id = '${grant.id}'`,
  };

  test.each(Object.entries(edits))("a grant edited to have %s is refused", async (_, edit) => {
    await sql(edit);
    const refused = expect.objectContaining({
      code: "store.tampered",
      message: expect.stringMatching(/grants|number/),
    });
    await expect(store.grants.byId(grant.id)).rejects.toEqual(refused);
    await expect(store.grants.all()).rejects.toEqual(refused);
    await expect(store.grants.inState(["active"])).rejects.toEqual(refused);
    await expect((await restart()).grants.byId(grant.id)).rejects.toEqual(refused);
    await expect(store.verify()).rejects.toEqual(refused);
  });

  test("a whole signed body under the id of another row is refused: bodies swapped between two rows", async () => {
    await sql(`
      alter table sallyport.grants alter column id drop expression;
      update sallyport.grants set id = 'grt_tmp' where id = '${grant.id}';
      update sallyport.grants set id = '${grant.id}' where id = '${other.id}';
      update sallyport.grants set id = '${other.id}' where id = 'grt_tmp'`);
    await expect(store.grants.byId(grant.id)).rejects.toMatchObject({ code: "store.tampered" });
    await expect((await restart()).grants.byId(grant.id)).rejects.toMatchObject({ code: "store.tampered" });
  });

  test("a look-up column that was made to say something else is refused", async () => {
    await sql(`
      alter table sallyport.principals alter column name drop expression;
      update sallyport.principals set name = 'nobody' where id = '${bob.id}';
      update sallyport.principals set name = 'bob' where id = '${copilot.id}'`);
    await expect((await restart()).principals.byName("bob")).rejects.toEqual(tampered("principals", copilot.id));
  });

  test("an ended grant made to look active by its look-up column is refused", async () => {
    await store.grants.put({ ...grant, state: "ended", end: { how: "expired", reason: "expired", atMs: 1 } }, 7);
    await sql(`
      alter table sallyport.grants alter column state drop expression;
      update sallyport.grants set state = 'active' where id = '${grant.id}'`);
    await expect((await restart()).grants.inState(["active"])).rejects.toEqual(tampered("grants", grant.id));
  });

  test("a row made up whole, or signed with another key, is refused", async () => {
    const stranger = await openStore(database, generateKeyPairSync("ed25519"));
    const forged: Grant = { ...grant, id: id("grt", "f0") };
    await stranger.grants.put(forged, 9);
    await stranger.close();
    await expect(store.grants.byId(forged.id)).rejects.toEqual(tampered("grants", forged.id));
    await expect(store.grants.all()).rejects.toEqual(tampered("grants", forged.id));
  });

  test("a signed row of one table is not accepted in another", async () => {
    await sql(`
      create table sallyport.copy as select * from sallyport.principals;
      insert into sallyport.resources (body, entry_index, signature) select body, entry_index, signature from sallyport.copy where name = 'bob'`);
    await expect(store.resources.all()).rejects.toEqual(tampered("resources", bob.id));
  });

  test("a credential with another verifier, or of another grant, is refused", async () => {
    await sql(`update sallyport.credentials set body = jsonb_set(body, '{verifier,storedKeyBase64}', '"bWluZQ=="')`);
    await expect(store.credentials.byLogin(credential.login)).rejects.toEqual(tampered("credentials", credential.id));
  });

  test("a disabled principal cannot be enabled again", async () => {
    await store.principals.put({ ...copilot, status: "disabled" }, 8);
    await sql(
      `update sallyport.principals set body = jsonb_set(body, '{status}', '"active"') where id = '${copilot.id}'`,
    );
    await expect(store.principals.byName(copilot.name)).rejects.toEqual(tampered("principals", copilot.id));
  });

  test("an older signed row put back under a running gateway is refused", async () => {
    await sql("create table public.kept as select body, entry_index, signature from sallyport.grants");
    await store.grants.put({ ...grant, state: "ended", end: { how: "revoked", reason: "done", atMs: 1 } }, 7);
    await sql(`
      update sallyport.grants set body = kept.body, entry_index = kept.entry_index, signature = kept.signature
      from public.kept where kept.body ->> 'id' = sallyport.grants.id and sallyport.grants.id = '${grant.id}'`);
    await expect(store.grants.byId(grant.id)).rejects.toEqual(tampered("grants", grant.id));
    await expect(store.grants.inState(["active"])).rejects.toEqual(tampered("grants", grant.id));
  });

  test("an older signed row put back while the gateway was down shows its old entry, which the ledger contradicts", async () => {
    await sql("create table public.kept as select body, entry_index, signature from sallyport.grants");
    await store.grants.put({ ...grant, state: "ended", end: { how: "revoked", reason: "done", atMs: 1 } }, 7);
    await sql(`
      update sallyport.grants set body = kept.body, entry_index = kept.entry_index, signature = kept.signature
      from public.kept where kept.body ->> 'id' = sallyport.grants.id and sallyport.grants.id = '${grant.id}'`);
    const versions = await (await restart()).verify();
    // The store alone accepts it: it is the ledger, whose last change of this grant is entry 7, that tells.
    expect(versions).toContainEqual({ table: "grants", id: grant.id, entryIndex: 4 });
  });

  test("a row deleted under a running gateway is missed, not taken for one that never was", async () => {
    await sql(`delete from sallyport.grants where id = '${grant.id}'`);
    await expect(store.grants.byId(grant.id)).rejects.toEqual(tampered("grants", grant.id));
    await expect(store.grants.all()).rejects.toEqual(tampered("grants", grant.id));
  });

  test("a made-up table in front of ours on the search path is not read", async () => {
    await sql(`
      create schema evil;
      create table evil.grants as select * from sallyport.grants;
      do $$ begin execute format('alter database %I set search_path = evil', current_database()); end $$`);
    expect(await (await restart()).grants.byId(grant.id)).toEqual(grant);
  });
});

describe("what the node has made at resources", () => {
  const role = { resource: billing.id, role: "sallyport_g_a1", grant: grant.id, scopeHash: "ab" };
  const scope = { resource: billing.id, hash: "ab", role: "sallyport_s_ab" };

  test("is kept until it is removed, and can be noted twice", async () => {
    await store.provisioned.addScope(scope);
    await store.provisioned.addScope(scope);
    await store.provisioned.addRole(role);
    await store.provisioned.addRole(role);
    expect(await (await restart()).provisioned.roles()).toEqual([role]);
    expect(await store.provisioned.scopes()).toEqual([scope]);
    await store.provisioned.removeRole(billing.id, role.role);
    await store.provisioned.removeScope(billing.id, scope.hash);
    expect(await store.provisioned.roles()).toEqual([]);
    expect(await store.provisioned.scopes()).toEqual([]);
  });
});

describe("a state database that is not there", () => {
  test("is said so, without the password", async () => {
    const refused = await openStore({ ...database, password: "wrong-secret" }, key).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "store.unavailable", whose: "gateway" });
    expect(String(refused)).not.toContain("wrong-secret");
    await expect(openStore({ ...database, port: 1 }, key)).rejects.toMatchObject({ code: "store.unavailable" });
  });

  test("ends a query with an error, and the next one works when it is back", async () => {
    await sql(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'sallyport' and datname = current_database()",
    );
    const first = await store.grants.byId(grant.id).catch((error: unknown) => error);
    expect([grant, expect.objectContaining({ code: "store.unavailable" })]).toContainEqual(first);
    expect(await store.grants.byId(grant.id)).toEqual(grant);
  });
});
