/**
 * The demo's billing database: made up, the same in every run, and of values that belong to nobody. E-mail addresses are in
 * domains reserved for examples (RFC 2606), telephone numbers in 555-0100 to 555-0199, card numbers are the networks' published
 * test numbers, and social security numbers are in areas 000 and 666, which are never issued.
 */
import type { Client } from "pg";

export interface Customer {
  readonly id: number;
  readonly name: string;
  readonly email: string;
  readonly phone: string;
  readonly ssn: string;
  readonly birthDate: string;
  readonly createdOn: string;
}

export interface Invoice {
  readonly id: number;
  readonly customerId: number;
  readonly number: string;
  readonly amountCents: number;
  readonly status: string;
  readonly issuedOn: string;
}

export interface Payment {
  readonly id: number;
  readonly invoiceId: number;
  readonly amountCents: number;
  readonly paidOn: string;
  readonly reference: string;
}

export interface PaymentMethod {
  readonly id: number;
  readonly customerId: number;
  readonly brand: string;
  readonly cardNumber: string;
  readonly expires: string;
}

export interface SupportNote {
  readonly id: number;
  readonly customerId: number;
  readonly author: string;
  readonly body: string;
  readonly writtenOn: string;
}

export interface BillingData {
  readonly customers: readonly Customer[];
  readonly invoices: readonly Invoice[];
  readonly payments: readonly Payment[];
  readonly paymentMethods: readonly PaymentMethod[];
  readonly supportNotes: readonly SupportNote[];
}

const customersTotal = 2000;
const firstNames =
  "Ada Bruno Carla Dmitri Elif Farah Gwen Hugo Ines Jonas Kaya Lena Malik Nora Omar Petra Quinn Rosa Sami Tilda".split(
    " ",
  );
const lastNames =
  "Fischer Alvarez Brandt Castellan Dorr Eklund Fontaine Grau Holm Ivanov Jansen Keller Lindqvist Moreau Novak Okafor Petrov Quist Ruiz Sato".split(
    " ",
  );
const domains = ["example.com", "example.org", "mail.example.com", "shop.test"];
const areaCodes = ["212", "303", "415", "503", "617", "702", "808", "907"];
const cards = [
  ["visa", "4111111111111111"],
  ["visa", "4012888888881881"],
  ["mastercard", "5555555555554444"],
  ["mastercard", "5105105105105100"],
  ["amex", "378282246310005"],
  ["discover", "6011111111111117"],
] as const;
const agents = ["bob", "alice", "mina"];

/** Makes the data; every call makes the same. */
export function makeBillingData(): BillingData {
  const random = generator(0x5a11_90b7);
  const customers = Array.from({ length: customersTotal }, (_, index) => makeCustomer(index + 1, random));
  const invoices: Invoice[] = [];
  const payments: Payment[] = [];
  for (const customer of customers) {
    const total = customer.id === 1 ? 3 : 1 + random.below(7);
    for (let i = 0; i < total; i += 1) {
      const invoice = makeInvoice(invoices.length + 1, customer.id, random);
      invoices.push(invoice);
      if (invoice.status === "paid" || customer.id === 1) {
        payments.push(makePayment(payments.length + 1, invoice, random));
      }
      if (customer.id === 1 && i === 2) {
        // The story: Ada Fischer was charged twice for her third invoice.
        payments.push(makePayment(payments.length + 1, invoice, random));
      }
    }
  }
  const paymentMethods = customers.map((customer, index) => {
    const [brand, cardNumber] = random.pick(cards);
    return {
      id: index + 1,
      customerId: customer.id,
      brand,
      cardNumber,
      expires: `${2027 + random.below(5)}-${two(1 + random.below(12))}-01`,
    };
  });
  const supportNotes = customers
    .filter((customer) => customer.id === 1 || random.below(10) < 6)
    .map((customer, index) => makeNote(index + 1, customer, random));
  return { customers, invoices, payments, paymentMethods, supportNotes };
}

function makeCustomer(id: number, random: Random): Customer {
  const first = id === 1 ? "Ada" : random.pick(firstNames);
  const last = id === 1 ? "Fischer" : random.pick(lastNames);
  return {
    id,
    name: `${first} ${last}`,
    email: `${first}.${last}.${1000 + id * 7}@${random.pick(domains)}`.toLowerCase(),
    phone: `(${random.pick(areaCodes)}) 555-01${two(random.below(100))}`,
    ssn: `${random.pick(["000", "666"])}-${two(1 + random.below(99))}-${String(1 + ((id * 7919) % 9998)).padStart(4, "0")}`,
    // Never the first of January: what a mask that keeps the year shows is then never the value itself.
    birthDate: `${1940 + random.below(65)}-${two(1 + random.below(12))}-${two(2 + random.below(26))}`,
    createdOn: day(random.below(900)),
  };
}

