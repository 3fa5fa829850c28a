import { Readable } from "node:stream";
import { parse } from "pg-protocol";
import { describe, expect, test } from "vitest";
import { denyCodes, type Deny } from "#domain/decision.ts";
import { parseId } from "#domain/ids.ts";
import { encodeErrorResponse } from "#protocols/postgres/messages-encode.ts";
import { denialSqlStates, refusalFields } from "#protocols/postgres/refusal.ts";

function deny(changes: Partial<Deny> = {}): Deny {
  const id = parseId("dec", "dec_0123456789abcdef");
  if (id === null) {
    throw new Error("not an id");
  }
  return {
    id,
    effect: "deny",
    code: "grant.no-table",
    reason: "No grant covers payment_methods.",
    nextStep: "Ask the owner for a grant.",
    policies: [],
    policySetHash: "00",
    ...changes,
  };
}

describe("a denial in PostgreSQL's words", () => {
  test("every code has a SQLSTATE of an error", () => {
    for (const code of denyCodes) {
      expect(denialSqlStates[code]).toMatch(/^[0-9A-Z]{5}$/);
      expect(denialSqlStates[code]).not.toMatch(/^0[0-2]/);
    }
  });

  test("a client reads rule, reason, next step and decision, in the message alone at least the decision", async () => {
    let read: Record<string, unknown> = {};
    await parse(Readable.from([encodeErrorResponse(refusalFields(deny({ policies: ["grant-7"] })))]), (message) => {
      read = { ...message, text: "message" in message ? message.message : null };
    });
    expect(read).toMatchObject({
      severity: "ERROR",
      code: "42501",
      text: "No grant covers payment_methods. [dec_0123456789abcdef]",
      detail: "Decision dec_0123456789abcdef, by rule grant.no-table (grant-7).",
      hint: "Ask the owner for a grant.",
    });
  });

  test.each([
    ["statement.syntax", "42601"],
    ["name.unknown-relation", "42P01"],
    ["name.unknown-column", "42703"],
    ["grant.no-verb", "42501"],
    ["statement.unsupported", "0A000"],
    ["statement.too-large", "54000"],
    ["statement.encoding", "22021"],
    ["protocol.violation", "08P01"],
    ["ledger.unavailable", "58030"],
  ] as const)("%s is %s in a session", (code, sqlState) => {
    expect(refusalFields(deny({ code }))).toMatchObject({ severity: "ERROR", sqlState });
  });

  test("the same rule means something else at login, and a session that ends is told so", () => {
    expect(refusalFields(deny({ code: "credential.invalid" }), "login")).toMatchObject({
      severity: "FATAL",
      sqlState: "28P01",
    });
    expect(refusalFields(deny({ code: "grant.expired" }), "login")).toMatchObject({
      severity: "FATAL",
      sqlState: "28000",
    });
    expect(refusalFields(deny({ code: "grant.expired" }), "session")).toMatchObject({
      severity: "ERROR",
      sqlState: "42501",
    });
    expect(refusalFields(deny({ code: "grant.expired" }), "closing")).toMatchObject({
      severity: "FATAL",
      sqlState: "57P01",
    });
    expect(refusalFields(deny({ code: "gateway.draining" }), "closing")).toMatchObject({
      severity: "FATAL",
      sqlState: "57P01",
    });
    expect(refusalFields(deny({ code: "protocol.violation" }), "closing")).toMatchObject({
      severity: "FATAL",
      sqlState: "08P01",
    });
    expect(refusalFields(deny({ code: "protocol.violation" }), "login")).toMatchObject({
      severity: "FATAL",
      sqlState: "08P01",
    });
  });
});
