import { describe, expect, test } from "vitest";
import { fixOfPublicRight } from "#cli/resource-findings.ts";

describe("the fix of a right of PUBLIC", () => {
  test.each([
    ["TEMP on database billing", "revoke temp on database billing from public;"],
    ["CREATE on schema public", "revoke create on schema public from public;"],
    ["CONNECT on 1 other database", "revoke connect on database <each other one> from public"],
    ["EXECUTE on 12 functions in schema app", "revoke execute on all functions in schema app from public;"],
    ["SELECT, UPDATE on app.notes", "revoke select, update on table app.notes from public;"],
    ["USAGE on app.notes_id_seq", "revoke usage on sequence app.notes_id_seq from public;"],
    ["USAGE on language plpgsql", "revoke usage on language plpgsql from public;"],
    ["USAGE on foreign server other", "revoke usage on foreign server other from public;"],
  ])("%s is the SQL that takes it away", (finding, sql) => {
    expect(fixOfPublicRight(finding)).toContain(sql);
  });

  test.each(["CREATE on schema My Schema", 'SELECT on app.x"; drop', "SELECT on column app.notes.id", "anything else"])(
    "%s, for which there is no plain statement, names the guide",
    (finding) => {
      expect(fixOfPublicRight(finding)).toBe('revoke it from PUBLIC: docs/configuration.md, "What PUBLIC may do"');
    },
  );
});
