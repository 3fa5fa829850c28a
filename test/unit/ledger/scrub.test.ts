import fc from "fast-check";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { verifyLedgerDirectory } from "#evidence/verify.ts";
import { openPayload, readLedger, readPayloadKeys } from "#ledger/reader.ts";
import { scrubFields, scrubText } from "#ledger/scrub.ts";

import { ledgerFixture } from "./ledger-fixture.ts";
import type { LedgerFixture } from "./ledger-fixture.ts";

const S = "[scrubbed]";

describe("SQL: a literal that is given to a credential's name is scrubbed, in every form a literal has", () => {
  test.each([
    ["alter role app password 'hunter2'", `alter role app password '${S}'`],
    [
      "ALTER ROLE app WITH ENCRYPTED PASSWORD 'hunter2' VALID UNTIL 'infinity'",
      `ALTER ROLE app WITH ENCRYPTED PASSWORD '${S}' VALID UNTIL 'infinity'`,
    ],
    ["create user app password E'hun\\'ter2' login", `create user app password E'${S}' login`],
    ["create role app password U&'\\0068unter2' uescape '!'", `create role app password U&'${S}' uescape '!'`],
    ["create group g password $$hunter2$$", `create group g password $$${S}$$`],
    ["create role app password $pw$hun$$ter2$pw$;", `create role app password $pw$${S}$pw$;`],
    ["alter user app password 'hun''ter2'; select 'fine'", `alter user app password '${S}'; select 'fine'`],
    ["alter role app password /* new */ -- now\n 'hunter2'", `alter role app password /* new */ -- now\n '${S}'`],
    ["alter role app password 'hun'\n'ter2'", `alter role app password '${S}'\n'${S}'`],
    ["alter role app password ''hunter2'' login", `alter role app password ''${S} login`],
    [
      "select 1 from t where (token) = 'hunter2' or lower(secret) = 'hunter3'",
      `select 1 from t where (token) = '${S}' or lower(secret) = '${S}'`,
    ],
    ["alter role app password hunter2", `alter role app password ${S}`],
    ["alter role app password hunter-2!", `alter role app password ${S}`],
    ['alter role app password "hunter2"', `alter role app password "${S}"`],
    ["alter role app password 'hunter2", `alter role app password '${S}`],
    ["create user app identified by 'hunter2'", `create user app identified by '${S}'`],
    ["create user app identified by hunter2 account unlock", `create user app identified by ${S} account unlock`],
    [
      "create user mapping for app server s options (user 'u', password 'hunter2')",
      `create user mapping for app server s options (user 'u', password '${S}')`,
    ],
    [
      "alter user mapping for app server s options (set \"password\" 'hunter2')",
      `alter user mapping for app server s options (set "password" '${S}')`,
    ],
    [
      "create server s foreign data wrapper f options (host 'h', secret_access_key 'hunter2')",
      `create server s foreign data wrapper f options (host 'h', secret_access_key '${S}')`,
    ],
    [
      "select dblink('host=h user=u password=hunter2 dbname=d', 'select 1')",
      `select dblink('host=h user=u password=${S} dbname=d', 'select 1')`,
    ],
    [
      "select dblink_connect('host=h password = ''hun ter2'' dbname=d')",
      `select dblink_connect('host=h password = ''${S}'' dbname=d')`,
    ],
    [
      "create subscription s connection 'postgresql://u:hunter2@h/d' publication p",
      `create subscription s connection 'postgresql://u:${S}@h/d' publication p`,
    ],
    [
      "update users set password = 'hunter2', email = 'a@b.c' where id = 7",
      `update users set password = '${S}', email = 'a@b.c' where id = 7`,
    ],
    [
      "update users set password = crypt('hunter2', gen_salt('bf')) where name = 'bob'",
      `update users set password = crypt('${S}', gen_salt('${S}')) where name = 'bob'`,
    ],
    [
      "select id from sessions s where s.token = 'hunter2' and s.kind = 'web'",
      `select id from sessions s where s.token = '${S}' and s.kind = 'web'`,
    ],
    [
      "select 1 from sessions where 'hunter2' = sessions.session_token",
      `select 1 from sessions where '${S}' = sessions.session_token`,
    ],
    [
      "select 1 from k where api_key in ('hunter2', 'hunter3') and kind in ('a')",
      `select 1 from k where api_key in ('${S}', '${S}') and kind in ('a')`,
    ],
    ["select 1 from k where api_key::text <> 'hunter2'", `select 1 from k where api_key::text <> '${S}'`],
    ["select 1 from k where data->>'password' = 'hunter2'", `select 1 from k where data->>'password' = '${S}'`],
    [
      "insert into users (email, password, name) values ('a@b.c', 'hunter2', 'Ann'), ('d@e.f', md5('hunter3'), 'Dan') returning id",
      `insert into users (email, password, name) values ('a@b.c', '${S}', 'Ann'), ('d@e.f', md5('${S}'), 'Dan') returning id`,
    ],
    ["set app.token = 'hunter2'", `set app.token = '${S}'`],
    ["set app.token to hunter2", `set app.token to ${S}`],
    ["select set_config('app.api_key', 'hunter2', false)", `select set_config('app.api_key', '${S}', false)`],
    [
      "select jsonb_build_object('user', 'bob', 'password', 'hunter2')",
      `select jsonb_build_object('user', 'bob', 'password', '${S}')`,
    ],
    [
      `insert into t values ('{"user":"bob","password":"hunter2"}'::jsonb)`,
      `insert into t values ('{"user":"bob","password":"${S}"}'::jsonb)`,
    ],
    ["do $$ begin alter role app password 'hunter2'; end $$", `do $$ begin alter role app password '${S}'; end $$`],
    [
      "do $$ begin execute 'alter role app password ''hunter2'''; end $$",
      `do $$ begin execute 'alter role app password ''${S}'''; end $$`,
    ],
    ["select 1 -- the password: hunter2", `select 1 -- the password: ${S}`],
    ["select 1 /* password=hunter2 */", `select 1 /* password=${S} */`],
    ["select f(password => 'hunter2', name => 'bob')", `select f(password => '${S}', name => 'bob')`],
  ])("%s", (statement, expected) => {
    expect(scrubText(statement).text).toBe(expected);
  });

  test.each([
    "alter role app password null",
    "alter role app valid until 'infinity'",
    "set session authorization 'bob'",
    "create schema authorization bob",
    "select password_changed_at from users where id = 7 and name = 'bob'",
    "update users set password = $1 where id = $2",
    "select u.id from users u join p on u.password=p.password where u.name = 'bob'",
    "select * from information_schema.columns where column_name in ('password', 'email')",
    "select token_count, max_tokens from usage where model = 'small'",
    "comment on column users.password is 'the hash of it'",
    "select id, token from sessions where kind = 'web' order by 2",
    "insert into users (email, password) select email, password from old where kind = 'x'",
    "select 'http://example.org:8080/a?b=c@d.e'",
    "select 'https://example.org/path/to?x=1#y'",
    "select '2020-01-01 10:00', 'task-force of the risk-averse'",
    "select 1 from t where passwd is null and secret is not null",
  ])("and one that is not is left alone: %s", (statement) => {
    expect(scrubText(statement)).toEqual({ text: statement, count: 0 });
  });
});

