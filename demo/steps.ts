/** What the demo asks of each MCP server, and what must come of it. */
import { type Agent, type Answer, type Row } from "./agent.ts";
import { grantedTables } from "./configuration.ts";
import { reverse } from "./leaks.ts";
import type { BillingData } from "./seed.ts";
import type { Story } from "./story.ts";

export interface StepParts {
  readonly agent: Agent;
  readonly data: BillingData;
  readonly story: Story;
  /** Ends this agent's grant. */
  readonly revoke: () => Promise<void>;
  /** Rows of `invoices`, counted behind the gateway. */
  readonly countInvoices: () => Promise<number>;
}

/** Runs every step and returns what went otherwise than it must, in words; empty is success. */
export async function driveAgent(parts: StepParts): Promise<readonly string[]> {
  const steps = [listTables, maskedQuery, join, tableOutsideGrant, secondStatement, transformedSecret, revokedGrant];
  const deviations: string[] = [];
  for (const [index, step] of steps.entries()) {
    const found = await step(parts, index + 1);
    deviations.push(...found.map((what) => `${parts.agent.title}, step ${index + 1}: ${what}`));
    found.forEach((what) => parts.story.failed(`step ${index + 1}`, what));
  }
  return deviations;
}

type Step = (parts: StepParts, number: number) => Promise<readonly string[]>;

const listTables: Step = async ({ agent, story }, number) => {
  const found = (await agent.listTables()).toSorted();
  const expected = [...grantedTables].toSorted();
  story.call(number, "list the tables", "allowed", found.join(", "));
  return same(found, expected)
    ? []
    : [`the tables are ${found.join(", ") || "none"}, and must be ${expected.join(", ")}`];
};

const maskedQuery: Step = async ({ agent, data, story }, number) => {
  const sql = "select id, name, email, phone, ssn from customers order by id limit 3";
  const answer = await agent.run(sql);
  const rows = rowsOf(answer);
  const masked = rows.flatMap((row) => maskedFields(row, data));
  story.call(
    number,
    call(agent, "select … from customers limit 3"),
    verdictOf(answer),
    `${rows.length} rows · ${masked.length} values masked (email, phone, ssn)`,
  );
  const names = data.customers.slice(0, 3).map((customer) => `${customer.id} ${customer.name}`);
  return [
    ...expectAllowed(answer),
    ...(same(
      rows.map((row) => `${String(row["id"])} ${String(row["name"])}`),
      names,
    )
      ? []
      : ["the rows are not the first three customers"]),
    ...(masked.length === 9 ? [] : [`${masked.length} of 9 values were masked as their mask says`]),
  ];
};

/** The fields of a customer that are masked just as the configuration says: nothing of the value but what the mask keeps. */
function maskedFields(row: Row, data: BillingData): readonly string[] {
  const customer = data.customers.find((one) => one.id === Number(row["id"]));
  if (customer === undefined) {
    return [];
  }
  const [email, phone, ssn] = [row["email"], row["phone"], row["ssn"]].map(String);
  const domain = customer.email.slice(customer.email.indexOf("@"));
  return [
    ...(email !== customer.email && email?.endsWith(domain) === true ? ["email"] : []),
    ...(phone !== customer.phone && phone?.endsWith(customer.phone.slice(-4)) === true ? ["phone"] : []),
    ...(ssn !== undefined && !/\d/.test(ssn) ? ["ssn"] : []),
  ];
}

const join: Step = async ({ agent, data, story }, number) => {
  const sql = `select i.number, count(*) as charges from customers c join invoices i on i.customer_id = c.id
    join payments p on p.invoice_id = i.id where c.name = 'Ada Fischer' and c.id = 1 group by i.number having count(*) > 1`;
  const answer = await agent.run(sql);
  const [row, ...others] = rowsOf(answer);
  const invoice = data.invoices.filter((one) => one.customerId === 1)[2];
  story.call(
    number,
    call(agent, "customers ⋈ invoices ⋈ payments"),
    verdictOf(answer),
    `${String(row?.["number"])} was charged ${String(row?.["charges"])} times`,
  );
  const right = others.length === 0 && row?.["number"] === invoice?.number && String(row?.["charges"]) === "2";
  return [...expectAllowed(answer), ...(right ? [] : ["the join did not find the one invoice that was charged twice"])];
};

