import { describe, expect, test } from "vitest";
import { checkSetting, isReadableSetting, sessionTimeoutMsMax } from "#sql/settings.ts";
import { accepted, verdictOf } from "../../support/sql-analysis.ts";

describe("transactions", () => {
  test.each([
    ["begin", "begin", true],
    ["start transaction read only", "begin", true],
    ["begin isolation level repeatable read, read write", "begin", true],
    ["begin isolation level serializable", "begin", false],
    ["begin transaction isolation level serializable read only deferrable", "begin", false],
    ["commit", "commit", false],
    ["end", "commit", false],
    ["rollback", "rollback", true],
    ["abort", "rollback", true],
    ["savepoint a", "savepoint", true],
    ["release savepoint a", "release", true],
    ["rollback to savepoint a", "rollback-to", true],
  ])("%s", (text, transaction, pure) => {
    expect(accepted(text)).toMatchObject({ kind: "transaction", transaction, pure, outputs: null });
  });

  test.each([
    "prepare transaction 'x'",
    "commit prepared 'x'",
    "rollback prepared 'x'",
    "set transaction snapshot 'x'",
  ])("%s is refused", (text) => {
    expect(["statement.unsupported"]).toContain(verdictOf(text));
  });
});

describe("settings", () => {
  test.each([
    "set client_encoding to 'UTF8'",
    "set names 'utf8'",
    "set datestyle = iso, mdy",
    "set intervalstyle to 'iso_8601'",
    "set time zone 'Europe/Berlin'",
    "set time zone default",
    "set extra_float_digits = 3",
    "set extra_float_digits = -3",
    "set application_name to 'psql'",
    "set local statement_timeout = 5000",
    "set statement_timeout to '5s'",
    "set idle_in_transaction_session_timeout = 1000",
    "set transaction read only",
    "set transaction isolation level serializable",
    "reset timezone",
    "reset all",
  ])("%s", (text) => {
    expect(accepted(text)).toMatchObject({ kind: "session", pure: false });
  });

  test.each([
    "server_version",
    "search_path",
    "transaction isolation level",
    "max_connections",
    "time zone",
    "is_superuser",
  ])("show %s", (name) => {
    expect(accepted(`show ${name}`)).toMatchObject({ kind: "session", pure: true, outputs: null });
  });

  test.each([
    "set search_path to sallyport_shadow",
    "set schema 'x'",
    "set role postgres",
    "set session authorization postgres",
    "reset role",
    "reset session authorization",
    "set client_encoding to 'SJIS'",
    "set standard_conforming_strings = off",
    "set backslash_quote = on",
    "set row_security = off",
    "set statement_timeout = 0",
    "set statement_timeout = '2h'",
    "set statement_timeout = -1",
    "reset search_path",
    "set app.tenant = '7'",
    "set session_replication_role = replica",
    "set time zone interval '1:00' hour to minute",
    "set default_transaction_read_only = off",
    "show all",
    "show data_directory",
    "show hba_file",
    "select current_setting('data_directory')",
    "select current_setting(name) from customers",
    "select current_setting($1)",
    "select set_config('search_path', 'x', false)",
    "select set_config('statement_timeout', '0', false)",
    "select set_config(name, 'x', false) from customers",
    "select set_config('timezone', name, false) from customers",
    "select set_config('timezone', $1, false)",
    "select set_config($1, 'x', false)",
    "select set_config('role', 'postgres', false)",
  ])("%s is refused", (text) => {
    expect(verdictOf(text)).toBe("grant.no-session-setting");
  });

  test("a setting that is named at Bind is checked at Bind", () => {
    expect(accepted("SELECT set_config($1, $3, false), set_config($2, $3, false)")).toMatchObject({
      boundSettings: [
        { nameParameter: 1, valueParameter: 3 },
        { nameParameter: 2, valueParameter: 3 },
      ],
      parameters: 3,
      pure: false,
    });
    expect(checkSetting("statement_timeout", "30000")).toBe(true);
    expect(checkSetting("STATEMENT_TIMEOUT", String(sessionTimeoutMsMax))).toBe(true);
    expect(checkSetting("statement_timeout", String(sessionTimeoutMsMax + 1))).toBe(false);
    expect(checkSetting("statement_timeout", "0")).toBe(false);
    expect(checkSetting("search_path", "public")).toBe(false);
    expect(isReadableSetting("Server_Version")).toBe(true);
  });

  test("what a session reads and changes is among its effects", () => {
    expect(accepted("set timezone to 'UTC'").effects).toEqual([{ kind: "setting", name: "timezone", access: "write" }]);
    expect(accepted("show search_path").effects).toEqual([{ kind: "setting", name: "search_path", access: "read" }]);
    expect(accepted("select current_setting('is_superuser')").effects).toEqual([
      { kind: "call", function: "current_setting" },
      { kind: "setting", name: "is_superuser", access: "read" },
    ]);
  });
});

describe("EXPLAIN", () => {
  test.each([
    ["explain select id from invoices", "accepted"],
    ["explain (costs off) select ssn from customers", "accepted"],
    ["explain (costs off, format json) select id from customers", "accepted"],
    ["explain (analyze off, verbose false, costs off) select id from customers", "accepted"],
    ["explain (costs off) update invoices set amount = 1", "accepted"],
    ["explain select id from customers", "statement.unsupported"],
    ["explain (costs) select ssn from customers", "statement.unsupported"],
    ["explain analyze delete from invoices", "statement.unsupported"],
    ["explain (analyze) select 1", "statement.unsupported"],
    ["explain (analyze on) select 1", "statement.unsupported"],
    ["explain verbose select ssn from customers", "statement.unsupported"],
    ["explain (costs off, verbose) select ssn from customers", "statement.unsupported"],
    ["explain (settings) select 1", "statement.unsupported"],
    ["explain (buffers) select 1", "statement.unsupported"],
    ["explain (costs off) select * from payment_methods", "name.unknown-relation"],
    ["explain (costs off) delete from customers", "grant.no-verb"],
    ["explain (costs off) create table x as select 1", "statement.unsupported"],
    ["explain (costs off) execute x", "statement.unsupported"],
    ["explain (costs off) declare c cursor for select 1", "statement.unsupported"],
  ])("%s", (text, verdict) => {
    expect(verdictOf(text)).toBe(verdict);
  });
});