describe("JSON: the value of a member with a credential's name is scrubbed, and every other byte stays", () => {
  test.each([
    ['{"password":"hunter2"}', `{"password":"${S}"}`],
    [
      '{ "a" : [1.50, 1e400], "user_Password" : "hunter2" , "b":{} }',
      `{ "a" : [1.50, 1e400], "user_Password" : "${S}" , "b":{} }`,
    ],
    [
      '{"arguments":{"auth":{"client_secret":"hunter2","x":1}}}',
      `{"arguments":{"auth":{"client_secret":"${S}","x":1}}}`,
    ],
    ['{"clientSecret":"hunter2","refreshToken":"hunter3"}', `{"clientSecret":"${S}","refreshToken":"${S}"}`],
    ['{"x-api-key":"hunter2","APIKEY":"hunter3"}', `{"x-api-key":"${S}","APIKEY":"${S}"}`],
    ['{"credentials":{"user":"bob","hunter2":[1,"}"]},"b":2}', `{"credentials":"${S}","b":2}`],
    ['{"token":123456,"secret":["hunter2"],"cookie":"a=hunter2"}', `{"token":"${S}","secret":"${S}","cookie":"${S}"}`],
    ['{"p\\u0061ssword":"hunter2"}', `{"p\\u0061ssword":"${S}"}`],
    ['{"password":"hun\\"ter2"}', `{"password":"${S}"}`],
    ['{"password":"hunter2","password":"hunter3"}', `{"password":"${S}","password":"${S}"}`],
    ['{"sql":"alter role a password \'hunter2\'"}', `{"sql":"alter role a password '${S}'"}`],
    [
      '{"sql":"do $$ begin\\nalter role a password \'hunter2\'; end $$"}',
      `{"sql":"do $$ begin\\nalter role a password '${S}'; end $$"}`,
    ],
    ['{"body":"{\\"password\\":\\"hunter2\\"}"}', `{"body":"{\\"password\\":\\"${S}\\"}"}`],
    ['{"dsn":"postgres://u:hunter2@h:5432/d?sslmode=require"}', `{"dsn":"postgres://u:${S}@h:5432/d?sslmode=require"}`],
    ['{"dsn":"postgres://u:hun/ter2@h/d"}', `{"dsn":"postgres://u:${S}@h/d"}`],
    ['{"url":"https://h/p?api_key=hunter2&page=2"}', `{"url":"https://h/p?api_key=${S}&page=2"}`],
    ['{"h":"Authorization: Bearer hunter2hunter2"}', `{"h":"Authorization: ${S}"}`],
    ['{"h":["Bearer hunter2hunter2","basic Ym9iOmh1bnRlcjI="]}', `{"h":["Bearer ${S}","basic ${S}"]}`],
    ['["7","postgres://u:hunter2@h/d"]', `["7","postgres://u:${S}@h/d"]`],
    [`["line\\nghp_${"a1".repeat(18)}"]`, `["line\\n${S}"]`],
    [`["-----BEGIN RSA PRIVATE KEY-----\\nhunter2\\n-----END RSA PRIVATE KEY-----\\nx"]`, `["${S}\\nx"]`],
    [`["xoxb-1234567890-abcdef","AKIAIOSFODNN7EXAMPLE","sk-proj-abcdefghijklmnop"]`, `["${S}","${S}","${S}"]`],
    [`["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"]`, `["${S}"]`],
  ])("%s", (text, expected) => {
    const scrubbed = scrubText(text);
    expect(scrubbed.text).toBe(expected);
    expect(() => JSON.parse(scrubbed.text)).not.toThrow();
    // Nothing is counted twice, and nothing is found in what was scrubbed.
    expect(scrubText(scrubbed.text)).toEqual({ text: expected, count: 0 });
  });

  test.each([
    '{"password":null,"secret":"","token":false}',
    '{"_meta":{"progressToken":7},"nextPageToken":"abc","max_tokens":100}',
    '{"tokens":12,"primary_key":"id","author":"Ann","keyword":"x"}',
    '["password","hunter"]',
    '{"sql":"select password from users where id = $1"}',
  ])("and one without is left alone: %s", (text) => {
    expect(scrubText(text)).toEqual({ text, count: 0 });
  });

  test("what only looks like JSON is searched as any other text", () => {
    expect(scrubText('{"password":"hunter2"').text).toBe(`{"password":"${S}"`);
    expect(scrubText("{'password': 'hunter2', }").text).toBe(`{'password': '${S}', }`);
    expect(scrubText('{"password":"hunter2"} {"token": "hunter3"}').text).toBe(`{"password":"${S}"} {"token": "${S}"}`);
  });
});