const tableOutsideGrant: Step = async ({ agent, story }, number) => {
  const answer = await agent.run("select * from payment_methods limit 1");
  story.call(number, call(agent, "select * from payment_methods"), verdictOf(answer), reasonOf(answer));
  return expectDenied(answer);
};

const secondStatement: Step = async ({ agent, data, story, countInvoices }, number) => {
  const answer = await agent.run("select 1; drop table invoices");
  story.call(number, call(agent, "select 1; drop table invoices"), verdictOf(answer), reasonOf(answer));
  const left = await countInvoices().catch(() => 0);
  return [
    ...expectDenied(answer),
    ...(left === data.invoices.length ? [] : [`invoices has ${left} rows, and must have ${data.invoices.length}`]),
  ];
};

const transformedSecret: Step = async ({ agent, data, story }, number) => {
  const answer = await agent.run(
    "select reverse(ssn) as reversed, row_to_json(c) as whole from customers c where id = 1",
  );
  const [row] = rowsOf(answer);
  const customer = data.customers[0];
  const whole = typeof row?.["whole"] === "string" ? row["whole"] : JSON.stringify(row?.["whole"] ?? null);
  story.call(
    number,
    call(agent, "select reverse(ssn), row_to_json(c)"),
    verdictOf(answer),
    `masked: ${String(row?.["reversed"])}`,
  );
  const secrets = [customer?.ssn, customer?.email, customer?.phone].flatMap((value) =>
    value === undefined ? [] : [value, reverse(value)],
  );
  return [
    ...expectAllowed(answer),
    ...(customer !== undefined && whole.includes(customer.name) ? [] : ["row_to_json does not hold the customer"]),
    ...(secrets.some((secret) => answer.text.includes(secret)) ? ["a transformed secret came back unmasked"] : []),
  ];
};

const revokedGrant: Step = async ({ agent, story, revoke }, number) => {
  await revoke();
  const answer = await agent.run("select count(*) from invoices");
  story.call(number, "the grant is revoked; it asks again", answer.ok ? "allowed" : "ended", reasonOf(answer));
  return [
    ...expectDenied(answer),
    ...(answer.text.includes("revoked") ? [] : ["the model does not read that the grant was revoked"]),
  ];
};

function call(agent: Agent, what: string): string {
  return `${agent.tool}("${what}")`;
}

function rowsOf(answer: Answer): readonly Row[] {
  return answer.ok ? answer.rows : [];
}

function verdictOf(answer: Answer): "allowed" | "denied" {
  return answer.ok ? "allowed" : "denied";
}

function expectAllowed(answer: Answer): readonly string[] {
  return answer.ok ? [] : [`it was refused: ${answer.text}`];
}

function expectDenied(answer: Answer): readonly string[] {
  return answer.ok ? ["it was allowed"] : [];
}

const reasonWidth = 76;

/** The reason as the model reads it, without the wrapping of the MCP server, on one line. */
function reasonOf(answer: Answer): string {
  const parsed = /"error"\s*:\s*"((?:[^"\\]|\\.)*)"/.exec(answer.text)?.[1] ?? answer.text;
  const decision = /\bdec_[0-9a-z]+/.exec(answer.text)?.[0];
  const text = parsed
    .replace(/^MCP error -?\d+: /, "")
    .replaceAll(/\s+/g, " ")
    .trim();
  const short = text.length > reasonWidth ? `${text.slice(0, reasonWidth - 1)}…` : text;
  return decision === undefined || short.includes(decision) ? short : `${short} · ${decision}`;
}

function same(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((value, index) => value === right[index]);
}
