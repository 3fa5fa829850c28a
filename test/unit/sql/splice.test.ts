import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { quoteIdentifier, readDottedName } from "#sql/identifier.ts";
import { applySplices } from "#sql/splice.ts";
import { accepted, analyze, rewritten, syntheticContext, verdictOf } from "../../support/sql-analysis.ts";
import { sqlWorldScope } from "../../support/sql-world.ts";

const view = '"sallyport_view_public"."customers"';
const write = '"sallyport_write_public"."customers"';

describe("a statement is rewritten only where a masked column, a star or the whole row is used", () => {
  test.each([
    "select id, name from customers",
    "select count(*) from customers",
    "select c.country, count(*) from public.customers c group by c.country order by 2",
    "select * from invoices where customer_id in (select id from customers)",
    "select i.* from invoices i join customers c on c.id = i.customer_id",
    "select public.customers.id from public.customers",
    "select id from only parents",
    "insert into invoices (id) values (1) returning *",
    "with customers as (select 1 as ssn) select * from customers",
  ])("%s", (text) => {
    expect(accepted(text).splices).toEqual([]);
  });

  test.each([
    ["select ssn from customers", `select ssn from ${view}`],
    ["select id from customers where email like 'a%'", `select id from ${view} where email like 'a%'`],
    ["select id from customers order by ssn", `select id from ${view} order by ssn`],
    ["select * from customers", `select * from ${view}`],
    ["select c from customers c", `select c from ${view} c`],
    ["table customers", `table ${view}`],
    ['select\t*\nfrom--x\nPublic /* a /* b */ */ . -- c\n"customers" c', `select\t*\nfrom--x\n${view} c`],
    ["select '☃', ssn from customers where name = 'é'", `select '☃', ssn from ${view} where name = 'é'`],
    ["select 1; select ssn from customers", null],
    ["select a.ssn, b.id from customers a, customers b", `select a.ssn, b.id from ${view} a, customers b`],
    ["select public.customers.ssn from public.customers", `select "customers".ssn from ${view}`],
    ["select public.customers.* from public.customers", `select "customers".* from ${view}`],
    ["select * from support_notes", 'select * from "sallyport_view_public"."support_notes"'],
    [
      "select * from invoices natural join support_notes",
      'select * from invoices natural join "sallyport_view_public"."support_notes"',
    ],
    ["select x from customers as c(x)", `select x from ${view} as c(x)`],
    ["select relname from pg_class", 'select relname from "sallyport_shadow"."pg_class"'],
    [
      "select pg_catalog.pg_class.oid from pg_catalog.pg_class",
      'select "pg_class".oid from "sallyport_shadow"."pg_class"',
    ],
    ["select table_name from information_schema.tables", 'select table_name from "sallyport_shadow"."tables"'],
    ["explain (costs off) select ssn from customers", `explain (costs off) select ssn from ${view}`],
    ["insert into customers (id) values (1)", `insert into ${write} (id) values (1)`],
    ["update customers set name = 'x' where customers.id = 1", `update ${write} set name = 'x' where customers.id = 1`],
    [
      "update public.customers set name = 'x' where public.customers.id = 1",
      `update ${write} set name = 'x' where "customers".id = 1`,
    ],
  ])("%s", (text, expected) => {
    if (expected !== null) {
      expect(rewritten(text)).toBe(expected);
    }
  });

  test("each statement of a message is spliced at its own bytes", () => {
    const text = "select 'é'; select ssn from customers; select id from customers";
    const result = analyze(text, syntheticContext);
    const splices = result.refused ? [] : result.statements.flatMap((statement) => statement.splices);
    expect(applySplices(Buffer.from(text), splices).toString()).toBe(
      `select 'é'; select ssn from ${view}; select id from customers`,
    );
  });
});

describe("a name that a hidden column would catch makes the statement see the view", () => {
  test.each([
    "select (select secret from support_notes s where s.id = o.id) from (select 1 as id, 2 as secret) o",
    "select body as secret, count(*) from support_notes group by secret",
    "select s.id from support_notes s join (select 1 as secret) o on secret = 1",
    "select secret from (select 'x' as secret) o, support_notes",
  ])("%s", (text) => {
    expect(rewritten(text)).toContain('"sallyport_view_public"."support_notes"');
  });
});

describe("where the view has another name, the correlation name stays", () => {
  const [customers] = [...sqlWorldScope.relations.values()].filter(({ base }) => base.name === "customers");
  const moved =
    customers === undefined
      ? syntheticContext
      : {
          ...syntheticContext,
          scope: {
            ...sqlWorldScope,
            relations: new Map([["public.customers", { ...customers, view: { schema: 's"x', name: "v1" } }]]),
          },
        };

  test.each([
    ["select customers.ssn from customers", 'select customers.ssn from "s""x"."v1" AS "customers"'],
    ["select c.ssn from customers c", 'select c.ssn from "s""x"."v1" c'],
    ["select public.customers.ssn from public.customers", 'select "customers".ssn from "s""x"."v1" AS "customers"'],
    ["select customers from customers", 'select customers from "s""x"."v1" AS "customers"'],
  ])("%s", (text, expected) => {
    expect(rewritten(text, moved)).toBe(expected);
  });

  test("a star behind the name cannot be kept", () => {
    expect(verdictOf("select ssn from customers *", moved)).toBe("name.unsupported-form");
    expect(rewritten("select ssn from customers *")).toBe(`select ssn from ${view} *`);
  });
});

