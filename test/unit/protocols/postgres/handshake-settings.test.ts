import { describe, expect, test } from "vitest";
import { checkClientParameters } from "#protocols/postgres/handshake-settings.ts";

/** The settings that come of extra startup parameters; the refusal's code when there is one. */
function settingsOf(extra: Readonly<Record<string, string>>): Record<string, string> | string {
  const checked = checkClientParameters(new Map([["user", "ada"], ["database", "billing"], ...Object.entries(extra)]));
  return "refused" in checked ? checked.code : Object.fromEntries(checked.settings);
}

const utf8 = { client_encoding: "UTF8" };

describe("startup parameters", () => {
  test("any client_encoding becomes UTF8", () => {
    for (const encoding of ["UTF8", "utf-8", "LATIN1", "SJIS", "GBK", "nonsense"]) {
      expect(settingsOf({ client_encoding: encoding })).toEqual(utf8);
    }
  });

  test("the allowed ones pass, under PostgreSQL's own spelling, whatever their case", () => {
    expect(
      settingsOf({
        DATESTYLE: "ISO, MDY",
        timezone: "Europe/Paris",
        IntervalStyle: "iso_8601",
        extra_float_digits: "3",
        application_name: "psql",
      }),
    ).toEqual({
      ...utf8,
      DateStyle: "ISO, MDY",
      TimeZone: "Europe/Paris",
      IntervalStyle: "iso_8601",
      extra_float_digits: "3",
      application_name: "psql",
    });
  });

  test.each([
    [{ search_path: "evil" }],
    [{ search_path: "public, evil" }],
    [{ row_security: "off" }],
    [{ standard_conforming_strings: "off" }],
    [{ backslash_quote: "on" }],
    [{ default_transaction_read_only: "off" }],
    [{ role: "postgres" }],
    [{ session_authorization: "postgres" }],
    [{ statement_timeout: "0" }],
    [{ "app.tenant": "1" }],
    [{ TimeZone: "UTC'; drop table t" }],
    [{ extra_float_digits: "99" }],
    [{ DateStyle: "ISO, MDY, evil" }],
  ])("%j is refused", (extra) => {
    expect(settingsOf(extra)).toBe("grant.no-session-setting");
    const [name, value] = Object.entries(extra)[0] ?? ["", ""];
    // Behind every spelling of `options` it is the same setting.
    const escaped = value.replaceAll(/[\s\\]/g, "\\$&");
    for (const options of [
      `-c ${name}=${escaped}`,
      `-c${name}=${escaped}`,
      `--${name.replaceAll("_", "-")}=${escaped}`,
      ` \t-c  ${name}=${escaped} `,
    ]) {
      expect(settingsOf({ options })).toBe("grant.no-session-setting");
    }
  });

  test("options that only ask for less, or for what is so anyway, pass", () => {
    expect(settingsOf({ options: "" })).toEqual(utf8);
    expect(settingsOf({ options: "-c default_transaction_read_only=on" })).toEqual({
      ...utf8,
      default_transaction_read_only: "on",
    });
    expect(settingsOf({ options: "--default-transaction-read-only=true -c search_path=public" })).toEqual({
      ...utf8,
      default_transaction_read_only: "on",
    });
    expect(settingsOf({ options: '-c search_path="public"' })).toEqual(utf8);
    expect(settingsOf({ options: '-c search_path="$user",\\ public' })).toEqual(utf8);
    expect(settingsOf({ options: "-c TimeZone=UTC" })).toEqual({ ...utf8, TimeZone: "UTC" });
    expect(settingsOf({ options: "-c client_encoding=LATIN1" })).toEqual(utf8);
  });

  test("options that are not settings are refused", () => {
    for (const options of ["-d 5", "-c", "-c =x", "--", "-P", "-O", "-E", "x", "-c a", "-f s", "-W 10", "-c a=b\\"]) {
      expect(settingsOf({ options })).toBe("grant.no-session-setting");
    }
  });

  test("replication is refused, also by options", () => {
    for (const value of ["true", "database", "off", ""]) {
      expect(settingsOf({ replication: value })).toBe("protocol.unsupported");
    }
    expect(settingsOf({ options: "-c replication=true" })).toBe("protocol.unsupported");
  });

  test("protocol options are listed, not obeyed", () => {
    const checked = checkClientParameters(
      new Map([
        ["user", "a"],
        ["database", "b"],
        ["_pq_.x", "1"],
      ]),
    );
    expect("refused" in checked ? null : checked.unknownOptions).toEqual(["_pq_.x"]);
  });

  test("a refusal quotes what was sent, shortened and on one line", () => {
    const checked = checkClientParameters(
      new Map([
        ["user", "a"],
        ["database", "b"],
        [`x\n${"y".repeat(1000)}`, "1"],
      ]),
    );
    const reason = "refused" in checked ? checked.reason : "";
    expect(reason).not.toContain("\n");
    expect(reason.length).toBeLessThan(200);
  });
});
