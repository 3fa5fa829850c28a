/** Looks for seeded secrets in whatever left the gateway: raw, reversed and encoded. */
import type { BillingData, Customer } from "./seed.ts";

/** Customers whose values are looked for in every form; the demo's statements touch only these. */
const closeLookMax = 100;

/** Everything that came out, by where it came from. */
export interface Output {
  readonly from: string;
  readonly text: string;
}

export interface Leak {
  readonly from: string;
  /** What kind of value, and whose: never the value. */
  readonly what: string;
}

/** Every seeded secret that occurs in the outputs; empty is what must be. */
export function findLeaks(data: BillingData, outputs: readonly Output[]): readonly Leak[] {
  const byPattern = indexByPattern(data);
  const close = data.customers.filter((customer) => customer.id <= closeLookMax);
  const leaks: Leak[] = [];
  for (const { from, text } of outputs) {
    for (const { pattern, values } of byPattern) {
      for (const [found] of text.matchAll(pattern)) {
        const what = values.get(found.toLowerCase());
        if (what !== undefined) {
          leaks.push({ from, what });
        }
      }
    }
    for (const customer of close) {
      for (const { what, value } of secretsOf(customer, data)) {
        const form = formsOf(value).find(({ text: needle }) => text.includes(needle));
        if (form !== undefined) {
          leaks.push({ from, what: `${what} of customer ${customer.id}, ${form.how}` });
        }
      }
    }
  }
  return leaks;
}

function indexByPattern(
  data: BillingData,
): readonly { readonly pattern: RegExp; readonly values: ReadonlyMap<string, string> }[] {
  const { customers, paymentMethods } = data;
  const index = (
    pattern: RegExp,
    what: string,
    values: readonly string[],
  ): { pattern: RegExp; values: ReadonlyMap<string, string> } => ({
    pattern,
    values: new Map(values.map((value) => [value.toLowerCase(), what])),
  });
  const ssns = customers.map((customer) => customer.ssn);
  return [
    index(
      /[a-z0-9._%+-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)+/gi,
      "an e-mail address",
      customers.map((customer) => customer.email),
    ),
    index(
      /\(\d{3}\) \d{3}-\d{4}/g,
      "a telephone number",
      customers.map((customer) => customer.phone),
    ),
    index(/\d{3}-\d{2}-\d{4}/g, "a social security number", ssns),
    index(
      /\d{4}-\d{2}-\d{3}/g,
      "a social security number, reversed",
      ssns.map((ssn) => reverse(ssn)),
    ),
    index(
      /\d{15,16}/g,
      "a card number",
      paymentMethods.map((method) => method.cardNumber),
    ),
  ];
}

function secretsOf(
  customer: Customer,
  data: BillingData,
): readonly { readonly what: string; readonly value: string }[] {
  const notes = data.supportNotes.filter((note) => note.customerId === customer.id);
  return [
    { what: "the e-mail address", value: customer.email },
    { what: "the telephone number", value: customer.phone },
    { what: "the social security number", value: customer.ssn },
    ...notes.map((note) => ({ what: "a support note", value: note.body })),
  ];
}

function formsOf(value: string): readonly { readonly how: string; readonly text: string }[] {
  const bytes = Buffer.from(value, "utf8");
  return [
    { how: "as it is", text: value },
    { how: "reversed", text: reverse(value) },
    { how: "in base64", text: bytes.toString("base64").replace(/=+$/, "") },
    { how: "in hexadecimal", text: bytes.toString("hex") },
    { how: "upper case", text: value.toUpperCase() },
    { how: "without punctuation", text: value.replaceAll(/[^a-z0-9]/gi, "") },
  ];
}

/** As PostgreSQL's `reverse` does for the seed's texts, which are ASCII. */
export function reverse(text: string): string {
  return Array.from(text).toReversed().join("");
}