test("a count says how many there were in each field, and fields without any are not named", () => {
  expect(scrubFields({ statement: "alter role a password 'x'", values: '["7"]' })).toEqual({
    fields: { statement: `alter role a password '${S}'`, values: '["7"]' },
    scrubbed: { statement: 1 },
  });
  const plain = { statement: "select 1" };
  expect(scrubFields(plain)).toEqual({ fields: plain, scrubbed: null });
});

/** A secret that no other text has, and that every place below can hold as it is. */
const secret = fc.stringMatching(/^[a-z0-9]{12,24}$/).map((text) => `Zq9${text}`);
const filler = fc
  .string({ unit: "grapheme-ascii", maxLength: 20 })
  .map((text) => text.replaceAll(/['"\\$*/:=@-]/g, " "));
const places: readonly ((s: string) => string)[] = [
  (s) => `alter role x password '${s}'`,
  (s) => `create user y encrypted password $a$${s}$a$ login`,
  (s) => `create user y password E'\\'${s}'`,
  (s) => `alter user mapping for x server s options (set password '${s}')`,
  (s) => `select dblink('password=${s}', 'select 1')`,
  (s) => `update t set api_key = '${s}'`,
  (s) => `insert into t (a, pwd) values (1, '${s}')`,
];
const jsonPlaces: readonly ((s: string) => unknown)[] = [
  (s) => ({ password: s }),
  (s) => ({ a: [{ "Client-Secret": s }] }),
  (s) => ({ credentials: { deep: { er: [s] } } }),
  (s) => ({ url: `https://u:${s}@h.example/` }),
  (s) => ({ header: `Bearer ${s}` }),
  (s) => ({ sql: `alter role x password '${s}'` }),
  (s) => ({ text: JSON.stringify({ token: s }) }),
  (s) => ({ env: `PGPASSWORD=${s}` }),
];

describe("whatever stands around it", () => {
  test("a planted secret never stays in SQL", () => {
    fc.assert(
      fc.property(secret, fc.constantFrom(...places), filler, filler, (s, place, before, after) => {
        const text = `select '${before}'; /* ${after} */ ${place(s)}; select '${after}' -- ${before}`;
        const scrubbed = scrubText(text);
        expect(scrubbed.text).not.toContain(s);
        expect(scrubbed.count).toBeGreaterThan(0);
      }),
      { numRuns: 1500 },
    );
  });

  test("a planted secret never stays in JSON, and the rest of the value is the same", () => {
    fc.assert(
      fc.property(
        secret,
        fc.constantFrom(...jsonPlaces),
        fc.jsonValue(),
        fc.boolean(),
        (s, place, around, isSpaced) => {
          const text = JSON.stringify([around, place(s), around], null, isSpaced ? 2 : 0);
          const scrubbed = scrubText(text);
          expect(scrubbed.text).not.toContain(s);
          const value: unknown = JSON.parse(scrubbed.text);
          expect(Array.isArray(value) && JSON.stringify(value[0])).toBe(scrubText(JSON.stringify(around)).text);
        },
      ),
      { numRuns: 1500 },
    );
  });

  test("a text without a secret is the same, byte for byte", () => {
    const words = fc.constantFrom(
      "select",
      "password",
      "token",
      "'x'",
      "(",
      ")",
      ",",
      "from t",
      "where id = $1",
      "x::text",
      ";",
    );
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 200 }), fc.jsonValue(), (text, value) => {
        for (const plain of [text, JSON.stringify(value)]) {
          expect(scrubText(plain)).toEqual({ text: plain, count: 0 });
        }
      }),
      { numRuns: 1000 },
    );
    fc.assert(
      fc.property(fc.array(words, { maxLength: 30 }), (some) => {
        // Whatever is found, what stands around it is as it was.
        const text = `select 1 ${some.join(" ")}`;
        const { text: scrubbed } = scrubText(text);
        expect(scrubbed.replaceAll(S, "x")).toBe(text);
      }),
      { numRuns: 1000 },
    );
  });

  test("no text makes it slow: the time grows as the text does", () => {
    const pieces = [
      "password=",
      "password='",
      "password=''",
      "password ",
      "token=${token=",
      "://",
      "a://u:",
      "eyJaaa.",
      "-eyJaaaaaa",
      "sk-",
      "$a$",
      "$a",
      "'",
      '"',
      '\\"',
      "/*",
      "*/",
      "--",
      "-----BEGIN PRIVATE KEY-----",
      "bearer ",
      "{",
      "[",
      '{"password":',
      '"password":[',
      "(",
      "insert into t (password) values (",
      "password in (",
      "\\n",
      "\\u0061password",
      "password\\",
      "ghp_",
      "E'\\",
      "pwdpwdpwd",
      "::",
      "=",
    ];
    for (const piece of pieces) {
      for (const [before, after] of [
        ["", ""],
        ["select ", ""],
        ['["', '"]'],
        ["'password", ""],
      ] as const) {
        const text = `${before}${piece.repeat(Math.ceil(200_000 / piece.length))} password${after}`;
        const startMs = performance.now();
        scrubText(text);
        const tookMs = performance.now() - startMs;
        expect({ piece, before, isSlow: tookMs > 1500 }).toEqual({ piece, before, isSlow: false });
      }
    }
  });
});