function makeInvoice(id: number, customerId: number, random: Random): Invoice {
  return {
    id,
    customerId,
    number: `INV-${String(100_000 + id)}`,
    amountCents: 500 + random.below(40_000),
    status: random.pick(["paid", "paid", "paid", "open", "void"]),
    issuedOn: day(900 + random.below(90)),
  };
}

function makePayment(id: number, invoice: Invoice, random: Random): Payment {
  return {
    id,
    invoiceId: invoice.id,
    amountCents: invoice.amountCents,
    paidOn: day(990 + random.below(60)),
    reference: `PAY-${String(random.below(1_000_000_000)).padStart(9, "0")}`,
  };
}

function makeNote(id: number, customer: Customer, random: Random): SupportNote {
  const body = random.pick([
    `${customer.name} called from ${customer.phone} about a double charge; wants the answer at ${customer.email}.`,
    `Verified ${customer.name} by SSN ${customer.ssn} and birth date ${customer.birthDate}.`,
    `${customer.email} asks for copies of all invoices since January.`,
    `Card was declined twice. ${customer.name} will ring again from ${customer.phone}.`,
  ]);
  return { id, customerId: customer.id, author: random.pick(agents), body, writtenOn: day(990 + random.below(60)) };
}

/** Tables with their columns, types and keys, in the order in which they are made. */
const tables = [
  {
    name: "customers",
    columns:
      "id int primary key, name text not null, email text not null unique, phone text not null, ssn text not null, birth_date date not null, created_on date not null",
    rows: (data: BillingData) =>
      data.customers.map((row) => [row.id, row.name, row.email, row.phone, row.ssn, row.birthDate, row.createdOn]),
    types: ["int", "text", "text", "text", "text", "date", "date"],
  },
  {
    name: "invoices",
    columns:
      "id int primary key, customer_id int not null references customers, number text not null unique, amount_cents int not null, status text not null, issued_on date not null",
    rows: (data: BillingData) =>
      data.invoices.map((row) => [row.id, row.customerId, row.number, row.amountCents, row.status, row.issuedOn]),
    types: ["int", "int", "text", "int", "text", "date"],
  },
  {
    name: "payments",
    columns:
      "id int primary key, invoice_id int not null references invoices, amount_cents int not null, paid_on date not null, reference text not null",
    rows: (data: BillingData) =>
      data.payments.map((row) => [row.id, row.invoiceId, row.amountCents, row.paidOn, row.reference]),
    types: ["int", "int", "int", "date", "text"],
  },
  {
    name: "payment_methods",
    columns:
      "id int primary key, customer_id int not null references customers, brand text not null, card_number text not null, expires date not null",
    rows: (data: BillingData) =>
      data.paymentMethods.map((row) => [row.id, row.customerId, row.brand, row.cardNumber, row.expires]),
    types: ["int", "int", "text", "text", "date"],
  },
  {
    name: "support_notes",
    columns:
      "id int primary key, customer_id int not null references customers, author text not null, body text not null, written_on date not null",
    rows: (data: BillingData) =>
      data.supportNotes.map((row) => [row.id, row.customerId, row.author, row.body, row.writtenOn]),
    types: ["int", "int", "text", "text", "date"],
  },
] as const;

/** Makes the tables in `public` and loads them: one insert a table, its columns as arrays. */
export async function loadBillingData(client: Client, data: BillingData): Promise<void> {
  await client.query("begin");
  for (const { name, columns, rows, types } of tables) {
    const values = rows(data);
    const arrays = types.map((_, column) => values.map((row) => row[column] ?? null));
    await client.query(`create table ${name} (${columns})`);
    await client.query(
      `insert into ${name} select * from unnest(${types.map((type, index) => `$${index + 1}::${type}[]`).join(", ")})`,
      arrays,
    );
  }
  await client.query("create index on invoices (customer_id)");
  await client.query("create index on payments (invoice_id)");
  await client.query("create index on support_notes (customer_id)");
  await client.query("commit");
  await client.query("analyze customers, invoices, payments, payment_methods, support_notes");
}

interface Random {
  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number;
  pick<T>(values: readonly T[]): T;
}

/** Mulberry32: small, and the same on every machine. Nothing here is secret. */
function generator(seed: number): Random {
  let state = seed;
  const below = (limit: number): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296) * limit);
  };
  return {
    below,
    pick: (values) => {
      const value = values[below(values.length)];
      if (value === undefined) {
        throw new Error("nothing to pick from");
      }
      return value;
    },
  };
}

/** Days since 2023-01-01, as an ISO date. */
function day(offset: number): string {
  return new Date(Date.UTC(2023, 0, 1 + offset)).toISOString().slice(0, 10);
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}