describe("names in forms that cannot be replaced with certainty are refused", () => {
  test.each([
    ['select ssn from U&"c\\0075stomers"'],
    ["select ssn from U&\"c!0075stomers\" UESCAPE '!'"],
    ['select ssn from public.U&"customers"'],
    ["select 1 from postgres.public.customers"],
    ["select postgres.public.customers.ssn from public.customers"],
    ["select ssn from only parents"],
    ["select ssn from only (parents)"],
  ])("%s", (text) => {
    expect(verdictOf(text)).toBe("name.unsupported-form");
  });

  test("an exotic name is fine where nothing is replaced", () => {
    expect(verdictOf('select U&"\\0069d" from U&"c\\0075stomers"')).toBe("accepted");
  });
});

/** Pieces that mean nothing between two tokens. */
const blank = fc
  .array(fc.constantFrom(" ", "\n", "\t", "-- x\n", "/**/", "/* ' \" ( */", "/* /* */ */", "--'\n"), {
    minLength: 1,
    maxLength: 3,
  })
  .map((pieces) => ` ${pieces.join("")} `);
const writtenAs = (name: string): fc.Arbitrary<string> =>
  fc.oneof(
    fc.constant(name),
    fc.constant(`"${name}"`),
    fc
      .array(fc.boolean(), { minLength: name.length, maxLength: name.length })
      .map((upper) => [...name].map((letter, i) => (upper[i] === true ? letter.toUpperCase() : letter)).join("")),
  );

describe("however a statement is written, it means the same", () => {
  const plain = accepted(
    "select c.ssn, i.amount from public.customers c join public.invoices i on i.customer_id = c.id where c.email > 'a'",
  );
  const text = fc
    .tuple(
      fc.tuple(
        writtenAs("public"),
        writtenAs("customers"),
        writtenAs("ssn"),
        writtenAs("email"),
        writtenAs("invoices"),
        writtenAs("customer_id"),
      ),
      fc.array(blank, { minLength: 12, maxLength: 12 }),
    )
    .map(([[schema, customers, ssnName, emailName, invoices, customerId], b]) =>
      [
        `${b[0]}select${b[1]}c.${ssnName}, i.amount${b[2]}from${b[3]}${schema}${b[4]}.${b[5]}${customers}${b[6]}c join`,
        `${schema}.${invoices}${b[7]}i on${b[8]}i.${customerId} = c.id where${b[9]}c${b[10]}.${emailName} > 'a'${b[11]}`,
      ].join(" "),
    );

  test("effects, outputs and purity do not depend on white space, comments and quoting", () => {
    fc.assert(
      fc.property(text, (written) => {
        const found = accepted(written);
        expect(found.effects).toEqual(plain.effects);
        expect(found.outputs).toEqual(plain.outputs);
        expect(found.pure).toBe(true);
      }),
    );
  });

  test("a splice replaces the name and not one byte else", () => {
    fc.assert(
      fc.property(text, (written) => {
        const { splices } = accepted(written);
        const bytes = Buffer.from(written);
        const [splice] = splices;
        expect(splices).toHaveLength(1);
        const replaced = bytes.subarray(splice?.start, (splice?.start ?? 0) + (splice?.length ?? 0)).toString();
        expect(replaced.replaceAll(/\/\*.*?\*\/(\s*\*\/)?|--[^\n]*\n|[\s"]/g, "").toLowerCase()).toBe(
          "public.customers",
        );
        expect(applySplices(bytes, splices).toString()).toBe(
          `${bytes.subarray(0, splice?.start).toString()}${view}${bytes.subarray((splice?.start ?? 0) + (splice?.length ?? 0)).toString()}`,
        );
      }),
    );
  });

  test("what is forwarded reads the view and nothing else of the table", () => {
    fc.assert(
      fc.property(text, (written) => {
        const again = analyze(rewritten(written), syntheticContext);
        // The view is the scope's own: named by a client, it is not there.
        expect(again.refused && again.code).toBe("name.unknown-relation");
      }),
    );
  });
});

describe("dotted names", () => {
  test("a quoted name is read back as it was written", () => {
    const name = fc
      .string({ minLength: 1, maxLength: 20, unit: "grapheme" })
      .filter((text) => !text.includes("\u0000") && text.isWellFormed());
    fc.assert(
      fc.property(name, name, (schema, table) => {
        const text = `${quoteIdentifier(schema)} /* . */ . ${quoteIdentifier(table)} rest`;
        const parts = readDottedName(Buffer.from(text), 0, 2);
        expect(parts?.map((part) => part.name)).toEqual([schema, table]);
      }),
    );
  });

  test.each(["", ".", "1a", 'U&"x"', 'u&"x"', "(x)", "'x'", '"x', "x.", "x y"])(
    "%j is not a name of two parts",
    (text) => {
      expect(readDottedName(Buffer.from(text), 0, 2)).toBeNull();
    },
  );
});
