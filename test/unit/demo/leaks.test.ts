import { describe, expect, test } from "vitest";
import { findLeaks } from "../../../demo/leaks.ts";
import { makeBillingData } from "../../../demo/seed.ts";

const data = makeBillingData();
const [first] = data.customers;
const last = data.customers.at(-1);
if (first === undefined || last === undefined) {
  throw new Error("the seed makes no customers");
}
const note = data.supportNotes.find((one) => one.customerId === first.id);

function leaksOf(text: string): readonly string[] {
  return findLeaks(data, [{ from: "test", text }]).map((leak) => leak.what);
}

describe("the search for seeded secrets", () => {
  test.each([
    ["an e-mail address", `x ${last.email} y`],
    ["an e-mail address in another case", last.email.toUpperCase()],
    ["a telephone number", `"phone":"${last.phone}"`],
    ["a social security number", `{"ssn":"${last.ssn}"}`],
    ["a reversed one", [...last.ssn].toReversed().join("")],
    ["a card number", data.paymentMethods[5]?.cardNumber ?? ""],
    ["a reversed e-mail address", [...first.email].toReversed().join("")],
    ["one in base64", Buffer.from(first.email).toString("base64")],
    ["one in hexadecimal", Buffer.from(first.ssn).toString("hex")],
    ["one without punctuation", first.ssn.replaceAll("-", "")],
    ["a note", note?.body ?? ""],
  ])("finds %s", (_, text) => {
    expect(leaksOf(text)).not.toEqual([]);
  });

  test("never repeats the value", () => {
    expect(JSON.stringify(leaksOf(`${first.email} ${first.ssn} ${first.phone}`))).not.toMatch(/@|\d{4}/);
  });

  test("takes masked values for what they are", () => {
    const masked = `***${first.email.slice(first.email.indexOf("@"))} ******${first.phone.slice(-4)} ${"*".repeat(8)} ${first.name}`;
    expect(leaksOf(masked)).toEqual([]);
  });
});

describe("the seed", () => {
  test("is the same every time", () => {
    expect(makeBillingData()).toEqual(data);
  });

  test("holds thousands of rows, and values that belong to nobody only", () => {
    expect(data.customers.length + data.invoices.length + data.payments.length).toBeGreaterThan(10_000);
    for (const customer of data.customers) {
      expect(customer.email).toMatch(/@(mail\.)?(example\.(com|org)|shop\.test)$/);
      expect(customer.phone).toMatch(/^\(\d{3}\) 555-01\d\d$/);
      expect(customer.ssn).toMatch(/^(000|666)-\d\d-\d{4}$/);
      expect(customer.birthDate).not.toMatch(/-01-01$/);
    }
    expect(new Set(data.customers.map((customer) => customer.email)).size).toBe(data.customers.length);
  });

  test("has the one invoice of the story that was charged twice", () => {
    const invoices = data.invoices.filter((invoice) => invoice.customerId === 1);
    const charges = invoices.map(
      (invoice) => data.payments.filter((payment) => payment.invoiceId === invoice.id).length,
    );
    expect(charges).toEqual([1, 1, 2]);
  });
});