describe("in the ledger", () => {
  let fixture: LedgerFixture;
  beforeEach(() => {
    fixture = ledgerFixture();
  });
  afterEach(() => fixture.remove());

  test("no field of a payload keeps a secret, the entry says so, and the log verifies", async () => {
    const ledger = await fixture.open();
    const fields = {
      statement: "alter role app password 'hunter2hunter2'",
      parameters: '{"arguments":{"token":"hunter2hunter2","q":"x"}}',
      purpose: "plain",
    };
    await ledger.record({ entry: { type: "node.stopped", reason: "a" }, payload: { key: "node", fields } }, null);
    await ledger.record(
      { entry: { type: "node.stopped", reason: "b" }, payload: { key: "node", fields: { purpose: "plain" } } },
      null,
    );
    const { verifierKey } = ledger.status();
    await ledger.close();
    const [, first, second] = await Array.fromAsync((await readLedger(fixture.directory)).entries());
    if (first === undefined || second === undefined) {
      throw new Error("the entries are missing");
    }
    const opened = await openPayload(first, await readPayloadKeys(fixture.keysDirectory));
    expect(opened.ok && Object.fromEntries([...opened.fields].map(([name, { text }]) => [name, text]))).toEqual({
      statement: `alter role app password '${S}'`,
      parameters: `{"arguments":{"token":"${S}","q":"x"}}`,
      purpose: "plain",
    });
    expect(first.entry.payload?.scrubbed).toEqual({ parameters: 1, statement: 1 });
    expect(second.entry.payload).not.toHaveProperty("scrubbed");
    const found = await verifyLedgerDirectory({ directory: fixture.directory, verifierKey });
    expect(found).toMatchObject({ faults: [], integrity: "intact", completeness: "complete" });
    for (const item of readdirSync(fixture.root, { recursive: true, withFileTypes: true })) {
      if (item.isFile()) {
        expect(readFileSync(join(item.parentPath, item.name)).includes("hunter2")).toBe(false);
      }
    }
  });
});
