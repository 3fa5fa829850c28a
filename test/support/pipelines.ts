/** Random sequences of messages, and what a connection answers to them: the oracle is PostgreSQL itself. */
import fc from "fast-check";
import { expect } from "vitest";

import type { ConnectionDetails } from "#domain/control.ts";
import {
  encodeBind,
  encodeClose,
  encodeDescribe,
  encodeExecute,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "#protocols/postgres/messages-encode.ts";

import { openWire, summary } from "./wire.ts";

const texts = [
  "select 1",
  "select id from invoices where id < 4 order by id",
  "select 1/0",
  "select 1 as a, 2 as b",
  "begin",
  "commit",
  "rollback",
  "savepoint s",
  "rollback to s",
  "update invoices set status = status where id = 1",
  "values (1), (2), (3)",
  "",
] as const;
const text = fc.constantFrom(...texts);
const name = fc.constantFrom("", "a", "b");

const message = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("parse" as const), name, text }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("bind" as const), name, portal: name }) },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant("execute" as const), name, rows: fc.constantFrom(0, 0, 1, 2) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("describe" as const),
      name,
      what: fc.constantFrom("statement" as const, "portal" as const),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("close" as const),
      name,
      what: fc.constantFrom("statement" as const, "portal" as const),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("sync" as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("query" as const), text }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("query" as const), text: fc.constant("select 1; select 1/0; select 2") }),
  },
);
type Message = typeof message extends fc.Arbitrary<infer M> ? M : never;

function encode(one: Message): Buffer {
  switch (one.kind) {
    case "parse":
      return encodeParse({ statement: one.name, text: one.text, parameterTypes: [] });
    case "bind":
      return encodeBind({
        portal: one.portal,
        statement: one.name,
        parameterFormats: [],
        values: [],
        resultFormats: [],
      });
    case "execute":
      return encodeExecute(one.name, one.rows);
    case "describe":
      return encodeDescribe(one.what, one.name);
    case "close":
      return encodeClose(one.what, one.name);
    case "sync":
      return encodeSync();
    case "query":
      return encodeQuery(one.text);
    default:
      return one satisfies never;
  }
}

/** A marker at the end: when it has been answered, everything before has been. */
const marker = "select 'the end of the sequence'";

async function transcript(to: ConnectionDetails, bytes: Buffer, cuts: readonly number[]): Promise<string[]> {
  const wire = await openWire(to);
  try {
    const all = Buffer.concat([bytes, encodeSync(), encodeQuery("rollback"), encodeQuery(marker)]);
    let at = 0;
    for (const cut of cuts.map((share) => Math.floor(share * all.length)).toSorted((a, b) => a - b)) {
      wire.send(all.subarray(at, cut));
      at = cut;
      await new Promise((resolve) => setImmediate(resolve));
    }
    wire.send(all.subarray(at));
    const lines: string[] = [];
    while (!lines.includes("row the end of the sequence")) {
      const more = summary(await wire.untilReady());
      if (more.length === 0) {
        break;
      }
      lines.push(...more);
    }
    return lines;
  } finally {
    wire.close();
  }
}

/** Through the gateway, cut anywhere, a sequence is answered as it is directly. */
export function answersAgree(
  direct: ConnectionDetails,
  through: ConnectionDetails,
): fc.IAsyncProperty<[Message[], number[]]> {
  return fc.asyncProperty(
    fc.array(message, { minLength: 1, maxLength: 20 }),
    fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 3 }),
    async (messages, cuts) => {
      const bytes = Buffer.concat(messages.map(encode));
      const expected = await transcript(direct, bytes, []);
      const actual = await transcript(through, bytes, cuts);
      expect(actual).toEqual(expected);
    },
  );
}
